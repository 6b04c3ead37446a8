"""TensorRT on the host: the engine is built on the device, by the device's own TensorRT.

An engine runs only where it was built: the same version, the same kind of GPU. So this backend sends the ONNX file to
the device and gets the engine back, with its layers and its log. Where no device is at hand, what ships is the ONNX
file with a fixed batch, which the device has to build; it is judged by what the file means, and by TensorRT-RTX, if
that is installed: that it imports, and how it fuses.

Not run by us on a device: it is tested with a synthetic ``trtexec``; see docs/targets/tensorrt.md.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from edgeopt import half, provenance, qdq
from edgeopt.agent.runtimes import Layer
from edgeopt.artifact import ASIDE, Artifact, default_root
from edgeopt.backends import (
    Availability,
    Backend,
    Compiled,
    Figure,
    Request,
    Scheme,
    StandIn,
    availability,
    tensorrt_rtx,
)
from edgeopt.backends.tensorrt_rtx import fixed
from edgeopt.errors import ConfigError, StageError
from edgeopt.registry import hint
from edgeopt.stage import Params
from edgeopt.target import Target

if TYPE_CHECKING:
    from edgeopt.access import Built

#: Compute capabilities, and where they are found. Source: https://developer.nvidia.com/cuda-gpus.
ARCHITECTURES: Mapping[str, str] = {
    "sm_72": "Jetson Xavier",
    "sm_75": "Turing",
    "sm_80": "A100",
    "sm_86": "RTX 30, A10",
    "sm_87": "Jetson Orin",
    "sm_89": "RTX 40, L4",
    "sm_90": "H100, H200",
    "sm_100": "B200",
    "sm_103": "B300",
    "sm_110": "Jetson Thor",
    "sm_120": "RTX 50",
    "sm_121": "GB10",
}
#: Those with DLA cores. A Jetson Orin Nano has none, although its GPU is the same.
_WITH_DLA = ("sm_72", "sm_87")
_KINDS = {"onnx": "float", "onnx-fp16": "fp16", "onnx-qdq": "int8"}
_MODEL, _ENGINE = "model.onnx", "model.engine"
_BUILD_LIMIT_S = 2 * 3600.0
_LISTED = 8
#: what TensorRT-RTX compiles for where it does not know the GPU
_RTX_ARCH = "sm_86"


class TensorrtParams(Params):
    """What a target's ``compile`` may say.

    Attributes:
        tool: The device's Python package (``python``) or its ``trtexec``; ``auto`` prefers the package.
        typing: ``strong``: numbers are those of the ONNX file. ``weak``: the builder may choose lower ones. ``auto``:
            strong where the device's version supports it completely, from 10.12.
        workspace_mib: Most memory that a kernel may use beside the network's; TensorRT's own choice if not given.
        optimization_level: 0 to 5, how long TensorRT searches; its own choice if not given.
        dla_core: Number of the DLA core that runs what it can; the GPU alone if not given.
        tf32: Whether float32 products may be rounded to 10 bits of mantissa, as TensorRT does by default.
        gpu_fallback: Whether the GPU runs what the DLA core cannot; else such a model is an error.
        arch: Compute capability of the GPU, like ``sm_87``: follows from the target's ``device.arch``.
        at_hand: Whether there is a device: follows from the target's ``device.access``.
        rtx: Version of the TensorRT-RTX that looks at the file where there is none: the one that is installed.
    """

    tool: Literal["auto", "python", "trtexec"] = "auto"
    typing: Literal["auto", "strong", "weak"] = "auto"
    workspace_mib: int | None = Field(default=None, ge=1)
    optimization_level: int | None = Field(default=None, ge=0, le=5)
    dla_core: int | None = Field(default=None, ge=0)
    gpu_fallback: bool = True
    tf32: bool = True
    arch: str = ""
    at_hand: bool = True
    rtx: str = ""


class Tensorrt(Backend):
    """See the module."""

    name = "tensorrt"
    consumes = frozenset(_KINDS)
    produces = "trt-engine"
    tools = ("onnx", "onnxruntime")
    precisions = frozenset({"float", "fp16", "int8"})
    float_is = "tf32"
    processor = "GPU"
    without_device = "simulate"
    own_toolkit = True
    Options = TensorrtParams

    def scheme(self, target: Target) -> Scheme:
        """Q/DQ as TensorRT accepts it: symmetric int8, zero point 0, weights per channel, float biases."""
        return tensorrt_rtx.TensorrtRtx().scheme(target)

    def options(self, target: Target) -> TensorrtParams:
        """With what the target says of its device.

        Raises:
            ConfigError: An option or the architecture is unknown, or it has no DLA core.
        """
        where, arch = f"target {target.name}", target.device.arch or ""
        if arch and arch not in ARCHITECTURES:
            raise ConfigError(f"unknown GPU architecture {arch!r}{hint(arch, ARCHITECTURES)}", where=f"{where}: device")
        options = self.parse(target)
        assert isinstance(options, TensorrtParams)
        if options.dla_core is not None and arch and arch not in _WITH_DLA:
            what = f"{arch} ({ARCHITECTURES[arch]}) has no DLA core"
            raise ConfigError(what, where=f"{where}: compile", fix="leave dla_core out")
        at_hand = not target.device.access.none
        rtx = "" if at_hand else provenance.tool_version("tensorrt-rtx")
        return options.model_copy(update={"arch": arch, "at_hand": at_hand, "rtx": rtx})

    def runs_on(self, options: Params) -> str:
        """The DLA core, if one is asked for."""
        assert isinstance(options, TensorrtParams)
        return self.processor if options.dla_core is None else "DLA"

    def compile(self, artifact: Artifact, request: Request, out: Path) -> Compiled:
        """Write ``model.engine`` with ``model.json`` beside it; without a device ``model.onnx``.

        Raises:
            StageError: TensorRT would refuse the model, or the device does, with its last lines; the whole log is kept.
        """
        options = request.options
        assert isinstance(options, TensorrtParams)
        model, warnings = qdq.for_tensorrt(fixed(artifact.path(_MODEL), request.batch), "compile")
        if not options.at_hand:
            return self._ahead(artifact, model, request, out, warnings)
        kind = _KINDS[artifact.kind]
        asked = {**options.model_dump(exclude={"at_hand", "rtx"}), "kind": kind, **_ports(model)}
        notes = list(warnings)
        if options.dla_core is not None and kind == "float":
            asked["dla_core"] = None
            notes.append("a DLA core does not compute in float32: this candidate is built for the GPU")
        with tempfile.TemporaryDirectory() as folder:
            prepared = Path(folder) / _MODEL
            prepared.write_bytes(model.SerializeToString(deterministic=True))
            built = request.device().build("tensorrt", {_MODEL: prepared}, asked, limit_s=_BUILD_LIMIT_S)
        if "failed" in built.facts:
            raise _failed(built)
        for name, content in built.files.items():
            file = out / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return Compiled(
            _ENGINE,
            notes=(*notes, *_notes(built)),
            layers=tuple(_computing(built.layers, model)) or None,
            figures=tuple(_figures(built.facts)),
            facts=built.facts,
        )

    def _ahead(self, artifact: Artifact, model: Any, request: Request, out: Path, warnings: Sequence[str]) -> Compiled:
        """What can be said without the device."""
        assert isinstance(request.options, TensorrtParams)
        content = model.SerializeToString(deterministic=True)
        (out / _MODEL).write_bytes(content)
        judged, rounding = _MODEL, ""
        if artifact.kind == "onnx-fp16":  # ONNX Runtime would compute it in float32, and nothing would be seen of it
            judged, rounding = f"{ASIDE}/rounded.onnx", ", float16 rounded after every node"
            (out / ASIDE).mkdir()
            (out / judged).write_bytes(half.rounded(model).SerializeToString(deterministic=True))
        what = f"ONNX Runtime without optimisations{rounding}; not the kernels of a GPU"
        return Compiled(
            _MODEL,
            notes=(
                *warnings,
                "no device is at hand: this is the ONNX file that the device has to build",
                *([_by_rtx(artifact, request)] if request.options.rtx else []),
            ),
            stand_in=StandIn("onnxruntime", judged, what, optimization="none"),
            facts={"arch": request.options.arch, "tensorrt-rtx": request.options.rtx or "not installed"},
        )

    def probe(self) -> Availability:
        """The device has the toolkit; this machine only prepares the file."""
        return replace(availability(self.tools), version="")


def _ports(model: Any) -> dict[str, list[dict[str, Any]]]:
    """Inputs and outputs with their static shapes, which an engine does not tell before it is opened.

    Raises:
        StageError: An output's shape depends on the values.
    """
    import onnx

    graph = model.graph
    constants = {value.name for value in graph.initializer}
    found: dict[str, list[dict[str, Any]]] = {"inputs": [], "outputs": []}
    for way, values in (("inputs", graph.input), ("outputs", graph.output)):
        for value in values:
            if value.name in constants:
                continue
            kind = value.type.tensor_type
            shape = [size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim]
            if None in shape:
                what = f"{way[:-1]} {value.name!r} has the shape {shape}, which is not static"
                fix = "export the network for one input size; what depends on values is done after it"
                raise StageError(what, where="compile", fix=fix)
            dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
            found[way].append({"name": value.name, "shape": shape, "dtype": dtype})
    return found


def _failed(built: Built) -> StageError:
    """With the last lines; the whole log is kept where the cache is."""
    log = built.files.get(f"{ASIDE}/build.log", b"")
    file = default_root() / "logs" / f"trtexec-{hashlib.sha256(log).hexdigest()[:12]}.log"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(log)
    return StageError(str(built.facts["failed"]), where="compile", fix=f"the whole log of trtexec is in {file}")


def _notes(built: Built) -> Iterator[str]:
    facts = built.facts
    version = f"TensorRT {facts['tensorrt']}"
    yield f"{version} builds another engine each time: the digest of this artefact is not reproducible"
    if facts["typing"] == "weak":
        yield f"built weakly typed, by flags of {version}: layers may compute in fewer bits than the ONNX says"
    if not facts["cuda_graph"]:
        yield "this engine cannot be captured as a CUDA graph: every kernel is launched by itself"


def _figures(facts: Mapping[str, Any]) -> Iterator[Figure]:
    for metric, name in (("weights_mib", "weights_bytes"), ("activations_mib", "activation_bytes")):
        if name in facts:
            yield Figure(metric, facts[name] / 2**20, "MiB", "measured", f"TensorRT {facts['tensorrt']}, when it built")


def _computing(layers: Sequence[Layer], model: Any) -> Iterator[Layer]:
    """The layers with the ONNX nodes that they compute; Q/DQ nodes only where a layer has no other."""
    known = {node.name for node in model.graph.node if node.op_type not in ("QuantizeLinear", "DequantizeLinear")}
    for layer in layers:
        yield replace(layer, source=tuple(name for name in layer.source if name in known) or layer.source)


def _by_rtx(artifact: Artifact, request: Request) -> str:
    """What TensorRT-RTX makes of the model: its parser and its fusion are those of TensorRT.

    Raises:
        StageError: It does not take the model.
    """
    assert isinstance(request.options, TensorrtParams)
    rtx, arch = tensorrt_rtx.TensorrtRtx(), request.options.arch
    arch = arch if arch in tensorrt_rtx.ARCHITECTURES else _RTX_ARCH
    with tempfile.TemporaryDirectory() as folder:
        asked = replace(request, options=tensorrt_rtx.TensorrtRtxParams(arch=arch))
        compiled = rtx.compile(artifact, asked, Path(folder))
    count = len(compiled.layers or ())
    return f"TensorRT-RTX {request.options.rtx} takes it and makes {count} layers of it for {arch}, without a GPU"


PLUGINS = (Tensorrt(),)
