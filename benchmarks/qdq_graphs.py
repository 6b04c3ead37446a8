"""Small Q/DQ graphs, drawn at random, and what TensorRT-RTX says of a graph: what the linter is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
_OPSETS = (13, 17, 19, 20, 21, 23)
_MICROSOFT = "com.microsoft"


class Draft:
    """An ONNX graph that is being written: every method adds a node or a constant, and returns its tensor's name."""

    def __init__(self, opset: int = 20, seed: int = 0) -> None:
        self.opset = opset
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def _name(self, stem: str) -> str:
        return f"{stem}{len(self.nodes) + len(self.constants) + len(self.inputs)}"

    def input(self, shape: Sequence[int], kind: int = TensorProto.FLOAT) -> str:
        name = self._name("x")
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, kind: int = TensorProto.FLOAT) -> None:
        """0 leaves the type out."""
        made = helper.make_tensor_value_info(name, kind, None) if kind else onnx.ValueInfoProto(name=name)
        self.outputs.append(made)

    def constant(self, values: Any) -> str:
        name = self._name("c")
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = self._name(kind.lower())
        node = helper.make_node(kind, list(inputs), [name], name=f"net.{name}/{kind}", domain=domain, **attributes)
        self.nodes.append(node)
        return name

    def weights(self, *shape: int) -> Array:
        return (self.random.standard_normal(shape) * 0.2).astype(np.float32)

    def integers(self, kind: str, *shape: int) -> Array:
        limits = np.iinfo(kind)
        return self.random.integers(max(limits.min, -200) + 1, min(limits.max, 200), shape).astype(kind)

    def quantization(self, scale: Any, zero: Any, kind: str | None) -> list[str]:
        """Names of scale and, with a ``kind``, of zero points as many as scales."""
        names = [self.constant(np.asarray(scale, np.float32))]
        if kind:
            names.append(self.constant(np.broadcast_to(np.asarray(zero), np.shape(scale)).astype(kind)))
        return names

    def q(self, x: str, scale: Any = 0.05, zero: Any = 0, kind: str | None = "int8", **attributes: Any) -> str:
        return self.op("QuantizeLinear", x, *self.quantization(scale, zero, kind), **attributes)

    def dq(self, x: str, scale: Any = 0.05, zero: Any = 0, kind: str | None = "int8", **attributes: Any) -> str:
        return self.op("DequantizeLinear", x, *self.quantization(scale, zero, kind), **attributes)

    def qdq(self, x: str, scale: Any = 0.05, zero: Any = 0, kind: str | None = "int8", **attributes: Any) -> str:
        return self.dq(self.q(x, scale, zero, kind, **attributes), scale, zero, kind, **attributes)

    def model(self) -> Any:
        graph = helper.make_graph(self.nodes, "graph", self.inputs, self.outputs, self.constants)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid(_MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@dataclass(frozen=True)
class Answer:
    """What the parser and the builder say.

    Attributes:
        imported: The parser takes the model, and so does ``supports_model_v2``.
        built: The builder makes an engine; ``None`` if it was not asked.
        why: The first complaint.
    """

    imported: bool
    built: bool | None
    why: str

    @property
    def accepted(self) -> bool:
        """Neither refuses."""
        return self.imported and self.built is not False


class TensorRtRtx:
    """The real parser and builder, without a GPU."""

    def __init__(self) -> None:
        import tensorrt_rtx as trt

        class Log(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)
                self.lines: list[str] = []

            def log(self, severity: Any, message: str) -> None:
                if severity <= trt.ILogger.Severity.ERROR and "cudaError" not in message and "CUDA" not in message:
                    self.lines.append(message)

        self._trt, self._log = trt, Log()
        self._builder = trt.Builder(self._log)

    def ask(self, model: bytes, *, build: bool = True) -> Answer:
        """Import the model, ask for support of each node, and build it."""
        trt = self._trt
        self._log.lines.clear()
        typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = self._builder.create_network(typed)
        parser = trt.OnnxParser(network, self._log)
        imported = bool(parser.parse(model))
        why = parser.get_error(0).desc() if not imported and parser.num_errors else ""
        second = self._builder.create_network(typed)
        supported = bool(trt.OnnxParser(second, self._log).supports_model_v2(model))
        if supported != imported:
            raise AssertionError(f"parse says {imported}, supports_model_v2 {supported}")
        if not imported or not build:
            return Answer(imported, None, why)
        engine = self._builder.build_serialized_network(network, self._builder.create_builder_config())
        return Answer(True, engine is not None, "" if engine is not None else next(iter(self._log.lines), ""))


def draw(seed: int) -> Any:
    """A network with Q/DQ in random places, legal and not; about half of them are legal altogether."""
    return _Drawing(seed).model()


#: Operators of one tensor and of two, of which some have an integer version.
_UNARY = (
    "Abs", "Ceil", "Celu", "Cos", "Elu", "Erf", "Exp", "Floor", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool",
    "HardSigmoid", "HardSwish", "Hardmax", "LeakyRelu", "Log", "LogSoftmax", "Mean", "Mish", "Neg", "Reciprocal",
    "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softmax", "Softplus", "Softsign", "Sqrt", "Tanh",
)  # fmt: skip
_BINARY = (
    "Add", "Concat", "Div", "Equal", "Greater", "Less", "MatMul", "Max", "Mean", "Min", "Mul", "PRelu", "Pow", "Sub",
    "Sum", "Where",
)  # fmt: skip


def draw_operator(seed: int) -> Any:
    """An operator of float, float16 and int8 tensors, behind a Q and DQ whose zero point is a constant in some form."""
    random = np.random.default_rng(seed)
    draft = Draft(seed=seed)
    x = draft.input([1, 4, 6, 6])
    value = int(random.choice([0, 0, 0, 3]))
    form = str(random.choice(["tensor", "value_int", "value_float", "identity", "shape"], p=[0.3, 0.2, 0.2, 0.2, 0.1]))
    if form.startswith("value"):
        zero = draft.op(
            "Cast", draft.op("Constant", **{form: value if form == "value_int" else float(value)}), to=TensorProto.INT8
        )
    elif form == "shape":
        one = numpy_helper.from_array(np.array([value], np.int8))
        zero = draft.op("Squeeze", draft.op("ConstantOfShape", draft.constant(np.array([1])), value=one))
    else:
        zero = draft.constant(np.int8(value))
        zero = draft.op("Identity", zero) if form == "identity" else zero
    names = [draft.op("Constant", value_float=0.0 if random.random() < 0.05 else 0.05), zero]
    x = draft.op("DequantizeLinear", draft.op("QuantizeLinear", x, *names), *names)

    def operand() -> str:
        kind = random.choice(["float", "int8", "int8", "float16"])
        if kind == "float16":
            return draft.op("Cast", x, to=TensorProto.FLOAT16)
        return draft.q(x) if kind == "int8" else x

    if random.random() < 0.5:
        y = draft.op(str(random.choice(_UNARY)), operand())
    else:
        kind = str(random.choice(_BINARY))
        mask = [draft.constant(np.ones((1, 4, 6, 6), bool))] if kind == "Where" else []
        y = draft.op(kind, *mask, operand(), operand(), **({"axis": 1} if kind == "Concat" else {}))
    draft.output(draft.op("Cast", y, to=TensorProto.FLOAT))
    return draft.model()


class _Drawing:
    """Convolutions, pools, residuals and a classifier over (1, C, H, W)."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.draft = Draft(int(self.random.choice(_OPSETS)), seed)
        #: How often a choice is an illegal one, in this graph.
        self.illegal = float(self.random.choice([0, 0, 0.03, 0.1, 0.3]))

    def model(self) -> Any:
        draft = self.draft
        channels = int(self.random.choice([3, 4, 8]))
        size = int(self.random.choice([6, 8]))
        x, skip = draft.input([1, channels, size, size]), ""
        for _ in range(self.random.integers(1, 6)):
            kind = self._any("conv", "depthwise", "transposed", "relu", "pool", "scalar", "add", "concat", "sigmoid")
            if kind == "conv":
                wide = int(self.random.choice([4, 8]))
                x, channels, skip = self._layer("Conv", x, (wide, channels, 3, 3), 0, wide, pads=[1] * 4), wide, ""
            elif kind == "depthwise":
                shape = (channels, 1, 3, 3)
                x = self._layer("Conv", x, shape, 0, channels, pads=[1] * 4, group=channels)
            elif kind == "transposed":
                shape = (channels, 4, 1, 1)
                x, channels, skip = self._layer("ConvTranspose", x, shape, 1, 4), 4, ""
            elif kind == "relu":
                x = draft.op("Relu", self._activation(x, channels))
            elif kind == "sigmoid":
                x = draft.op("Sigmoid", self._activation(x, channels))
            elif kind == "pool" and size >= 4:
                pool = self._any("MaxPool", "AveragePool")
                x, size, skip = draft.op(pool, self._activation(x, channels), kernel_shape=[2, 2]), size - 1, ""
            elif kind == "scalar":
                x = draft.op("Mul", x, self._scalar())
            elif kind == "add" and skip:
                x = draft.op("Add", self._activation(x, channels), self._activation(skip, channels))
            elif kind == "concat":
                x = draft.op("Concat", self._activation(x, channels), self._activation(x, channels), axis=1)
                channels, skip = 2 * channels, ""
            skip = skip or x
        x = self._head(x, channels)
        x = self._activation(x, 0) if self.random.random() < 0.3 else x
        draft.output(x, 0 if self._breaks(0.3) else TensorProto.FLOAT)
        return draft.model()

    def _head(self, x: str, channels: int) -> str:
        kind = self._any("none", "Gemm", "Gemm transposed", "MatMul")
        if kind == "none":
            return x
        x = self.draft.op("Flatten", self.draft.op("GlobalAveragePool", self._activation(x, channels)))
        if kind == "Gemm transposed":
            return self._layer("Gemm", x, (5, channels), 0, 5, transB=1)
        return self._layer(kind.split()[0], x, (channels, 5), 1, 0 if kind == "MatMul" else 5)

    def _layer(self, kind: str, x: str, shape: tuple[int, ...], axis: int, biases: int, **attributes: Any) -> str:
        inputs = [self._activation(x, 0), self._weights(shape, axis)]
        if biases and self.random.random() < 0.7:
            inputs.append(self._bias(biases))
        return self.draft.op(kind, *inputs, **attributes)

    def _any(self, *choices: str) -> str:
        return str(self.random.choice(choices))

    def _breaks(self, times: float = 1.0) -> bool:
        return bool(self.random.random() < self.illegal * times)

    def _activation(self, x: str, channels: int) -> str:
        """``x`` through Q and DQ, or as it is."""
        draft = self.draft
        if self._breaks():
            kind = self._any(
                "zero", "uint8", "uint8 128", "int16", "count", "axis", "scale", "zeros", "no q", "no dq", "empty"
            )
            if kind == "zero":
                return draft.qdq(x, zero=int(self.random.integers(1, 20)))
            if kind.startswith("uint8"):
                return draft.qdq(x, zero=128 if "128" in kind else 7, kind="uint8")
            if kind == "int16":
                return draft.qdq(x, kind=self._any("int16", "uint16"), domain="" if draft.opset >= 21 else _MICROSOFT)
            if kind == "count":
                return draft.qdq(x, [0.05] * 11, axis=1)
            if kind == "axis":
                return draft.qdq(x, [0.05] * 8, axis=9)
            if kind == "scale":
                return draft.qdq(x, float(self.random.choice([0.0, -0.1])))
            if kind == "zeros":
                scale, zeros = draft.constant(np.float32(0.1)), draft.constant(np.zeros(3, np.int8))
                return draft.dq(draft.op("QuantizeLinear", x, scale, zeros), 0.1)
            if kind == "no q":
                return draft.dq(x)
            if kind == "no dq":
                return draft.q(x)
            return draft.op("DequantizeLinear", draft.q(x), draft.constant(np.float32(0.05)), "")
        kind = self._any("float", "int8", "int8", "int8", "uint8", "no zero point", "one scale", "channels", "between")
        if kind == "float":
            return x
        if kind == "uint8":
            return draft.qdq(x, kind="uint8")
        if kind == "no zero point":
            return draft.qdq(x, kind=None)
        if kind == "one scale":
            return draft.qdq(x, [0.05])
        if kind == "channels" and channels:
            return draft.qdq(x, [0.05] * channels, axis=1)
        if kind == "between":
            return draft.dq(draft.op("Relu", draft.q(x)))
        return draft.qdq(x)

    def _weights(self, shape: tuple[int, ...], axis: int) -> str:
        draft = self.draft
        scales = [0.01] * shape[axis]
        if self._breaks():
            kind = self._any("uint8", "uint8 128", "zero", "int16", "count", "scale", "reshaped", "raw")
            if kind.startswith("uint8"):
                values = draft.constant(draft.integers("uint8", *shape))
                return draft.dq(values, scales, 128 if "128" in kind else 0, "uint8", axis=axis)
            if kind == "zero":
                return draft.dq(draft.constant(draft.integers("int8", *shape)), scales, 3, axis=axis)
            if kind == "int16":
                domain = "" if draft.opset >= 21 else _MICROSOFT
                return draft.dq(draft.constant(draft.integers("int16", *shape)), 0.01, 0, "int16", domain=domain)
            if kind == "count":
                return draft.dq(draft.constant(draft.integers("int8", *shape)), [0.01] * 13, axis=axis)
            if kind == "scale":
                return draft.dq(draft.constant(draft.integers("int8", *shape)), [0.0, *scales[1:]], axis=axis)
            if kind == "reshaped":
                flat = draft.constant(draft.integers("int8", int(np.prod(shape))))
                return draft.dq(draft.op("Reshape", flat, draft.constant(np.array(shape, np.int64))), scales, axis=axis)
            return draft.constant(draft.integers("int8", *shape))
        kind = self._any("float", "channels", "channels", "tensor", "other axis", "through q", "node", "no zero point")
        if kind == "float":
            return draft.constant(draft.weights(*shape))
        if kind == "through q":
            return draft.qdq(draft.constant(draft.weights(*shape)), scales, axis=axis)
        if kind == "tensor":
            return draft.dq(draft.constant(draft.integers("int8", *shape)), 0.01)
        if kind == "other axis":
            other = int(self.random.integers(len(shape)))
            return draft.dq(
                draft.constant(draft.integers("int8", *shape)), [0.01] * shape[other], axis=other - len(shape)
            )
        if kind == "node":
            values = numpy_helper.from_array(draft.integers("int8", *shape))
            return draft.dq(draft.op("Constant", value=values), scales, axis=axis)
        zero = None if kind == "no zero point" else "int8"
        return draft.dq(draft.constant(draft.integers("int8", *shape)), scales, kind=zero, axis=axis)

    def _bias(self, size: int) -> str:
        draft = self.draft
        if self._breaks():
            kind = self._any("int32", "int32 channels")
            values = draft.constant(draft.integers("int32", size))
            return draft.dq(values, [0.001] * size if "channels" in kind else 0.001, 0, "int32", axis=0)
        kind = self._any("float", "float", "int8", "through q")
        if kind == "int8":
            return draft.dq(draft.constant(draft.integers("int8", size)), 0.01, axis=0)
        if kind == "through q":
            return draft.qdq(draft.constant(draft.weights(size)), [0.01] * size, axis=0)
        return draft.constant(draft.weights(size))

    def _scalar(self) -> str:
        draft = self.draft
        if self._breaks():
            return draft.dq(draft.constant(np.int8(5)))
        kind = self._any("float", "through q", "one element")
        if kind == "through q":
            return draft.qdq(draft.constant(np.float32(0.5)))
        if kind == "one element":
            return draft.dq(draft.constant(np.array([5], np.int8)))
        return draft.constant(np.float32(0.5))
