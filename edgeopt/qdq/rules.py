"""The rules: one for each pattern of Q/DQ that TensorRT's ONNX parser or builder refuses, or reads otherwise than ONNX.

They were found by giving such patterns to the parser and the builder of TensorRT-RTX 1.7.1, and the tests give each of
them to it again. Its sources say the same: ``QuantDequantLinearHelper`` in ``onnxOpImporters.cpp`` of
https://github.com/onnx/onnx-tensorrt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgeopt.qdq.graph import TRANSPARENT, Array, Graph, attribute, operand, quantization_axis, quantized_type

#: Where TensorRT says no: on import, or only when the engine is built. ``meaning``: it says nothing, and computes
#: something else than ONNX defines, or what its documentation does not support.
Stage = Literal["import", "build", "meaning"]
#: Node (``None`` for a tensor of the graph itself), tensor, what is wrong.
Hit = tuple[Any, str, str]


@dataclass(frozen=True)
class Rule:
    """A pattern.

    Attributes:
        id: As reports name it.
        title: What is not accepted, in a few words.
        stage: When TensorRT refuses it, or ``meaning``: it does not.
        advice: What to do where the model is made.
        check: Finds the pattern in one graph.
    """

    id: str
    title: str
    stage: Stage
    advice: str
    check: Callable[[Graph], Iterator[Hit]]


QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_SYMMETRIC = "quantize_static(activation_type=QInt8, extra_options={'ActivationSymmetric': True})"
#: Operators that take integers and scales instead of Q/DQ around a float operator.
_OPERATOR_FORMAT = ("QLinear", "QGemm", "QAttention", "ConvInteger", "MatMulInteger", "DynamicQuantize")
#: Operators whose inputs must be of one type, and which inputs these are.
_ALL, _FIRST_TWO, _FIRST_THREE = slice(None), slice(2), slice(3)
_SAME_TYPE = {
    "Add": _FIRST_TWO, "Concat": _ALL, "Conv": _FIRST_THREE, "ConvTranspose": _FIRST_THREE, "Div": _FIRST_TWO,
    "Einsum": _ALL, "Equal": _FIRST_TWO, "Gemm": _FIRST_THREE, "Greater": _FIRST_TWO, "GreaterOrEqual": _FIRST_TWO,
    "GridSample": _FIRST_TWO, "InstanceNormalization": _FIRST_THREE, "LayerNormalization": _FIRST_THREE,
    "Less": _FIRST_TWO, "LessOrEqual": _FIRST_TWO, "MatMul": _FIRST_TWO, "Max": _ALL, "Mean": _ALL, "Min": _ALL,
    "Mod": _FIRST_TWO, "Mul": _FIRST_TWO, "PRelu": _FIRST_TWO, "Sub": _FIRST_TWO, "Sum": _ALL, "Where": slice(1, 3),
}  # fmt: skip
#: Operators that the builder has no integer version of. It refuses them if all their data are 8-bit integers.
_FLOAT_ONLY = frozenset(
    {
        "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BatchNormalization", "Ceil", "Cos", "Cosh", "Einsum", "Elu",
        "Exp", "Floor", "Gelu", "Gemm", "GlobalAveragePool", "GridSample", "IsInf", "IsNaN", "Log", "LogSoftmax",
        "MatMul", "Mod", "Pow", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "Round", "Selu", "Sigmoid",
        "Sin", "Sinh", "Softmax", "Softplus", "Sqrt", "Tan", "Tanh",
    }
)  # fmt: skip
#: Which of their inputs that are: as above, and both of Pow, whose types may differ.
_FLOAT_IF_ALL = _SAME_TYPE | {"Pow": _FIRST_TWO}
#: Operators that the parser has no integer version of.
_FLOAT_ONLY_IN_THE_PARSER = frozenset(
    {
        "Celu", "CumSum", "GlobalLpPool", "GroupNormalization", "Hardmax", "InstanceNormalization",
        "LayerNormalization", "LpNormalization", "LpPool", "Mean", "MeanVarianceNormalization", "Mish",
    }
)  # fmt: skip
#: Operators that multiply two tensors with each other. The builder computes with the types before their DQs.
_PRODUCTS = ("Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul")
#: Operators through which it sees a DQ. MaxPool only where that is not of float8.
_SEEN_THROUGH = (
    "Identity", "Dropout", "Flatten", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
_CONVOLUTIONS = ("Conv", "ConvTranspose")


def is_qdq(node: Any) -> bool:
    """Whether a node is a QuantizeLinear or DequantizeLinear, of ONNX or of ONNX Runtime's domain."""
    return node.op_type in (QUANTIZE, DEQUANTIZE)


