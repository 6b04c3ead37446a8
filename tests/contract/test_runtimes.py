"""What every runtime of the agent must do, through the real protocol in a real process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

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
SHORT = Limits(warmup_runs=2, warmup_seconds=0.0, min_runs=7, min_seconds=0.0, max_seconds=30.0)


def expected(samples: np.ndarray) -> np.ndarray:
    return np.maximum(samples.astype(np.float32) @ WEIGHT + BIAS, 0)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Relu(Cast(x) @ W + b) as an ONNX file, with a dynamic batch; every runtime here reads ONNX."""
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


@pytest.fixture(params=runtimes.names())
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
