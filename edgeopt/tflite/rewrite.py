"""What a converted or quantized file computes, in fewer operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeopt.tflite import compact, operator_name, values

#: Integer types of raw samples, by their number in the schema: uint8, int16, int8.
_RAW = (3, 7, 9)


def reduce_in_place(model: Any) -> int:
    """A transposition whose only use is a mean over some of its axes becomes the mean over those axes as they were.

    The converter computes images channels last, and puts them back for every operator that it has no such form of, a
    mean among them. NPUs then do the mean on the CPU.

    Args:
        model: A ``ModelT``; changed in place.

    Returns:
        How many there were.
    """
    graph = model.subgraphs[0]
    producers = {number: operator for operator in graph.operators for number in operator.outputs}
    uses = [number for operator in graph.operators for number in operator.inputs] + list(graph.outputs)
    gone = []
    for operator in graph.operators:
        before = producers.get(operator.inputs[0]) if len(operator.inputs) else None
        if operator_name(model, operator) != "MEAN" or before is None or operator_name(model, before) != "TRANSPOSE":
            continue
        axes = values(model, graph.tensors[operator.inputs[1]])
        order = values(model, graph.tensors[before.inputs[1]])
        if axes is None or order is None or uses.count(before.outputs[0]) > 1 or operator.builtinOptions.keepDims:
            continue
        reduced = {int(axis) % len(order) for axis in axes.reshape(-1)}
        left = [int(old) for new, old in enumerate(order) if new not in reduced]
        if left != sorted(left):
            continue
        axis_tensor = graph.tensors[operator.inputs[1]]
        if uses.count(operator.inputs[1]) > 1:
            continue
        data = np.array(sorted(int(order[axis]) for axis in reduced), np.int32)
        axis_tensor.buffer = len(model.buffers)
        axis_tensor.shape = np.array([len(data)], np.int32)
        model.buffers.append(_buffer(data))
        operator.inputs = _with_first(operator.inputs, before.inputs[0])
        gone.append(before)
    graph.operators = [operator for operator in graph.operators if all(operator is not one for one in gone)]
    compact(model)
    return len(gone)


def integer_input(model: Any) -> bool:
    """Raw integers that are cast to float only to be quantized are quantized as they are.

    The cast and the quantization become one operator from integers with scale 1 to integers, which is exact for 8 bits
    where the ranges are those of the type. TFLM has no cast from uint8, and NPUs have no float.

    Args:
        model: A quantized ``ModelT``; changed in place.

    Returns:
        Whether it was done.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    number = graph.inputs[0]
    users = [operator for operator in graph.operators if number in operator.inputs]
    if len(users) != 1 or operator_name(model, users[0]) != "CAST" or graph.tensors[number].type not in _RAW:
        return False
    cast = users[0].outputs[0]
    after = [operator for operator in graph.operators if cast in operator.inputs]
    if len(after) != 1 or operator_name(model, after[0]) != "QUANTIZE" or cast in graph.outputs:
        return False
    after[0].inputs = _with_first(after[0].inputs, number)
    coding = schema.QuantizationParametersT()
    coding.scale, coding.zeroPoint = np.array([1], np.float32), np.array([0], np.int64)
    graph.tensors[number].quantization = coding
    graph.operators = [operator for operator in graph.operators if operator is not users[0]]
    compact(model)
    return True


def _with_first(numbers: Any, first: int) -> Any:
    return np.array([first, *numbers[1:]], np.int32)


def _buffer(data: Any) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = data.view(np.uint8)
    return buffer
