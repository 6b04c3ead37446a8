"""Multiply-accumulates of each node of an ONNX model, counted from the shapes of its tensors.

One MAC is one multiplication with the addition that follows it; biases, activations, pooling and element-wise
arithmetic are not counted. He et al., Deep residual learning for image recognition (2016), count so, and so do most
published tables: 40.8 million for a ResNet-20 with 1x1 shortcuts on a 32x32 image. Padding counts like any other input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_Shape = tuple[int, ...]
_Shapes = Mapping[str, _Shape]


class _Unknown(Exception):
    """A shape is not known."""


def per_node(model: bytes, batch: int = 1) -> dict[str, int | None]:
    """MACs of every node of the main graph, by its name, or that of its first output if it has none.

    A node with graphs inside counts what is in them, as if each ran once. Nodes of one name count together.

    Args:
        model: A serialised ``ModelProto``. Its shapes are inferred anew.
        batch: Size of the first dimension of every input.

    Returns:
        0 for an operation without MACs; None where a shape that the count needs cannot be inferred, or for an operation
        that has MACs, or may have some, and is not counted here.
    """
    import onnx

    proto = onnx.load_from_string(model)
    constants = {tensor.name for tensor in proto.graph.initializer}
    for value in (*proto.graph.input, *proto.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.name not in constants and dims:
            dims[0].dim_value = batch
    del proto.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    return _of_graph(inferred.graph, {})


def _of_graph(graph: Any, outer: _Shapes) -> dict[str, int | None]:
    shapes: dict[str, _Shape] = {**outer, **{tensor.name: tuple(tensor.dims) for tensor in graph.initializer}}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shapes.setdefault(value.name, tuple(dim.dim_value for dim in dims))
    found: dict[str, int | None] = {}
    for node in graph.node:
        name, count = node.name or node.output[0], _of_node(node, shapes)
        before = found.get(name, 0)
        found[name] = None if before is None or count is None else before + count
    return found


def _of_node(node: Any, shapes: _Shapes) -> int | None:
    inner = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    if inner:
        counts = [count for graph in inner for count in _of_graph(graph, shapes).values()]
        return None if None in counts else sum(count or 0 for count in counts)
    if node.domain not in ("", "ai.onnx") or node.op_type in _NOT_COUNTED:
        return None
    counter = _COUNTERS.get(node.op_type)
    if counter is None:
        return 0

    def shape(name: str) -> _Shape:
        if name not in shapes:
            raise _Unknown
        return shapes[name]

    try:
        return counter(node, shape)
    except _Unknown:
        return None


_ShapeOf = Callable[[str], _Shape]


def _convolution(weight: int) -> Callable[[Any, _ShapeOf], int]:
    """Each output element sums over a window of ``C / groups`` channels; weights are (M, C / groups, k1, k2, ...)."""

    def count(node: Any, shape: _ShapeOf) -> int:
        return math.prod(shape(node.output[0])) * math.prod(shape(node.input[weight])[1:])

    return count


def _transposed_convolution(node: Any, shape: _ShapeOf) -> int:
    """Each input element is spread over a window of ``M / groups`` channels; weights are (C, M / groups, k1, ...)."""
    return math.prod(shape(node.input[0])) * math.prod(shape(node.input[1])[1:])


def _gemm(node: Any, shape: _ShapeOf) -> int:
    """(M, K) by (K, N); A is (K, M) with ``transA``."""
    rows, columns = shape(node.input[0])
    return math.prod(shape(node.output[0])) * (rows if _attribute(node, "transA", 0) else columns)


def _matmul(node: Any, shape: _ShapeOf) -> int:
    """(..., M, K) by (..., K, N)."""
    return math.prod(shape(node.output[0])) * shape(node.input[0])[-1]


def _recurrent(gates: int) -> Callable[[Any, _ShapeOf], int]:
    """Per step, sample and direction: each gate takes the input and the last hidden state to a new one."""

    def count(node: Any, shape: _ShapeOf) -> int:
        steps, samples, size = shape(node.input[0])
        if _attribute(node, "layout", 0):
            steps, samples = samples, steps
        directions, _, hidden = shape(node.input[2])  # R is (directions, gates * hidden, hidden)
        return steps * samples * directions * gates * hidden * (size + hidden)

    return count


def _einsum(node: Any, shape: _ShapeOf) -> int:
    """Of two operands: the product of the sizes of all indices. Of one, which only sums or moves: none."""
    equation = _attribute(node, "equation", b"").decode().replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    if len(terms) == 1:
        return 0
    if len(terms) > 2 or "." in equation:
        raise _Unknown  # the order of the products decides, or the indices have no names
    sizes = {i: n for term, name in zip(terms, node.input, strict=True) for i, n in zip(term, shape(name), strict=True)}
    return math.prod(sizes.values())


def _attribute(node: Any, name: str, default: Any) -> Any:
    import onnx

    found: Sequence[Any] = [onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return found[0] if found else default


#: Source: the operator specifications, https://onnx.ai/onnx/operators/.
_COUNTERS: Mapping[str, Callable[[Any, _ShapeOf], int]] = {
    "Conv": _convolution(weight=1),
    "ConvInteger": _convolution(weight=1),
    "QLinearConv": _convolution(weight=3),
    "ConvTranspose": _transposed_convolution,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "RNN": _recurrent(gates=1),
    "GRU": _recurrent(gates=3),
    "LSTM": _recurrent(gates=4),
    "Einsum": _einsum,
}
#: Likewise. They multiply and accumulate, and how often is not worked out here.
_NOT_COUNTED = frozenset(
    {"Attention", "CausalConvWithState", "DFT", "DeformConv", "Det", "LinearAttention", "STFT"}
)  # fmt: skip
