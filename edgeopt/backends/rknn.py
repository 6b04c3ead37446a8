"""Rockchip NPUs: the RKNN toolkit, which works in the isolated tool environment ``rknn``.

The toolkit builds for a chip without having it, and simulates what it built for the accuracy, never for the time. Its
compiler has no eight-bit unsigned input inside the graph. So the preprocessing that the exporter folded in is taken out
again and given to the toolkit as means and deviations, which is how its runtime takes raw images: (N, H, W, C) uint8.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from edgeopt.agent.runtimes import Layer
from edgeopt.agent.toolchains import rknn as toolchain
from edgeopt.artifact import Artifact
from edgeopt.backends import Backend, Compiled, Depth, Figure, Request, Scheme, StandIn
from edgeopt.errors import ConfigError, StageError
from edgeopt.registry import hint
from edgeopt.stage import Params
from edgeopt.target import Target

if TYPE_CHECKING:
    from edgeopt.access import Built

#: Highest ONNX opset that rknn-toolkit2 2.5.0 reads.
_MAX_OPSET = 19
#: Layers that only move data.
_MOVES = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "exDataConvert"})
_SIMULATOR = "aside/simulator.npz"
_LIMIT_S = 3600.0


class RknnOptions(Params):
    """What a target's ``compile`` may say.

    Attributes:
        platform: The chip; from the target's ``device.arch``.
        optimization_level: Of the toolkit, 0 to 3.
        layer_errors: Also simulate each layer of an INT8 model by itself against float; for one calibration sample.
    """

    platform: str = ""
    optimization_level: int = Field(default=3, ge=0, le=3)
    layer_errors: bool = True


class Rknn(Backend):
    """Chips whose NPU computes in INT8 and in float16; what is not quantized runs in float16."""

    name = "rknn"
    consumes = frozenset({"onnx", "rknn-calibrated"})
    produces = "rknn-model"
    tools: ClassVar[tuple[str, ...]] = ("onnx",)
    environment = "rknn"
    precisions: ClassVar[frozenset[str]] = frozenset({"float", "int8"})
    float_is = "f16"
    processor = "NPU"
    without_device: ClassVar[Depth | None] = "simulate"
    Options = RknnOptions
    #: As ``rknn-toolkit2`` 2.5.0 takes them for ``target_platform`` and builds without quantization.
    platforms: ClassVar[tuple[str, ...]] = (
        "rk2118", "rk3562", "rk3566", "rk3568", "rk3576", "rk3588", "rv1126b",
    )  # fmt: skip

    def scheme(self, target: Target) -> Scheme:
        """The toolkit's own, while it builds."""
        return Scheme("rknn")

    def options(self, target: Target) -> RknnOptions:
        """The chip comes from ``device.arch``.

        Raises:
            ConfigError: It is not given, or unknown; or the device is said to be reached.
        """
        where = f"target {target.name}: device"
        if not target.device.access.none:
            fix = "write `access: none`: the model is built and simulated"
            raise ConfigError("edgeopt does not run models on Rockchip boards", where=where, fix=fix)
        arch = target.device.arch
        if arch not in self.platforms:
            what = f"unknown arch {arch!r}{hint(arch, self.platforms)}" if arch else "no arch is given"
            raise ConfigError(what, where=where, fix=f"one of: {', '.join(self.platforms)}")
        options = self.parse(target, platform=arch)
        assert isinstance(options, RknnOptions)
        return options

    def compile(self, artifact: Artifact, request: Request, out: Path) -> Compiled:
        """Write ``model.rknn``; its log, its layers' errors and what the simulator runs lie aside.

        Raises:
            MissingBackend: The tool environment is not installed.
            StageError: The toolkit refuses the model.
        """
        options = request.options
        assert isinstance(options, RknnOptions)
        if request.batch != 1:
            raise StageError("RKNN models are built for a batch of 1", where="compile", fix="write `batch: 1`")
        network = _Network.of(artifact)
        settings = {
            "platform": options.platform,
            "optimization": options.optimization_level,
            "layer_errors": options.layer_errors,
            "mean": network.mean,
            "std": network.std,
        }
        calibration = None
        if artifact.kind == "rknn-calibrated":
            settings |= {key: artifact.meta["options"][key] for key in ("algorithm", "method")}
            calibration = network.ordered(np.load(artifact.path("calibration.npy"), allow_pickle=False))
        built = _build(network, calibration, settings, request)
        aside = out / "aside"
        aside.mkdir()
        for name, content in built.files.items():
            (out / name if name == toolchain.MODEL else aside / name).write_bytes(content)
        ports = {"input": {**artifact.meta["input"], "shape": [1, *artifact.meta["input"]["shape"]]}}
        outputs = [{**port, "shape": [1, *port["shape"]]} for port in artifact.meta["outputs"]]
        description = {**settings, **ports, "outputs": outputs, "layout": network.layout}
        archive = {"onnx": np.frombuffer(network.onnx, np.uint8), "settings": _text(description)}
        archive |= {} if calibration is None else {"calibration": calibration}
        (out / _SIMULATOR).write_bytes(_npz(archive))
        facts = built.facts
        notes = [network.note] if calibration is not None else [network.note, "the NPU computes it in float16"]
        if facts["unread"]:
            what = "rows of the toolkit's table of layers were not understood"
            notes.append(f"{facts['unread']} {what}: see aside/{toolchain.LOG}")
        return Compiled(
            file=toolchain.MODEL,
            origin=_origin(built.layers, facts["rewrites"], network.nodes),
            notes=tuple(notes),
            layers=tuple(built.layers),
            stand_in=StandIn("rknn", _SIMULATOR, "the RKNN toolkit's simulator", environment=self.environment),
            figures=_figures(facts, options.platform),
            facts={"platform": options.platform, "versions": facts["versions"]},
        )


