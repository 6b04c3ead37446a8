"""One model or more for each rule, and models that are accepted although they look odd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


_MICROSOFT = {"domain": "com.microsoft"}

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
