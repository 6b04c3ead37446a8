"""TensorRT-RTX: a real engine, built ahead of time for a GPU that is not here.

It shows on any machine that the ONNX file is imported, that its Q/DQ is legal, how it fuses and what its weights and
activations take. It says nothing of any latency, and TensorRT-RTX is not TensorRT: it knows other GPUs, no Jetson and
no DLA. Outputs come from ONNX Runtime, which computes each node of the same file as ONNX defines it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeopt import half, qdq
from edgeopt.agent import AgentError
from edgeopt.agent.engine_file import plan_version
from edgeopt.agent.runtimes import Layer
from edgeopt.agent.toolchains.tensorrt_rtx import ENGINE, SOURCE
from edgeopt.artifact import ASIDE, Artifact
from edgeopt.backends import Backend, Compiled, Depth, Figure, Request, Scheme, StandIn, entry
from edgeopt.backends.onnxruntime import with_batch
from edgeopt.errors import ConfigError, StageError
from edgeopt.registry import hint
from edgeopt.stage import Params
from edgeopt.target import Target

#: Compute capability, as ``device.arch`` names it -> what it is sold as. Source: ``ComputeCapability`` of
#: tensorrt_rtx 1.7.1, and https://developer.nvidia.com/cuda-gpus for the names.
ARCHITECTURES: Mapping[str, str] = {
    "sm_75": "Turing: GeForce RTX 20, T4",
    "sm_80": "Ampere: A100",
    "sm_86": "Ampere: GeForce RTX 30, A10",
    "sm_89": "Ada: GeForce RTX 40, L4",
    "sm_120": "Blackwell: GeForce RTX 50",
    "sm_121": "Blackwell: GB10",
}
_LIMIT_S = 1800
_STAND_IN = f"{ASIDE}/model.onnx"
_NAME = "TensorRT-RTX"
#: Operators that multiply and accumulate, and layers whose kernel is generated around those of a library.
_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_GENERATED = ("kgen", "Reformat")


class TensorrtRtxParams(Params):
    """What a target's ``compile`` may say.

    Attributes:
        arch: One of :data:`ARCHITECTURES`; the target's ``device.arch`` if it is not given.
        tf32: Whether float32 products may be rounded to 10 bits of mantissa. TensorRT's own default is yes; then the
            float baseline is no float32, and nothing on this machine shows by how much.
    """

    arch: str
    tf32: bool = False


class TensorrtRtx(Backend):
    """Compiles on this machine; nothing is measured."""

    name = "tensorrt-rtx"
    consumes = frozenset({"onnx", "onnx-qdq", "onnx-fp16"})
    produces = "trt-rtx-engine"
    tools = ("onnx", "onnxruntime", "tensorrt-rtx")
    precisions = frozenset({"float", "fp16", "int8"})
    processor = "GPU"
    without_device = "simulate"
    Options = TensorrtRtxParams

    def scheme(self, target: Target) -> Scheme:
        """Symmetric int8 with float biases, the only one that TensorRT takes; Q/DQ where it fuses them."""
        options = {"activations": "int8", "reduce_range": False, "quantize_bias": False, "tensors": "inputs"}
        return Scheme("onnxruntime_qdq", options)

    def options(self, target: Target) -> TensorrtRtxParams:
        """With the target's architecture.

        Raises:
            ConfigError: There is none, or TensorRT-RTX does not know it; or the target has a device to measure on.
        """
        where = f"target {target.name}"
        options = self.parse(target, arch=target.device.arch or "")
        assert isinstance(options, TensorrtRtxParams)
        if options.arch not in ARCHITECTURES:
            what = f"{_NAME} does not know {options.arch!r}" if options.arch else "which GPU it is for is not said"
            listed = ", ".join(ARCHITECTURES)
            raise ConfigError(
                what + (hint(options.arch, ARCHITECTURES, listed=False) if options.arch else ""),
                where=where,
                fix=f"device: {{arch: ...}} is one of {listed}; for a Jetson or a data centre GPU, runtime: tensorrt",
            )
        if not target.device.access.none:
            what = f"{_NAME} is compiled for here, and not run"
            raise ConfigError(what, where=where, fix="device: {access: none}")
        return options

    def depth(self, target: Target) -> Depth | None:
        """The same for all targets."""
        return self.without_device

    def compile(self, artifact: Artifact, request: Request, out: Path) -> Compiled:
        """Write ``model.engine``, and under ``aside/`` the ONNX file that stands in for it and the builder's layers.

        Raises:
            StageError: TensorRT does not take the model: every place in it, with the user's module and what to do.
        """
        import onnx

        assert isinstance(request.options, TensorrtRtxParams)
        arch = request.options.arch
        model = fixed(artifact.path("model.onnx"), request.batch)
        ready, warnings = qdq.for_tensorrt(model, "compile")
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / SOURCE
            source.write_bytes(ready.SerializeToString(deterministic=True))
            built = request.host("").build(
                "tensorrt_rtx", {SOURCE: source}, request.options.model_dump(), limit_s=_LIMIT_S
            )
        version = built.facts["version"]
        if built.facts["refused"]:
            raise _unsupported(ready, built.facts["refused"], version)
        for name, content in built.files.items():
            (out / name).parent.mkdir(exist_ok=True)
            (out / name).write_bytes(content)
        require_version(out / ENGINE, version)
        is_half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in ready.graph.initializer)
        stand_in = half.rounded(ready) if is_half else ready
        (out / _STAND_IN).write_bytes(stand_in.SerializeToString(deterministic=True))
        why = f"{_NAME} {version}, {arch}, as its builder reports it"
        memory = {"weights_mib": built.facts["weights_bytes"], "activations_mib": built.facts["activation_bytes"]}
        rounding = ", float16 rounded after every node" if is_half else ""
        return Compiled(
            file=ENGINE,
            notes=(
                f"{_NAME} ahead-of-time compile for {arch.upper().replace('_', '')}, no GPU, not measured",
                *warnings,
            ),
            layers=tuple(_computing(built.layers, model)),
            stand_in=StandIn(
                "onnxruntime",
                _STAND_IN,
                f"ONNX Runtime without optimisations{rounding}; not the kernels of a GPU",
                optimization="none",
            ),
            figures=tuple(
                Figure(metric, count / 2**20, "MiB", "estimated", why)
                for metric, count in memory.items()
                if count is not None
            ),
            facts={
                "tensorrt-rtx": version,
                "plan": plan_version(out / ENGINE)[1],
                "arch": arch,
                "gpu": ARCHITECTURES[arch],
                "tf32": request.options.tf32,
                "typing": "strong",
            },
        )

    def layer_map(self, layers: Sequence[Layer], compiled: Compiled) -> list[dict[str, Any]]:
        """As the builder lists them."""
        return [entry(layer, layer.name, layer.source) for layer in layers]


def require_version(engine: Path, version: str) -> None:
    """Stop at an engine that this version cannot run: one of TensorRT, or of another TensorRT-RTX.

    Args:
        engine: The file.
        version: Of the library that is to run it, like ``1.7.1.116``.

    Raises:
        StageError: Both versions are named; or it is no engine.
    """
    try:
        product, built = plan_version(engine)
    except AgentError as error:
        raise StageError(str(error), where="compile") from error
    here = ".".join(version.split(".")[:3])
    if (product, built) != (_NAME, here):
        what = f"{engine.name} was built by {product} {built}, and this is {_NAME} {here}"
        raise StageError(what, where="compile", fix="compile it again: an engine belongs to the version that built it")


def fixed(file: Path, batch: int) -> Any:
    """The ``ModelProto`` in ``file`` for a fixed batch.

    Raises:
        StageError: It is no ONNX model, or more than its batch is dynamic.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_from_string(with_batch(file.read_bytes(), batch))
    except (DecodeError, IndexError, onnx.shape_inference.InferenceError) as error:
        raise StageError(f"this is no ONNX model that can be compiled: {error}", where="compile") from error
    if not model.graph.node:
        raise StageError("this is no ONNX model, or an empty one", where="compile")
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in constants and not all(dim.HasField("dim_value") and dim.dim_value > 0 for dim in dims):
            shape = ", ".join(str(dim.dim_value) if dim.dim_value > 0 else dim.dim_param or "?" for dim in dims)
            raise StageError(
                f"input {value.name!r} has the shape ({shape}), and TensorRT is given static shapes only",
                where="compile",
                fix="export the network for one input size; only the batch may be dynamic, measure.batch fixes it",
            )
    return model


