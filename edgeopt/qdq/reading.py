"""Reads an ONNX file, and says what is wrong with one that ONNX itself does not allow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from edgeopt.errors import ConfigError

#: Attributes that hold a ``TensorProto.DataType``.
_TYPES = ("to", "dtype", "output_dtype")


def read(file: Path) -> Any:
    """The ``ModelProto`` in a file, with its external data.

    Raises:
        ConfigError: There is no such file, it holds no ONNX model, or a broken one.
    """
    import onnx
    from google.protobuf.message import DecodeError

    where = str(file)
    try:
        model = onnx.load(file, load_external_data=False)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", where=where) from error
    except DecodeError as error:
        raise ConfigError("this is no ONNX file", where=where) from error
    if not model.graph.node:
        raise ConfigError("this is no ONNX file, or an empty one", where=where)
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(file.parent))
    except (onnx.checker.ValidationError, OSError, ValueError, AttributeError) as error:
        fix = "put the file with the weights beside the model, where it was written"
        raise ConfigError(f"its external data cannot be read: {error}", where=where, fix=fix) from error
    if problem := next(_problems(model.graph), ""):
        raise ConfigError(f"this ONNX model is broken: {problem}", where=where, fix="export it again")
    return model


def _problems(graph: Any) -> Iterator[str]:
    """What ONNX does not allow, and the rules cannot read."""
    for tensor in graph.initializer:
        yield from _tensor(tensor, tensor.name)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if not _known(value.type.tensor_type.elem_type):
            yield f"the type of {value.name!r} has number {value.type.tensor_type.elem_type}, which ONNX does not know"
    written = Counter(name for node in graph.node for name in node.output if name)
    for name, count in written.items():
        if count > 1:
            yield f"{count} nodes write {name!r}"
    for node in graph.node:
        yield from _node(node)
    writers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    reads = {i: {writers[name] for name in node.input if name in writers} for i, node in enumerate(graph.node)}
    try:
        TopologicalSorter(reads).prepare()
    except CycleError as error:
        names = [graph.node[index].name or graph.node[index].output[0] for index in error.args[1]]
        yield f"nodes wait for each other: {', '.join(map(repr, names))}"


def _node(node: Any) -> Iterator[str]:
    title = f"{node.op_type} {node.name!r}"
    if not any(node.output):
        yield f"{title} writes nothing"
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") and not all([*node.input, "", ""][:2]):
        yield f"{title} needs a tensor and a scale, and reads {[name for name in node.input if name]}"
    for entry in node.attribute:
        if entry.name in _TYPES and not _known(entry.i):
            yield f"{title} asks for the type with number {entry.i}, which ONNX does not know"
        if entry.HasField("t"):
            yield from _tensor(entry.t, node.output[0])
        for inner in [entry.g] if entry.HasField("g") else entry.graphs:
            yield from _problems(inner)


def _tensor(tensor: Any, name: str) -> Iterator[str]:
    import onnx

    if not tensor.data_type or not _known(tensor.data_type):
        yield f"the type of {name!r} has number {tensor.data_type}, which ONNX does not know"
        return
    try:
        onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        yield f"the values of {name!r} do not fill its shape {list(tensor.dims)}: {error}"


def _known(kind: int) -> bool:
    import onnx

    return kind in onnx.TensorProto.DataType.values()
