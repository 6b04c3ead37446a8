"""TensorRT's Python package on a GPU, with stand-ins of the package and of the driver: not run by us on a GPU."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeopt.agent import AgentError, cuda, gpu
from edgeopt.agent.blocks import Timed
from edgeopt.agent.engine_file import EngineFile, plan_version
from edgeopt.agent.runtimes import Layer, Options, Port, tensorrt
from edgeopt.agent.server import Server
from tests.fakes.cuda import Driver
from tests.fakes.cuda import tensorrt as fake_tensorrt

SHAPE = (2, 3)
X, Y = Port("x", SHAPE, "float32"), Port("y", SHAPE, "float32")
INPUT = np.arange(6, dtype=np.float32).reshape(SHAPE)


def plan(folder: Path, version: tuple[int, int, int] = (10, 13, 0), tag: bytes = b"ftrt", body: bytes = b"") -> Path:
    file = folder / "model.engine"
    file.write_bytes(tag + bytes(20) + bytes((*version, 35)) + body)
    EngineFile("10.13.0", "sm_87", "Orin", "python", "strong", True, None, (X,), (Y,)).write(file)
    return file


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    found = Driver()
    monkeypatch.setattr(cuda, "primary", lambda: cuda.Cuda(found))
    monkeypatch.setattr(gpu, "first", lambda: gpu.Gpu("Fake GPU", "sm_87"))
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(found, SHAPE))
    return found


@pytest.mark.parametrize("graphs", [True, False])
def test_an_engine_runs_with_a_graph_or_without(driver: Driver, tmp_path: Path, graphs: bool) -> None:
    driver.graphs = graphs
    model = tensorrt.open(str(plan(tmp_path)), Options())
    assert not isinstance(model, Timed)  # the agent times it, in rounds
    assert model.settings["conditions"] == {
        "transfers": False,
        "cuda_graph": graphs,
        "others": ["spin wait", "strongly typed"],
    }
    for scale in (1, 3):
        model.load([INPUT * scale])
        driver.calls.clear()
        model.run()
        assert driver.calls == (["cuGraphLaunch", "cuStreamSynchronize"] if graphs else ["cuStreamSynchronize"])
        np.testing.assert_array_equal(model.fetch()[0], 2 * scale * INPUT + 1)
    with pytest.raises(AgentError, match=r"input x wants float32 \(2, 3\)"):
        model.load([INPUT[:1]])
    assert model.memory([INPUT]).peak_mib == 3.0
    assert model.layers([INPUT]) == [Layer("double + add", "kgen", ("double", "add"), "f32", "GPU", "kgen", 250.0)]
    model.close()
    assert driver.memory == {}


def test_layers_beside_a_dla_core_have_the_builders_reason(driver: Driver, tmp_path: Path) -> None:
    file = plan(tmp_path)
    why = {"double": "DLA cores do not support it"}
    EngineFile("10.13.0", "sm_87", "Orin", "python", "weak", True, 0, (X,), (Y,), why).write(file)
    (layer,) = tensorrt.open(str(file), Options()).layers([INPUT])
    assert (layer.device, layer.why) == ("GPU", "DLA cores do not support it")


def test_streams_have_buffers_of_their_own(driver: Driver, tmp_path: Path) -> None:
    model = tensorrt.open(str(plan(tmp_path)), Options(streams=2))
    first, second = model.lanes
    first.load([INPUT])
    second.load([INPUT + 5])
    first.run()
    second.run()
    np.testing.assert_array_equal(first.fetch()[0], 2 * INPUT + 1)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(second.fetch()[0], 2 * INPUT + 11)  # type: ignore[attr-defined]


def test_the_version_is_the_packages(driver: Driver) -> None:
    assert tensorrt.version() == "10.13.0"


@pytest.mark.parametrize(
    ("version", "tag", "why"),
    [
        ((10, 3, 0), b"ftrt", r"built by TensorRT 10\.3\.0, this device has 10\.13\.0"),
        ((10, 13, 0), b"vtrt", r"built by TensorRT-RTX 10\.13\.0, which TensorRT 10\.13\.0 cannot run"),
        ((10, 13, 0), b"junk", r"model\.engine is no TensorRT engine"),
    ],
)
def test_a_plan_of_another_version_is_not_deserialised(version, tag, why, driver: Driver, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match=why):
        tensorrt.open(str(plan(tmp_path, version, tag)), Options())
    assert driver.calls == []


def test_a_plan_of_another_gpu_is_not_deserialised(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "first", lambda: gpu.Gpu("NVIDIA L4", "sm_89"))
    with pytest.raises(AgentError, match=r"built for sm_87 \(Orin\), this device is sm_89"):
        tensorrt.open(str(plan(tmp_path)), Options())
    assert driver.calls == []


def test_what_tensorrt_says_is_told_without_the_line_that_misleads(driver: Driver, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match=r"refuses model\.engine: magic tag does not match$"):
        tensorrt.open(str(plan(tmp_path, body=b"broken")), Options())


def test_ports_that_are_not_those_beside_it(driver: Driver, tmp_path: Path) -> None:
    file = plan(tmp_path)
    EngineFile("10.13.0", "sm_87", "Orin", "python", "strong", True, None, (X,), (Port("z", SHAPE, "f4"),)).write(file)
    with pytest.raises(AgentError, match="the engine has the tensors x, y"):
        tensorrt.open(str(file), Options())
    EngineFile("10.13.0", "sm_87", "Orin", "python", "strong", True, None, (Port("x", (1, 3), "f4"),), (Y,)).write(file)
    with pytest.raises(AgentError, match=r"x of the engine has the shape \(2, 3\), and not \(1, 3\)"):
        tensorrt.open(str(file), Options())


def test_an_engine_has_no_plain_meaning(driver: Driver, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="no optimization 'none'"):
        tensorrt.open(str(plan(tmp_path)), Options(optimization="none"))


def test_it_is_timed_in_rounds_without_what_its_call_costs(driver: Driver, tmp_path: Path) -> None:
    server = Server(io.BytesIO(), io.BytesIO())
    file = str(plan(tmp_path))
    for name in ("a", "b"):
        server._open({"name": name, "runtime": "tensorrt", "path": file}, ())
    limits = {"warmup_runs": 1, "warmup_seconds": 0, "min_runs": 5, "min_seconds": 0, "max_seconds": 9.0}
    asked = {"names": ["a", "b"], "limits": limits, "seed": 0, "batch": 2, "call_overhead": True}
    reply, series = server._time(asked, [INPUT])
    assert reply["call_overhead"] == []
    assert [len(one) for one in series] == [5, 5]
    assert min(reply["first_inference_ns"].values()) > 0


def test_the_gpu_is_named_by_its_driver() -> None:
    assert str(gpu.first(Driver(capability=(8, 9)))) == "Fake GPU (sm_89)"


def test_a_driver_that_fails_is_told() -> None:
    driver = Driver()
    driver.cuMemAlloc_v2 = lambda address, size: 2  # type: ignore[method-assign]
    with pytest.raises(AgentError, match="cuMemAlloc_v2 failed with CUDA error 2"):
        cuda.Cuda(driver).allocate(8)


def test_plans_too_short_or_of_an_unknown_format(tmp_path: Path) -> None:
    file = tmp_path / "m.engine"
    file.write_bytes(b"ftrt")
    with pytest.raises(AgentError, match="no TensorRT engine"):
        plan_version(file)
    file.write_bytes(b"ftrt\x01\x00\x00\x00" + bytes(40))
    with pytest.raises(AgentError, match="a format that edgeopt does not know"):
        plan_version(file)
