"""What every runtime of the agent must do, through the real protocol in a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter_ns

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeopt.access import Agent, Limits, local
from edgeopt.agent import runtimes
from edgeopt.errors import StageError

WEIGHT = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)
BIAS = np.random.default_rng(1).standard_normal(5).astype(np.float32)
SAMPLES = np.random.default_rng(2).integers(0, 255, (11, 12), dtype=np.uint8)
SHORT = Limits(
    warmup_runs=2, warmup_seconds=0.0, min_runs=7, min_seconds=0.0, max_seconds=30.0, warmup_max_seconds=0.05
)


def expected(samples: np.ndarray) -> np.ndarray:
    return np.maximum(samples.astype(np.float32) @ WEIGHT + BIAS, 0)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Relu(Cast(x) @ W + b) as an ONNX file, with a dynamic batch."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["f", "w"], ["m"], name="mul"),
        helper.make_node("Add", ["m", "b"], ["a"], name="add"),
        helper.make_node("Relu", ["a"], ["y"], name="relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["batch", 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(BIAS, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    file = tmp_path_factory.mktemp("model") / "tiny.onnx"
    onnx.save(model, file)
    return str(file)


#: Those that open an ONNX file as it is. The others have tests of their own.
READ_ONNX = ("onnxruntime", "openvino")


@pytest.fixture(params=READ_ONNX)
def runtime(request: pytest.FixtureRequest) -> str:
    if request.param not in (versions := runtimes.versions())[0]:
        pytest.skip(versions[1][request.param])
    return request.param


@pytest.fixture
def agent() -> Iterator[Agent]:
    with local.start(limit_s=60) as started:
        yield started


def test_outputs_are_those_of_numpy(agent: Agent, runtime: str, path: str) -> None:
    opened = agent.open("m", runtime, path)
    assert [(port.name, port.shape, port.dtype) for port in opened.inputs] == [("x", (None, 12), "uint8")]
    assert [(port.name, port.shape, port.dtype) for port in opened.outputs] == [("y", (None, 5), "float32")]
    for batch in (1, 4, 11, 20):
        (outputs,) = agent.infer("m", [SAMPLES], batch=batch)
        np.testing.assert_allclose(outputs, expected(SAMPLES), rtol=1e-4, atol=1e-2, err_msg=f"batch {batch}")


def test_threads_are_those_asked_for(agent: Agent, runtime: str, path: str) -> None:
    assert agent.open("one", runtime, path, threads=1).threads == 1
    cores = agent.probe().machine.cores
    assert agent.open("all", runtime, path, threads=cores).threads == cores
    with pytest.raises(StageError, match="threads must be at least 1"):
        agent.open("none", runtime, path, threads=0)


def test_timing_has_the_same_rounds_for_all(agent: Agent, runtime: str, path: str) -> None:
    agent.open("a", runtime, path)
    agent.open("b", runtime, path)
    timing = agent.time(["a", "b"], [SAMPLES], SHORT, seed=3)
    assert {name: (len(series), series.dtype) for name, series in timing.samples_ns.items()} == {
        "a": (7, np.int64),
        "b": (7, np.int64),
    }
    assert all((series > 0).all() for series in timing.samples_ns.values())
    assert min(timing.first_inference_ns.values()) > 0


def test_the_call_of_the_runtime_is_timed_in_the_same_rounds(agent: Agent, runtime: str, path: str) -> None:
    agent.open("a", runtime, path)
    agent.open("b", runtime, path)
    timing = agent.time(["a", "b"], [SAMPLES], SHORT, seed=3)
    assert {name: len(series) for name, series in timing.call_overhead_ns.items()} == {runtime: 7}
    assert (timing.call_overhead_ns[runtime] > 0).all()
    assert agent.time(["a"], [SAMPLES], SHORT, seed=3, call_overhead=False).call_overhead_ns == {}


def test_timing_tells_how_it_went(agent: Agent, runtime: str, path: str) -> None:
    agent.open("m", runtime, path)
    short = agent.time(["m"], [SAMPLES], SHORT, seed=0)
    assert not short.warmup.steady  # three windows take longer than it was given
    assert short.warmup.unsteady == ("m",)
    assert short.warmup.rounds >= 2
    assert "warming up: m" in short.disturbances[0]
    assert short.clock.step_ns >= short.clock.resolution_ns >= 1
    assert 0 < short.after.at_s - short.before.at_s < short.seconds
    assert short.after.own_s > short.before.own_s
    longer = agent.time(["m"], [SAMPLES], replace(SHORT, warmup_max_seconds=10.0), seed=0)
    assert 0.3 <= longer.warmup.seconds <= 11
    assert longer.warmup.steady is not bool(longer.warmup.unsteady)


def test_a_runtime_with_a_clock_of_its_own_reads_it_within_the_call(agent: Agent, runtime: str, path: str) -> None:
    own = runtimes.own_clock(runtime)
    agent.open("m", runtime, path)
    clock = agent.time(["m"], [SAMPLES], SHORT, seed=0).clock.name
    assert (f"{runtime}: {own}" in clock) if own else (runtime not in clock)
    model = runtimes.load(runtime).open(path, runtimes.Options(threads=1))
    try:
        model.load([np.repeat(SAMPLES, 4096, axis=0)])
        start = perf_counter_ns()
        took_ns = model.run()
        around_ns = perf_counter_ns() - start
    finally:
        model.close()
    assert (took_ns is None) if own is None else (around_ns / 100 < took_ns < around_ns)  # ns, and not µs or ms


@pytest.mark.parametrize("streams", [1, 2])
def test_throughput_counts_samples_in_windows(agent: Agent, runtime: str, path: str, streams: int) -> None:
    if streams > agent.probe().machine.cores:
        pytest.skip("this machine has too few cores")
    opened = agent.open("m", runtime, path, streams=streams)
    assert (opened.threads, opened.settings["streams"]) == (1, streams)
    agent.open("n", runtime, path, streams=streams)
    limits = replace(SHORT, warmup_runs=1, min_runs=3)
    found = agent.throughput(["m", "n"], [SAMPLES], limits, seed=0, batch=4, window_seconds=0.02)
    for name in ("m", "n"):
        assert found.counts[name].shape == found.window_ns[name].shape == (3,)
        assert (found.counts[name] % 4 == 0).all()
        assert found.counts[name].sum() == 4 * len(found.latency_ns[name])
        assert (found.window_ns[name] >= 0.02e9).all()
        np.testing.assert_allclose(
            found.samples_per_s(name), found.counts[name] * 1e9 / found.window_ns[name], rtol=1e-12
        )
        # what the streams did fits into the windows, and fills all of them but the last inferences
        assert found.latency_ns[name].sum() <= streams * found.window_ns[name].sum()
    (outputs,) = agent.infer("m", [SAMPLES], batch=4)
    np.testing.assert_allclose(outputs, expected(SAMPLES), rtol=1e-4, atol=1e-2)


def test_streams_that_do_not_exist_are_refused(agent: Agent, runtime: str, path: str) -> None:
    with pytest.raises(StageError, match="streams must be at least 1, not 0"):
        agent.open("m", runtime, path, streams=0)


def test_the_runtimes_own_memory_figure_or_why_there_is_none(agent: Agent, runtime: str, path: str) -> None:
    agent.open("m", runtime, path)
    found = agent.runtime_memory("m", [SAMPLES[:8]])
    assert found.what
    if runtime == "onnxruntime":
        assert found.peak_mib is not None
        assert found.peak_mib >= 8 * 5 * 4 / 2**20  # at least the output of this batch
    else:
        assert found.peak_mib is None


def test_energy_is_measured_or_the_reason_is_given(agent: Agent, runtime: str, path: str) -> None:
    asked = agent.energy((), (), seed=0)
    agent.open("m", runtime, path)
    found = agent.energy(["m"], [SAMPLES], seed=0, windows=2, window_seconds=0.05)
    if found.why:
        assert "RAPL" in found.why
        assert found == asked
        assert found.mj == {}
    else:
        assert found.scope == asked.scope
        assert found.mj["m"].shape == (2,)
        assert (found.mj["m"] > 0).all()


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this system does not tell who waits for a CPU")
def test_a_neighbour_on_the_same_cpu_is_seen(runtime: str, path: str) -> None:
    cpu = min(os.sched_getaffinity(0))
    burn = f"import os; os.sched_setaffinity(0, {{{cpu}}})\nprint(flush=True)\nwhile True: pass"
    limits = replace(SHORT, min_seconds=1.5)
    with (
        local.start(cpus=(cpu,), limit_s=60) as agent,
        subprocess.Popen([sys.executable, "-c", burn], stdout=subprocess.PIPE) as neighbour,
    ):
        try:
            assert neighbour.stdout
            neighbour.stdout.readline()
            agent.open("m", runtime, path)
            timing = agent.time(["m"], [SAMPLES], limits, seed=0)
        finally:
            neighbour.kill()
    assert any("waited for a CPU" in sentence for sentence in timing.disturbances), timing


def test_timing_after_another_batch_size(agent: Agent, runtime: str, path: str) -> None:
    agent.open("m", runtime, path)
    agent.infer("m", [SAMPLES], batch=4)
    assert len(agent.time(["m"], [SAMPLES], SHORT, seed=0).samples_ns["m"]) == 7
    (outputs,) = agent.infer("m", [SAMPLES[:3]], batch=3)
    np.testing.assert_allclose(outputs, expected(SAMPLES[:3]), rtol=1e-4, atol=1e-2)


def test_layers_cover_the_computation(agent: Agent, runtime: str, path: str) -> None:
    agent.open("m", runtime, path)
    layers = agent.layers("m", [SAMPLES[:1]])
    assert len({layer.name for layer in layers}) == len(layers)
    assert any(layer.time_us is not None for layer in layers)
    for layer in layers:
        assert layer.op
        assert layer.device == "CPU"
        assert layer.precision
        assert layer.exec
    # Runtimes rename (OpenVINO calls a node after its output), but each operation is found under one of its names.
    covered = {name for layer in layers for name in layer.source}
    assert covered & {"mul", "m", "add", "a"}  # one kernel computes both
    assert covered & {"relu", "y"}


def test_optimization_can_be_turned_off_or_is_refused(agent: Agent, runtime: str, path: str) -> None:
    if runtime == "openvino":
        with pytest.raises(StageError, match="openvino cannot run a model without its graph optimisations"):
            agent.open("plain", runtime, path, optimization="none")
        return
    agent.open("plain", runtime, path, optimization="none")
    np.testing.assert_allclose(agent.infer("plain", [SAMPLES])[0], expected(SAMPLES), rtol=1e-4, atol=1e-2)
    assert {"Cast", "MatMul", "Add", "Relu"} <= {layer.op for layer in agent.layers("plain", [SAMPLES[:1]])}


def test_wrong_inputs_are_refused_and_the_agent_goes_on(agent: Agent, runtime: str, path: str) -> None:
    agent.open("m", runtime, path)
    with pytest.raises(StageError, match=r"input x wants uint8 \(\?, 12\), got float32 \(1, 12\)"):
        agent.infer("m", [SAMPLES.astype(np.float32)])
    with pytest.raises(StageError, match=r"got uint8 \(1, 11\)"):
        agent.infer("m", [SAMPLES[:, 1:]])
    with pytest.raises(StageError, match="1 inputs, 2 are given"):
        agent.infer("m", [SAMPLES, SAMPLES])
    assert agent.infer("m", [SAMPLES])[0].shape == (11, 5)


@pytest.mark.parametrize("content", [b"", b"no model at all", None], ids=["empty", "text", "missing"])
def test_a_broken_file_is_an_error_with_the_runtimes_message(
    agent: Agent, runtime: str, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "broken.onnx"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StageError) as caught:
        agent.open("m", runtime, str(file))
    assert "open: " in str(caught.value)
    assert len(str(caught.value)) > 60
    assert agent.memory().current_mib  # it goes on


def test_a_killed_agent_is_named(agent: Agent, runtime: str, path: str) -> None:
    agent.open("m", runtime, path)
    os.kill(agent.probe().pid, signal.SIGKILL)
    with pytest.raises(StageError, match=r"local agent .*died during 'infer'(.|\n)*SIGKILL"):
        agent.infer("m", [SAMPLES])


def test_an_agent_killed_while_it_times_is_named(agent: Agent, runtime: str, path: str) -> None:
    agent.open("m", runtime, path)
    pid = agent.probe().pid

    def kill(_: object) -> None:
        os.kill(pid, signal.SIGKILL)

    endless = replace(SHORT, min_seconds=60.0, max_seconds=60.0)
    with pytest.raises(StageError, match=r"local agent .*died during 'time'(.|\n)*SIGKILL"):
        agent.time(["m"], [SAMPLES], endless, seed=0, progress=kill)


def test_a_chatty_process_does_not_corrupt_the_stream(runtime: str, path: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, threading, time\n"
        "print('welcome')\n"
        "def chat():\n"
        "    while True:\n"
        "        print('noise', flush=True)\n"
        "        os.write(1, b'raw noise\\n')\n"
        "        time.sleep(0.001)\n"
        "threading.Thread(target=chat, daemon=True).start()\n"
    )
    with local.start(env={"PYTHONPATH": str(tmp_path)}, limit_s=60) as agent:
        agent.open("m", runtime, path)
        np.testing.assert_allclose(agent.infer("m", [SAMPLES])[0], expected(SAMPLES), rtol=1e-4, atol=1e-2)


def test_closing_frees_the_name(agent: Agent, runtime: str, path: str) -> None:
    agent.open("m", runtime, path)
    with pytest.raises(StageError, match="open already"):
        agent.open("m", runtime, path)
    agent.close("m")
    with pytest.raises(StageError, match="no model named 'm' is open; open: none"):
        agent.infer("m", [SAMPLES])
    agent.open("m", runtime, path)
