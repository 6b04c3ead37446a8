"""Names in an exported ONNX file: nodes after the user's modules, and nothing about the machine that exported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

#: Submodules of what is exported: the folded preprocessing and the user's network.
PREPROCESS, NETWORK = "preprocess", "network"
#: Where torch's exporter writes the modules around a node.
_SCOPES = "pkg.torch.onnx.name_scopes"


def tidy(model: Any, parameters: set[str]) -> list[str]:
    """Name nodes after the user's modules and remove everything that tells of the machine that exported.

    Args:
        model: Changed in place.
        parameters: Names in the network's state.

    Returns:
        Names of the nodes of the folded preprocessing.
    """
    tensors = {name: name.removeprefix(f"{NETWORK}.") for graph in graphs(model.graph) for name in _names(graph)}
    if len(set(tensors.values())) < len(tensors):  # a parameter is called like an intermediate value
        tensors = {name: name for name in tensors}
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    used: set[str] = set()
    preprocess_nodes = []
    for graph in graphs(model.graph):
        for node in graph.node:
            scope = _scope(node)
            module = _module(node, scope, parameters)
            node.name = _unused(f"{module}/{node.op_type}", used)
            if scope[1:2] == [PREPROCESS]:
                preprocess_nodes.append(node.name)
            node.input[:] = [tensors.get(name, name) for name in node.input]
            node.output[:] = [tensors.get(name, name) for name in node.output]
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            value.name = tensors.get(value.name, value.name)
        for value in (*graph.input, *graph.output, *graph.value_info):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param:
                    dim.dim_param = re.sub(rf"\b{re.escape(batch)}\b", "batch", dim.dim_param)
    strip(model)
    return preprocess_nodes


def _scope(node: Any) -> list[str]:
    """Qualified names of the modules around a node, outermost first, and last the node's own: ``["", "network",
    ...]``."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            return [str(part) for part in ast.literal_eval(entry.value)]
    return []


def _module(node: Any, scope: list[str], parameters: set[str]) -> str:
    """The user's module behind a node: the owner of its weights, else the innermost module that was running."""
    for name in node.input:
        parameter = name.removeprefix(f"{NETWORK}.")
        if name.startswith(f"{NETWORK}.") and parameter in parameters and "." in parameter:
            return str(parameter.rpartition(".")[0])
    inner: str = scope[-2] if len(scope) > 1 and not scope[-2].startswith("_empty_nn_module_stack") else ""
    return inner.removeprefix(NETWORK).removeprefix(".") or "model"


def _unused(name: str, used: set[str]) -> str:
    number, unique = 1, name
    while unique in used:
        number += 1
        unique = f"{name}#{number}"
    used.add(unique)
    return unique


def graphs(graph: Any) -> Iterator[Any]:
    """The graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from graphs(inner)


def _names(graph: Any) -> Iterator[str]:
    for node in graph.node:
        yield from node.output
    for value in (*graph.input, *graph.initializer):
        yield value.name


def strip(model: Any) -> None:
    """Remove documentation strings and metadata wherever ONNX allows them."""

    def clean(message: Any) -> None:
        for name in ("doc_string", "metadata_props"):
            if name in message.DESCRIPTOR.fields_by_name:
                message.ClearField(name)

    clean(model)
    for function in model.functions:
        for part in (function, *function.node, *function.value_info):
            clean(part)
    for graph in graphs(model.graph):
        for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
            clean(part)
        for node in graph.node:
            for attribute in node.attribute:
                clean(attribute)
