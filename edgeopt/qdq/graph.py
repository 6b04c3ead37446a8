"""One graph of an ONNX model, indexed for the rules: who writes a tensor, who reads it, its type, shape and value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt.errors import ConfigError

Array = npt.NDArray[Any]

#: Operators that hand a value on as it is; the parser looks through them for a zero point.
TRANSPARENT = ("Identity", "Cast")
#: Where torch's exporter writes the modules around a node.
_SCOPES = "pkg.torch.onnx.name_scopes"
#: ``export`` names nodes ``blocks.0.conv/Conv#2``.
_MODULE = re.compile(r"(?P<module>.+)/[A-Za-z]+(#\d+)?(_quant)?")
#: How far a module is looked for: a tensor, its Q, its DQ, and what hands it on.
_STEPS = 8


class Graph:
    """An index over a ``GraphProto``. After changes to the graph, :meth:`index` it again.

    Args:
        proto: The ``GraphProto``.
        inferred: The same graph with inferred types and shapes.
        opset: Of the default domain.
        outer: The graph around it, whose tensors it sees.
    """

    def __init__(self, proto: Any, inferred: Any, opset: int, outer: Graph | None = None) -> None:
        self.proto, self.opset, self.outer = proto, opset, outer
        described = (*inferred.value_info, *inferred.input, *inferred.output)
        self._values = {value.name: value.type.tensor_type for value in described}
        self._taken: set[str] = set()
        self.index()

    def index(self) -> None:
        """Take in the nodes and initializers as they are now."""
        self.nodes: list[Any] = list(self.proto.node)
        self.producers: dict[str, Any] = {name: node for node in self.nodes for name in node.output if name}
        self.consumers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in {*node.input, *_captured(node)} - {""}:
                self.consumers.setdefault(name, []).append(node)
        self.tensors: dict[str, Any] = {tensor.name: tensor for tensor in self.proto.initializer}
        for node in self.nodes:
            if node.op_type == "Constant" and (tensor := _constant(node)) is not None:
                self.tensors[node.output[0]] = tensor
        self.inputs = {value.name: value for value in self.proto.input if value.name not in self.tensors}
        self.outputs = {value.name for value in self.proto.output}
        self._taken |= {node.name for node in self.nodes} | {*self.producers, *self.consumers, *self.tensors}

    def unused(self, stem: str) -> str:
        """A name for a new tensor or node."""
        name, number = stem, 1
        while name in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._taken.add(name)
        return name

    def prune(self) -> None:
        """Remove initializers that nothing reads, and shapes and types that were inferred before a change."""
        self.index()
        for tensor in [tensor for tensor in self.proto.initializer if tensor.name not in self.consumers]:
            if tensor.name not in self.outputs:
                self.proto.initializer.remove(tensor)
        del self.proto.value_info[:]

    def producer(self, name: str) -> Any:
        """The node that writes a tensor; ``None`` for inputs and initializers."""
        return self.producers.get(name)

    def tensor(self, name: str) -> Any:
        """The ``TensorProto`` of an initializer or ``Constant``, of this graph or one around it; else ``None``."""
        found = self.tensors.get(name)
        return self.outer.tensor(name) if found is None and self.outer and name not in self.producers else found

    def value(self, name: str, steps: int = _STEPS) -> Array | None:
        """What a constant tensor holds, also behind ``Identity`` and ``Cast``; ``None`` if it is not such a tensor."""
        import onnx

        if (tensor := self.tensor(name)) is not None:
            return np.asarray(onnx.numpy_helper.to_array(tensor))
        node = self.producer(name)
        if node is None:
            return self.outer.value(name, steps) if self.outer and name not in self.inputs else None
        if node.op_type not in TRANSPARENT or not steps or (value := self.value(node.input[0], steps - 1)) is None:
            return None
        if node.op_type == "Identity":
            return value
        with np.errstate(invalid="ignore"):
            return value.astype(onnx.helper.tensor_dtype_to_np_dtype(attribute(node, "to")))

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is computed from nothing but constants."""
        open_, seen = [name], set()
        while open_:
            current = open_.pop()
            if not current or current in seen or self.tensor(current) is not None:
                continue
            seen.add(current)
            node = self.producer(current)
            if node is None and self.outer and current not in self.inputs and self.outer.is_constant(current):
                continue
            if node is None or (not node.input and node.op_type != "Constant"):
                return False
            open_.extend(node.input)
        return True

    def numpy_dtype(self, name: str) -> np.dtype[Any] | None:
        """Type of a tensor, ``None`` if it is not known."""
        import onnx

        kind = self.dtype(name)
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)) if kind else None

    def inferred_type(self, name: str) -> int:
        """As :meth:`dtype`, as shape inference says it, also of outputs that do not say it themselves."""
        return int(self._values[name].elem_type) if name in self._values else 0

    def dtype(self, name: str) -> int:
        """``TensorProto.DataType`` of a tensor, 0 if it is not known."""
        import onnx

        if (tensor := self.tensor(name)) is not None:
            return int(tensor.data_type)
        node = self.producer(name)
        if node is not None and node.op_type == "QuantizeLinear":
            return quantized_type(self, node)
        if node is not None and node.op_type == "DequantizeLinear" and not attribute(node, "output_dtype"):
            return self.dtype(node.input[1]) or int(onnx.TensorProto.FLOAT)
        if name in self._values:
            return int(self._values[name].elem_type)
        return self.outer.dtype(name) if self.outer and node is None else 0

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """Shape of a tensor with ``None`` for what is not fixed; ``None`` if not even its rank is known."""
        if (tensor := self.tensor(name)) is not None:
            return tuple(tensor.dims)
        if name in self._values and self._values[name].HasField("shape"):
            dims = self._values[name].shape.dim
            return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)
        return self.outer.shape(name) if self.outer and name not in self.producers else None

    def module(self, node: Any) -> str:
        """The user's module that a node belongs to; for Q and DQ that of the operator which they serve. May be empty.

        It is read from the exporter's metadata, or from the names that ``export`` gives.
        """
        queue, seen = [node], set[int]()
        while queue and len(seen) < _STEPS:
            current = queue.pop(0)
            if id(current) in seen:
                continue
            seen.add(id(current))
            if current.op_type not in ("QuantizeLinear", "DequantizeLinear") and (found := _own_module(current)):
                return found
            readers = [reader for name in current.output for reader in self.consumers.get(name, ())]
            writers = [self.producers[name] for name in current.input if name in self.producers]
            queue += readers + writers
        return ""


