"""TensorRT on the host: what it asks of a device, here an agent with a synthetic ``trtexec``, and what without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeopt.access import Agent, local
from edgeopt.artifact import Artifact
from edgeopt.backends import Request
from edgeopt.backends.tensorrt import ARCHITECTURES, Tensorrt, TensorrtParams
from edgeopt.errors import ConfigError, StageError
from edgeopt.target import Target
from tests import fakes

BACKEND = Tensorrt()


def target(**values: Any) -> Target:
    device = {"kind": "gpu", "arch": "sm_87", "access": "local", **values.pop("device", {})}
    return Target.model_validate({"target": 1, "name": "t", "runtime": "tensorrt", "device": device, **values})


def options(**values: Any) -> TensorrtParams:
    return TensorrtParams(**{"arch": "sm_87", **values})


def artifact(folder: Path, kind: str = "onnx", zero_point: int = 0) -> Artifact:
    """A convolution, quantized if the kind says so, with a dynamic batch."""
    random = np.random.default_rng(0)
    constants = {"w": random.standard_normal((4, 3, 3, 3)).astype(np.float32)}
    nodes = []
    image = "x"
    if kind == "onnx-qdq":
        constants |= {"s": np.float32(0.05), "z": np.int8(zero_point)}
        nodes += [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], name="x_QuantizeLinear"),
            helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], name="x_DequantizeLinear"),
        ]
        image = "xd"
    nodes += [
        helper.make_node("Conv", [image, "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"], name="relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4, 8, 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    meta = {"input": {"name": "x", "shape": [3, 8, 8], "dtype": "float32"}, "outputs": [{"name": "y", "node": "relu"}]}
    return Artifact(kind, "0" * 64, folder, {"model.onnx": ""}, meta)


@pytest.fixture
def agents() -> Iterator[list[Agent]]:
    started: list[Agent] = []
    yield started
    for agent in started:
        agent.stop()


def request(agents: list[Agent], asked: TensorrtParams, batch: int = 2) -> Request:
    def start(environment: str = "") -> Agent:
        agents.append(local.start(limit_s=120))
        return agents[-1]

    return Request(batch, 1, asked, 0, start, start)


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    fakes.install_trtexec(folder, (10, 3, 0))
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.mark.parametrize(("kind", "precision"), [("onnx", "f32"), ("onnx-fp16", "f16"), ("onnx-qdq", "i8")])
def test_the_device_builds(board: Path, agents: list[Agent], tmp_path: Path, kind: str, precision: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    compiled = BACKEND.compile(artifact(tmp_path / "in", kind), request(agents, options()), out)
    assert compiled.file == "model.engine"
    assert {"model.engine", "model.json", "aside"} == {file.name for file in out.iterdir()}
    assert compiled.facts["typing"] == "weak"
    assert "built weakly typed" in " ".join(compiled.notes)
    layers = BACKEND.layer_map(compiled.layers or (), compiled)
    assert [(layer["source"], layer["precision"], layer["device"]) for layer in layers] == [
        (["conv", "relu"], precision, "GPU")
    ]
    assert {figure.metric: (figure.value, figure.method) for figure in compiled.figures} == {
        "weights_mib": (0.125, "measured"),
        "activations_mib": (0.0625, "measured"),
    }
    assert compiled.stand_in is None


def test_a_dla_core_leaves_float_to_the_gpu(board: Path, agents: list[Agent], tmp_path: Path) -> None:
    fakes.install_trtexec(board, (10, 3, 0))
    out = tmp_path / "out"
    out.mkdir()
    asked = options(dla_core=1)
    compiled = BACKEND.compile(artifact(tmp_path / "in"), request(agents, asked), out)
    assert any("a DLA core does not compute in float32" in note for note in compiled.notes)
    assert [layer.device for layer in compiled.layers or ()] == ["GPU"]
    assert BACKEND.runs_on(asked) == "DLA"
    assert BACKEND.runs_on(options()) == "GPU"


def test_a_tool_that_fails_leaves_its_whole_log(
    board: Path, agents: list[Agent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEOPT_CACHE", str(tmp_path / "store"))
    fakes.install_trtexec(board, (10, 3, 0), fails=[f"[TRT] reason {number}" for number in range(50)])
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(StageError, match="it last said") as raised:
        BACKEND.compile(artifact(tmp_path / "in"), request(agents, options()), out)
    log = Path(raised.value.fix.rpartition(" ")[2])
    assert log.parent == tmp_path / "store" / "logs"
    assert "[TRT] reason 0\n" in log.read_text()
    assert "[TRT] reason 0\n" not in raised.value.what
    assert list(out.iterdir()) == []


def test_what_tensorrt_would_refuse_is_not_sent(agents: list[Agent], tmp_path: Path) -> None:
    with pytest.raises(StageError, match="TensorRT does not take this model"):
        BACKEND.compile(artifact(tmp_path / "in", "onnx-qdq", zero_point=3), request(agents, options()), tmp_path)
    assert agents == []


def test_without_a_device_the_file_is_judged(agents: list[Agent], tmp_path: Path) -> None:
    plan = target(device={"access": "none"})
    asked = BACKEND.options(plan)
    assert asked.at_hand is False
    assert asked.rtx  # it is in the development extra
    out = tmp_path / "out"
    out.mkdir()
    compiled = BACKEND.compile(artifact(tmp_path / "in", "onnx-qdq"), request(agents, asked), out)
    assert compiled.file == "model.onnx"
    ports = onnx.load(out / "model.onnx").graph
    assert ports.input[0].type.tensor_type.shape.dim[0].dim_value == 2
    assert compiled.stand_in is not None
    assert (compiled.stand_in.file, compiled.stand_in.optimization) == ("model.onnx", "none")
    assert any(f"TensorRT-RTX {asked.rtx} takes it" in note for note in compiled.notes)
    assert compiled.layers is None
    assert compiled.figures == ()
    assert (BACKEND.depth(plan), BACKEND.depth(target())) == ("simulate", "measure")


def test_fp16_is_judged_with_its_rounding(agents: list[Agent], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    compiled = BACKEND.compile(artifact(tmp_path / "in", "onnx-fp16"), request(agents, options(at_hand=False)), out)
    assert compiled.stand_in is not None
    assert compiled.stand_in.file == "aside/rounded.onnx"
    assert (out / "aside/rounded.onnx").is_file()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"device": {"arch": "sm_88"}}, r"unknown GPU architecture 'sm_88' \(did you mean 'sm_8\d'\?\)"),
        ({"device": {"arch": "sm_89"}, "compile": {"dla_core": 0}}, r"sm_89 \(RTX 40, L4\) has no DLA core"),
        ({"compile": {"dla": 0}}, "tensorrt has no option 'dla'"),
        ({"compile": {"optimization_level": 9}}, "optimization_level: Input should be less than or equal to 5"),
        ({"compile": {"typing": "loose"}}, "typing: Input should be 'auto', 'strong' or 'weak'"),
    ],
)
def test_options_that_there_are_not(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        BACKEND.options(target(**values))


def test_every_shipped_target_is_known() -> None:
    from edgeopt.config import load

    names = ("jetson-orin-nano", "jetson-agx-orin", "jetson-thor", "rtx-desktop", "tensorrt-server")
    for name in names:
        found = load(Path(__file__).parents[3] / "targets" / f"{name}.yaml", Target)
        assert found.device.arch in ARCHITECTURES
        assert BACKEND.depth(found) == "simulate"
        assert BACKEND.options(found).at_hand is False


def test_what_the_user_says_does_not_hide_what_the_device_is() -> None:
    asked = BACKEND.options(target(device={"access": "none"}, compile={"at_hand": True, "arch": "sm_90"}))
    assert (asked.at_hand, asked.arch) == (False, "sm_87")
