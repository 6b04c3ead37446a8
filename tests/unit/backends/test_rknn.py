"""RKNN: what is worked out on the host and, where the tool environment is installed, the real toolkit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeopt import placement, tools
from edgeopt.access import Agent, local
from edgeopt.agent.toolchains import rknn as toolchain
from edgeopt.artifact import Artifact
from edgeopt.backends import Request
from edgeopt.backends.rknn import Rknn, RknnMini, RknnOptions, _Network, _origin
from edgeopt.errors import ConfigError, StageError
from edgeopt.quantizers.rknn import Rknn as Quantizer
from edgeopt.quantizers.rknn import RknnParams
from edgeopt.target import Target
from tests import onnx_nets

#: Lines that rknn-toolkit2 2.5.0 printed while it built recipes/digits for rk3588.
LOG = (Path(__file__).parent / "recorded" / "rknn-build.log").read_bytes()


def target(arch: str | None = "rk3588", runtime: str = "rknn", **more: Any) -> Target:
    device = {"kind": "npu", "access": "none", **({"arch": arch} if arch else {})}
    return Target(target=1, name="t", runtime=(runtime,), **{"device": device, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("arch", [None, "rk3568b", "rv1106"])
def test_an_unknown_chip_is_refused_with_those_that_there_are(arch: str | None) -> None:
    with pytest.raises(ConfigError, match="rk3588"):
        Rknn().options(target(arch))


def test_a_misspelt_chip_gets_a_hint() -> None:
    with pytest.raises(ConfigError, match="did you mean 'rk3566'"):
        Rknn().options(target("rk3566b"))


def test_chips_without_float_are_another_runtime() -> None:
    assert RknnMini().options(target("rv1106", "rknn-mini")) == RknnOptions(platform="rv1106")
    assert "float" in Rknn().precisions
    assert "float" not in RknnMini().precisions
    assert not set(Rknn().platforms) & set(RknnMini().platforms)


def test_a_board_that_is_said_to_be_reached_is_refused() -> None:
    reached = target(device={"kind": "npu", "access": {"ssh": "board"}, "arch": "rk3588"})
    with pytest.raises(ConfigError, match="access: none"):
        Rknn().options(reached)


def test_options_of_the_toolkit_come_from_the_target() -> None:
    assert Rknn().options(target(compile={"optimization_level": 2})) == RknnOptions(
        platform="rk3588", optimization_level=2
    )
    with pytest.raises(ConfigError, match="optimization_level"):
        Rknn().options(target(compile={"optimisation_level": 2}))


def test_a_missing_environment_is_told_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEOPT_TOOLS", str(tmp_path))
    found = Rknn().probe()
    assert (found.installed, found.version, found.missing) == (False, "", ("rknn-toolkit2",))
    assert found.fix == "edgeopt tools install rknn"


def test_the_log_tells_layers_rewrites_and_memory() -> None:
    read = toolchain.read_log(toolchain.readable(LOG))
    assert [(layer["name"], layer["precision"], layer["device"]) for layer in read["layers"]] == [
        ("stem.0/Conv", "i8", "NPU"),
        ("blocks.0.shortcut.0/Conv_ConvAddRelu", "i8", "NPU"),
        ("relu_12_gavg_2conv0", "i8", "NPU"),
        ("head/Gemm#2", "i8", "NPU"),
        ("output_mm_tp_rs", "i8", "CPU"),
    ]
    assert [bool(layer["why"]) for layer in read["layers"]] == [False, False, False, False, True]
    assert read["rewrites"][0] == [["model/ReduceMean"], ["relu_12_gavg", "relu_12_gavg_rs"]]
    assert (read["weights_kib"], read["activations_kib"]) == (223.875, 65)
    assert read["cycles"] == 9216 + 2879 + 1568 + 72


def test_a_row_that_is_not_understood_is_no_row_on_the_npu() -> None:
    """Another chip's or version's table may say other things; tables of the memory follow it."""
    lines = toolchain.readable(LOG)
    changed = [line.replace("INT8     NPU    (1,32", "INT8     DSP    (1,32") for line in lines]
    memory = "D RKNN: [16:06:44.275] "
    more = [f"{memory}ID  User      Tensor  DataType", f"{memory}1   ConvRelu  x       INT8      NC1HWC2"]
    read = toolchain.read_log([*changed, *more])
    assert read["unread"] == 1
    assert read["cycles"] is None
    (unknown,) = (layer for layer in read["layers"] if layer["device"] != "NPU" and layer["device"] != "CPU")
    assert (unknown["name"], unknown["op"], unknown["device"]) == ("ConvAddRelu #4", "ConvAddRelu", "unknown")
    assert "not understood: 4    ConvAddRelu        INT8     DSP" in unknown["why"]
    assert len(read["layers"]) == len(toolchain.read_log(lines)["layers"])
    assert toolchain.read_log(lines)["unread"] == 0
    macs = {"stem.0/Conv": 9, "head/Gemm#2": 1}
    for log, value in ((read, 1.0), (toolchain.read_log(lines), 0.0)):
        assert placement.of(log["layers"], macs, "NPU").measurements()[0].value == value


def test_rules_between_the_head_and_the_rows_are_no_end() -> None:
    lines = toolchain.readable(LOG)
    rule = "D RKNN: [16:06:44.275] " + 20 * "-"
    head = next(number for number, line in enumerate(lines) if "OpType" in line)
    ruled = [*lines[:head], rule, lines[head], rule, *lines[head + 1 :]]
    assert toolchain.read_log(ruled) == toolchain.read_log(lines)


def test_progress_bars_and_colours_are_no_text() -> None:
    output = (
        b"\x1b[1;33mW\x1b[0m \x1b[1;33mbuild: careful\x1b[0m\nI Quantizating :  23%|##  | 9/39 [00:00, 72.03it/s]\n"
    )
    assert toolchain.readable(output) == ["W build: careful"]


def test_layers_lead_back_to_the_nodes_of_the_model() -> None:
    read = toolchain.read_log(toolchain.readable(LOG))
    nodes = [
        helper.make_node("Conv", ["x"], ["a"], name="stem.0/Conv"),
        helper.make_node("Relu", ["a"], ["b"], name="stem.2/Relu"),
        helper.make_node("Conv", ["b"], ["c"], name="blocks.0.shortcut.0/Conv"),
        helper.make_node("Add", ["c", "d"], ["e"], name="blocks.0/Add"),
        helper.make_node("Relu", ["e"], ["f"], name="blocks.0.relu/Relu"),
        helper.make_node("ReduceMean", ["f"], ["g"], name="model/ReduceMean"),
        helper.make_node("Gemm", ["g"], ["h"], name="head/Gemm"),
    ]
    layers = [onnx_layer(**layer) for layer in read["layers"]]
    assert _origin(layers, read["rewrites"], {node.name: node for node in nodes}) == {
        "stem.0/Conv": ("stem.0/Conv", "stem.2/Relu"),
        "blocks.0.shortcut.0/Conv_ConvAddRelu": ("blocks.0.shortcut.0/Conv", "blocks.0/Add", "blocks.0.relu/Relu"),
        "relu_12_gavg_2conv0": ("model/ReduceMean",),
        "head/Gemm#2": ("head/Gemm",),
        "output_mm_tp_rs": (),  # the product is computed by head/Gemm#2, not by what reshapes its result
    }


def onnx_layer(**fields: Any) -> Any:
    from edgeopt.agent.runtimes import Layer

    return Layer(**{**fields, "source": tuple(fields["source"])})


def test_the_toolkits_own_words_are_found_in_its_output() -> None:
    output = (
        b"I rknn-toolkit2 version: 2.5.0\n\x1b[1;31mE\x1b[0m \x1b[1;31mrknn-toolkit2 version: 2.5.0\x1b[0m\n"
        b"E load_onnx: Unsupport onnx opset 20, need <= 19!\nE load_onnx: Traceback (most recent call last):\n"
        b"ValueError: Traceback (most recent call last):\nValueError: Unsupport onnx opset 20, need <= 19!\n"
    )
    words = toolchain.complaint(toolchain.readable(output))
    assert words == "load_onnx: Unsupport onnx opset 20, need <= 19!; ValueError: Unsupport onnx opset 20, need <= 19!"
    aborted = b"I rknn building ...\nE RKNN: [16:05:17.535] Not Support Dtype: 2. please check precision!\n"
    assert toolchain.complaint(toolchain.readable(aborted)) == "Not Support Dtype: 2. please check precision!"
    below = [
        "    sess = C.InferenceSession()",
        "onnxruntime.capi.state.InvalidGraph: In Node stem/Relu: No Op registered",
    ]
    assert toolchain.complaint(below) == "InvalidGraph: In Node stem/Relu: No Op registered"
    assert toolchain.complaint(["Killed"]) == "Killed"


def artifact(folder: Path, *, opset: int = 19, kind: str = "onnx", **meta: Any) -> Artifact:
    """:func:`onnx_nets.convolutional` as the exporter would write it for such a target."""
    folder.mkdir(exist_ok=True)
    file = onnx_nets.convolutional(folder / "model.onnx")
    proto = onnx.load(file)
    proto.opset_import[0].version = opset  # no operator in it changed between 18 and 20
    onnx.save(proto, file)
    folded = {"raw": {"shape": [8, 8, 3], "dtype": "uint8"}, "scale": 128.0, "mean": [1.0] * 3, "std": [1.0] * 3}
    return Artifact(kind, "0" * 64, folder, {}, {**onnx_nets.META, "preprocess": folded, **meta})


def test_the_network_without_its_preprocessing_computes_the_same(tmp_path: Path) -> None:
    source = artifact(tmp_path)
    network = _Network.of(source)
    assert network.mean is not None
    assert network.std is not None
    samples = onnx_nets.samples(1)
    by_hand = (samples.astype(np.float32) - np.float32(network.mean)) / np.float32(network.std)
    session = onnxruntime.InferenceSession(network.onnx, providers=["CPUExecutionProvider"])
    (port,) = session.get_inputs()
    assert (port.shape, port.type) == ([1, 3, 8, 8], "tensor(float)")
    (given,) = session.run(None, {port.name: by_hand.transpose(0, 3, 1, 2)})
    np.testing.assert_allclose(given, onnx_nets.run(source.path("model.onnx"), samples), rtol=1e-5, atol=1e-5)
    assert network.layout == "nhwc"
    assert network.ordered(samples).shape == (1, 3, 8, 8)


def test_one_mean_or_deviation_is_that_of_every_channel(tmp_path: Path) -> None:
    folded = {"raw": {"shape": [8, 8, 3], "dtype": "uint8"}, "scale": 2.0, "mean": [1.0], "std": [1.0, 2.0, 3.0]}
    network = _Network.of(artifact(tmp_path, preprocess=folded))
    assert (network.mean, network.std) == ([2.0] * 3, [2.0, 4.0, 6.0])


def test_what_is_no_image_goes_in_as_float(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["image"], ["i"], name="preprocess/Cast", to=TensorProto.INT32),
        helper.make_node("Cast", ["i"], ["f"], name="preprocess/Cast#2", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["f", "w"], ["output"], name="head/MatMul"),
    ]
    weights = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3), "w")
    ports = [helper.make_tensor_value_info("image", TensorProto.INT16, ["batch", 4])]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 3])]
    graph = helper.make_graph(nodes, "g", ports, outputs, [weights])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), tmp_path / "model.onnx"
    )
    meta = {"input": {"name": "image", "shape": [4], "dtype": "int16"}, "preprocess": {"scale": 1.0}}
    network = _Network.of(Artifact("onnx", "0" * 64, tmp_path, {}, meta))
    session = onnxruntime.InferenceSession(network.onnx, providers=["CPUExecutionProvider"])
    sample = np.array([[-300, 2, 3, 4]], np.float32)
    np.testing.assert_array_equal(session.run(None, {"image": sample})[0], sample @ np.arange(12).reshape(4, 3))
    assert (network.mean, network.layout) == (None, None)


def test_a_newer_opset_is_refused_with_the_line_that_mends_it(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="max_opset: 19"):
        _Network.of(artifact(tmp_path, opset=20))


def test_a_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="batch of 1"):
        Rknn().compile(artifact(tmp_path), onnx_nets.request(2, RknnOptions(platform="rk3588")), tmp_path)


# What follows runs the toolkit: `edgeopt tools install rknn`.

needs_toolkit = pytest.mark.skipif(
    tools.status("rknn").state != "installed", reason="needs the tool environment: edgeopt tools install rknn (1.4 GiB)"
)


@pytest.fixture
def host() -> Iterator[Callable[[str], Agent]]:
    with local.start(python=str(tools.python("rknn"))) as agent:
        yield lambda environment: agent


def calibrated(folder: Path) -> Artifact:
    source = artifact(folder / "float")
    out = folder / "calibrated"
    out.mkdir()
    made = Quantizer().quantize(
        source.path("model.onnx"),
        onnx_nets.samples(40),
        RknnParams(),
        out,
        seed=0,
        keep_float=onnx_nets.PREPROCESS_NODES,
    )
    meta = {**source.meta, **made.meta, "options": RknnParams().model_dump()}
    return Artifact(made.kind, "0" * 64, out, {}, meta)


@needs_toolkit
@pytest.mark.hardware
@pytest.mark.parametrize(("kind", "precision", "sqnr_db"), [("onnx", "f16", 50), ("rknn-calibrated", "i8", 20)])
def test_it_builds_and_simulates(
    tmp_path: Path, host: Callable[[str], Agent], kind: str, precision: str, sqnr_db: float
) -> None:
    source = artifact(tmp_path / "float") if kind == "onnx" else calibrated(tmp_path)
    backend = Rknn()
    written = []
    for name in ("a", "b"):
        out = tmp_path / name
        out.mkdir()
        request = Request(1, 1, RknnOptions(platform="rk3588"), 0, onnx_nets.no_agent, host)
        compiled = backend.compile(source, request, out)
        written.append({file: (out / file).read_bytes() for file in ("model.rknn", "aside/simulator.npz")})
    assert written[0] == written[1]
    assert (out / "aside" / "layer_errors.txt").exists() == (kind == "rknn-calibrated")
    assert str(tmp_path).encode() not in written[0]["model.rknn"]

    layers = backend.layer_map(compiled.layers or (), compiled)
    computed = {node: entry for entry in layers for node in entry["source"]}
    assert {"stem/Conv", "depth/Conv", "point/Conv", "head/Gemm"} <= computed.keys()
    assert {(computed[node]["precision"], computed[node]["device"]) for node in ("stem/Conv", "head/Gemm")} == {
        (precision, "NPU")
    }
    figures = {figure.metric: figure for figure in compiled.figures}
    assert {"weights_mib", "activations_mib", "npu_cycles"} == figures.keys()
    assert all(figure.value > 0 and figure.method == "estimated" for figure in figures.values())

    assert compiled.stand_in is not None
    agent = host("rknn")
    opened = agent.open("model", compiled.stand_in.runtime, str(out / compiled.stand_in.file))
    assert [(port.name, port.shape, port.dtype) for port in opened.inputs] == [("image", (1, 8, 8, 3), "uint8")]
    samples = onnx_nets.samples(20, seed=1)
    given = agent.infer("model", [samples])[0]
    agent.close("model")
    wanted = onnx_nets.run(artifact(tmp_path / "again").path("model.onnx"), samples)
    assert given.shape == wanted.shape
    assert onnx_nets.noise_ratio_db(wanted, given) > sqnr_db


@needs_toolkit
@pytest.mark.hardware
def test_what_the_toolkit_refuses_is_told_in_its_words(tmp_path: Path, host: Callable[[str], Agent]) -> None:
    source = artifact(tmp_path / "float")
    proto = onnx.load(source.path("model.onnx"))
    next(node for node in proto.graph.node if node.name == "relu/Relu").op_type = "NoSuchOperator"
    onnx.save(proto, source.path("model.onnx"))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(StageError, match="NoSuchOperator") as caught:
        Rknn().compile(source, Request(1, 1, RknnOptions(platform="rk3588"), 0, onnx_nets.no_agent, host), out)
    assert "relu/Relu" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert "site-packages" not in str(caught.value)


@needs_toolkit
@pytest.mark.hardware
def test_a_board_is_needed_for_the_board_s_own_file(tmp_path: Path, host: Callable[[str], Agent]) -> None:
    (tmp_path / "model.rknn").write_bytes(b"RKNN")
    with pytest.raises(StageError, match="needs a Rockchip board"):
        host("rknn").open("model", "rknn", str(tmp_path / "model.rknn"))


def test_json_of_the_archive_is_ordered() -> None:
    from edgeopt.backends.rknn import _npz, _text

    assert json.loads(_text({"b": 1, "a": [2]}).tobytes()) == {"a": [2], "b": 1}
    assert _npz({"x": _text({"a": 1})}) == _npz({"x": _text({"a": 1})})
