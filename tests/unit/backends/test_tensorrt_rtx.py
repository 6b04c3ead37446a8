"""TensorRT-RTX ahead of time: real builds on a machine without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeopt import placement
from edgeopt.access import Agent, local
from edgeopt.agent import AgentError
from edgeopt.agent.toolchains import tensorrt_rtx as toolchain
from edgeopt.artifact import Artifact
from edgeopt.backends import Compiled, Request
from edgeopt.backends.tensorrt_rtx import ARCHITECTURES, TensorrtRtx, TensorrtRtxParams, fixed, require_version
from edgeopt.errors import ConfigError, StageError
from edgeopt.half import halve
from edgeopt.macs import per_node
from edgeopt.quantizers.onnxruntime_qdq import OnnxruntimeQdq
from edgeopt.target import Target
from tests import onnx_nets

HEAVY = ("stem/Conv", "depth/Conv", "point/Conv", "head/Gemm")


def target(arch: str | None = "sm_86", access: Any = "none", **values: Any) -> Target:
    device = {"kind": "gpu", "access": access, **({"arch": arch} if arch else {})}
    return Target.model_validate({"target": 1, "name": "t", "runtime": "tensorrt-rtx", "device": device, **values})


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with local.start() as started:
        yield started


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The network in float, as the scheme quantizes it, and in float16."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("onnx", "onnx-qdq", "onnx-fp16")}
    file = onnx_nets.convolutional(folders["onnx"] / "model.onnx")
    scheme = TensorrtRtx().scheme(target())
    quantizer = OnnxruntimeQdq()
    options = quantizer.Params.parse(scheme.options, scheme.quantizer, "")
    quantizer.quantize(
        file, onnx_nets.samples(40), options, folders["onnx-qdq"], seed=0, keep_float=onnx_nets.PREPROCESS_NODES
    )
    halved = halve(onnx.load(file), onnx_nets.PREPROCESS_NODES, {})
    onnx.save(halved.model, folders["onnx-fp16"] / "model.onnx")
    return {kind: onnx_nets.artifact(folder, kind) for kind, folder in folders.items()}


def compile_into(agent: Agent, source: Artifact, out: Path, batch: int = 1, arch: str = "sm_86") -> Compiled:
    out.mkdir()
    request = Request(batch, 1, TensorrtRtxParams(arch=arch), 0, lambda: agent, lambda environment: agent)
    return TensorrtRtx().compile(source, request, out)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def of_nodes(folder: Path, *nodes: Any, inputs: list[Any] | None = None) -> Artifact:
    """A model of float32 (batch, 4) through nodes from ``x`` to ``y``."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        inputs or [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", None])],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("my.domain", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / "model.onnx")
    return onnx_nets.artifact(folder)


@pytest.mark.parametrize(("kind", "precision"), [("onnx", "f32"), ("onnx-qdq", "i8"), ("onnx-fp16", "f16")])
def test_every_layer_is_on_the_gpu_in_the_precision_that_was_asked_for(
    kind: str, precision: str, sources: dict[str, Artifact], agent: Agent, tmp_path: Path
) -> None:
    compiled = compile_into(agent, sources[kind], tmp_path / "out")
    layers = TensorrtRtx().layer_map(compiled.layers or (), compiled)
    assert len({layer["name"] for layer in layers}) == len(layers)
    assert {layer["device"] for layer in layers} == {"GPU"}
    for node in HEAVY:
        assert {layer["precision"] for layer in layers if node in layer["source"]} == {precision}, node
    macs = per_node(sources["onnx"].path("model.onnx").read_bytes(), 1)
    placed = placement.of(layers, macs, "GPU", asked={"i8": "int8"}.get(precision, "float"))
    assert (placed.fallbacks, placed.unmapped, placed.in_float) == ((), (), ())
    # What leaves the integer part is a kernel of its own here, which computes no node of the network.
    assert bool(placed.unfused) == (precision == "i8")
    assert all(
        name.endswith(("_QuantizeLinear", "_DequantizeLinear")) for layer in placed.unfused for name in layer.source
    )
    assert placed.macs == {"GPU": {precision: placed.total_macs}}


def test_it_says_what_was_done_and_what_was_not(sources: dict[str, Artifact], agent: Agent, tmp_path: Path) -> None:
    compiled = compile_into(agent, sources["onnx-qdq"], tmp_path / "out", arch="sm_89")
    assert compiled.notes == ("TensorRT-RTX ahead-of-time compile for SM89, no GPU, not measured",)
    version = TensorrtRtx().probe().version
    assert compiled.facts["tensorrt-rtx"].startswith(version)
    assert version.startswith(compiled.facts["plan"] + ".")
    assert (compiled.facts["arch"], compiled.facts["tf32"]) == ("sm_89", False)
    assert {figure.metric for figure in compiled.figures} == {"weights_mib", "activations_mib"}
    assert {figure.method for figure in compiled.figures} == {"estimated"}
    assert all(figure.value > 0 and "as its builder reports it" in figure.why for figure in compiled.figures)
    assert contents(tmp_path / "out").keys() == {"model.engine", "aside/layers.txt", "aside/model.onnx"}