def _qdq(graph: Graph) -> Iterator[Any]:
    return (node for node in graph.nodes if is_qdq(node))


def _type(number: int) -> str:
    import onnx

    return str(onnx.TensorProto.DataType.Name(number)).lower()


def _types(*names: str) -> frozenset[int]:
    import onnx

    return frozenset(onnx.TensorProto.DataType.Value(name) for name in names)


def _zero_point(graph: Graph) -> Iterator[Hit]:
    for node in _qdq(graph):
        zero = graph.value(operand(node, 2)) if operand(node, 2) else None
        if zero is not None and np.any(zero):
            shown = sorted(set(zero.reshape(-1).tolist()))
            text = str(shown[0]) if len(shown) == 1 else f"{shown[0]} to {shown[-1]}"
            yield node, node.input[0], f"its zero point is {text}, and only 0 is accepted"


def _zero_point_not_constant(graph: Graph) -> Iterator[Hit]:
    for node in _qdq(graph):
        if (name := operand(node, 2)) and graph.value(name) is None:
            when = "from constants" if graph.is_constant(name) else "at run time"
            yield node, name, f"its zero point is computed {when}, and only Identity and Cast may stand before it"


def _zero_point_left_empty(graph: Graph) -> Iterator[Hit]:
    for node in _qdq(graph):
        if len(node.input) > 2 and not node.input[2]:
            yield node, node.input[0], "its third input is an empty name, which ONNX allows and the parser does not"


def _source(graph: Graph, node: Any) -> int:
    """Type of what a DQ reads; 0 if a QuantizeLinear wrote it: that is int8 for the parser, whatever ONNX says."""
    name = node.input[0]
    for _ in range(8):
        writer = graph.producer(name)
        if writer is not None and writer.op_type == QUANTIZE:
            return 0
        if writer is None or writer.op_type in ("Constant", "Cast") or not writer.input:
            return graph.dtype(name)
        name = writer.input[0]
    return 0


def _uint8_source(graph: Graph, node: Any) -> bool:
    return _source(graph, node) in _types("UINT8")


def _uint8_weights(graph: Graph) -> Iterator[Hit]:
    for node in _qdq(graph):
        if node.op_type == DEQUANTIZE and _uint8_source(graph, node) and graph.is_constant(node.input[0]):
            yield node, node.input[0], "it reads uint8 constants, and only int8 ones are accepted"


def _uint8_input(graph: Graph) -> Iterator[Hit]:
    for node in _qdq(graph):
        if node.op_type == DEQUANTIZE and _uint8_source(graph, node) and not graph.is_constant(node.input[0]):
            yield node, node.input[0], "it reads uint8 that no QuantizeLinear wrote"


def _uint8_moved(graph: Graph) -> Iterator[Hit]:
    for name, value in graph.inputs.items():
        if value.type.tensor_type.elem_type in _types("UINT8"):
            for node in graph.consumers.get(name, ()):
                if node.op_type not in ("Cast", DEQUANTIZE):
                    yield node, name, f"{node.op_type} reads uint8, and only Cast may"


def _int32(graph: Graph) -> Iterator[Hit]:
    for node in _qdq(graph):
        if node.op_type == DEQUANTIZE and _source(graph, node) in _types("INT32"):
            what = "constants (a quantized bias)" if graph.is_constant(node.input[0]) else "values"
            yield node, node.input[0], f"it reads int32 {what}"


