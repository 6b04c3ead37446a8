"""Float16 by Cast nodes: what a float ONNX file looks like when its network computes with half the bits.

TensorRT, and every other toolkit that reads strongly typed networks, takes the precision from the file. So float16 is
written into it: initializers are float16, a Cast stands where float32 goes in and where it comes out.

ONNX Runtime has no float16 arithmetic on most CPUs. It computes such a file in float32 and drops the rounding between
two nodes, so that nothing is seen of it, not even an overflow. :func:`rounded` puts the rounding where it cannot be
dropped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt.errors import StageError

Array = npt.NDArray[Any]

#: Largest float16; and the smallest above zero, subnormal. Source: IEEE 754-2019, binary16.
LARGEST, SMALLEST = 65504.0, 2.0**-24
#: Operators whose ONNX schema has no float16, or whose result steers the graph rather than being computed with.
_FLOAT32_ONLY = frozenset({"Range", "NonMaxSuppression", "RoiAlign", "MaxRoiPool", "RandomNormal", "RandomUniform"})
#: Inputs that stay float32 whatever the operator computes with. Source: ONNX operator schemas, Resize-11 to -19.
_FLOAT32_INPUTS = {"Resize": (1, 2), "Upsample": (1,)}


@dataclass(frozen=True)
class Halved:
    """A model that computes in float16.

    Attributes:
        model: ``ModelProto``.
        half: Number of nodes that compute in float16.
        kept: Node -> why it still computes in float32; not those that were to be kept.
    """

    model: Any
    half: int
    kept: Mapping[str, str]


def halve(model: Any, keep: Collection[str], largest: Mapping[str, float]) -> Halved:
    """Make a float model compute in float16. Inputs and outputs keep their types, nodes their names.

    Args:
        model: Float ``ModelProto``; it is not changed.
        keep: Names of nodes that stay as they are, such as those of the folded preprocessing.
        largest: Largest absolute value of each tensor that was seen. What is not listed is taken to fit.

    Raises:
        StageError: Nothing is left to be computed in float16.
    """
    import onnx

    work = type(model)()
    work.CopyFrom(model)
    graph = _Graph(onnx.shape_inference.infer_shapes(work), keep, largest)
    kept = {node.name: why for node in work.graph.node if (why := graph.why_float32(node))}
    half = [
        node
        for node in work.graph.node
        if node.name not in {*kept, *keep} and any(graph.is_float(name) for name in (*node.input, *node.output))
    ]
    if not half:
        why = next(iter(kept.values()), "it has no node that computes with floats")
        raise StageError(f"nothing of this model can compute in float16: {why}", where="cast")
    _rewrite(work.graph, {node.name for node in half}, graph)
    del work.graph.value_info[:]
    _sort(work.graph)
    return Halved(work, len(half), kept)


class _Graph:
    """Types of the tensors of a model, and what keeps a node in float32."""

    def __init__(self, inferred: Any, keep: Collection[str], largest: Mapping[str, float]) -> None:
        import onnx

        self._keep, self._largest = keep, largest
        graph = inferred.graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        types = {
            value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)
        }
        types |= {name: tensor.data_type for name, tensor in self.constants.items()}
        self._float = {name for name, kind in types.items() if kind == onnx.TensorProto.FLOAT}
        self.outputs = {value.name for value in graph.output}
        self._captured = {name for node in graph.node for name in _captured(node)}

    def is_float(self, name: str) -> bool:
        """Whether a tensor is float32 in the model as it is given."""
        return name in self._float

    def why_float32(self, node: Any) -> str:
        """What keeps a node in float32; empty if nothing does, or if it is to be kept anyway."""
        if node.name in self._keep:
            return ""
        if node.op_type in _FLOAT32_ONLY:
            return f"{node.op_type} has no float16"
        if _graphs(node):
            return f"{node.op_type} holds graphs of its own"
        if captured := sorted(self._captured & set(node.output)):
            return f"a graph inside of another node reads {captured[0]!r}"
        for name in computed_with(node):
            if why := self._why_not(name):
                return why
        return ""

    def _why_not(self, name: str) -> str:
        import onnx

        seen = self._largest.get(name, 0.0)
        if tensor := self.constants.get(name):
            if not self.is_float(name):
                return ""
            values = onnx.numpy_helper.to_array(tensor)
            seen = float(np.abs(values).max(initial=0))
        if 0 < seen < SMALLEST:
            return f"all of {name!r} would be 0: its largest value is {seen:.2g}"
        return f"{name!r} reaches {seen:.3g}, and float16 ends at {LARGEST:g}" if not seen <= LARGEST else ""


def rounded(model: Any) -> Any:
    """A float16 model for ONNX Runtime on a CPU: float32 arithmetic, every float16 tensor rounded to float16.

    A device that fuses nodes rounds less often than that, and accumulates in float32 as this does.
    """
    import onnx

    work = type(model)()
    work.CopyFrom(model)
    inferred = onnx.shape_inference.infer_shapes(work).graph
    float16, float32 = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    half = {
        value.name
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
        if value.type.tensor_type.elem_type == float16
    }
    constants = {tensor.name: tensor for tensor in inferred.initializer if tensor.data_type == float16}
    nodes: list[Any] = []
    widened: dict[str, str] = {}

    def cast(name: str, made: str, kind: int) -> str:
        nodes.append(onnx.helper.make_node("Cast", [name], [made], name=f"{made}/Cast", to=kind))
        return made

    def wide(name: str) -> str:
        if name not in widened:
            widened[name] = f"{name}_wide"
            if name in constants:
                values = onnx.numpy_helper.to_array(constants[name]).astype(np.float32)
                work.graph.initializer.append(onnx.numpy_helper.from_array(values, widened[name]))
            else:
                cast(name, widened[name], float32)
        return widened[name]

    for node in inferred.node:
        computes = node.op_type not in ("Cast", "Constant", "QuantizeLinear", "DequantizeLinear") and not _graphs(node)
        if not computes or not any(name in half or name in constants for name in (*node.input, *node.output)):
            nodes.append(node)
            continue
        node.input[:] = [wide(name) if name in half or name in constants else name for name in node.input]
        outputs = [(index, name) for index, name in enumerate(node.output) if name in half]
        nodes.append(node)
        for index, name in outputs:
            node.output[index] = f"{name}_unrounded"
            cast(node.output[index], name, float16)
    del work.graph.node[:]
    del work.graph.value_info[:]
    work.graph.node.extend(nodes)
    _drop_unused(work.graph, {value.name for value in work.graph.output})
    return work


def computed_with(node: Any) -> Iterator[str]:
    """The tensors of a node that would become float16 with it."""
    apart = _FLOAT32_INPUTS.get(node.op_type, ())
    yield from (name for index, name in enumerate(node.input) if name and index not in apart)
    yield from (name for name in node.output if name)


def _rewrite(graph: Any, half: Collection[str], types: _Graph) -> None:
    """Change types in place, and put in the Casts."""
    import onnx

    float16, float32 = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    nodes = list(graph.node)
    taken = {name for node in nodes for name in (*node.input, *node.output)} | {node.name for node in nodes}
    written = {name for node in nodes if node.name in half for name in node.output if types.is_float(name)}
    other: dict[tuple[str, int], str] = {}

    def unused(stem: str) -> str:
        name = stem
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    def cast(name: str, kind: int) -> str:
        """The tensor in another type: a constant, or behind a Cast; made once."""
        if (name, kind) not in other:
            made = other[name, kind] = unused(f"{name}_{'half' if kind == float16 else 'float'}")
            if name in types.constants and kind == float16:
                values = onnx.numpy_helper.to_array(types.constants[name])
                graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float16), made))
            else:
                graph.node.append(onnx.helper.make_node("Cast", [name], [made], name=unused(f"{made}/Cast"), to=kind))
        return other[name, kind]

    for node in nodes:
        here = node.name in half
        apart = _FLOAT32_INPUTS.get(node.op_type, ())
        for index, name in enumerate(node.input):
            if not name or not types.is_float(name):
                continue
            wanted = here and index not in apart
            if wanted and name not in written:
                node.input[index] = cast(name, float16)
            elif not wanted and name in written:
                node.input[index] = cast(name, float32)
        if here:
            _set_types(node)
    for node in nodes:
        for index, name in enumerate(node.output):
            if name in written and name in types.outputs:
                inner = unused(f"{name}_half")
                for reader in graph.node:
                    reader.input[:] = [inner if each == name else each for each in reader.input]
                node.output[index] = inner
                graph.node.append(
                    onnx.helper.make_node("Cast", [inner], [name], name=unused(f"{name}/Cast"), to=float32)
                )
    _drop_unused(graph, types.outputs)


def _drop_unused(graph: Any, outputs: Collection[str]) -> None:
    used = {name for node in graph.node for name in (*node.input, *_captured(node))} | {*outputs}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _set_types(node: Any) -> None:
    """float16 where an attribute says float32."""
    import onnx

    for entry in node.attribute:
        if (node.op_type, entry.name) in (("Cast", "to"), ("EyeLike", "dtype")) and entry.i == onnx.TensorProto.FLOAT:
            entry.i = onnx.TensorProto.FLOAT16
        if node.op_type in ("Constant", "ConstantOfShape") and entry.t.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(entry.t).astype(np.float16)
            entry.t.CopyFrom(onnx.numpy_helper.from_array(values, entry.t.name))
        if node.op_type == "Constant" and entry.name in ("value_float", "value_floats"):
            values = np.asarray(onnx.helper.get_attribute_value(entry), np.float16)
            entry.CopyFrom(onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(values)))


def _sort(graph: Any) -> None:
    """Nodes in an order in which every tensor is written before it is read; otherwise as they were."""
    waiting, known = list(graph.node), {value.name for value in (*graph.input, *graph.initializer)} | {""}
    needs = {id(node): {*node.input, *_captured(node)} for node in waiting}
    written = {name for node in waiting for name in node.output}
    ordered = []
    while waiting:
        first = next((node for node in waiting if not (needs[id(node)] & written) - known), None)
        if first is None:
            raise StageError("the nodes of this model read each other in a circle", where="cast")
        waiting.remove(first)
        known.update(first.output)
        ordered.append(first)
    copies = [type(node).FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)


def _graphs(node: Any) -> list[Any]:
    return [inner for entry in node.attribute for inner in ([entry.g] if entry.HasField("g") else entry.graphs)]


def _captured(node: Any) -> set[str]:
    """Names that the graphs inside a node may read from around it."""
    names: set[str] = set()
    for inner in _graphs(node):
        names.update(value.name for value in inner.output)
        for each in inner.node:
            names.update(each.input, _captured(each))
    return names
