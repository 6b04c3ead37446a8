"""TensorRT through the real agent, with a synthetic ``trtexec`` of each version in place of the device's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeopt.access import Agent, Built, Limits, local
from edgeopt.agent.toolchains import tensorrt
from edgeopt.errors import StageError
from tests import fakes

WEIGHT = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
INPUT, OUTPUT = (
    {"name": "x", "shape": [2, 3, 8, 8], "dtype": "float32"},
    {"name": "y", "shape": [2, 4, 8, 8], "dtype": "float32"},
)
OPTIONS: dict[str, Any] = {
    "kind": "float", "arch": "sm_87", "tool": "auto", "typing": "auto", "workspace_mib": 256, "tf32": True,
    "optimization_level": 2, "dla_core": None, "gpu_fallback": True, "inputs": [INPUT], "outputs": [OUTPUT],
}  # fmt: skip
SAMPLES = np.random.default_rng(1).standard_normal((5, 3, 8, 8)).astype(np.float32)
SHORT = Limits(warmup_runs=2, warmup_seconds=0.0, min_runs=30, min_seconds=0.0, max_seconds=30.0)


def model(first: str = "conv 1", name: str = "x") -> bytes:
    nodes = [
        helper.make_node("Conv", [name, "w"], ["c"], name=first, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu1"),
        helper.make_node("Mul", ["r", "two"], ["y"], name="double"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, INPUT["shape"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, OUTPUT["shape"])],
        [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(np.array([2.0], np.float32), "two")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a synthetic ``trtexec`` of a version on the PATH of the agents that are started from then on."""

    def install(version: tuple[int, int, int], **behaviour: Any) -> None:
        folder = tmp_path / f"bin{version[0]}"
        fakes.install_trtexec(folder, version, **behaviour)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    return install


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    file = tmp_path / "small.onnx"
    file.write_bytes(model())
    return file


@pytest.fixture
def agents() -> Iterator[Callable[[], Agent]]:
    started: list[Agent] = []

    def start() -> Agent:
        started.append(local.start(limit_s=60))
        return started[-1]

    yield start
    for agent in started:
        agent.stop()


def build(agent: Agent, file: Path, **options: Any) -> Built:
    return agent.build("tensorrt", {"model.onnx": file}, {**OPTIONS, **options}, limit_s=60)


def kept(built: Built, folder: Path) -> str:
    """Writes what was built into a folder; returns the engine's path."""
    for name, content in built.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return str(folder / "model.engine")


def asked(built: Built) -> list[str]:
    """Flags that the tool was given, from the first line of its log."""
    first = built.files["aside/build.log"].decode().splitlines()[0]
    return [word.partition("=")[0] for word in first.split() if word.startswith("--")]


