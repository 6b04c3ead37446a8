"""LiteRT and TFLM in the agent: what they share, and where they differ from the other runtimes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeopt import tflite
from edgeopt.access import Agent, local
from edgeopt.agent import tflite_file
from edgeopt.errors import StageError
from edgeopt.quantizers import ai_edge
from tests import tflite_nets

SAMPLES = tflite_nets.samples(7, seed=2)


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with local.start(limit_s=120) as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``float.tflite``, ``int8.tflite``, and a large one as the quantizer's package and as edgeopt writes it."""
    folder = tmp_path_factory.mktemp("models")
    for name, width in (("float", 16), ("large", 528)):
        file = tflite_nets.convolutional(width)
        (folder / f"{name}.tflite").write_bytes(file)
        out = folder / name
        out.mkdir()
        parameters = ai_edge.AiEdgeParams()
        ai_edge.AiEdge().quantize(folder / f"{name}.tflite", tflite_nets.samples(16), parameters, out, seed=0)
        (out / "model.tflite").rename(folder / f"{name}-int8.tflite")
    package = ai_edge._by_package(file, tflite_nets.samples(16), ai_edge.AiEdgeParams(), lambda done: None)
    (folder / "outside.tflite").write_bytes(package)
    return folder


def codes(file: Path, *, reference: bool = True) -> np.ndarray:
    return tflite_nets.run(file.read_bytes(), SAMPLES, reference=reference)


def outputs(agent: Agent, runtime: str, file: Path, optimization: str = "all") -> np.ndarray:
    agent.open("m", runtime, str(file), optimization=optimization)  # type: ignore[arg-type]
    try:
        (given,) = agent.infer("m", [SAMPLES], batch=1)
        return given
    finally:
        agent.close("m")


@pytest.mark.parametrize(("optimization", "reference"), [("none", True), ("all", False)])
def test_litert_gives_real_numbers_for_codes(agent: Agent, folder: Path, optimization: str, reference: bool) -> None:
    file = folder / "float-int8.tflite"
    (port,) = tflite_file.read(file.read_bytes()).outputs
    wanted = (codes(file, reference=reference).astype(np.float64) - port.zero_points[0]) * port.scales[0]
    given = outputs(agent, "litert", file, optimization)
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, wanted, rtol=1e-6)


@pytest.mark.parametrize("name", ["float-int8", "large-int8"])
def test_tflm_is_bit_exact_with_the_reference_kernels(agent: Agent, folder: Path, name: str) -> None:
    """Also of a file whose buffers the quantizer had put behind the flatbuffer, where TFLM does not look."""
    file = folder / f"{name}.tflite"
    np.testing.assert_array_equal(outputs(agent, "tflm", file), outputs(agent, "litert", file, "none"))


def test_tflm_refuses_buffers_behind_the_flatbuffer(agent: Agent, folder: Path) -> None:
    with pytest.raises(StageError, match="lie behind the flatbuffer, where TFLM does not look"):
        agent.open("m", "tflm", str(folder / "outside.tflite"))
    inside = folder / "inside.tflite"
    inside.write_bytes(tflite.inlined((folder / "outside.tflite").read_bytes()))
    file = folder / "outside.tflite"
    given, wanted = outputs(agent, "litert", inside, "none"), outputs(agent, "litert", file, "none")
    np.testing.assert_array_equal(given, wanted)


