"""Small ONNX files of a wanted length, for what times models."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def chain(path: Path, length: int, *, width: int = 256, batch: int | str = 1, scale: float = 1.0) -> Path:
    """``length`` matrix products with ``scale`` times the identity: float32 (batch, width) to the same shape."""
    names = [f"t{index}" for index in range(length + 1)]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [a, "w"], [b]) for a, b in pairwise(names)],
        "chain",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, [batch, width])],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, [batch, width])],
        [numpy_helper.from_array(scale * np.eye(width, dtype=np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path