def _unsupported(model: Any, refused: Sequence[Mapping[str, str]], version: str) -> StageError:
    """All nodes that are not supported, with the user's modules."""
    modules = qdq.modules(model)
    places = []
    for one in refused:
        module = modules.get(one["node"], "")
        where = f"{one['op']} {one['node']!r}" if one["op"] else "the model"
        places.append(f"{where}{f' of module {module!r}' if module else ''}: {one['why']}")
    return StageError(
        f"{_NAME} {version} does not support this model, in {len(places)} places:\n  " + "\n  ".join(places),
        where="compile",
        fix="write these operations with others, or compute them outside the network",
    )


def _computing(layers: Sequence[Layer], model: Any) -> list[Layer]:
    """The layers with the nodes that each of them computes.

    A generated kernel (``kgen``) also names the convolution whose operands it prepares, or whose result it scales: the
    node belongs to the kernel that multiplies. Q/DQ nodes are named only where a layer has no other.
    """
    known = {node.name for node in model.graph.node if node.op_type not in ("QuantizeLinear", "DequantizeLinear")}
    heavy = {node.name for node in model.graph.node if node.op_type in _HEAVY}
    elsewhere = heavy & {name for layer in layers if layer.op not in _GENERATED for name in layer.source}

    def own(layer: Layer) -> tuple[str, ...]:
        taken = elsewhere if layer.op in _GENERATED else set()
        named = tuple(name for name in layer.source if name not in taken)
        return tuple(name for name in named if name in known) or named

    return [replace(layer, source=own(layer)) for layer in layers]


PLUGINS = (TensorrtRtx(),)