def test_the_arena_that_tflm_reports_is_enough_and_hardly_more(folder: Path) -> None:
    """In processes of their own: an arena that is too small may end them."""
    file = folder / "float-int8.tflite"
    with local.start(limit_s=60) as agent:
        arena = int(agent.open("m", "tflm", str(file)).settings["arena_bytes"])
        memory = agent.runtime_memory("m", [SAMPLES[:1]])
        assert memory.peak_mib == pytest.approx(arena / 2**20)
    script = (
        "import sys; from tflite_micro.python.tflite_micro.runtime import Interpreter\n"
        "import numpy as np\n"
        "model = Interpreter.from_file(sys.argv[1], arena_size=int(sys.argv[2]))\n"
        "model.set_input(np.zeros((1, 8, 8, 3), np.uint8), 0); model.invoke(); print('ran')"
    )

    def runs(size: int) -> bool:
        command = [sys.executable, "-c", script, str(file), str(size)]
        return subprocess.run(command, capture_output=True, check=False, timeout=60).stdout == b"ran\n"

    assert runs(arena + 1024)  # alignment of its start
    assert not runs(arena * 9 // 10)


@pytest.mark.parametrize("runtime", ["litert", "tflm"])
def test_ports_say_what_is_fed_and_given(agent: Agent, folder: Path, runtime: str) -> None:
    opened = agent.open("m", runtime, str(folder / "float-int8.tflite"))
    try:
        assert [(port.name, port.shape, port.dtype) for port in opened.inputs] == [("image", (1, 8, 8, 3), "uint8")]
        assert [(port.name, port.shape, port.dtype) for port in opened.outputs] == [("output", (1, 4), "float32")]
    finally:
        agent.close("m")


def test_a_quantized_input_is_fed_real_numbers(agent: Agent, tmp_path: Path) -> None:
    net = tflite_nets.Net()
    given = net.tensor("x", (1, 4), "int8")
    coding = tflite_nets.schema.QuantizationParametersT()
    coding.scale, coding.zeroPoint = np.array([0.5], np.float32), np.array([3], np.int64)
    net.graph.tensors[given].quantization = coding
    out = net.tensor("y", (1, 4), "int8")
    net.graph.tensors[out].quantization = coding
    file = tmp_path / "relu.tflite"
    file.write_bytes(net.file(given, net.add(tflite_nets.OP.RELU, [given], out)))
    values = np.array([[-2.0, -0.25, 1.0, 400.0]], np.float32)
    for runtime in ("litert", "tflm"):
        (port,) = agent.open("m", runtime, str(file)).inputs
        assert port.dtype == "float32"
        np.testing.assert_array_equal(agent.infer("m", [values])[0], [[0, 0, 1, 62]])  # 62 = 0.5 * (127 - 3)
        agent.close("m")


def test_layers_of_litert_say_which_kernels(agent: Agent, folder: Path) -> None:
    for optimization, kernels in (("all", {"XNNPACK", "builtin"}), ("none", {"reference"})):
        agent.open("m", "litert", str(folder / "float-int8.tflite"), optimization=optimization)  # type: ignore[arg-type]
        layers = agent.layers("m", [SAMPLES[:1]])
        agent.close("m")
        assert {layer.exec for layer in layers} <= kernels
        assert layers[2].name == "preprocess/Add"
        assert layers[3].name == "stem.0/Conv+stem.1/Relu"
        assert {layer.precision for layer in layers} == {"u8", "i8"}
    assert [layer.op for layer in layers].count("CONV_2D") == 2


def test_most_of_a_float_model_goes_to_xnnpack(agent: Agent, folder: Path) -> None:
    agent.open("m", "litert", str(folder / "float.tflite"))
    layers = {layer.name: layer.exec for layer in agent.layers("m", [SAMPLES[:1]])}
    agent.close("m")
    assert layers["stem.0/Conv+stem.1/Relu"] == layers["output"] == "XNNPACK"
    assert layers["preprocess/Cast"] == "builtin"


def test_tflm_says_which_operator_it_lacks(agent: Agent, tmp_path: Path) -> None:
    """It has no cast from uint8 to float, and finds out when it runs."""
    file = tmp_path / "floor.tflite"
    file.write_bytes(tflite_nets.floor_of_image())
    with pytest.raises(StageError, match=r"TFLM cannot run this model: .*CAST"):
        agent.open("m", "tflm", str(file))