def _input_type(graph: Graph) -> Iterator[Hit]:
    floats = _types("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")
    wrong_to_dequantize = floats | _types("BOOL", "INT64")
    for node in _qdq(graph):
        kind = graph.dtype(node.input[0])
        if node.op_type == QUANTIZE and kind and kind not in floats:
            yield node, node.input[0], f"it quantizes {_type(kind)}, and only floats can be"
        if node.op_type == DEQUANTIZE and kind in wrong_to_dequantize:
            yield node, node.input[0], f"it dequantizes {_type(kind)}: a QuantizeLinear is missing before it"


def _unsupported_type(graph: Graph) -> Iterator[Hit]:
    known = _types(
        "FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT8", "INT32", "INT64", "BOOL", "INT4", "FLOAT8E4M3FN",
        "FLOAT4E2M1",
    )  # fmt: skip
    for name, tensor in graph.tensors.items():
        if tensor.data_type not in known:
            readers = graph.consumers.get(name, [None])
            yield readers[0], name, f"it holds {_type(tensor.data_type)}, which TensorRT does not have"
    for node in graph.nodes:
        if node.op_type == "Constant" and node.output[0] not in graph.tensors:
            yield node, node.output[0], "it is a sparse constant or a text, which the parser does not take"
    for value in (*graph.inputs.values(), *graph.proto.output):
        kind = value.type.tensor_type.elem_type
        if kind and kind not in known:
            yield None, value.name, f"its type is {_type(kind)}, which TensorRT does not have"
    for node in graph.nodes:
        kind = attribute(node, "to") if node.op_type == "Cast" else attribute(node, "output_dtype")
        if (node.op_type == "Cast" or is_qdq(node)) and kind and kind not in known:
            yield node, node.output[0], f"it writes {_type(kind)}, which TensorRT does not have"
        if node.op_type == "Cast" and kind in _types("UINT8") and node.output[0] not in graph.outputs:
            yield node, node.output[0], "it writes uint8, which TensorRT has for inputs and outputs only"


def _output_dtype(graph: Graph) -> Iterator[Hit]:
    for node in graph.nodes:
        asked = attribute(node, "output_dtype") if node.op_type == QUANTIZE else None
        if not asked:
            continue
        zero = graph.dtype(operand(node, 2)) if operand(node, 2) else 0
        if zero and zero != asked:
            yield node, node.output[0], f"output_dtype says {_type(asked)}, its zero point {_type(zero)}"
        elif not zero and asked in _types("UINT8"):
            yield node, node.output[0], "its output_dtype is uint8"


def _output_without_type(graph: Graph) -> Iterator[Hit]:
    if graph.outer is None:
        for value in graph.proto.output:
            if not value.type.tensor_type.elem_type:
                yield None, value.name, "this output of the model does not say its type"


def _scale_not_positive(graph: Graph) -> Iterator[Hit]:
    for node in _qdq(graph):
        tensor = graph.tensor(node.input[1])
        if tensor is None:
            continue
        scale = graph.value(node.input[1])
        if scale is not None and scale.size and (np.issubdtype(scale.dtype, np.integer) or not np.all(scale > 0)):
            yield node, node.input[1], f"{int(np.sum(~(scale > 0)))} of its {scale.size} scales are not above zero"


def _scale_of_convolution(graph: Graph) -> Iterator[Hit]:
    for node, computed in _computed_scales(graph):
        if computed and any(reader.op_type in _CONVOLUTIONS for reader in graph.consumers.get(node.output[0], ())):
            yield node, node.input[1], "its scale is computed at run time, and it feeds a convolution"


def _scale_computed(graph: Graph) -> Iterator[Hit]:
    for node, computed in _computed_scales(graph):
        if computed:
            yield node, node.input[1], "its scale is computed at run time"


def _computed_scales(graph: Graph) -> Iterator[tuple[Any, bool]]:
    return ((node, not graph.is_constant(node.input[1])) for node in _qdq(graph))


def _scale_shape(graph: Graph) -> Iterator[Hit]:
    for node in _qdq(graph):
        if problem := _scale_problem(graph, node):
            yield node, node.input[1], problem


