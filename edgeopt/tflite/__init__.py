"""``.tflite`` files as objects that can be changed, and back.

:mod:`edgeopt.agent.tflite_file` only reads, without any package. What is here needs ``ai-edge-litert``, which has the
classes of the schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt.agent.tflite_file import IDENTIFIER, OPERATORS

Array = npt.NDArray[Any]

#: ``force_align`` of ``Buffer.data`` in the schema: kernels read weights with aligned loads. The generated classes,
#: and whatever is written with them, do not keep to it.
_ALIGNMENT = 16


def load(file: bytes) -> Any:
    """The ``ModelT`` of the schema, with every buffer inside it.

    A buffer may lie behind the flatbuffer (``Buffer.offset``). LiteRT looks for it there, TensorFlow Lite for
    Microcontrollers does not, and computes with whatever it finds.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(file, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(file, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            if operator.largeCustomOptionsOffset > 1:
                start, size = operator.largeCustomOptionsOffset, operator.largeCustomOptionsSize
                operator.customOptions = np.frombuffer(file, np.uint8, size, start)
                operator.largeCustomOptionsOffset = operator.largeCustomOptionsSize = 0
    return model


def dump(model: Any) -> bytes:
    """The file of a ``ModelT``: all buffers inside and aligned. Equal models give equal bytes."""
    import flatbuffers

    for buffer in model.buffers:
        buffer.Pack = _packing(buffer)
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def _packing(buffer: Any) -> Any:
    """What packs a buffer with its data aligned."""
    from ai_edge_litert import schema_py_generated as schema

    def pack(builder: Any) -> int:
        data = b"" if buffer.data is None else np.asarray(buffer.data, np.uint8).tobytes()
        if data:
            builder.StartVector(1, len(data), _ALIGNMENT)
            builder.head -= len(data)
            builder.Bytes[builder.head : builder.head + len(data)] = data
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if data:
            schema.BufferAddData(builder, vector)
        return int(schema.BufferEnd(builder))

    return pack


def inlined(file: bytes) -> bytes:
    """The file with every buffer inside the flatbuffer."""
    return dump(load(file))


def operator_name(model: Any, operator: Any) -> str:
    """``CONV_2D``; a number for one that :data:`OPERATORS` does not list."""
    code = model.operatorCodes[operator.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return OPERATORS.get(number, f"BUILTIN_{number}")


def values(model: Any, tensor: Any) -> Array | None:
    """The constant values of a tensor, ``None`` if it has none."""
    from edgeopt.agent.tflite_file import dtype_of

    data = model.buffers[tensor.buffer].data
    if data is None or not len(data):
        return None
    shape = [] if tensor.shape is None else list(tensor.shape)
    return np.asarray(data, np.uint8).view(dtype_of(tensor.type)).reshape(shape)


def compact(model: Any) -> None:
    """Drop the tensors, buffers and operator codes that nothing uses, and number the others anew, in their order."""
    for subgraph in model.subgraphs:
        _keep_used_tensors(model, subgraph)
    held = [tensor for subgraph in model.subgraphs for tensor in subgraph.tensors] + list(model.metadata or [])
    used = sorted({0, *(one.buffer for one in held)})  # buffer 0 is the empty one by convention
    place = {old: new for new, old in enumerate(used)}
    model.buffers = [model.buffers[old] for old in used]
    for one in held:
        one.buffer = place[one.buffer]
    operators = [operator for subgraph in model.subgraphs for operator in subgraph.operators]
    codes = sorted({operator.opcodeIndex for operator in operators})
    model.operatorCodes = [model.operatorCodes[old] for old in codes]
    for operator in operators:
        operator.opcodeIndex = codes.index(operator.opcodeIndex)


def _keep_used_tensors(model: Any, subgraph: Any) -> None:
    lists = [*_ends(subgraph)]
    used = sorted({number for numbers in lists for number in numbers if number >= 0})
    place = {-1: -1, **{int(old): new for new, old in enumerate(used)}}

    def moved(numbers: Any) -> Any:
        return None if numbers is None else np.array([place[int(number)] for number in numbers], np.int32)

    subgraph.tensors = [subgraph.tensors[old] for old in used]
    subgraph.inputs, subgraph.outputs = moved(subgraph.inputs), moved(subgraph.outputs)
    for operator in subgraph.operators:
        operator.inputs, operator.outputs = moved(operator.inputs), moved(operator.outputs)
        operator.intermediates = moved(operator.intermediates)
    if subgraph is model.subgraphs[0]:
        for signature in model.signatureDefs or []:
            for end in (*(signature.inputs or []), *(signature.outputs or [])):
                end.tensorIndex = place[end.tensorIndex]


def _ends(subgraph: Any) -> Iterator[Any]:
    """Every list of tensor numbers."""
    yield subgraph.inputs
    yield subgraph.outputs
    for operator in subgraph.operators:
        for numbers in (operator.inputs, operator.outputs, operator.intermediates):
            if numbers is not None:
                yield numbers
