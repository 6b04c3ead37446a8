"""The build in process, with the real TensorRT-RTX: its Builder and parser are called as those of TensorRT 11."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorrt_rtx
from onnx import TensorProto, helper, numpy_helper

from edgeopt.agent import AgentError, trt_build
from edgeopt.agent.engine_file import plan_version

#: TensorRT-RTX has no timing cache, and says so whenever it is given one
pytestmark = pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")

OPTIONS: dict[str, Any] = {
    "workspace_mib": 64, "optimization_level": None, "dla_core": None, "gpu_fallback": True, "tf32": False,
}  # fmt: skip


def network(folder: Path, op: str = "Conv") -> Path:
    weight = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"], name="first")],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 14, 14])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    file = folder / "model.onnx"
    file.write_bytes(model.SerializeToString())
    return file


def build(folder: Path, onnx: Path, **changes: Any) -> Any:
    arguments: dict[str, Any] = {"kind": "float", "typing": "strong", **changes}
    options = {**OPTIONS, **arguments.pop("options", {})}
    plan, cache = folder / "model.engine", folder / "timing.cache"
    return trt_build.build(tensorrt_rtx, onnx, plan, options=options, timing_cache=cache, aside=folder, **arguments)


def test_a_real_build_without_a_gpu(tmp_path: Path) -> None:
    made = build(tmp_path, network(tmp_path))
    product, version = plan_version(tmp_path / "model.engine")
    assert product == "TensorRT-RTX"
    assert tensorrt_rtx.__version__.startswith(version)
    assert made.weights_bytes is not None
    assert made.weights_bytes > 0
    assert made.layers == ()  # these are asked where the engine is opened
    log = (tmp_path / "build.log").read_text()
    assert "Total Weights Memory" in log
    assert "cudaError" not in log
    first = (tmp_path / "model.engine").read_bytes()
    build(tmp_path, tmp_path / "model.onnx")
    assert (tmp_path / "model.engine").read_bytes() == first


def test_a_model_that_is_refused_names_the_node_and_keeps_the_log(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match=r"TensorRT refuses the model:\nfirst: "):
        build(tmp_path, network(tmp_path, "NoSuchOp"))
    assert (tmp_path / "build.log").is_file()
    assert not (tmp_path / "model.engine").exists()


def test_what_this_version_cannot_do_is_said(tmp_path: Path) -> None:
    onnx = network(tmp_path)
    with pytest.raises(AgentError, match="has no builder flag INT8"):
        build(tmp_path, onnx, kind="int8", typing="weak")
    damaged = tmp_path / "timing.cache"
    damaged.write_bytes(b"no cache at all")
    build(tmp_path, onnx)  # what is no timing cache is none