@pytest.mark.parametrize("version", fakes.TRTEXEC_VERSIONS)
def test_built_run_and_timed(version, device, agents, onnx_file: Path, tmp_path: Path) -> None:
    device(version)
    agent = agents()
    built = build(agent, onnx_file)
    written = ".".join(map(str, version))
    assert built.facts["tensorrt"] == written
    assert (built.facts["arch"], built.facts["gpu"], built.facts["tool"]) == ("sm_87", "Orin", "trtexec")
    assert built.facts["weights_bytes"] == 131072
    always = {"--onnx", "--saveEngine", "--profilingVerbosity", "--exportTimes", "--exportProfile", "--exportLayerInfo"}
    assert always | {"--timingCacheFile", "--memPoolSize", "--percentile", "--warmUp", "--duration"} <= set(
        asked(built)
    )
    assert set(built.files) >= {
        "model.engine",
        "model.json",
        "aside/build.log",
        "aside/layers.json",
        "aside/timing.cache",
    }
    layers = [(layer.name, layer.source, layer.precision, layer.device, layer.time_us) for layer in built.layers]
    assert layers == [
        ("conv 1 + relu1", ("conv 1", "relu1"), "f32", "GPU", 100.0),
        ("double", ("double",), "f32", "GPU", 200.0),
    ]

    path = kept(built, tmp_path / "engine")
    opened = agent.open("m", "tensorrt", path)
    assert opened.load_ms is None
    assert opened.settings["tool"] == f"trtexec {written}"
    typed = "strongly typed" if version[0] == 11 else "weakly typed"
    assert opened.settings["conditions"] == {"transfers": False, "cuda_graph": True, "others": ["spin wait", typed]}
    assert agent.probe().runtimes["tensorrt"] == f"{written} (trtexec)"

    (outputs,) = agent.infer("m", [SAMPLES], batch=2)
    reference = ReferenceEvaluator(onnx.load_from_string(model())).run(None, {"x": SAMPLES})[0]
    np.testing.assert_allclose(outputs, reference, rtol=1e-5, atol=1e-5)

    agent.open("again", "tensorrt", path)
    timing = agent.time(["m", "again"], [SAMPLES], SHORT, seed=1, batch=2)
    assert {name: len(series) for name, series in timing.samples_ns.items()} == {"m": 100, "again": 100}
    assert timing.clock.name == "GPU events, by trtexec"
    assert timing.first_inference_ns == {"m": None, "again": None}
    assert timing.call_overhead_ns == {}
    assert 1.5e6 <= timing.samples_ns["m"].min() < 1.6e6  # without copies, whatever the version's default is
    assert agent.memory().peak_mib is None
    assert [layer.name for layer in agent.layers("m", [SAMPLES[:2]])] == ["conv 1 + relu1", "double"]


def test_the_timing_cache_is_kept_for_the_next_build(device, agents, onnx_file: Path, tmp_path: Path) -> None:
    device((10, 3, 0))
    agent = agents()
    assert b"Could not read timing cache" in build(agent, onnx_file).files["aside/build.log"]
    assert b"Loaded timing cache" in build(agent, onnx_file).files["aside/build.log"]
    assert (tmp_path / "cache/edgeopt/tensorrt-10.3.0.timing").is_file()


@pytest.mark.parametrize(
    ("version", "kind", "typing", "flags"),
    [
        ((8, 6, 1), "int8", "auto", {"--int8", "--fp16"}),
        ((10, 3, 0), "int8", "auto", {"--int8", "--fp16"}),
        ((10, 3, 0), "fp16", "auto", {"--fp16"}),
        ((10, 3, 0), "int8", "strong", {"--stronglyTyped"}),
        ((11, 1, 0), "int8", "auto", set()),
    ],
)
def test_typing_by_version(version, kind, typing, flags, device, agents, onnx_file: Path) -> None:
    device(version)
    built = build(agents(), onnx_file, kind=kind, typing=typing)
    assert set(asked(built)) & {"--int8", "--fp16", "--stronglyTyped"} == flags
    assert built.facts["typing"] == ("strong" if not flags or "--stronglyTyped" in flags else "weak")


def test_names_that_would_break_json_or_a_shell(device, agents, tmp_path: Path) -> None:
    device((10, 3, 0))
    odd = 'conv "1" \\ $(touch /tmp/edgeopt-hit); rm'
    file = tmp_path / "odd name; $(x).onnx"
    file.write_bytes(model(odd))
    layer = build(agents(), file).layers[0]
    assert layer.source == (odd, "relu1")
    assert layer.time_us == 100.0
    assert not Path("/tmp/edgeopt-hit").exists()


def test_inputs_whose_names_have_colons(device, agents, tmp_path: Path) -> None:
    device((10, 3, 0))
    file = tmp_path / "colon.onnx"
    file.write_bytes(model(name="image:0"))
    agent = agents()
    agent.open("m", "tensorrt", kept(build(agent, file, inputs=[{**INPUT, "name": "image:0"}]), tmp_path / "e"))
    assert agent.infer("m", [SAMPLES], batch=2)[0].shape == (5, 4, 8, 8)