class RknnMini(Rknn):
    """Chips whose NPU computes in INT8 only, and runs the toolkit's "mini" models; the float baseline stays here."""

    name = "rknn-mini"
    precisions: ClassVar[frozenset[str]] = frozenset({"int8"})
    platforms: ClassVar[tuple[str, ...]] = ("rv1103", "rv1103b", "rv1106", "rv1106b")


@dataclass(frozen=True)
class _Network:
    """An exported model without its preprocessing.

    Attributes:
        onnx: The model: batch of 1, float32 input.
        nodes: Names of its nodes.
        mean: Of each channel of the raw samples; ``None`` if the toolkit is not to normalise.
        std: Likewise.
        layout: Of images as they are fed, ``nhwc`` or ``nchw``; ``None`` for what is no image.
        note: How the device is fed.
    """

    onnx: bytes
    nodes: Mapping[str, Any]
    mean: Sequence[float] | None
    std: Sequence[float] | None
    layout: Literal["nhwc", "nchw"] | None
    note: str

    @classmethod
    def of(cls, artifact: Artifact) -> _Network:
        """The network of an artefact.

        Raises:
            StageError: The toolkit does not read its opset, or its preprocessing cannot be told from the rest.
        """
        import onnx

        proto = onnx.load_from_string(artifact.path("model.onnx").read_bytes())
        opset = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
        if opset > _MAX_OPSET:
            fix = f"write `limits: {{max_opset: {_MAX_OPSET}}}` into the target file"
            raise StageError(f"the RKNN toolkit reads no ONNX opset above {_MAX_OPSET}, this is {opset}", fix=fix)
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1
        raw, folded = artifact.meta["input"], artifact.meta.get("preprocess")
        image = len(raw["shape"]) == 3
        mean = std = None
        if folded and image and raw["dtype"] == "uint8":
            height, width, channels = raw["shape"]
            _cut(proto.graph, frozenset(artifact.meta["preprocess_nodes"]), (1, channels, height, width))
            mean, std = (_each(channels, folded[name], folded["scale"]) for name in ("mean", "std"))
            note = f"the device takes ({height}, {width}, {channels}) uint8 images and normalises them itself"
        else:
            _float_input(proto.graph)
            note = "the device takes the raw samples as float32"
        del proto.graph.value_info[:]
        proto = onnx.shape_inference.infer_shapes(proto)
        layout: Literal["nhwc", "nchw"] | None = ("nhwc" if mean else "nchw") if image else None
        nodes = {node.name: node for node in proto.graph.node}
        return cls(proto.SerializeToString(deterministic=True), nodes, mean, std, layout, note)

    def ordered(self, samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Calibration samples as the toolkit wants them: images (N, C, H, W)."""
        if self.layout == "nhwc":
            return np.ascontiguousarray(samples.transpose(0, 3, 1, 2))
        return samples.astype(np.float32)


def _each(channels: int, values: Sequence[float], scale: float) -> list[float]:
    """``values`` of raw samples: one for each channel, also where one is given for all."""
    return [value * scale for value in (values if len(values) > 1 else [*values] * channels)]


def _build(
    network: _Network, calibration: npt.NDArray[Any] | None, settings: Mapping[str, Any], request: Request
) -> Built:
    with tempfile.TemporaryDirectory(prefix="edgeopt-rknn-") as folder:
        files = {toolchain.ONNX: Path(folder) / toolchain.ONNX}
        files[toolchain.ONNX].write_bytes(network.onnx)
        if calibration is not None:
            files[toolchain.CALIBRATION] = Path(folder) / toolchain.CALIBRATION
            np.save(files[toolchain.CALIBRATION], calibration)
        return request.host(Rknn.environment).build("rknn", files, settings, limit_s=_LIMIT_S)


def _cut(graph: Any, folded: frozenset[str], shape: tuple[int, ...]) -> None:
    """Take the nodes ``folded`` out; what they gave becomes the input, float32."""
    import onnx

    given = {name for node in graph.node if node.name in folded for name in node.output}
    rest = [node for node in graph.node if node.name not in folded]
    border = {name for node in rest for name in node.input if name in given}
    if len(border) != 1:
        raise StageError("the folded preprocessing cannot be told from the network", where="compile")
    graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info(border.pop(), onnx.TensorProto.FLOAT, shape))
    del graph.node[:]
    graph.node.extend(rest)
    used = {name for node in rest for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _float_input(graph: Any) -> None:
    """Make the input float32, and drop the casts that made it that."""
    import onnx

    source = graph.input[0].name
    graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    same = {source}
    for node in list(graph.node):
        if node.op_type == "Cast" and node.input[0] in same:
            same.add(node.output[0])
            graph.node.remove(node)
    for node in graph.node:
        node.input[:] = [source if name in same else name for name in node.input]


def _origin(
    layers: Sequence[Layer], rewrites: Sequence[Sequence[Sequence[str]]], nodes: Mapping[str, Any]
) -> dict[str, tuple[str, ...]]:
    """Nodes of the model by layer: the one that gave it its name, those that it replaces, and those fused after it."""
    replaced: dict[str, list[str]] = {}
    for old, new in rewrites:
        for name in new:
            replaced.setdefault(name, []).extend(old)
    consumers: dict[str, list[Any]] = {}
    for node in nodes.values():
        for name in node.input:
            consumers.setdefault(name, []).append(node)

    def came_from(name: str, seen: frozenset[str]) -> list[str]:
        before = [node for old in replaced.get(name, ()) if old not in seen for node in came_from(old, seen | {name})]
        return [name, *before] if name in nodes else before

    found: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        name = layer.name.removesuffix(f"_{layer.op}")
        if layer.op in _MOVES:  # shares its node with a layer that computes it
            found[layer.name] = (name,) if name in nodes else ()
            continue
        chain, last = came_from(name, frozenset()), nodes.get(name)
        for op in re.findall(r"[A-Z][a-z0-9]*", layer.op)[1:]:  # ConvAddRelu: a Conv, the Add after it, its Relu
            after = consumers.get(last.output[0], ()) if last is not None else ()
            last = next((node for node in after if node.op_type == op), None)
            chain += [last.name] if last is not None else []
        found[layer.name] = tuple(dict.fromkeys(chain))
    return found


def _figures(facts: Mapping[str, Any], platform: str) -> tuple[Figure, ...]:
    """What the toolkit's log says. Its cycles are no time: nothing says at which clock and with which memory."""
    why = f"rknn-toolkit2 {facts['versions']['rknn-toolkit2']} for {platform}"
    mib = {"weights_mib": facts["weights_kib"], "activations_mib": facts["activations_kib"]}
    figures = [Figure(name, kib / 1024, "MiB", "estimated", why) for name, kib in mib.items() if kib is not None]
    if facts["cycles"] is not None:
        figures.append(Figure("npu_cycles", float(facts["cycles"]), "cycles", "estimated", f"sum of layers, {why}"))
    return tuple(figures)


def _npz(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """An archive, equal for equal arrays: ``np.savez`` writes no times."""
    memory = io.BytesIO()
    np.savez(memory, allow_pickle=False, **arrays)
    return memory.getvalue()


def _text(value: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(json.dumps(value, sort_keys=True).encode(), np.uint8)


PLUGINS = (Rknn(), RknnMini())