def test_float16_weights_take_less(sources: dict[str, Artifact], agent: Agent, tmp_path: Path) -> None:
    """int8 does not show it in so small a network: its few channels are padded, and its scales are float32."""
    weights = {}
    for kind in ("onnx", "onnx-fp16"):
        compiled = compile_into(agent, sources[kind], tmp_path / kind)
        weights[kind] = next(figure.value for figure in compiled.figures if figure.metric == "weights_mib")
    assert weights["onnx-fp16"] < weights["onnx"]


@pytest.mark.parametrize("kind", ["onnx", "onnx-qdq", "onnx-fp16"])
def test_what_stands_in_computes_the_same_file(
    kind: str, sources: dict[str, Artifact], agent: Agent, tmp_path: Path
) -> None:
    compiled = compile_into(agent, sources[kind], tmp_path / "out", batch=2)
    stand_in = compiled.stand_in
    assert stand_in is not None
    assert (stand_in.runtime, stand_in.optimization) == ("onnxruntime", "none")
    unseen = onnx_nets.samples(40, seed=1)
    agent.open("stand-in", stand_in.runtime, str(tmp_path / "out" / stand_in.file), optimization="none")
    try:
        given = agent.infer("stand-in", [unseen], batch=2)[0]
    finally:
        agent.close("stand-in")
    wanted = onnx_nets.run(sources[kind].path("model.onnx"), unseen)
    if kind == "onnx-fp16":  # ONNX Runtime drops the rounding of this file
        assert 50 < onnx_nets.noise_ratio_db(wanted, given) < 100
    else:
        np.testing.assert_array_equal(given, wanted)


@pytest.mark.parametrize("kind", ["onnx", "onnx-qdq", "onnx-fp16"])
def test_a_second_build_gives_the_same_bytes_without_local_paths(
    kind: str, sources: dict[str, Artifact], agent: Agent, tmp_path: Path
) -> None:
    compile_into(agent, sources[kind], tmp_path / "a")
    with local.start() as other:
        compile_into(other, sources[kind], tmp_path / "b")
    files = contents(tmp_path / "a")
    assert files == contents(tmp_path / "b")
    for content in files.values():
        assert str(tmp_path).encode() not in content
        assert str(sources[kind].root).encode() not in content


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"vtrt" + bytes(20) + bytes([1, 6, 0, 9]), r"built by TensorRT-RTX 1\.6\.0, and this is TensorRT-RTX 1\.7\.1"),
        (b"ftrt" + bytes(20) + bytes([10, 3, 0, 30]), r"built by TensorRT 10\.3\.0, and this is TensorRT-RTX 1\.7\.1"),
        (b"PK\x03\x04" + bytes(24), "no TensorRT engine"),
        (b"", "no TensorRT engine"),
    ],
)
def test_an_engine_of_another_version_is_refused(head: bytes, says: str, tmp_path: Path) -> None:
    file = tmp_path / "model.engine"
    file.write_bytes(head)
    with pytest.raises(StageError, match=says):
        require_version(file, "1.7.1.116")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_is_built_for(arch: str, sources: dict[str, Artifact], agent: Agent, tmp_path: Path) -> None:
    assert TensorrtRtx().options(target(arch)) == TensorrtRtxParams(arch=arch)
    compiled = compile_into(agent, sources["onnx-fp16"], tmp_path / "out", arch=arch)
    assert compiled.layers


def test_turing_has_no_product_in_float32(sources: dict[str, Artifact], agent: Agent, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="'head/Gemm' for Turing") as caught:
        compile_into(agent, sources["onnx"], tmp_path / "out", arch="sm_75")
    assert "sm_80" in caught.value.fix
    assert list((tmp_path / "out").iterdir()) == []


def test_architectures_are_those_of_the_library() -> None:
    import tensorrt_rtx

    named = {name.lower().replace("sm", "sm_") for name in dir(tensorrt_rtx.ComputeCapability) if name.startswith("SM")}
    assert named == ARCHITECTURES.keys()


@pytest.mark.parametrize(
    ("arch", "says"),
    [
        ("sm_87", r"does not know 'sm_87' \(did you mean 'sm_8[069]'\?\)"),
        ("sm_90", "does not know 'sm_90'"),
        ("ampere", "does not know 'ampere'"),
        (None, "which GPU it is for is not said"),
    ],
)
def test_an_unknown_architecture_is_refused(arch: str | None, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        TensorrtRtx().options(target(arch))
    assert all(name in caught.value.fix for name in ARCHITECTURES)


def test_a_device_at_hand_is_refused_because_nothing_is_run() -> None:
    with pytest.raises(ConfigError, match="is compiled for here, and not run"):
        TensorrtRtx().options(target(access={"ssh": "host"}))
    assert TensorrtRtx().depth(target()) == "simulate"


def test_dynamic_shapes_are_refused_with_the_way_out(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    wide = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, "height", 8])]
    of_nodes(tmp_path, node, inputs=wide)
    with pytest.raises(StageError, match=r"input 'x' has the shape \(2, 3, height, 8\)") as caught:
        fixed(tmp_path / "model.onnx", 2)
    assert "export the network for one input size" in caught.value.fix


