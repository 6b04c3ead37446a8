"""One model or more for each rule, and models that are accepted although they look odd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.qdq_graphs import Draft

SHAPE = (8, 8, 3, 3)
CHANNELS = [0.01 + 0.001 * i for i in range(8)]


def conv(
    x: Callable[[Draft, str], str] | None = None,
    w: Callable[[Draft], str] | None = None,
    b: Callable[[Draft], str] | None = None,
    after: Callable[[Draft, str], str] | None = None,
    opset: int = 20,
    output: int = TensorProto.FLOAT,
) -> Any:
    """(1, 8, 6, 6) through a convolution with a bias; each part as it is accepted, unless it is given."""
    draft = Draft(opset)
    given = draft.input([1, 8, 6, 6])
    data = (x or (lambda d, name: d.qdq(name)))(draft, given)
    weights = (w or signed)(draft)
    biases = b(draft) if b else draft.constant(draft.weights(8))
    y = draft.op("Conv", data, weights, biases, pads=[1] * 4)
    draft.output((after or (lambda d, name: name))(draft, y), output)
    return draft.model()


def alone(*shape: int, kind: int = TensorProto.FLOAT, opset: int = 20, output: int = TensorProto.FLOAT) -> Any:
    """Decorates what is done with one input."""

    def make(body: Callable[[Draft, str], str]) -> Any:
        draft = Draft(opset)
        draft.output(body(draft, draft.input(shape or (1, 8, 6, 6), kind)), output)
        return draft.model()

    return make


def signed(draft: Draft) -> str:
    return draft.dq(draft.constant(draft.integers("int8", *SHAPE)), CHANNELS, axis=0)


def stored(kind: str, scale: Any = CHANNELS, zero: Any = 0, **attributes: Any) -> Callable[[Draft], str]:
    attributes.setdefault("axis", 0)
    return lambda d: d.dq(d.constant(d.integers(kind, *SHAPE)), scale, zero, kind, **attributes)


def with_scale(
    scale: Callable[[Draft], str], zero: Callable[[Draft], str] | None = None
) -> Callable[[Draft, str], str]:
    def pair(draft: Draft, x: str) -> str:
        names = [scale(draft), *([zero(draft)] if zero else [])]
        return draft.op("DequantizeLinear", draft.op("QuantizeLinear", x, *names), *names)

    return pair


def tenth(draft: Draft) -> str:
    return draft.constant(np.float32(0.1))


def in_a_node(draft: Draft, values: Any) -> str:
    return draft.op("Constant", value=numpy_helper.from_array(values))


def zeros(draft: Draft) -> str:
    return draft.constant(np.int8(0))


def moved(kind: str, **attributes: Any) -> Callable[[Draft], str]:
    """int8 weights that an operator hands on."""

    def weights(draft: Draft) -> str:
        values = [draft.constant(draft.integers("int8", 8, 8, 3, 3))]
        values += [draft.constant(np.array(SHAPE, np.int64))] if kind == "Reshape" else []
        return draft.dq(draft.op(kind, *values, **attributes), CHANNELS, axis=0)

    return weights


def fed(draft: Draft, shape: list[int], kind: int = TensorProto.FLOAT) -> str:
    return draft.input(shape, kind)


def ones(draft: Draft, size: int = 8) -> str:
    return draft.constant(np.ones(size, np.float32))


def mask(draft: Draft) -> str:
    return draft.constant(np.ones((1, 8, 6, 6), bool))


def zero_point(make: Callable[[Draft], str]) -> Callable[[], Any]:
    """Q and DQ with a scale of 0.1."""
    return lambda: alone()(with_scale(tenth, make))


def scale(make: Callable[[Draft], str]) -> Callable[[], Any]:
    """Q and DQ without a zero point."""
    return lambda: alone()(with_scale(make))


def filled(draft: Draft, value: int) -> str:
    """A scalar from ConstantOfShape."""
    values = numpy_helper.from_array(np.array([value], np.int8))
    return draft.op("Squeeze", draft.op("ConstantOfShape", draft.constant(np.array([1], np.int64)), value=values))


def on_int8(kind: str, *rest: Callable[[Draft], str], opset: int = 20, **attributes: Any) -> Callable[[], Any]:
    """An operator that reads what Q wrote, and constants."""
    return lambda: alone(opset=opset)(
        lambda d, x: d.dq(d.op(kind, d.q(x), *(constant(d) for constant in rest), **attributes))
    )


def half(draft: Draft, x: str) -> str:
    return draft.op("Cast", x, to=TensorProto.FLOAT16)


def narrow(kind: str) -> Callable[[Draft, str], str]:
    """An activation through Q and DQ in 4 bits or float8."""

    def pair(draft: Draft, x: str) -> str:
        names = [tenth(draft), draft.constant(np.zeros((), getattr(ml_dtypes, kind)))]
        return draft.op("DequantizeLinear", draft.op("QuantizeLinear", x, *names), *names)

    return pair


def narrow_weights(kind: str, *shape: int) -> Callable[[Draft], str]:
    return lambda d: d.op(
        "DequantizeLinear", d.constant(np.ones(shape or SHAPE).astype(getattr(ml_dtypes, kind))), tenth(d)
    )


def product(x: Callable[[Draft, str], str], w: Callable[[Draft], str]) -> Any:
    return alone(1, 8, opset=21)(lambda d, given: d.op("MatMul", x(d, given), w(d)))


def in_a_branch(
    outer: Callable[[Draft], list[str]], inner: Callable[[str, str, list[str]], list[Any]]
) -> Callable[[], Any]:
    """An If whose branches read constants of the graph around it; ``inner`` makes nodes, of which the last is read."""

    def make() -> Any:
        draft = Draft()
        x, condition = draft.input([1, 8, 6, 6]), draft.input([], TensorProto.BOOL)
        names = outer(draft)

        def branch(prefix: str) -> Any:
            nodes = inner(prefix, x, names)
            out = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, [1, 8, 6, 6])
            return helper.make_graph(nodes, prefix, [], [out])

        draft.output(draft.op("If", condition, then_branch=branch("t"), else_branch=branch("e")))
        return draft.model()

    return make


def captured_pair(prefix: str, x: str, names: list[str]) -> list[Any]:
    make = helper.make_node
    quantized = make("QuantizeLinear", [x, *names], [f"{prefix}q"], name=f"net.{prefix}q/QuantizeLinear")
    return [quantized, make("DequantizeLinear", [f"{prefix}q", *names], [f"{prefix}y"])]


def captured_weights(prefix: str, x: str, names: list[str]) -> list[Any]:
    dequantized = helper.make_node("DequantizeLinear", names, [f"{prefix}w"])
    return [dequantized, helper.make_node("Conv", [x, f"{prefix}w"], [f"{prefix}y"], pads=[1] * 4)]


def in_a_function(zero: int, kind: str = "int8") -> Any:
    """Q and DQ in a local function that is given scale and zero point."""
    names = ["a", "s", "z"]
    body = [
        helper.make_node("QuantizeLinear", names, ["b"]),
        helper.make_node("DequantizeLinear", ["b", "s", "z"], ["c"]),
    ]
    draft = Draft()
    draft.output(draft.op("QDQ", draft.input([1, 8, 6, 6]), *draft.quantization(0.1, zero, kind), domain="local"))
    model = draft.model()
    model.functions.append(helper.make_function("local", "QDQ", names, ["c"], body, [helper.make_opsetid("", 20)]))
    model.opset_import.append(helper.make_opsetid("local", 1))
    return model


_MICROSOFT = {"domain": "com.microsoft"}
_FOREIGN = {"domain": "my.domain"}
_F8, _I4 = "float8_e4m3fn", "int4"
#: Operators that take one quantized tensor, and the rule that says no.
_UNARY = {
    "float-operator": (
        "Celu",
        "GlobalLpPool",
        "Hardmax",
        "LpNormalization",
        "Mean",
        "MeanVarianceNormalization",
        "Mish",
    ),
    "missing-dequantize": (
        "Acos",
        "Asinh",
        "Atanh",
        "Ceil",
        "Cos",
        "Elu",
        "Log",
        "Round",
        "Selu",
        "Sin",
        "Tan",
        "Tanh",
    ),
}

#: Name -> the rule that names it, and the model.
REFUSED: dict[str, tuple[str, Callable[[], Any]]] = {
    "activation, int8, zero point 3": ("zero-point", lambda: conv(x=lambda d, x: d.qdq(x, zero=3))),
    "activation, uint8, zero point 128": ("zero-point", lambda: conv(x=lambda d, x: d.qdq(x, zero=128, kind="uint8"))),
    "activation, uint8, zero point 57": ("zero-point", lambda: conv(x=lambda d, x: d.qdq(x, zero=57, kind="uint8"))),
    "weights, int8, zero point 3": ("zero-point", lambda: conv(w=stored("int8", zero=3))),
    "weights, one zero point of many": ("zero-point", lambda: conv(w=stored("int8", zero=[0] * 7 + [1]))),
    "float weights, uint8, zero point 128": (
        "zero-point",
        lambda: conv(w=lambda d: d.qdq(d.constant(d.weights(*SHAPE)), 0.01, 128, "uint8")),
    ),
    "zero point behind Identity": (
        "zero-point",
        lambda: alone()(with_scale(tenth, lambda d: d.op("Identity", d.constant(np.int8(1))))),
    ),
    "int8 input, zero point 5": (
        "zero-point",
        lambda: alone(kind=TensorProto.INT8)(lambda d, x: d.op("Relu", d.dq(x, zero=5))),
    ),
    "zero point is an input": (
        "zero-point-not-constant",
        lambda: alone()(with_scale(tenth, lambda d: fed(d, [], TensorProto.INT8))),
    ),
    "zero point has an empty name": (
        "zero-point-left-empty",
        lambda: alone()(lambda d, x: d.op("DequantizeLinear", d.q(x), d.constant(np.float32(0.05)), "")),
    ),
    "weights, uint8, zero point 0": ("uint8-weights", lambda: conv(w=stored("uint8"))),
    "weights, uint8, zero point 128": ("uint8-weights", lambda: conv(w=stored("uint8", zero=128))),
    "weights, uint8, one scale": ("uint8-weights", lambda: conv(w=stored("uint8", 0.01))),
    "uint8 weights in a Constant node": (
        "uint8-weights",
        lambda: conv(w=lambda d: d.dq(in_a_node(d, d.integers("uint8", *SHAPE)), 0.01, 0, "uint8")),
    ),
    "uint8 input": (
        "uint8-input",
        lambda: alone(kind=TensorProto.UINT8)(lambda d, x: d.op("Relu", d.dq(x, 0.05, 0, "uint8"))),
    ),
    "uint8 input, zero point 12": (
        "uint8-input",
        lambda: alone(kind=TensorProto.UINT8)(lambda d, x: d.op("Relu", d.dq(x, 0.05, 12, "uint8"))),
    ),
    "uint8 input, transposed before it is cast": (
        "uint8-moved",
        lambda: alone(1, 6, 6, 8, kind=TensorProto.UINT8)(
            lambda d, x: d.qdq(d.op("Cast", d.op("Transpose", x, perm=[0, 3, 1, 2]), to=1), 2.0)
        ),
    ),
    "uint8 input, pooled before it is cast": (
        "uint8-moved",
        lambda: alone(kind=TensorProto.UINT8)(
            lambda d, x: d.qdq(d.op("Cast", d.op("MaxPool", x, kernel_shape=[2, 2]), to=1), 2.0)
        ),
    ),
    "int32 bias, one scale": (
        "int32-bias",
        lambda: conv(b=lambda d: d.dq(d.constant(d.integers("int32", 8)), 0.001, 0, "int32")),
    ),
    "int32 bias, a scale for each channel": (
        "int32-bias",
        lambda: conv(b=lambda d: d.dq(d.constant(d.integers("int32", 8)), [0.001] * 8, 0, "int32", axis=0)),
    ),
    "int32 bias without zero point": (
        "int32-bias",
        lambda: conv(b=lambda d: d.dq(d.constant(d.integers("int32", 8)), 0.001, 0, None)),
    ),
    "activation, int16": ("unsupported-type", lambda: conv(x=lambda d, x: d.qdq(x, kind="int16"), opset=21)),
    "activation, uint16, zero point 9": (
        "unsupported-type",
        lambda: conv(x=lambda d, x: d.qdq(x, zero=9, kind="uint16"), opset=21),
    ),
    "activation, int16, ONNX Runtime's domain": (
        "unsupported-type",
        lambda: conv(x=lambda d, x: d.qdq(x, kind="int16", **_MICROSOFT)),
    ),
    "weights, int16": ("unsupported-type", lambda: conv(w=stored("int16"), opset=21)),
    "an int16 constant that nothing reads": (
        "unsupported-type",
        lambda: alone()(lambda d, x: (d.constant(np.ones(3, np.int16)), d.qdq(x))[1]),
    ),
    "int16 input": ("unsupported-type", lambda: alone(kind=TensorProto.INT16)(lambda d, x: d.op("Cast", x, to=1))),
    "int16 output": (
        "unsupported-type",
        lambda: alone(output=TensorProto.INT16)(lambda d, x: d.op("Cast", x, to=TensorProto.INT16)),
    ),
    "cast to uint8": (
        "unsupported-type",
        lambda: alone()(lambda d, x: d.op("Cast", d.op("Cast", x, to=TensorProto.UINT8), to=1)),
    ),
    "output_dtype int16": (
        "unsupported-type",
        lambda: alone(opset=21)(
            lambda d, x: d.dq(d.op("QuantizeLinear", x, d.constant(np.float32(0.1)), output_dtype=5), 0.1, 0, None)
        ),
    ),
    "output_dtype uint8": (
        "output-dtype",
        lambda: alone(opset=21)(
            lambda d, x: d.dq(d.op("QuantizeLinear", x, d.constant(np.float32(0.1)), output_dtype=2), 0.1, 0, None)
        ),
    ),
    "int32 quantized": ("input-type", lambda: alone(kind=TensorProto.INT32)(lambda d, x: d.qdq(x))),
    "DQ without Q": ("input-type", lambda: conv(x=lambda d, x: d.dq(x))),
    "two DQ": ("input-type", lambda: conv(x=lambda d, x: d.dq(d.qdq(x)))),
    "Q without DQ before a convolution": ("mixed-types", lambda: conv(x=lambda d, x: d.q(x))),
    "int8 weights without DQ": ("mixed-types", lambda: conv(w=lambda d: d.constant(d.integers("int8", *SHAPE)))),
    "Q on one side of an addition": ("mixed-types", lambda: alone()(lambda d, x: d.op("Add", d.q(x), x))),
    "Sigmoid of int8": ("missing-dequantize", lambda: alone()(lambda d, x: d.dq(d.op("Sigmoid", d.q(x))))),
    "Softmax of int8": ("missing-dequantize", lambda: alone()(lambda d, x: d.dq(d.op("Softmax", d.q(x))))),
    "global mean of int8": (
        "missing-dequantize",
        lambda: alone()(lambda d, x: d.dq(d.op("GlobalAveragePool", d.q(x)))),
    ),
    "product of two int8": ("missing-dequantize", lambda: alone()(lambda d, x: d.dq(d.op("MatMul", d.q(x), d.q(x))))),
    "weights, a channel with scale 0": (
        "scale-not-positive",
        lambda: conv(w=lambda d: d.dq(d.constant(d.integers("int8", *SHAPE)), [0.0, *CHANNELS[1:]], axis=0)),
    ),
    "weights, a negative scale": (
        "scale-not-positive",
        lambda: conv(w=lambda d: d.dq(d.constant(d.integers("int8", *SHAPE)), [-0.01, *CHANNELS[1:]], axis=0)),
    ),
    "activation, scale 0": ("scale-not-positive", lambda: conv(x=lambda d, x: d.qdq(x, 0.0))),
    "activation, scale is not a number": ("scale-not-positive", lambda: conv(x=lambda d, x: d.qdq(x, float("nan")))),
    "5 scales for 8 channels": ("scale-shape", lambda: conv(w=stored("int8", [0.01] * 5))),
    "axis outside": ("scale-shape", lambda: conv(w=stored("int8", axis=7))),
    "a bias along axis 1, which is the default": (
        "scale-shape",
        lambda: conv(b=lambda d: d.dq(d.constant(d.integers("int8", 8)), [0.01] * 8)),
    ),
    "axis 0 before opset 13": ("scale-shape", lambda: alone(opset=12)(lambda d, x: d.qdq(x, [0.1] * 8))),
    "one zero point for 8 scales": (
        "scale-shape",
        lambda: conv(w=lambda d: d.op("DequantizeLinear", d.constant(d.integers("int8", *SHAPE)),
                                      d.constant(np.array(CHANNELS, np.float32)), zeros(d), axis=0)),
    ),
    "one scale with four dimensions": ("scale-shape", lambda: alone()(lambda d, x: d.qdq(x, [[[[0.1]]]]))),
    "scales with two dimensions": ("scale-shape", lambda: alone()(lambda d, x: d.qdq(x, np.full((8, 1), 0.1)))),
    "blocks that do not divide": (
        "scale-shape",
        lambda: alone(1, 8, opset=21)(
            lambda d, x: d.op("MatMul", x, d.dq(d.constant(d.integers("int8", 8, 16)), np.full((3, 16), 0.1), 0, None,
                                                axis=0, block_size=3))
        ),
    ),
    "blocks along the first of four axes": (
        "scale-shape",
        lambda: conv(w=lambda d: d.dq(d.constant(d.integers("int8", *SHAPE)), np.full((4, 8, 3, 3), 0.1), 0, None,
                                      axis=0, block_size=2), opset=21),
    ),
    "scalar constant": (
        "scalar-constant",
        lambda: alone()(lambda d, x: d.op("Mul", d.qdq(x), d.dq(d.constant(np.int8(3))))),
    ),
    "int8 weights through Reshape": ("constant-not-dequantized", lambda: conv(w=moved("Reshape"))),
    "int8 weights through Identity": ("constant-not-dequantized", lambda: conv(w=moved("Identity"))),
    "int8 weights through Transpose": (
        "constant-not-dequantized",
        lambda: conv(w=moved("Transpose", perm=[1, 0, 2, 3])),
    ),
    "an int8 constant is an output": (
        "constant-not-dequantized",
        lambda: alone()(lambda d, x: (d.output(d.constant(np.ones(3, np.int8)), TensorProto.INT8), d.qdq(x))[1]),
    ),
    "QLinearConv": (
        "operator-format",
        lambda: alone()(lambda d, x: d.dq(d.op("QLinearConv", d.q(x), *d.quantization(0.05, 0, "int8"),
                                               d.constant(d.integers("int8", *SHAPE)), *d.quantization(0.05, 0, "int8"),
                                               *d.quantization(0.05, 0, "int8"), pads=[1] * 4))),
    ),
    "output without a type": ("output-without-type", lambda: conv(output=0)),
    "zero point from ConstantOfShape": ("zero-point-not-constant", zero_point(lambda d: filled(d, 3))),
    "zero point from ConstantOfShape, 0": ("zero-point-not-constant", zero_point(lambda d: filled(d, 0))),
    "zero point from a difference": (
        "zero-point-not-constant",
        zero_point(lambda d: d.op("Cast", d.op("Sub", *[d.constant(np.int32(3))] * 2), to=TensorProto.INT8)),
    ),
    "zero point from Cast of value_int": (
        "zero-point", zero_point(lambda d: d.op("Cast", d.op("Constant", value_int=3), to=TensorProto.INT8))
    ),
    "zero point from Cast of value_ints": (
        "zero-point",
        lambda: alone()(with_scale(lambda d: d.constant(np.array([0.1], np.float32)),
                                   lambda d: d.op("Cast", d.op("Constant", value_ints=[3]), to=TensorProto.INT8))),
    ),
    "zero point of type int32": ("zero-point", lambda: alone()(lambda d, x: d.qdq(x, zero=3, kind="int32"))),
    "zero point around a branch": ("zero-point", in_a_branch(lambda d: d.quantization(0.1, 3, "int8"), captured_pair)),
    "zero point in a function": ("zero-point", lambda: in_a_function(3)),
    "int16 in a function": ("unsupported-type", lambda: in_a_function(0, "int16")),
    "zero point in another domain": ("zero-point", lambda: alone()(lambda d, x: d.qdq(x, zero=3, **_FOREIGN))),
    "weights around a branch": (
        "constant-not-dequantized",
        in_a_branch(lambda d: [d.constant(d.integers("int8", *SHAPE)), tenth(d)], captured_weights),
    ),
    "scale is value_float 0": ("scale-not-positive", scale(lambda d: d.op("Constant", value_float=0.0))),
    "scale is value_float -1": ("scale-not-positive", scale(lambda d: d.op("Constant", value_float=-1.0))),
    "scale is value_floats": ("scale-not-positive", scale(lambda d: d.op("Constant", value_floats=[-0.1]))),
    "scale is sparse": (
        "unsupported-type",
        scale(lambda d: d.op("Constant", sparse_value=helper.make_sparse_tensor(
            numpy_helper.from_array(np.array([0.1], np.float32)), numpy_helper.from_array(np.array([0])), [1]))),
    ),
    **{f"{kind} of int8": (rule, on_int8(kind)) for rule, kinds in _UNARY.items() for kind in kinds},
    "LpPool of int8": ("float-operator", on_int8("LpPool", kernel_shape=[2, 2])),
    "InstanceNormalization of int8": ("float-operator", on_int8("InstanceNormalization", ones, ones)),
    "LayerNormalization of int8": ("float-operator", on_int8("LayerNormalization", lambda d: ones(d, 6))),
    "GroupNormalization of int8": (
        "float-operator", on_int8("GroupNormalization", ones, ones, opset=21, num_groups=2)
    ),
    "CumSum of int8": ("float-operator", on_int8("CumSum", lambda d: d.constant(np.int32(1)))),
    "Mod of int8": ("float-operator", lambda: alone()(lambda d, x: d.dq(d.op("Mod", d.q(x), d.q(x))))),
    "Mod of int8 as floats": (
        "missing-dequantize", lambda: alone()(lambda d, x: d.dq(d.op("Mod", d.q(x), d.q(x), fmod=1)))
    ),
    "Einsum of int8": (
        "missing-dequantize",
        lambda: alone(1, 8)(lambda d, x: d.dq(d.op("Einsum", d.q(x), d.q(x), equation="ij,ik->jk"))),
    ),
    "GridSample of int8": (
        "mixed-types", on_int8("GridSample", lambda d: d.constant(np.zeros((1, 2, 2, 2), np.float32)))
    ),
    "Mean of int8 and float": ("mixed-types", lambda: alone()(lambda d, x: d.op("Mean", d.q(x), x))),
    "Where of int8 and float": ("mixed-types", lambda: alone()(lambda d, x: d.op("Where", mask(d), d.q(x), x))),
    "Greater of int8 and float": (
        "mixed-types", lambda: alone()(lambda d, x: d.op("Cast", d.op("Greater", d.q(x), x), to=1))
    ),
    "float weights scaled by float16": (
        "mixed-types",
        lambda: conv(w=lambda d: d.op("DequantizeLinear", d.constant(d.integers("int8", *SHAPE)),
                                      d.constant(np.array(CHANNELS, np.float16)), axis=0)),
    ),
    "Where of float and float16": (
        "mixed-types", lambda: alone()(lambda d, x: d.op("Where", mask(d), x, half(d, x)))
    ),
    "int8 by float8 in a convolution": ("quantized-product", lambda: conv(w=narrow_weights(_F8), opset=21)),
    "float8 by int8 in a convolution": ("quantized-product", lambda: conv(x=narrow(_F8), opset=21)),
    "int8 by 4 bits in a convolution": ("quantized-product", lambda: conv(w=narrow_weights(_I4), opset=21)),
    "4 bits by 4 bits in a convolution": (
        "quantized-product", lambda: conv(x=narrow(_I4), w=narrow_weights(_I4), opset=21)
    ),
    "4 bits through MaxPool by int8": (
        "quantized-product",
        lambda: conv(x=lambda d, x: d.op("MaxPool", narrow(_I4)(d, x), kernel_shape=[2, 2]), opset=21),
    ),
    "int8 by 4 bits in a product": (
        "quantized-product", lambda: product(lambda d, x: d.qdq(x), narrow_weights(_I4, 8, 8))
    ),
    "int8 by float8 in a product": (
        "quantized-product", lambda: product(lambda d, x: d.qdq(x), narrow_weights(_F8, 8, 8))
    ),
}  # fmt: skip

#: The builder crashes on these, so that they are given to it in a process of their own.
CRASHES: dict[str, tuple[str, Callable[[], Any]]] = {
    "activation of a convolution, scale is an input": (
        "scale-of-convolution",
        lambda: conv(x=with_scale(lambda d: fed(d, []), zeros)),
    ),
    "weights, scale is an input": (
        "scale-of-convolution",
        lambda: conv(w=lambda d: d.op("DequantizeLinear", d.constant(d.integers("int8", *SHAPE)), fed(d, []))),
    ),
}

ACCEPTED: dict[str, Callable[[], Any]] = {
    "the usual": conv,
    "one scale for all weights": lambda: conv(w=stored("int8", 0.01)),
    "weights along another axis": lambda: conv(w=stored("int8", [0.01] * 3, axis=2)),
    "weights along a negative axis": lambda: conv(w=stored("int8", axis=-4)),
    "float weights through Q and DQ": lambda: conv(
        w=lambda d: d.qdq(d.constant(d.weights(*SHAPE)), CHANNELS, axis=0)
    ),
    "float weights through uint8": lambda: conv(w=lambda d: d.qdq(d.constant(d.weights(*SHAPE)), 0.01, 0, "uint8")),
    "no zero point": lambda: conv(x=lambda d, x: d.qdq(x, kind=None)),
    "uint8, zero point 0": lambda: conv(x=lambda d, x: d.qdq(x, kind="uint8")),
    "a scale for each channel of an activation": lambda: conv(x=lambda d, x: d.qdq(x, [0.05] * 8, axis=1)),
    "an int8 bias": lambda: conv(b=lambda d: d.dq(d.constant(d.integers("int8", 8)), 0.01)),
    "Q with another scale than DQ": lambda: conv(x=lambda d, x: d.dq(d.q(x, 0.1), 0.2)),
    "int8 output": lambda: conv(after=lambda d, y: d.q(y), output=TensorProto.INT8),
    "int8 input": lambda: alone(kind=TensorProto.INT8)(lambda d, x: d.op("Relu", d.dq(x))),
    "uint8 input through Cast": lambda: alone(kind=TensorProto.UINT8)(lambda d, x: d.qdq(d.op("Cast", x, to=1))),
    "Relu of int8": lambda: alone()(lambda d, x: d.dq(d.op("Relu", d.q(x)))),
    "Clip of int8": lambda: alone()(
        lambda d, x: d.dq(d.op("Clip", d.q(x), d.constant(np.int8(0)), d.constant(np.int8(6))))
    ),
    "one element instead of a scalar": lambda: alone()(
        lambda d, x: d.op("Mul", x, d.dq(d.constant(np.array([3], np.int8))))
    ),
    "an axis that one scale does not need": lambda: alone()(lambda d, x: d.qdq(x, axis=7)),
    "a computed scale that feeds no convolution": lambda: alone()(with_scale(lambda d: fed(d, []), zeros)),
    "a scale computed from constants": lambda: conv(
        x=with_scale(lambda d: d.op("Mul", d.constant(np.float32(0.1)), d.constant(np.float32(2))), zeros)
    ),
    "blocks of int8 weights": lambda: alone(1, 8, opset=21)(
        lambda d, x: d.op("MatMul", x, d.dq(d.constant(d.integers("int8", 8, 16)), np.full((2, 16), 0.1), 0, None,
                                            axis=0, block_size=4))
    ),
    "opset 10": lambda: conv(w=stored("int8"), opset=10),
    "zero point is Cast of 0.4": zero_point(lambda d: d.op("Cast", d.constant(np.float32(0.4)), to=TensorProto.INT8)),
    "zero point is Cast of int8": zero_point(lambda d: d.op("Cast", zeros(d), to=TensorProto.INT8)),
    "zero point is Cast of value_int": zero_point(
        lambda d: d.op("Cast", d.op("Constant", value_int=0), to=TensorProto.INT8)
    ),
    "zero points of type int32": lambda: alone()(lambda d, x: d.qdq(x, kind="int32")),
    "zero points of type int32 around Relu": lambda: alone()(
        lambda d, x: d.dq(d.op("Relu", d.q(x, kind="int32")), kind="int32")
    ),
    "zero point 0 around a branch": in_a_branch(lambda d: d.quantization(0.1, 0, "int8"), captured_pair),
    "zero point 0 in a function": lambda: in_a_function(0),
    "Q and DQ of another domain": lambda: alone()(lambda d, x: d.qdq(x, **_FOREIGN)),
    "scale is value_float": scale(lambda d: d.op("Constant", value_float=0.1)),
    "scale is value_floats": scale(lambda d: d.op("Constant", value_floats=[0.1])),
    "Where of int8": lambda: alone()(lambda d, x: d.dq(d.op("Where", mask(d), d.q(x), d.q(x)))),
    "Pow of int8 and float": lambda: alone()(lambda d, x: d.op("Pow", d.q(x), x)),
    "float8 by float8": lambda: conv(x=narrow(_F8), w=narrow_weights(_F8), opset=21),
    "float8 weights of a float convolution": lambda: conv(x=lambda d, x: x, w=narrow_weights(_F8), opset=21),
    "float8 through Relu by int8": lambda: conv(x=lambda d, x: d.op("Relu", narrow(_F8)(d, x)), opset=21),
    "4 bits by 4 bits in a product": lambda: product(narrow(_I4), narrow_weights(_I4, 8, 8)),
    "4-bit weights of a float product": lambda: product(lambda d, x: x, narrow_weights(_I4, 8, 8)),
}  # fmt: skip


def nested() -> Any:
    """A zero point that is not 0 inside of an If."""
    draft = Draft()
    x = draft.input([1, 8, 6, 6])
    condition = draft.input([], TensorProto.BOOL)
    inner = Draft(seed=1)
    inner.nodes += [helper.make_node("Identity", [x], ["handed"], name="net.inner/Identity")]
    inner.output(inner.qdq("handed", zero=4))
    other = Draft(seed=2)
    other.nodes += [helper.make_node("Identity", [x], ["same"], name="net.other/Identity")]
    other.output("same")

    def branch(part: Draft) -> Any:
        for tensor in part.constants:
            tensor.name = f"{id(part)}_{tensor.name}"
        for node in part.nodes:
            names = [
                f"{id(part)}_{name}" if name.startswith("c") and name[1:].isdigit() else name for name in node.input
            ]
            node.input[:] = names
        return helper.make_graph(part.nodes, "branch", [], part.outputs, part.constants)

    draft.nodes.append(helper.make_node("If", [condition], ["y"], name="if", then_branch=branch(inner),
                                        else_branch=branch(other)))  # fmt: skip
    draft.output("y")
    return draft.model()
