"""TensorRT on a real NVIDIA GPU: built, run, timed and taken apart, with whatever the device has of it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeopt.access import Limits, local
from edgeopt.agent import gpu, trtexec
from edgeopt.agent.runtimes import versions

pytestmark = pytest.mark.hardware

SHAPE = [4, 3, 32, 32]


def network() -> Any:
    weight = np.random.default_rng(0).standard_normal((16, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"], name="relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 16, 32, 32])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("tool", ["python", "trtexec"])
def test_a_network_on_the_gpu(tool: str, tmp_path: Path) -> None:
    if gpu.first() is None:
        pytest.skip("there is no NVIDIA GPU here")
    if "tensorrt" not in versions()[0]:
        pytest.skip(versions()[1]["tensorrt"])
    try:
        importlib.import_module("tensorrt") if tool == "python" else trtexec.find()
    except ImportError as error:
        pytest.skip(str(error))
    file, model = tmp_path / "model.onnx", network()
    onnx.save(model, file)
    options = {
        "kind": "float", "arch": "", "tool": tool, "typing": "auto", "workspace_mib": None, "tf32": False,
        "optimization_level": None, "dla_core": None, "gpu_fallback": True,
        "inputs": [{"name": "x", "shape": SHAPE, "dtype": "float32"}],
        "outputs": [{"name": "y", "shape": [4, 16, 32, 32], "dtype": "float32"}],
    }  # fmt: skip
    samples = np.random.default_rng(1).standard_normal((8, 3, 32, 32)).astype(np.float32)
    short = Limits(warmup_runs=5, warmup_seconds=0.1, min_runs=100, min_seconds=0.5, max_seconds=20.0)
    with local.start(limit_s=600) as agent:
        built = agent.build("tensorrt", {"model.onnx": file}, options, limit_s=600)
        assert "failed" not in built.facts, built.facts["failed"]
        for name, content in built.files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(content)
        opened = agent.open("m", "tensorrt", str(tmp_path / "model.engine"))
        assert opened.settings["conditions"]["transfers"] is False
        (outputs,) = agent.infer("m", [samples], batch=4)
        expected = np.concatenate(
            [ReferenceEvaluator(model).run(None, {"x": part})[0] for part in np.split(samples, 2)]
        )
        np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-3)
        assert (agent.time(["m"], [samples], short, seed=0, batch=4).samples_ns["m"] > 0).all()
        layers = agent.layers("m", [samples[:4]])
        assert "conv" in {node for layer in layers for node in layer.source}
        assert all(layer.device == "GPU" for layer in layers)