def _scale_problem(graph: Graph, node: Any) -> str:
    data, scale = graph.shape(node.input[0]), graph.shape(node.input[1])
    if scale is None or (count := _count(scale)) is None:
        return ""
    if count == 0:
        return "it has no scale"
    zero = graph.value(operand(node, 2)) if operand(node, 2) else None
    if zero is not None and zero.size != count:
        return f"it has {count} scales and {zero.size} zero points"
    if data is None:
        return ""
    if len(scale) > 1:
        return _block_problem(graph, node, data, scale)
    if count == 1:
        return ""
    axis = quantization_axis(graph, node, len(data))
    if not 0 <= axis < len(data):
        return f"its axis {axis} lies outside of the {len(data)} dimensions of the tensor"
    if data[axis] is not None and data[axis] != count:
        return f"it has {count} scales for {data[axis]} channels along axis {axis}"
    return ""


def _count(shape: tuple[int | None, ...] | None) -> int | None:
    """Elements of a tensor, ``None`` if that is not known."""
    sizes = [size for size in shape or () if size is not None]
    return None if shape is None or len(sizes) < len(shape) else math.prod(sizes)


def _block_problem(graph: Graph, node: Any, data: tuple[int | None, ...], scale: tuple[int | None, ...]) -> str:
    if len(scale) != len(data):
        return f"its scales have {len(scale)} dimensions, its tensor {len(data)}"
    axis = quantization_axis(graph, node, len(data))
    if None in data or not 0 <= axis < len(data):
        return "" if None in data else f"its axis {axis} lies outside of the {len(data)} dimensions of the tensor"
    size, blocks = data[axis] or 0, scale[axis] or 0
    if any(a != b for i, (a, b) in enumerate(zip(data, scale, strict=True)) if i != axis):
        return "only the axis of the blocks may have fewer scales than the tensor has elements"
    if size % blocks:
        return f"{size} elements do not divide into {blocks} blocks"
    if size == blocks:
        return "its blocks hold one element each"
    return "" if axis >= len(data) - 2 else "blocks must lie along one of the last two dimensions"


def _scalar_constant(graph: Graph) -> Iterator[Hit]:
    for node in _qdq(graph):
        if node.op_type == DEQUANTIZE and _quantized_constant(graph, node.input[0]) and not graph.shape(node.input[0]):
            yield node, node.input[0], "it reads a quantized constant without dimensions"


def _quantized_constant(graph: Graph, name: str) -> bool:
    tensor = graph.tensor(name)
    return tensor is not None and tensor.data_type in _types("INT8", "INT4", "FLOAT8E4M3FN", "FLOAT4E2M1")


def _constant_not_dequantized(graph: Graph) -> Iterator[Hit]:
    for node in graph.nodes:
        for name in dict.fromkeys(node.input):
            if not name or not _quantized_constant(graph, name):
                continue
            folded = node.op_type == "Clip" or (node.op_type in _CONVOLUTIONS and operand(node, 1) == name)
            if not (folded or _as_quantized(graph, node, name) or _only_zero_point(graph, node)):
                outer = "" if name in graph.tensors else " of the graph around it"
                yield node, name, f"{node.op_type} reads a quantized constant{outer}, which only DequantizeLinear may"
    for name in sorted(graph.outputs):
        if _quantized_constant(graph, name):
            yield None, name, "a quantized constant is an output"


def _as_quantized(graph: Graph, node: Any, name: str) -> bool:
    """A DQ of its own graph reads it, or it is a zero point."""
    dequantized = node.op_type == DEQUANTIZE and node.input[0] == name and name in graph.tensors
    return dequantized or (is_qdq(node) and operand(node, 2) == name)


def _only_zero_point(graph: Graph, node: Any) -> bool:
    """The node hands a constant on to nothing but zero points, where the parser looks through it."""
    if node.op_type not in TRANSPARENT:
        return False
    readers = graph.consumers.get(node.output[0], ())
    return bool(readers) and all(is_qdq(reader) and operand(reader, 2) == node.output[0] for reader in readers)


