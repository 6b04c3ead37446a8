"""Cast: the float ONNX file with its network in float16.

Inputs and outputs keep their types, and the folded preprocessing stays float32: raw samples may lie beyond what float16
can count. A tensor that goes beyond float16 on the calibration samples, or a constant that does, stays float32
together with the nodes around it, and a note names them: in float16 it would be infinity, and nothing would say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt.agent.telemetry import silence
from edgeopt.artifact import Artifact
from edgeopt.data import Split
from edgeopt.half import LARGEST, halve
from edgeopt.stage import Clock, Params, StageContext, StageOutput
from edgeopt.target import Target

Array = npt.NDArray[Any]

_BATCH = 16
#: A tensor may get this many times as large on samples that were not seen.
_HEADROOM = 4.0


class CastParams(Params):
    """Nothing can be chosen."""


class Cast:
    """See the module."""

    name = "cast"
    version = 1
    Params = CastParams
    accepts: Mapping[str, frozenset[str]] = {"model": frozenset({"onnx"})}
    produces = frozenset({"onnx-fp16"})
    tools: tuple[str, ...] = ("onnx", "onnxruntime")
    in_recipe = False
    on_device = False
    environment = ""

    def bind(self, params: CastParams, target: Target) -> CastParams:
        """float16 is the same for all targets."""
        return params

    def data(self, params: CastParams) -> tuple[str, ...]:
        """The largest values are looked for on ``calibrate``."""
        return ("calibrate",)

    def run(self, inputs: Mapping[str, Artifact], params: CastParams, ctx: StageContext) -> StageOutput:
        """Write ``model.onnx``.

        Raises:
            StageError: Nothing of the model can compute in float16.
        """
        silence()
        import onnx

        artifact = inputs["model"]
        model = onnx.load(artifact.path("model.onnx"))
        preprocess = artifact.meta.get("preprocess_nodes", ())
        seen = _largest(model, ctx.data["calibrate"], ctx)
        largest = {name: value * _HEADROOM for name, value in seen.items()}
        halved = halve(model, preprocess, largest)
        onnx.checker.check_model(halved.model, full_check=True)
        (ctx.out / "model.onnx").write_bytes(halved.model.SerializeToString(deterministic=True))
        notes = tuple(f"{node} stays float32: {why}" for node, why in halved.kept.items())
        if any(value * _HEADROOM > LARGEST for value in seen.values()):
            notes += (f"what stays float32 leaves {_HEADROOM:g} times the calibration's largest value as headroom",)
        meta = {**artifact.meta, "float32_nodes": sorted(halved.kept)}
        kept = f", {len(halved.kept)} stay float32" if halved.kept else ""
        return StageOutput("onnx-fp16", meta, f"{halved.half} nodes in float16{kept}", notes)


def _largest(model: Any, split: Split, ctx: StageContext) -> dict[str, float]:
    """Largest absolute value of each float tensor over the samples, as the float model gives it."""
    import onnx
    import onnxruntime

    probe = type(model)()
    probe.CopyFrom(model)
    present = {value.name for value in probe.graph.output}
    names = [name for node in probe.graph.node for name in node.output if name]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    floats = [port.name for port in session.get_outputs() if port.type == "tensor(float)"]
    found = dict.fromkeys(floats, 0.0)
    clock, total, done = Clock(), len(split), 0
    for samples, _ in split.batches(_BATCH):
        for name, values in zip(floats, session.run(floats, {session.get_inputs()[0].name: samples}), strict=True):
            found[name] = max(found[name], float(np.abs(values).max(initial=0)))
        done += len(samples)
        ctx.progress(done, total, "samples", "looking for large values", clock.seconds_left(done, total))
    return found


PLUGINS = (Cast(),)