def _own_module(node: Any) -> str:
    for entry in node.metadata_props:
        if entry.key == _SCOPES and (scopes := re.findall(r"'([^']*)'", entry.value))[:-1]:
            return str(scopes[-2])
    matched = _MODULE.fullmatch(node.name)
    return matched["module"] if matched else ""


def graphs(model: Any) -> Iterator[Graph]:
    """The graph of a ``ModelProto``, and the graphs inside its nodes.

    Raises:
        ConfigError: The graph contradicts itself.
    """
    import onnx

    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    try:
        inferred = onnx.shape_inference.infer_shapes(_with_all_domains(model))
    except onnx.shape_inference.InferenceError as error:
        raise ConfigError(f"this ONNX model contradicts itself: {error}") from error
    yield from _nested(Graph(model.graph, inferred.graph, opset), inferred.graph)


def inlined(model: Any) -> Any:
    """The model with its local functions written out, as the parser reads them."""
    import onnx.inliner

    return onnx.inliner.inline_local_functions(model) if model.functions else model


def _with_all_domains(model: Any) -> Any:
    """The model with a version for each domain of its nodes: inference wants one, the parser does not."""
    imported = {entry.domain for entry in model.opset_import}
    if not (missing := sorted(_domains(model.graph) - imported - {"", "ai.onnx"})):
        return model
    complete = type(model)()
    complete.CopyFrom(model)
    for domain in missing:
        complete.opset_import.add(domain=domain, version=1)
    return complete


def _domains(graph: Any) -> set[str]:
    inner = [_domains(each) for node in graph.node for each in _inner(node)]
    return {node.domain for node in graph.node}.union(*inner)


def _nested(graph: Graph, inferred: Any) -> Iterator[Graph]:
    yield graph
    for node, twin in zip(graph.nodes, inferred.node, strict=True):
        for inner, inner_twin in zip(_inner(node), _inner(twin), strict=True):
            yield from _nested(Graph(inner, inner_twin, graph.opset, graph), inner_twin)


def _inner(node: Any) -> list[Any]:
    """Graphs in a node's attributes."""
    return [inner for entry in node.attribute for inner in ([entry.g] if entry.HasField("g") else entry.graphs)]


def _captured(node: Any) -> set[str]:
    """Names that the graphs inside a node may read from around it."""
    names: set[str] = set()
    for inner in _inner(node):
        names.update(value.name for value in inner.output)
        for each in inner.node:
            names.update(each.input, _captured(each))
    return names


def attribute(node: Any, name: str) -> Any:
    """The value of a node's attribute, ``None`` if it is not set."""
    import onnx

    return next((onnx.helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), None)


def _constant(node: Any) -> Any:
    """The ``TensorProto`` of a ``Constant`` with numbers that are not sparse; ``None`` of another."""
    import onnx

    types = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    for entry in node.attribute:
        if entry.name == "value":
            return entry.t
        if entry.name in types:
            values = np.asarray(onnx.helper.get_attribute_value(entry), types[entry.name])
            return onnx.numpy_helper.from_array(values, node.output[0])
    return None


def operand(node: Any, index: int) -> str:
    """Name of an input, empty where it is left out."""
    return str(node.input[index]) if index < len(node.input) else ""


def quantized_type(graph: Graph, node: Any) -> int:
    """``TensorProto.DataType`` that a ``QuantizeLinear`` writes, uint8 unless it says more.

    A zero point of a type to which ONNX does not quantize, as int32, is of int8 for the parser.
    Source: ONNX operator schemas, QuantizeLinear-10 to -25, ``y_zero_point`` and ``output_dtype``.
    """
    import onnx

    if zero_point := operand(node, 2):
        kind = graph.dtype(zero_point)
        names = ("INT32", "INT64", "FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "BOOL")
        return int(onnx.TensorProto.INT8) if kind in map(onnx.TensorProto.DataType.Value, names) else kind
    return int(attribute(node, "output_dtype") or onnx.TensorProto.UINT8)


def quantization_axis(graph: Graph, node: Any, rank: int) -> int:
    """Axis of per-channel scales as the parser reads it; not below ``rank`` if it lies outside."""
    axis = attribute(node, "axis")
    if axis is None:
        axis = 0 if graph.opset < 13 else 1
    return int(axis + rank if axis < 0 else axis)