def _operator_format(graph: Graph) -> Iterator[Hit]:
    for node in graph.nodes:
        if node.op_type.startswith(_OPERATOR_FORMAT):
            yield node, node.output[0], f"{node.op_type} computes with integers by itself, and the parser knows no such"


def _kind(graph: Graph, name: str) -> int:
    """Type of a tensor as the parser sees it, which has neither double nor, inside of a network, uint8."""
    import onnx

    proto = onnx.TensorProto
    kind = graph.dtype(name)
    return int({proto.DOUBLE: proto.FLOAT, proto.UINT8: proto.INT8}.get(kind, kind))


def _mixed_types(graph: Graph) -> Iterator[Hit]:
    quantized = _types("INT8", "INT4", "FLOAT8E4M3FN", "FLOAT4E2M1")
    telling = quantized | _types("FLOAT", "FLOAT16", "BFLOAT16")
    for node in graph.nodes:
        names = [name for name in node.input[_SAME_TYPE.get(node.op_type, slice(0))] if name]
        kinds = {name: _kind(graph, name) for name in names}
        if len(different := set(kinds.values())) > 1 and all(different) and different & telling:
            first = next((name for name in names if kinds[name] in quantized), "")
            shown = " and ".join(dict.fromkeys(_type(kinds[name]) for name in names))
            yield (
                node,
                first or next(n for n in names if kinds[n] != kinds[names[0]]),
                (f"{node.op_type} reads {shown} together"),
            )


def _missing_dequantize(graph: Graph) -> Iterator[Hit]:
    for node in graph.nodes:
        if node.op_type in _FLOAT_ONLY and not _integer_mod(node):
            names = node.input[_FLOAT_IF_ALL.get(node.op_type, slice(1))]
            if names and all(_kind(graph, name) in _types("INT8") for name in names if name):
                yield node, names[0], f"{node.op_type} reads a quantized tensor, and computes with floats only"


def _float_operator(graph: Graph) -> Iterator[Hit]:
    for node in graph.nodes:
        quantized = [name for name in node.input if name and _kind(graph, name) in _types("INT8")]
        if quantized and (node.op_type in _FLOAT_ONLY_IN_THE_PARSER or _integer_mod(node)):
            yield node, quantized[0], f"{node.op_type} reads a quantized tensor, and takes floats only"


def _integer_mod(node: Any) -> bool:
    return node.op_type == "Mod" and not attribute(node, "fmod")


def _quantized_product(graph: Graph) -> Iterator[Hit]:
    for node in graph.nodes:
        if node.op_type in _PRODUCTS and len(node.input) > 1:
            kinds = [_quantized_as(graph, name) for name in node.input[:2]]
            if all(kinds) and not _multiplied(node.op_type, *kinds):
                shown = " by ".join(map(_type, kinds))
                yield node, node.input[1], f"{node.op_type} multiplies {shown}, which the builder has no kernel for"


def _quantized_as(graph: Graph, name: str) -> int:
    """Type before the DQ that a factor comes from; 0 if it comes from none."""
    for _ in range(8):
        node = graph.producer(name)
        if node is None or not node.input:
            return 0
        if node.op_type == DEQUANTIZE:
            kind = _kind(graph, node.input[0])
            return kind if kind in _types("INT8", "INT4", "FLOAT8E4M3FN") else 0
        if node.op_type not in _SEEN_THROUGH:
            return 0
        name = node.input[0]
        if node.op_type == "MaxPool" and _quantized_as(graph, name) in _types("FLOAT8E4M3FN"):
            return 0
    return 0


def _multiplied(op: str, one: int, other: int) -> bool:
    """Whether the builder takes such a product, as it says without a GPU."""
    if one == other:
        return one not in _types("INT4") or op not in _CONVOLUTIONS
    return op == "ConvTranspose" and bool({one, other} & _types("INT8"))


