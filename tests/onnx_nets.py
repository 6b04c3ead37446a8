"""Small float ONNX models as ``export`` writes them: raw samples in, a dynamic batch, nodes named after modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeopt.access import Agent
from edgeopt.artifact import Artifact
from edgeopt.backends import NoOptions, Request
from edgeopt.stage import Params

PREPROCESS_NODES = ["preprocess/Transpose", "preprocess/Cast", "preprocess/Mul", "preprocess/Add"]
META = {
    "input": {"name": "image", "shape": [8, 8, 3], "dtype": "uint8"},
    "outputs": [{"name": "output", "node": "head/Gemm", "shape": [4], "dtype": "float32"}],
    "preprocess": None,
    "preprocess_nodes": PREPROCESS_NODES,
    "opset": 20,
}


def samples(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """uint8 (count, 8, 8, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def convolutional(path: Path, *, dead: bool = False, weight_scale: float = 0.3, bias_level: float = 0.1) -> Path:
    """Preprocessing, ``stem/Conv`` (3 to 16), ``depth/Conv`` (depthwise), ``point/Conv``, mean, ``head/Gemm`` (to 4).

    Args:
        path: File to write.
        dead: A bias so low that the first activation is zero everywhere.
        weight_scale: Standard deviation of the weights.
        bias_level: All biases.
    """
    random = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> Any:
        values = random.standard_normal(shape) * weight_scale
        values *= 10.0 ** random.uniform(-1, 1, (shape[0], *(1,) * (len(shape) - 1)))  # channels differ much
        return numpy_helper.from_array(values.astype(np.float32), name)

    def bias(name: str, size: int, level: float = bias_level) -> Any:
        return numpy_helper.from_array(np.full(size, level, np.float32), name)

    nodes = [
        helper.make_node("Transpose", ["image"], ["t"], name=PREPROCESS_NODES[0], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["t"], ["f"], name=PREPROCESS_NODES[1], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "factor"], ["m"], name=PREPROCESS_NODES[2]),
        helper.make_node("Add", ["m", "offset"], ["x"], name=PREPROCESS_NODES[3]),
        helper.make_node("Conv", ["x", "stem.weight", "stem.bias"], ["a"], name="stem/Conv", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="relu/Relu"),
        helper.make_node("Conv", ["b", "depth.weight", "depth.bias"], ["c"], name="depth/Conv", pads=[1] * 4, group=16),
        helper.make_node("Relu", ["c"], ["d"], name="relu/Relu#2"),
        helper.make_node("Conv", ["d", "point.weight", "point.bias"], ["e"], name="point/Conv"),
        helper.make_node("Add", ["b", "e"], ["g"], name="model/Add"),
        helper.make_node("ReduceMean", ["g", "axes"], ["h"], name="model/ReduceMean", keepdims=0),
        helper.make_node("Gemm", ["h", "head.weight", "head.bias"], ["output"], name="head/Gemm", transB=1),
    ]
    constants = [
        numpy_helper.from_array(np.float32(1 / 128), "factor"),
        numpy_helper.from_array(np.float32(-1), "offset"),
        numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
        weight("stem.weight", 16, 3, 3, 3),
        bias("stem.bias", 16, -1e6 if dead else bias_level),
        weight("depth.weight", 16, 1, 3, 3),
        bias("depth.bias", 16),
        weight("point.weight", 16, 16, 1, 1),
        bias("point.bias", 16),
        weight("head.weight", 4, 16),
        bias("head.bias", 4),
    ]
    return _write(path, nodes, constants, TensorProto.UINT8, [8, 8, 3], [4])


def without_layers(path: Path) -> Path:
    """Nothing with weights: a mean."""
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], name="preprocess/Cast", to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f", "axes"], ["output"], name="model/ReduceMean", keepdims=0),
    ]
    constants = [numpy_helper.from_array(np.array([1, 2], np.int64), "axes")]
    return _write(path, nodes, constants, TensorProto.UINT8, [8, 8, 3], [3])


def perceptron(path: Path) -> Path:
    """float32 (32,) to 4 through two MatMul, whose weights are (inputs, outputs)."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["image", "hidden.weight"], ["a"], name="hidden/MatMul"),
        helper.make_node("Relu", ["a"], ["b"], name="model/Relu"),
        helper.make_node("MatMul", ["b", "head.weight"], ["output"], name="head/MatMul"),
    ]
    constants = [
        numpy_helper.from_array(random.standard_normal((32, 64)).astype(np.float32), "hidden.weight"),
        numpy_helper.from_array(random.standard_normal((64, 4)).astype(np.float32), "head.weight"),
    ]
    return _write(path, nodes, constants, TensorProto.FLOAT, [32], [4])


def artifact(folder: Path, kind: str = "onnx") -> Artifact:
    """The files in ``folder`` as an artefact with :data:`META`."""
    return Artifact(kind, "0" * 64, folder, {}, META)


def no_agent(environment: str = "") -> Agent:
    raise AssertionError("this needs no agent")


def request(batch: int = 1, options: Params | None = None) -> Request:
    """What a backend is asked for that compiles without a device."""
    return Request(batch, 1, options or NoOptions(), 0, no_agent, no_agent)


def run(path: Path, values: npt.NDArray[Any], *, optimized: bool = False) -> npt.NDArray[np.float32]:
    """What ONNX Runtime gives, without optimisations unless told."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: values})[0])


def noise_ratio_db(wanted: npt.NDArray[Any], given: npt.NDArray[Any]) -> float:
    """Signal-to-noise ratio of ``given`` against ``wanted``."""
    return float(10 * np.log10((wanted**2).sum() / ((given - wanted) ** 2).sum()))


def _write(path: Path, nodes: list[Any], constants: list[Any], dtype: int, shape: list[int], output: list[int]) -> Path:
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info("image", dtype, ["batch", *shape])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", *output])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path
