"""Reads the nodes of an ONNX file without the onnx package, and finds where ONNX Runtime's fused nodes come from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from . import AgentError

#: what ONNX Runtime puts around the name of the node or tensor that a new node stands for
_DECORATION = re.compile(r"^fused |(_nchwc|_nhwc)?(_token_\d+)*$")

#: operations that the optimiser adds between kernels of different memory layout
_LAYOUT = ("ReorderInput", "ReorderOutput", "Transpose")


class Node(NamedTuple):
    """A node of the main graph."""

    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def nodes(model: bytes) -> list[Node]:
    """The nodes of a serialised ``ModelProto``, in file order (topological, by the ONNX specification).

    Field numbers are those of onnx.proto: ModelProto.graph 7; GraphProto.node 1; NodeProto.input 1, output 2, name 3,
    op_type 4, domain 7. A node without a name gets that of its first output.

    Raises:
        AgentError: The bytes are no protobuf message.
    """
    found = []
    for number, graph in _fields(memoryview(model)):
        if number != 7:
            continue
        for kind, node in _fields(graph):
            if kind == 1:
                parts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: [], 7: []}
                for field, value in _fields(node):
                    if field in parts:
                        parts[field].append(str(value, "utf-8"))
                name = "".join(parts[3]) or parts[2][0]
                found.append(Node(name, "".join(parts[4]), "".join(parts[7]), tuple(parts[1]), tuple(parts[2])))
    return found


def sources(compiled: Sequence[Node], original: Sequence[Node]) -> dict[str, tuple[str, ...]]:
    """Which nodes of the original graph each node of the optimised graph computes.

    The optimiser keeps names of tensors where it can, and puts the name of a node or tensor into the names of the
    nodes that it adds. A compiled node computes everything upstream of it that no other node computes. One whose
    output has a new name also computes what follows, up to a branching or a quantization.

    Returns:
        Names of original nodes in their order, by the name of the compiled node; none for layout changes.
    """
    producer = {tensor: node for node in original for tensor in node.outputs}
    by_name = {node.name: node for node in original}
    consumers: dict[str, list[Node]] = {}
    for node in original:
        for tensor in node.inputs:
            consumers.setdefault(tensor, []).append(node)

    makes = {layer.name: layer.outputs for layer in compiled}
    maker = {tensor: layer.name for layer in compiled for tensor in layer.outputs}
    for layer in compiled:
        if layer.op in _LAYOUT and layer.name not in by_name and layer.inputs[0] in maker:
            makes[maker[layer.inputs[0]]] += layer.outputs
            makes[layer.name] = ()

    owner: dict[str, str] = {}
    heads: list[tuple[Node, Node]] = []
    open_ended: list[tuple[Node, Node]] = []
    for layer in compiled:
        bare = _DECORATION.sub("", layer.name)
        found = [producer[tensor] for tensor in makes[layer.name] if tensor in producer]
        named = producer.get(bare) or by_name.get(layer.name) or by_name.get(bare)
        if named and named not in found:
            open_ended.append((layer, named))
            found.append(named)
        for node in found:
            if owner.setdefault(node.name, layer.name) == layer.name:
                heads.append((layer, node))

    for layer, node in reversed(open_ended):  # what joins two branches is computed with the later one
        while node.op != "QuantizeLinear" and len(after := consumers.get(node.outputs[0], [])) == 1:
            node = after[0]
            if node.name in owner or node.op == "DequantizeLinear":
                break
            owner[node.name] = layer.name

    for layer, head in heads:
        upstream = [head]
        while upstream:
            for tensor in upstream.pop().inputs:
                before = producer.get(tensor)
                if before and before.name not in owner and tensor not in layer.inputs:
                    owner[before.name] = layer.name
                    upstream.append(before)

    computes: dict[str, list[str]] = {}
    for node in original:
        if node.name in owner:
            computes.setdefault(owner[node.name], []).append(node.name)
    return {layer: tuple(names) for layer, names in computes.items()}


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The length-delimited fields of a protobuf message as (field number, bytes); the others are skipped.

    Source: the protobuf encoding guide, https://protobuf.dev/programming-guides/encoding/.
    """
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    try:
        while at < len(message):
            number, kind = divmod(varint(), 8)
            if kind == 0:
                varint()
            elif kind in (1, 5):
                at += 8 if kind == 1 else 4
            elif kind == 2:
                size = varint()
                if at + size > len(message):
                    raise AgentError("not an ONNX file: a field ends beyond the file")
                yield number, message[at : at + size]
                at += size
            else:
                raise AgentError(f"not an ONNX file: wire type {kind}")
    except IndexError as error:
        raise AgentError("not an ONNX file: it ends inside a field") from error