def _uint8_activations(graph: Graph) -> Iterator[Hit]:
    for node in graph.nodes:
        if node.op_type == QUANTIZE and quantized_type(graph, node) in _types("UINT8"):
            zero: Array | None = graph.value(operand(node, 2)) if operand(node, 2) else None
            if (zero is None or not np.any(zero)) and not attribute(node, "output_dtype"):
                yield node, node.input[0], "it asks for uint8, and TensorRT writes int8: values above 127 are cut off"


def _per_channel_activations(graph: Graph) -> Iterator[Hit]:
    for node in graph.nodes:
        count = _count(graph.shape(node.input[1])) if node.op_type == QUANTIZE else None
        if count and count > 1 and not graph.is_constant(node.input[0]):
            yield node, node.input[0], f"an activation has {count} scales"


RULES: tuple[Rule, ...] = (
    Rule("operator-format", "integer operators", "import", "quantize with QuantFormat.QDQ", _operator_format),
    Rule("int32-bias", "int32 through DequantizeLinear", "import",
         "leave biases float: quantize_static(extra_options={'QuantizeBias': False})", _int32),
    Rule("uint8-weights", "uint8 weights", "import", "quantize_static(weight_type=QInt8)", _uint8_weights),
    Rule("uint8-input", "uint8 read by DequantizeLinear", "import",
         "take uint8 inputs through Cast and Mul", _uint8_input),
    Rule("uint8-moved", "an operator on a uint8 input", "import", "cast the input before anything else", _uint8_moved),
    Rule("zero-point", "a zero point that is not 0", "import", _SYMMETRIC, _zero_point),
    Rule("zero-point-not-constant", "a computed zero point", "build", "make the zero point an initializer of zeros",
         _zero_point_not_constant),
    Rule("zero-point-left-empty", "an empty zero point", "import", "leave the third input away",
         _zero_point_left_empty),
    Rule("unsupported-type", "a type that TensorRT does not have", "import",
         "quantize to 8 bits: activation_type=QInt8, weight_type=QInt8", _unsupported_type),
    Rule("output-dtype", "output_dtype", "import", "write int8: a zero point of type int8, no output_dtype",
         _output_dtype),
    Rule("input-type", "Q or DQ of the wrong type", "import", "keep every DequantizeLinear behind a QuantizeLinear",
         _input_type),
    Rule("mixed-types", "tensors of two types together", "import",
         "put a DequantizeLinear before every operator that computes, and give all scales one type", _mixed_types),
    Rule("float-operator", "a quantized tensor where only floats may be", "import",
         "put a DequantizeLinear before every operator that computes", _float_operator),
    Rule("missing-dequantize", "arithmetic on quantized tensors", "build",
         "put a DequantizeLinear before every operator that computes", _missing_dequantize),
    Rule("quantized-product", "a product of two quantized types", "build",
         "quantize both factors to int8 or to float8; 4 bits only for weights of a float product", _quantized_product),
    Rule("scale-not-positive", "a scale that is not above zero", "import",
         "calibrate with samples that use every channel", _scale_not_positive),
    Rule("scale-shape", "scales that do not fit their tensor", "import",
         "one scale, or one for each element of the axis", _scale_shape),
    Rule("scale-of-convolution", "a computed scale before a convolution", "build", "make the scale an initializer",
         _scale_of_convolution),
    Rule("scalar-constant", "a quantized constant without dimensions", "build", "leave scalars float",
         _scalar_constant),
    Rule("constant-not-dequantized", "a quantized constant that something else reads", "build",
         "fold constants before quantizing", _constant_not_dequantized),
    Rule("output-without-type", "an output without a type", "import", "write the type of every output",
         _output_without_type),
    Rule("uint8-activations", "uint8 activations", "meaning", _SYMMETRIC, _uint8_activations),
    Rule("per-channel-activations", "several scales for an activation", "meaning",
         "one scale for each activation: NVIDIA documents several scales for weights only", _per_channel_activations),
    Rule("scale-computed", "a computed scale", "meaning",
         "make the scale an initializer: NVIDIA documents constant scales only", _scale_computed),
)  # fmt: skip
