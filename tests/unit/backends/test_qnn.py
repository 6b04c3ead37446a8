"""Qualcomm's HTP: compiled for real, and run in the simulator that the x86-64 library holds."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeopt.access import Agent, Limits, local
from edgeopt.artifact import Artifact
from edgeopt.backends import Compiled, Request
from edgeopt.backends.qnn import CHIPS, Qnn, QnnParams
from edgeopt.data import Split
from edgeopt.errors import ConfigError, StageError
from edgeopt.quantizers.qnn_qdq import QnnQdq, QnnQdqParams
from edgeopt.stage import StageContext, StageOutput
from edgeopt.stages.evaluate import Evaluate, EvaluateParams
from edgeopt.target import Target
from tests import onnx_nets

here = pytest.mark.skipif(platform.machine() != "x86_64", reason="the simulator is in the x86-64 library only")


def target(arch: str | None = "v75", **values: Any) -> Target:
    device = {"kind": "npu", "access": values.pop("access", "none"), **({"arch": arch} if arch else {})}
    return Target.model_validate({"target": 1, "name": "t", "runtime": "qnn", "device": device, **values})


def chip_of(arch: str | None, **values: Any) -> str:
    options = Qnn().options(target(arch, **values))
    assert isinstance(options, QnnParams)
    return options.chip


@pytest.mark.parametrize(
    ("arch", "chip"),
    [
        ("v68", "SM8350"),
        ("v69", "SM8450"),
        ("v73", "SM8550"),
        ("v75", "SM8650"),
        ("75", "SM8650"),
        ("v79", "SM8750"),
        ("v81", "SM8850"),
        ("sm8475", "SM8475"),
    ],
)
def test_an_architecture_or_a_chip_names_the_chip(arch: str, chip: str) -> None:
    assert chip_of(arch, precision=("int8",)) == chip


@pytest.mark.parametrize(
    ("arch", "says"),
    [
        ("v74", r"unknown HTP 'v74' \(did you mean 'v7[359]'\?\)"),
        ("SM8560", r"unknown HTP 'SM8560' \(did you mean 'SM8\d50'\?\)"),
        ("bogus", "unknown HTP 'bogus'"),
        (None, "which HTP the device has is not said"),
    ],
)
def test_what_qnn_would_take_for_nothing_is_refused(arch: str | None, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        chip_of(arch)
    assert all(chip in caught.value.fix for chip in CHIPS)


def test_a_chip_that_contradicts_the_architecture_is_refused() -> None:
    assert chip_of("v69", compile={"chip": "SM8475"}) == "SM8475"
    with pytest.raises(ConfigError, match="compile says SM8475, whose HTP is v69"):
        chip_of("v75", compile={"chip": "SM8475"})


def test_the_htp_without_float16_compiles_int8_only() -> None:
    assert chip_of("v68", precision=("int8",)) == "SM8350"
    with pytest.raises(ConfigError, match="the HTP v68 has no float16"):
        chip_of("v68", precision=("int8", "fp16"))


@here
def test_the_simulator_is_never_timed() -> None:
    for access in ("local", {"python": "/usr/bin/python3"}):
        with pytest.raises(ConfigError, match="what would be timed is its simulator"):
            chip_of("v75", access=access)
    assert chip_of("v75", access={"ssh": "board"}) == "SM8650"


def test_only_x86_holds_the_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    for machine, depth in {"x86_64": "simulate", "aarch64": "compile"}.items():
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        assert Qnn().depth(target()) == depth
        assert Qnn().depth(target(access={"ssh": "board"})) == "measure"


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with local.start() as started:
        yield started


@pytest.fixture(scope="module")
def float_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_nets.convolutional(tmp_path_factory.mktemp("float") / "model.onnx")


@pytest.fixture(scope="module")
def quantized(float_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    out = tmp_path_factory.mktemp("quantized")
    QnnQdq().quantize(float_model, onnx_nets.samples(40), QnnQdqParams(), out, seed=0)
    return onnx_nets.artifact(out, "onnx-qdq")


def compiled(artifact: Artifact, agent: Agent, out: Path, arch: str = "v75", batch: int = 2) -> Compiled:
    out.mkdir(parents=True, exist_ok=True)
    options = Qnn().options(target(arch, precision=("int8",)))
    return Qnn().compile(artifact, Request(batch, 1, options, 0, onnx_nets.no_agent, lambda environment: agent), out)


def simulate(agent: Agent, out: Path, found: Compiled, values: Any, batch: int = 2) -> Any:
    assert found.stand_in
    opened = agent.open("model", found.stand_in.runtime, str(out / found.stand_in.file))
    try:
        assert "simulator" in opened.settings["processor"]
        return agent.infer("model", [values], batch=batch)[0]
    finally:
        agent.close("model")


@here
@pytest.mark.parametrize("arch", ["v68", "v73", "v81"])
def test_the_simulator_computes_what_the_float_network_computes(
    quantized: Artifact, float_model: Path, agent: Agent, tmp_path: Path, arch: str
) -> None:
    found = compiled(quantized, agent, tmp_path, arch)
    assert found.facts["htp"] == arch
    assert found.facts["qnn sdk"].startswith("v2.")
    unseen = onnx_nets.samples(16, seed=1)
    given = simulate(agent, tmp_path, found, unseen)
    assert onnx_nets.noise_ratio_db(onnx_nets.run(float_model, unseen), given) > 30


@here
def test_what_is_said_to_be_a_device_and_is_the_simulator_is_refused(
    quantized: Artifact, agent: Agent, tmp_path: Path
) -> None:
    """Such as an x86-64 machine over ssh, which nobody knows until the model is open there."""
    found = compiled(quantized, agent, tmp_path)
    meta = {"file": found.file, "runtime": "qnn", "stand_in": asdict(found.stand_in) if found.stand_in else None}
    model = Artifact("qnn-context", "0" * 64, tmp_path, {}, meta)
    images = onnx_nets.samples(8)
    split = Split("evaluate", images, None, "")

    def evaluate(*, at_hand: bool) -> StageOutput:
        out = tmp_path / f"out-{at_hand}"
        out.mkdir()
        params = EvaluateParams(split="evaluate", runtime="qnn", batch=2, at_hand=at_hand)
        context = StageContext(
            out, tmp_path, 0, {"evaluate": split}, lambda *done: None, lambda: agent, lambda environment: agent
        )
        return Evaluate().run({"model": model}, params, context)

    with pytest.raises(StageError, match=r"no device is at hand.*only simulates") as caught:
        evaluate(at_hand=True)
    assert "access: none" in caught.value.fix
    assert evaluate(at_hand=False).meta["method"] == "simulated"

    assert agent.open("model", "qnn", str(tmp_path / found.file)).settings["simulated"]
    try:
        limits = Limits(1, 0.0, 2, 0.0, 1.0)
        for timed in (
            lambda: agent.time(["model"], [images], limits, seed=0, batch=2),
            lambda: agent.throughput(["model"], [images], limits, seed=0, batch=2),
            lambda: agent.energy(["model"], [images], seed=0, batch=2),
        ):
            with pytest.raises(StageError, match="only simulates a device for model"):
                timed()
    finally:
        agent.close("model")


@here
def test_layers_name_the_nodes_that_they_compute(quantized: Artifact, agent: Agent, tmp_path: Path) -> None:
    found = compiled(quantized, agent, tmp_path)
    assert found.layers is not None
    layers = {layer["name"]: layer for layer in Qnn().layer_map(found.layers, found)}
    assert len(layers) == len(found.layers)
    assert {layer["device"] for layer in layers.values()} == {"NPU"}
    assert (layers["stem/Conv"]["op"], layers["stem/Conv"]["source"]) == ("Conv2d", ["stem/Conv"])
    assert layers["depth/Conv"]["op"] == "DepthWiseConv2d"
    for name in ("stem/Conv", "depth/Conv", "point/Conv", "model/Add", "head/Gemm"):
        assert layers[name]["precision"] == "u8"
    nodes = {node.name for node in onnx.load(quantized.path("model.onnx")).graph.node}
    assert {node for layer in layers.values() for node in layer["source"]} <= nodes


@here
def test_the_bytes_differ_and_a_note_says_so(quantized: Artifact, agent: Agent, tmp_path: Path) -> None:
    notes = [compiled(quantized, agent, tmp_path / name).notes for name in ("a", "b")]
    assert notes[0] == notes[1]
    assert "not reproducible" in notes[0][0]
    file = (tmp_path / "a" / "model.onnx").read_bytes()
    assert str(tmp_path).encode() not in file
    assert str(quantized.root).encode() not in file


def write(folder: Path, nodes: list[Any], constants: list[Any], kind: int, shape: list[int], output: list[int]) -> None:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", kind, ["batch", *shape])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", *output])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    folder.mkdir(exist_ok=True)
    onnx.save(model, folder / "model.onnx")


@here
def test_every_node_that_the_htp_cannot_run_is_named(agent: Agent, tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((8, 3, 3, 3), np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"], name="stem/Conv", pads=[1] * 4),
        helper.make_node("Erf", ["a"], ["b"], name="block/Erf"),
        helper.make_node("Relu", ["b"], ["c"], name="block/Relu"),
        helper.make_node("Det", ["c"], ["output"], name="head/Det"),
    ]
    write(tmp_path / "in", nodes, [weight], TensorProto.FLOAT, [3, 8, 8], [8])
    with pytest.raises(StageError, match="the HTP cannot run 2 nodes") as caught:
        compiled(onnx_nets.artifact(tmp_path / "in", "onnx-fp16"), agent, tmp_path / "out")
    assert "block/Erf (Erf): Operators of type Erf are not supported" in str(caught.value)
    assert "head/Det (Det): " in str(caught.value)
    assert "stem/Conv" not in str(caught.value)


@here
def test_a_cast_of_the_raw_image_is_compiled_right(agent: Agent, tmp_path: Path) -> None:
    """As it is written, QNN makes ones of it."""
    nodes = [
        helper.make_node("Cast", ["image"], ["a"], name="preprocess/Cast", to=TensorProto.FLOAT),
        helper.make_node("Relu", ["a"], ["output"], name="relu"),
    ]
    write(tmp_path / "in", nodes, [], TensorProto.UINT8, [4, 4, 3], [4, 4, 3])
    found = compiled(onnx_nets.artifact(tmp_path / "in", "onnx-fp16"), agent, tmp_path / "out")
    image = np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3) * 2
    np.testing.assert_allclose(simulate(agent, tmp_path / "out", found, image), image.astype(np.float32), rtol=1e-3)
    assert found.layers
    sources = [node for layer in Qnn().layer_map(found.layers, found) for node in layer["source"]]
    assert sources == ["preprocess/Cast", "preprocess/Cast", "relu"]


@here
def test_float_layers_are_computed_in_float16(agent: Agent, tmp_path: Path) -> None:
    onnx_nets.perceptron(tmp_path / "in" / "model.onnx")
    found = compiled(onnx_nets.artifact(tmp_path / "in", "onnx-fp16"), agent, tmp_path / "out")
    assert {layer.precision for layer in found.layers or ()} == {"f16"}
    values = np.random.default_rng(1).standard_normal((8, 32)).astype(np.float32)
    wanted = onnx_nets.run(tmp_path / "in" / "model.onnx", values)
    assert 55 < onnx_nets.noise_ratio_db(wanted, simulate(agent, tmp_path / "out", found, values)) < 80


@here
def test_compiling_writes_nothing_into_the_home_folder(quantized: Artifact, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    places = {f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA", "STATE")}
    with local.start(env={"HOME": str(home), **places}) as agent:
        compiled(quantized, agent, tmp_path / "out")
    assert [path for path in home.rglob("*") if path.is_file()] == []


@here
def test_the_runtime_refuses_what_is_not_compiled(float_model: Path, agent: Agent) -> None:
    with pytest.raises(StageError, match="holds no context binary of QNN: compile it first"):
        agent.open("model", "qnn", str(float_model))


def test_a_file_that_is_no_model_is_refused(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x0a\x12\x03abc")
    with pytest.raises(StageError):
        compiled(onnx_nets.artifact(tmp_path, "onnx-qdq"), agent, tmp_path / "out")
