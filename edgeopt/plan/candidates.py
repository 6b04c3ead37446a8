"""The candidates of one runtime of a target: which files are made for it, how they are scored and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeopt import registry
from edgeopt.plan.layout import Layout
from edgeopt.plan.model import SCORED, Candidate, LedgerPoint, Split
from edgeopt.stage import Params
from edgeopt.target import Target

#: What runs an artefact before it is compiled.
_RUNS = {
    "onnx": "onnxruntime",
    "onnx-qdq": "onnxruntime",
    "onnx-fp16": "onnxruntime",
    "openvino-ir": "openvino",
    "tflite": "litert",
    "tflite-int8": "litert",
}


@dataclass
class Candidates:
    """Lays out the candidates of one runtime of a target.

    Attributes:
        exported: Torch step -> the step that exports it to ONNX.
    """

    layout: Layout
    target: Target
    runtime: str
    exported: Mapping[str, str]
    _baseline: dict[Split, str] = field(default_factory=dict)

    @property
    def backend(self) -> Any:
        return registry.find("backends", self.runtime)

    def baseline(self, trained: str) -> Candidate:
        """The float network as it was trained: compiled, or where the toolkit compiles none, the ONNX file itself."""
        compiles = "float" in self.backend.precisions
        if compiles and self.backend.float_is == "f32":
            return self.candidate("float", 0, "", self.source(trained), trained)
        onnx = self.exported[trained]
        outputs = {split: self.layout.evaluate(onnx, split, "onnxruntime", self.target) for split in SCORED}
        self._baseline = outputs
        if compiles:
            return self.candidate("float", 0, "", self.source(trained), trained)
        name = f"{self.runtime}-reference"
        evaluate, select = (self.layout.score(name, split, self.target, outputs, outputs) for split in SCORED)
        return Candidate(name, self.runtime, "float", 0, False, onnx, select, evaluate, ships=False)

    def source(self, torch_step: str) -> str:
        """The float file that the runtime's toolkit starts from."""
        if self.backend.consumes & {"onnx", "onnx-qdq"}:
            return self.exported[torch_step]
        maker = "trace" if "torch-program" in self.backend.consumes else "convert"
        params = registry.find("stages", maker).Params()
        return self.layout.add(maker, params, {"model": torch_step}, self.target, f"{maker}:{torch_step}")

    def halved(self, torch_step: str) -> str:
        """The float16 one."""
        params = registry.find("stages", "cast").Params()
        return self.layout.add("cast", params, {"model": self.exported[torch_step]}, self.target, "cast:fp16")

    def quantized(self, params: Params, torch_step: str) -> str:
        """The INT8 one, which is a point of the ledger if something runs it before it is compiled."""
        bound = params.model_copy(update={"runtime": self.runtime})
        step_id = f"quantize:{self.runtime}"
        quantized = self.layout.add("quantize", bound, {"model": self.source(torch_step)}, self.target, step_id)
        (kind,) = self.layout.kinds[quantized]
        if kind in _RUNS:
            self.layout.point("quantized", quantized, self.target, runtime=_RUNS[kind])
        return quantized

    def candidate(self, precision: str, rank: int, suffix: str, source: str, torch_step: str) -> Candidate:
        name, add = f"{self.runtime}-{precision}{suffix}", self.layout.add
        params = registry.find("stages", "compile").Params(runtime=self.runtime, precision=precision)
        inputs = {"model": source, "float": self.exported[torch_step]}
        compiled = add("compile", params, inputs, self.target, f"compile:{name}")
        outputs = {
            split: self.layout.evaluate(compiled, split, self.runtime, self.target, compiled=True) for split in SCORED
        }
        self._baseline = self._baseline or outputs
        evaluate, select = (self.layout.score(name, split, self.target, outputs, self._baseline) for split in SCORED)
        parity = self.layout.parity(outputs["evaluate"], self.exported[torch_step], self.target, name)
        self.layout.ledger.append(LedgerPoint("compiled", evaluate, self.target.name, self.runtime, name))
        return Candidate(
            name, self.runtime, precision, rank, bool(suffix), compiled, select, evaluate, parity, ships=True
        )