def test_a_dla_core_and_what_falls_back(device, agents, onnx_file: Path) -> None:
    device((10, 3, 0), not_on_dla=["double"])
    built = build(agents(), onnx_file, kind="fp16", dla_core=0)
    assert {"--useDLACore", "--allowGPUFallback", "--fp16"} <= set(asked(built))
    assert [(layer.device, layer.source, layer.why) for layer in built.layers] == [
        ("DLA", ("conv 1", "relu1"), ""),
        ("GPU", ("double",), "DLA cores do not support Mul operation"),
    ]
    refused = build(agents(), onnx_file, kind="fp16", dla_core=0, gpu_fallback=False)
    assert "double is unsupported on DLA and GPU fallback is not enabled" in refused.facts["failed"]
    device((11, 1, 0))
    with pytest.raises(StageError, match=r"TensorRT 11\.1\.0 supports no DLA core"):
        build(agents(), onnx_file, kind="fp16", dla_core=0)


def test_a_failure_has_the_last_lines_and_the_whole_log(device, agents, onnx_file: Path) -> None:
    lines = [f"[TRT] Error Code {number}" for number in range(40)]
    device((10, 3, 0), fails=lines)
    built = build(agents(), onnx_file)
    assert "trtexec 10.3.0 failed with status 1; it last said:" in built.facts["failed"]
    assert "Engine could not be created from network" in built.facts["failed"]
    assert lines[0] not in built.facts["failed"]
    assert all(line in built.files["aside/build.log"].decode() for line in lines)
    assert "model.engine" not in built.files


@pytest.mark.parametrize("name", ["layers.json", "profile.json"])
def test_truncated_json_names_the_file_and_the_place(name: str, device, agents, onnx_file: Path) -> None:
    device((10, 3, 0), cuts=[name])
    with pytest.raises(StageError, match=rf"{name}:\d+:\d+: cut off"):
        build(agents(), onnx_file)


def test_a_graph_that_cannot_be_captured_is_stamped(device, agents, onnx_file: Path, tmp_path: Path) -> None:
    device((11, 1, 0), no_graph=True)
    agent = agents()
    built = build(agent, onnx_file)
    assert built.facts["cuda_graph"] is False
    opened = agent.open("m", "tensorrt", kept(built, tmp_path / "e"))
    assert opened.settings["conditions"]["cuda_graph"] is False
    assert len(agent.time(["m"], [SAMPLES], SHORT, seed=0, batch=2).samples_ns["m"]) == 100


@pytest.mark.parametrize("version", fakes.TRTEXEC_VERSIONS)
def test_a_graph_that_is_ignored_when_it_is_timed_is_refused(
    version, device, agents, onnx_file: Path, tmp_path: Path
) -> None:
    device(version)
    path = kept(build(agents(), onnx_file), tmp_path / "e")
    device(version, no_graph=True)
    agent = agents()
    agent.open("m", "tensorrt", path)
    with pytest.raises(StageError, match="without the CUDA graph that could be captured when it was built"):
        agent.time(["m"], [SAMPLES], SHORT, seed=0, batch=2)


@pytest.mark.parametrize("name", ["a,b", "a:b", "a'b"])
def test_a_folder_that_trtexec_would_split_is_refused(
    name: str, device, agents, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device((10, 3, 0))
    path = kept(build(agents(), onnx_file), tmp_path / "e")
    (tmp_path / name).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / name))
    with pytest.raises(StageError, match="trtexec cannot be given files in") as caught:
        agents().open("m", "tensorrt", path)
    assert "set TMPDIR on the device" in str(caught.value)


def test_a_timing_cache_that_cannot_be_kept_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, cache = tmp_path / "made", tmp_path / "cache" / "timing"
    made.write_bytes(b"timings")

    def full(path: Path, content: bytes) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    said: list[str] = []
    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(tensorrt, "report", said.append)
    tensorrt._keep(made, cache)
    assert list(cache.parent.iterdir()) == []
    assert "No space left on device" in said[0]


def test_the_device_is_not_the_one_that_the_target_says(device, agents, onnx_file: Path) -> None:
    device((10, 3, 0), gpu="NVIDIA GeForce RTX 4090", capability="8.9")
    with pytest.raises(StageError, match="the target says that the GPU is sm_87, the device says sm_89"):
        build(agents(), onnx_file)


