"""Names in a converted file: operators after the nodes that the ONNX export writes, and nothing of the converter.

An operator of a ``.tflite`` file has no name, so that its first output carries it. The converter leaves there which
modules the operator was made of, ``module:network.stem.1;;module:network.stem.0;2``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgeopt.agent import tflite_file
from edgeopt.agent.toolchains.litert_torch import MODULE
from edgeopt.tflite import operator_name

#: What the user's network is called in what is converted, beside its preprocessing.
NETWORK = "network"
#: What the toolchain has the converter write of an operation: its module, and a number that keeps names unlike.
_PLACE = re.compile(rf"^{MODULE}(?:{NETWORK}\b\.?)?(?P<name>[^;]*)(?:;\d*)?$")
#: Between the ONNX nodes that one operator computes.
_JOINT = "+"
#: Appended by the quantizer to a tensor that it adds.
_ADDED = re.compile(r"(_quantized|_requant|_dequant|_dequantized|_duplicated_\d+)+$")
#: Operator -> what the ONNX exporter calls it. Others are written by themselves: LOG_SOFTMAX is LogSoftmax.
_ONNX = {
    "AVERAGE_POOL_2D": "AveragePool", "BATCH_MATMUL": "MatMul", "CONCATENATION": "Concat", "CONV_2D": "Conv",
    "CONV_3D": "Conv", "DEPTHWISE_CONV_2D": "Conv", "HARD_SWISH": "HardSwish", "LOGISTIC": "Sigmoid",
    "MAX_POOL_2D": "MaxPool", "MEAN": "ReduceMean", "PRELU": "PRelu", "REDUCE_MAX": "ReduceMax", "RELU6": "Clip",
    "RESIZE_BILINEAR": "Resize", "RESIZE_NEAREST_NEIGHBOR": "Resize", "SUM": "ReduceSum",
    "TRANSPOSE_CONV": "ConvTranspose",
}  # fmt: skip
#: Operators whose second input is a weight. It is named after the module that holds it, unless more was folded in.
_WEIGHTED = frozenset({"CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})
#: ``ActivationFunctionType`` of the schema -> the ONNX node that was fused into the operator.
_FUSED = {1: "Relu", 2: "Clip", 3: "Clip", 4: "Tanh"}


def sources(name: str) -> tuple[str, ...]:
    """The ONNX nodes that a tensor's name tells of: ``a/Conv+b/Relu_quantized`` gives ``a/Conv`` and ``b/Relu``."""
    return tuple(part for part in _ADDED.sub("", name).split(_JOINT) if "/" in part)


def tidy(model: Any, input_name: str, output_names: list[str]) -> list[str]:
    """Name inputs and outputs as the recipe and the ONNX file do, and operators after their ONNX nodes.

    Args:
        model: A ``ModelT`` that the converter wrote; changed in place.
        input_name: Of its one input.
        output_names: As many as it has outputs.

    Returns:
        What the outputs would be called after their nodes; see :func:`sources`.
    """
    graph = model.subgraphs[0]
    ends = {graph.inputs[0]: input_name, **dict(zip(graph.outputs, output_names, strict=True))}
    for signature in model.signatureDefs or []:
        for end in (*signature.inputs, *signature.outputs):
            end.name = ends[end.tensorIndex]
    taken = set(ends.values())
    named = set(ends)
    makers: dict[int, str] = {}
    for operator in graph.operators:
        name = _JOINT.join(_unused(part, taken) for part in _nodes(model, graph, operator))
        for number in operator.outputs:
            makers[number] = name
            if number not in named:
                graph.tensors[number].name = _unused(name, taken) if len(operator.outputs) > 1 else name
                named.add(number)
        for place, number in enumerate(operator.inputs):
            if number >= 0 and number not in named and model.buffers[graph.tensors[number].buffer].data is not None:
                graph.tensors[number].name = _unused(f"{name}.{('data', 'weight', 'bias')[min(place, 2)]}", taken)
                named.add(number)
    for number, name in ends.items():
        graph.tensors[number].name = name
    model.description = "edgeopt"
    return [makers.get(number, "") for number in graph.outputs]


def _nodes(model: Any, graph: Any, operator: Any) -> list[str]:
    """``["stem.0/Conv", "stem.2/Relu"]``."""
    kind = operator_name(model, operator)
    weight = operator.inputs[1] if len(operator.inputs) > 1 else -1
    held = _modules(graph.tensors[weight].name) if weight >= 0 else []
    places = _modules(graph.tensors[operator.outputs[0]].name) or held or ["model"]
    place = places[0 if kind == "FULLY_CONNECTED" else -1]
    if len(held) == 1 and kind in _WEIGHTED and model.buffers[graph.tensors[weight].buffer].data is not None:
        place = held[0]
    if kind == "FULLY_CONNECTED":
        op = "Gemm" if len(graph.tensors[operator.inputs[0]].shape) == 2 else "MatMul"
    else:
        op = _ONNX.get(kind, "".join(part.capitalize() for part in kind.split("_")))
    nodes = [f"{place}/{op}"]
    fused = _FUSED.get(getattr(operator.builtinOptions, "fusedActivationFunction", 0))
    if fused:
        others = [other for other in places if other != place]
        nodes.append(f"{others[0] if others else place}/{fused}")
    return nodes


def _modules(name: bytes | str) -> list[str]:
    """The user's modules that a name of the converter tells of.

    The last operation comes first, except that a fully connected layer stands before all others.
    """
    text = name if isinstance(name, str) else name.decode()
    return [match["name"] or "model" for match in map(_PLACE.match, text.split(";;")) if match]


def _unused(name: str, taken: set[str]) -> str:
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}#{number}"
    taken.add(unique)
    return unique


def origin(graph: tflite_file.Graph, outputs: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """ONNX nodes by the name of an operator.

    Args:
        graph: With tidy names.
        outputs: ``meta["outputs"]`` of the artefact, which has the nodes of the operators that are named after outputs.
    """
    last = {output["name"]: output["node"] for output in outputs}
    return {operator.name: sources(last.get(operator.name, operator.name)) for operator in graph.operators}