def test_all_unsupported_operators_are_listed_with_their_modules(agent: Agent, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mine", ["x"], ["a"], name="features.1/Mine", domain="my.domain"),
        helper.make_node("Relu", ["a"], ["b"], name="features.2/Relu"),
        helper.make_node("Det", ["b"], ["c"], name="head.det/Det"),
        helper.make_node("Add", ["b", "c"], ["y"], name="head/Add"),
    ]
    with pytest.raises(StageError) as caught:
        compile_into(agent, of_nodes(tmp_path, *nodes), tmp_path / "out")
    assert "in 2 places" in caught.value.what
    assert "Mine 'features.1/Mine' of module 'features.1': " in caught.value.what
    assert "Det 'head.det/Det' of module 'head.det': " in caught.value.what
    assert "cuda" not in caught.value.what.lower()
    assert list((tmp_path / "out").iterdir()) == []


def test_qdq_that_is_not_accepted_is_refused_before_anything_is_built(
    sources: dict[str, Artifact], tmp_path: Path
) -> None:
    """By the linter: no agent is asked."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    OnnxruntimeQdq().quantize(
        sources["onnx"].path("model.onnx"), onnx_nets.samples(40), OnnxruntimeQdq.Params(), folder, seed=0
    )
    with pytest.raises(StageError, match="TensorRT does not take this model") as caught:
        TensorrtRtx().compile(
            onnx_nets.artifact(folder, "onnx-qdq"), onnx_nets.request(1, TensorrtRtxParams(arch="sm_86")), tmp_path
        )
    for expected in ("zero-point: QuantizeLinear", "int32-bias: DequantizeLinear", "of module 'stem'"):
        assert expected in caught.value.what
    for expected in ("ActivationSymmetric", "QuantizeBias", "edgeopt lint"):
        assert expected in caught.value.fix


@pytest.mark.parametrize("content", [b"\x08\x0a\x12\x03abc", b"", b"\xff\xff\xff\xff"])
def test_a_file_that_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(StageError, match="no ONNX model"):
        fixed(tmp_path / "model.onnx", 1)


LINE = (
    "Name: {name}, LayerType: {op}, Inputs: [ {{ Name: a, Dimensions: [1,8], Datatype: {kind}, Format: x }}], "
    "Constants: [ {{ Name: c, Dimensions: [1], Datatype: {constant} }}], "
    "Outputs: [ {{ Name: b, Dimensions: [1], Datatype: {kind} }}], "
    "TacticName: {tactic}, StreamId: 0, Metadata: [ONNX Layer: n/Conv][ONNX Layer: o, p/Relu]"
)


@pytest.mark.parametrize(
    ("op", "kind", "constant", "tactic", "wanted"),
    [
        ("correlation", "Int8", "Float", "__myelin_CASK_STUB", ("correlation", "i8", "library kernel")),
        ("kgen", "Int8", "Float", "__myl_CastMul_0x12ab", ("kgen", "f32", "CastMul")),
        ("kgen", "Int8", "Half", "__myl_CastMul_0x12ab", ("kgen", "f16", "CastMul")),
        ("kgen", "Int8", "Int8", "__myl_ReshConc_0x12ab", ("Reformat", "i8", "ReshConc")),
        ("gemm", "Half", "Half", "sm80_xmma_gemm", ("gemm", "f16", "sm80_xmma_gemm")),
    ],
)
def test_a_line_of_the_builders_list(
    op: str, kind: str, constant: str, tactic: str, wanted: tuple[str, str, str]
) -> None:
    listed = f"Layers:\n{LINE.format(name='l, 1', op=op, kind=kind, constant=constant, tactic=tactic)}\n"
    (layer,) = toolchain.layers(listed)
    assert (layer["op"], layer["precision"], layer["exec"]) == wanted
    assert (layer["name"], layer["source"]) == ("l, 1", ["n/Conv", "o, p/Relu"])


def test_waiting_is_no_layer() -> None:
    line = "Name: s, LayerType: signal, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, EventId: 1"
    assert list(toolchain.layers(f"Layers:\n{line}\n{line.replace('signal', 'wait')}\n")) == []


def test_a_list_of_another_form_is_an_error_and_no_empty_map() -> None:
    with pytest.raises(AgentError, match="in a form that edgeopt does not know"):
        list(toolchain.layers("Name: x, Kind: y"))