def test_an_engine_of_another_version_is_refused_before_it_is_loaded(
    device, agents, onnx_file: Path, tmp_path: Path
) -> None:
    device((8, 6, 1))
    path = kept(build(agents(), onnx_file), tmp_path / "e")
    device((10, 3, 0))
    with pytest.raises(StageError, match=r"built by TensorRT 8\.6\.1, this device has 10\.3\.0"):
        agents().open("m", "tensorrt", path)


def test_an_engine_without_what_belongs_beside_it(device, agents, onnx_file: Path, tmp_path: Path) -> None:
    device((10, 3, 0))
    agent = agents()
    path = kept(build(agent, onnx_file), tmp_path / "e")
    beside = Path(path).with_suffix(".json")
    text = beside.read_text()
    for wrong, why in ((text[:40], "model.json is damaged"), (json.dumps({"a": 1}), "model.json is damaged")):
        beside.write_text(wrong)
        with pytest.raises(StageError, match=why):
            agent.open("m", "tensorrt", path)
    beside.unlink()
    with pytest.raises(StageError, match=r"model\.json is not beside model\.engine"):
        agent.open("m", "tensorrt", path)
    beside.write_text(text)
    Path(path).write_bytes(b"\x08\x07 an ONNX file, say, of more than 28 bytes")
    with pytest.raises(StageError, match=r"model\.engine is no TensorRT engine"):
        agent.open("m", "tensorrt", path)


def test_without_tensorrt_the_device_says_what_is_missing(
    agents, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    agent = agents()
    with pytest.raises(StageError, match=r"no TensorRT that can be used: .*there is no trtexec on the PATH"):
        build(agent, onnx_file)
    assert "there is no trtexec" in agent.probe().missing["tensorrt"]


def test_energy_of_a_timed_series(device, agents, onnx_file: Path, tmp_path: Path) -> None:
    """Power times the time from the first warm-up run to the last run, over all of these runs."""
    device((10, 3, 0), sleep=0.5, runs_per_s=50)
    fakes.install_jetson(tmp_path / "bin10", "RAM 1/2MB VDD_IN 4000mW/1mW VDD_SOC 9mW/9mW")
    agent = agents()
    agent.open("m", "tensorrt", kept(build(agent, onnx_file), tmp_path / "e"))
    found = agent.energy(["m"], [SAMPLES], seed=0, batch=2, windows=2, rails=["VDD_IN"])
    assert (found.why, found.scope) == ("", "VDD_IN")
    runs = 50 + 333  # timed ones, and 500 ms of warm-up in runs of 1.5 ms
    assert (found.mj["m"] > 0.5 * 4000 / runs).all()
    assert (found.mj["m"] < 3 * 0.5 * 4000 / runs).all()
    assert "names no power rails" in agent.energy(["m"], [SAMPLES], seed=0, batch=2, windows=1).why


def test_models_that_are_timed_in_two_ways_are_not_compared(device, agents, onnx_file: Path, tmp_path: Path) -> None:
    device((10, 3, 0))
    agent = agents()
    agent.open("engine", "tensorrt", kept(build(agent, onnx_file), tmp_path / "e"))
    agent.open("onnx", "onnxruntime", str(onnx_file))
    with pytest.raises(StageError, match="engine are timed by their tool and onnx by the agent"):
        agent.time(["engine", "onnx"], [SAMPLES], SHORT, seed=0, batch=2)


def test_what_a_tool_that_starts_anew_cannot_give(device, agents, onnx_file: Path, tmp_path: Path) -> None:
    device((10, 3, 0))
    agent = agents()
    path = kept(build(agent, onnx_file), tmp_path / "e")
    with pytest.raises(StageError, match="several streams need TensorRT's Python package"):
        agent.open("two", "tensorrt", path, streams=2)
    agent.open("m", "tensorrt", path)
    with pytest.raises(StageError, match="gives no throughput"):
        agent.throughput(["m"], [SAMPLES], SHORT, seed=0, batch=2)
    assert agent.runtime_memory("m", [SAMPLES[:2]]).peak_mib is None
