"""Edits: one way each to write a pattern that TensorRT refuses so that it takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeopt.qdq.graph import Array, Graph, operand, quantization_axis
from edgeopt.qdq.rules import DEQUANTIZE, QUANTIZE, Hit

#: Changes the graph; returns what was done, and whether the model computes exactly what it computed.
Edit = Callable[[], tuple[str, bool]]
#: Operators that move the elements of one tensor.
_MOVES = ("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten")
#: Operators that move elements of constants and compute nothing.
_FOLDABLE = (*_MOVES, "Concat")


def _quantization(graph: Graph, node: Any) -> tuple[Array, Array] | None:
    """Scale and zero point of a Q or DQ, of equal shape; ``None`` if they are not constant."""
    scale = graph.value(node.input[1])
    zero: Array | None = np.zeros((), np.int64)
    if operand(node, 2):
        zero = graph.value(node.input[2])
    if scale is None or zero is None or zero.size not in (1, scale.size):
        return None
    zero = zero.astype(np.int64).reshape(scale.shape if zero.size == scale.size else ())
    return scale, np.broadcast_to(zero, scale.shape)


def _along(values: Array, graph: Graph, node: Any, data: Array) -> Array | None:
    """Scales or zero points in a shape that goes with the tensor's."""
    if values.size == 1:
        return values.reshape(())
    axis = quantization_axis(graph, node, data.ndim)
    if not 0 <= axis < data.ndim:
        return None
    if values.ndim == 1:
        return (
            values.reshape([-1 if i == axis else 1 for i in range(data.ndim)])
            if len(values) == data.shape[axis]
            else None
        )
    if values.ndim != data.ndim or data.shape[axis] % values.shape[axis]:
        return None
    return np.repeat(values, data.shape[axis] // values.shape[axis], axis=axis)


def _becomes_constant(graph: Graph, node: Any, values: Array) -> None:
    """The node's output is an initializer from now on."""
    import onnx

    name = node.output[0]
    graph.proto.initializer.append(onnx.numpy_helper.from_array(np.asarray(values, order="C"), name))
    graph.proto.node.remove(node)
    del graph.producers[name]
    graph.tensors[name] = graph.proto.initializer[-1]


def _constant(graph: Graph, stem: str, values: Array) -> str:
    import onnx

    name = graph.unused(stem)
    graph.proto.initializer.append(onnx.numpy_helper.from_array(np.asarray(values), name))
    return name


def _set_quantization(graph: Graph, node: Any, scale: Array, dtype: Any) -> None:
    """New scales, zero points of zero, no ``output_dtype`` where the zero point says it."""
    stem = node.input[0]
    del node.input[1:]
    node.input.extend(
        [
            _constant(graph, f"{stem}_scale", scale),
            _constant(graph, f"{stem}_zero_point", np.zeros(scale.shape, dtype)),
        ]
    )
    if node.op_type == QUANTIZE:
        kept = [entry for entry in node.attribute if entry.name != "output_dtype"]
        del node.attribute[:]
        node.attribute.extend(kept)


def plain(graph: Graph, hit: Hit) -> Edit | None:
    """A DQ as float arithmetic: a constant where it reads one, else Cast, Sub and Mul."""
    node = hit[0]
    if node is None or node.op_type != DEQUANTIZE or (found := _quantization(graph, node)) is None:
        return None
    scale, zero = found
    data = graph.value(node.input[0])
    if data is not None and node.output[0] not in graph.outputs:
        wide, shift = _along(scale, graph, node, data), _along(zero, graph, node, data)
        if wide is None or shift is None:
            return None
        values = (data.astype(np.int64) - shift).astype(scale.dtype) * wide

        def fold() -> tuple[str, bool]:
            _becomes_constant(graph, node, values.astype(scale.dtype))
            return f"{data.dtype} constant {node.input[0]!r} is stored as {scale.dtype}", True

        return fold
    return None if scale.size != 1 or scale.dtype != np.float32 else _arithmetic(graph, node, scale, zero)


def _arithmetic(graph: Graph, node: Any, scale: Array, zero: Array) -> Edit:
    import onnx

    def edit() -> tuple[str, bool]:
        place = list(graph.proto.node).index(node)
        cast, shifted = graph.unused(f"{node.output[0]}_float"), graph.unused(f"{node.output[0]}_shifted")
        make, kind = onnx.helper.make_node, onnx.TensorProto.FLOAT
        added = [make("Cast", [node.input[0]], [cast], name=graph.unused(f"{node.name}_Cast"), to=kind)]
        if np.any(zero):
            offset = _constant(graph, f"{node.output[0]}_offset", zero.reshape(()).astype(np.float32))
            added.append(make("Sub", [cast, offset], [shifted], name=graph.unused(f"{node.name}_Sub")))
        factor = _constant(graph, f"{node.output[0]}_factor", scale.reshape(()))
        added.append(make("Mul", [added[-1].output[0], factor], list(node.output), name=node.name))
        graph.proto.node.remove(node)
        for index, new in enumerate(added):
            graph.proto.node.insert(place + index, new)
        return f"{node.input[0]!r} is scaled by Cast and Mul", True

    return edit


def signed_weights(graph: Graph, hit: Hit) -> Edit | None:
    """Quantized constants as int8 with zero point 0; with wider steps only where int8 cannot hold them."""
    node = hit[0]
    data = graph.value(node.input[0]) if node is not None and node.op_type == DEQUANTIZE else None
    found = _quantization(graph, node) if data is not None else None
    if data is None or found is None or not np.issubdtype(data.dtype, np.integer):
        return None
    scale, zero = found
    wide, shift = _along(scale, graph, node, data), _along(zero, graph, node, data)
    if wide is None or shift is None or not np.all(np.isfinite(scale)):
        return None
    values = (data.astype(np.int64) - shift) * np.sign(wide).astype(np.int64)
    exact = bool(values.min(initial=0) >= -128 and values.max(initial=0) <= 127)
    stretch = np.ones_like(scale)
    if not exact:
        if scale.ndim > 1:
            return None
        axis = quantization_axis(graph, node, data.ndim)
        others = tuple(i for i in range(data.ndim) if i != axis) if scale.size > 1 else None
        stretch = np.maximum(np.abs(values).max(axis=others).reshape(scale.shape) / 127, 1).astype(scale.dtype)
        along = stretch if scale.size == 1 else stretch.reshape(wide.shape)
        values = np.clip(np.rint(values / along), -128, 127)
    new = np.where(scale == 0, np.ones_like(scale), np.abs(scale)) * stretch

    def edit() -> tuple[str, bool]:
        name = node.input[0]
        _set_quantization(graph, node, new, np.int8)
        node.input[0] = _constant(graph, f"{name}_int8", values.astype(np.int8))
        steps = "" if exact else f", in steps up to {float(stretch.max()):.3g} times as wide"
        return f"{data.dtype} constant {name!r} is int8 with zero point 0{steps}", exact

    return edit


def cast_first(graph: Graph, hit: Hit) -> Edit | None:
    """A Cast to float32 right behind the input, where nothing but moves of elements lies before the next Cast."""
    import onnx

    name, moves, open_ = hit[1], [], [hit[1]]
    while open_:
        for reader in graph.consumers.get(open_.pop(), ()):
            if reader.op_type == "Cast":
                continue
            if reader.op_type not in _MOVES or graph.outputs & {*reader.output}:
                return None
            moves.append(reader)
            open_ += reader.output

    def edit() -> tuple[str, bool]:
        wide = graph.unused(f"{name}_float")
        made = onnx.helper.make_node(
            "Cast", [name], [wide], name=graph.unused(f"{name}/Cast"), to=onnx.TensorProto.FLOAT
        )
        for reader in moves:
            reader.input[:] = [wide if each == name else each for each in reader.input]
        graph.proto.node.insert(0, made)
        return f"{name!r} is cast to float32 first", True

    return edit


def symmetric(graph: Graph, hit: Hit) -> Edit | None:
    """A zero point that is not 0, or uint8: constants and activations."""
    node = hit[0]
    if node.op_type == DEQUANTIZE:
        writer = graph.producer(node.input[0])
        if writer is None or writer.op_type != QUANTIZE:
            return signed_weights(graph, hit) or plain(graph, hit)
        node = writer
    return _folded(graph, node) if graph.is_constant(node.input[0]) else _symmetric_pair(graph, node)


def _folded(graph: Graph, node: Any) -> Edit | None:
    """A Q of a constant is that constant, quantized."""
    data, found = graph.value(node.input[0]), _quantization(graph, node)
    dtype = graph.numpy_dtype(node.output[0])
    if data is None or found is None or dtype is None or node.output[0] in graph.outputs:
        return None
    scale, shift = (_along(values, graph, node, data) for values in found)
    if scale is None or shift is None:
        return None
    limits = np.iinfo(dtype)
    values = np.clip(np.rint(data / scale) + shift, limits.min, limits.max).astype(dtype)

    def edit() -> tuple[str, bool]:
        _becomes_constant(graph, node, values)
        return f"constant {node.input[0]!r} is stored as {dtype}", True

    return edit


def _pair(graph: Graph, node: Any) -> list[Any] | None:
    """The DQs that read what a Q writes, with the same scale and zero point; ``None`` if anything else reads it."""
    found = _quantization(graph, node)
    readers = graph.consumers.get(node.output[0], [])
    if found is None or node.output[0] in graph.outputs or not readers:
        return None
    for reader in readers:
        same = _quantization(graph, reader) if reader.op_type == DEQUANTIZE else None
        if same is None or reader.input[0] != node.output[0]:
            return None
        if any(a.shape != b.shape or not np.array_equal(a, b) for a, b in zip(found, same, strict=True)):
            return None
    return readers


def _symmetric_pair(graph: Graph, node: Any) -> Edit | None:
    """Q and its DQs as int8 with zero point 0 over the same range: exact for uint8 around 128, else in wider steps."""
    readers, found = _pair(graph, node), _quantization(graph, node)
    dtype = graph.numpy_dtype(node.output[0])
    if readers is None or found is None or dtype not in (np.dtype(np.int8), np.dtype(np.uint8)):
        return None
    scale, zero = found
    limits = np.iinfo(dtype)
    stretch = np.maximum((zero - limits.min) / 128, (limits.max - zero) / 127)
    new = (scale * stretch).astype(scale.dtype)

    def edit() -> tuple[str, bool]:
        for each in (node, *readers):
            _set_quantization(graph, each, new, np.int8)
        exact = bool(np.all(stretch == 1))
        steps = "" if exact else f": the same range in steps {float(np.max(stretch)):.3g} times as wide"
        return f"{dtype} activation {node.input[0]!r} is int8 with zero point 0{steps}", exact

    return edit


def without_unsupported(graph: Graph, hit: Hit) -> Edit | None:
    """16 and 4 bits: constants as int8 if they fit, else float; activations float; what nothing reads goes."""
    node, name, _ = hit
    if node is None:
        unread = graph.tensors.get(name) is not None and name not in graph.outputs and name not in graph.consumers
        return (lambda: _removed(graph, name)) if unread else None
    if node.op_type == DEQUANTIZE and graph.value(node.input[0]) is not None:
        weights = signed_weights(graph, hit)
        return weights if weights and _fits(graph, node) else plain(graph, hit)
    if node.op_type == DEQUANTIZE:
        node = graph.producer(node.input[0])
    if node is None or node.op_type != QUANTIZE:
        return None
    if graph.is_constant(node.input[0]):
        return _folded(graph, node)
    readers = _pair(graph, node)
    return None if readers is None else (lambda: _bypassed(graph, node, readers))


def _fits(graph: Graph, node: Any) -> bool:
    values, found = graph.value(node.input[0]), _quantization(graph, node)
    if values is None or found is None:
        return False
    zero = _along(found[1], graph, node, values)
    shifted = values.astype(np.int64) - (0 if zero is None else zero)
    return bool(shifted.min(initial=0) >= -128 and shifted.max(initial=0) <= 127)


def _removed(graph: Graph, name: str) -> tuple[str, bool]:
    for tensor in [tensor for tensor in graph.proto.initializer if tensor.name == name]:
        graph.proto.initializer.remove(tensor)
    for node in [node for node in graph.proto.node if node.op_type == "Constant" and node.output[0] == name]:
        graph.proto.node.remove(node)
    return f"constant {name!r}, which nothing reads, is removed", True


def _bypassed(graph: Graph, node: Any, readers: list[Any]) -> tuple[str, bool]:
    for reader in readers:
        reader.op_type, reader.domain = "Identity", ""
        del reader.attribute[:]
        del reader.input[:]
        reader.input.append(node.input[0])
    graph.proto.node.remove(node)
    return f"activation {node.input[0]!r} stays float", False


def shorter(graph: Graph, hit: Hit) -> Edit | None:
    node = hit[0]

    def edit() -> tuple[str, bool]:
        del node.input[2:]
        return "the empty third input is left away", True

    return edit


def typed_output(graph: Graph, hit: Hit) -> Edit | None:
    kind = graph.inferred_type(hit[1])
    value = next((value for value in graph.proto.output if value.name == hit[1]), None)
    if not kind or value is None:
        return None

    def edit() -> tuple[str, bool]:
        value.type.tensor_type.elem_type = kind
        return "its type is written", True

    return edit


def evaluated(graph: Graph, hit: Hit) -> Edit | None:
    """An operator that reads nothing but constants, and writes one tensor, is that tensor."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    node = hit[0]
    if node is None or node.op_type not in _FOLDABLE or len(node.output) != 1 or node.output[0] in graph.outputs:
        return None
    values = {name: graph.value(name) for name in node.input if name}
    if any(value is None for value in values.values()):
        return None

    def edit() -> tuple[str, bool]:
        made = onnx.helper.make_graph([node], "constant", [], [onnx.ValueInfoProto(name=node.output[0])])
        made.input.extend(onnx.ValueInfoProto(name=name) for name in values)
        model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", graph.opset)])
        (value,) = ReferenceEvaluator(model).run(None, values)
        _becomes_constant(graph, node, np.asarray(value))
        return f"{node.op_type} of constants is computed once", True

    return edit


def one_zero_point(graph: Graph, hit: Hit) -> Edit | None:
    """A single zero point, all zero, stands for all scales; a single scale has no dimensions."""
    node = hit[0]
    scale = graph.value(node.input[1])
    zero = graph.value(operand(node, 2)) if operand(node, 2) else None
    if scale is None or not scale.size or (zero is not None and np.any(zero)):
        return None
    lone = scale.size == 1 and scale.ndim > 1
    if not lone and (zero is None or zero.size == scale.size):
        return None

    def edit() -> tuple[str, bool]:
        dtype = graph.numpy_dtype(operand(node, 2)) if zero is not None else None
        new = scale.reshape(()) if lone else scale
        if dtype is None:
            node.input[1] = _constant(graph, f"{node.input[0]}_scale", new)
        else:
            _set_quantization(graph, node, new, dtype)
        return "scale and zero point have the same size", True

    return edit
