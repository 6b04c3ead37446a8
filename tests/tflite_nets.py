"""Small ``.tflite`` files, written with the classes of the schema, and what they compute in numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgeopt import tflite
from edgeopt.artifact import Artifact

Array = npt.NDArray[Any]
OP = schema.BuiltinOperator
_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int32": schema.TensorType.INT32,
    "uint8": schema.TensorType.UINT8,
    "int8": schema.TensorType.INT8,
    "int16": schema.TensorType.INT16,
}
RELU = schema.ActivationFunctionType.RELU


class Net:
    """One subgraph that grows by its operators."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version, self.model.description = 3, "test"
        self.model.operatorCodes, self.model.buffers = [], [schema.BufferT()]
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs, self.model.metadata = [self.graph], []

    def tensor(self, name: str, shape: tuple[int, ...], dtype: str = "float32", values: Array | None = None) -> int:
        """The number of a new tensor; -1 in the shape is a dynamic dimension."""
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.hasRank = name, _TYPES[dtype], True
        tensor.shape = np.array([abs(size) for size in shape], np.int32)
        if -1 in shape:
            tensor.shapeSignature = np.array(shape, np.int32)
        tensor.buffer = len(self.model.buffers) if values is not None else 0
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, name: str, values: Array) -> int:
        return self.tensor(name, values.shape, values.dtype.name, values)

    def add(self, code: int, inputs: list[int], output: int, options: Any = None, version: int = 1) -> int:
        """Appends an operator; returns its output."""
        operator, kind = schema.OperatorT(), schema.OperatorCodeT()
        kind.builtinCode, kind.deprecatedBuiltinCode, kind.version = code, min(code, 127), version
        self.model.operatorCodes.append(kind)
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.graph.operators.append(operator)
        return output

    def file(self, given: int, made: int, *, input_name: str = "x", output_name: str = "y") -> bytes:
        self.graph.inputs, self.graph.outputs = np.array([given], np.int32), np.array([made], np.int32)
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        ends = []
        for name, number in ((input_name, given), (output_name, made)):
            end = schema.TensorMapT()
            end.name, end.tensorIndex = name, number
            ends.append([end])
        signature.inputs, signature.outputs = ends
        self.model.signatureDefs = [signature]
        return tflite.dump(self.model)


def _activated(options: Any, activation: int = RELU, **fields: Any) -> Any:
    options.fusedActivationFunction = activation
    for name, value in fields.items():
        setattr(options, name, value)
    return options


def _cast(net: Net, given: int, name: str) -> int:
    options = schema.CastOptionsT()
    options.inDataType, options.outDataType = net.graph.tensors[given].type, schema.TensorType.FLOAT32
    out = net.tensor(name, _shape(net, given))
    return net.add(OP.CAST, [given], out, options)


def _shape(net: Net, number: int) -> tuple[int, ...]:
    tensor = net.graph.tensors[number]
    return tuple(int(size) for size in (tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature))


def dense(weight: Array, bias: Array) -> bytes:
    """``y = relu(float(x) @ weight + bias)`` of uint8 (batch, inputs), dynamic in the batch."""
    net = Net()
    inputs, outputs = weight.shape
    given = net.tensor("x", (-1, inputs), "uint8")
    cast = _cast(net, given, "cast")
    parameters = [net.constant("w", np.ascontiguousarray(weight.T)), net.constant("b", bias)]
    out = net.tensor("y", (-1, outputs))
    net.add(OP.FULLY_CONNECTED, [cast, *parameters], out, _activated(schema.FullyConnectedOptionsT()))
    return net.file(given, out)


def convolutional(
    width: int = 16, *, batch: int = 1, hidden: int = 0, seed: int = 0, transposed: bool = False
) -> bytes:
    """What the converter writes of a small network, with tidy names.

    Of uint8 (batch, 8, 8, 3), float32 (batch, 4).

    Preprocessing, convolution, depthwise convolution, 1x1 convolution, residual addition, mean and one or two fully
    connected layers.

    Args:
        hidden: Of a fully connected layer in between, for large files; none if 0.
        transposed: The mean is taken channels first, behind a transposition, as the converter does.
    """
    random = np.random.default_rng(seed)

    def weights(*shape: int) -> Array:
        return (random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    def bias(size: int) -> Array:
        return random.standard_normal(size).astype(np.float32) / 4

    net = Net()
    given = net.tensor("image", (batch, 8, 8, 3), "uint8")
    x = _cast(net, given, "preprocess/Cast")
    for code, kind, value in ((OP.MUL, schema.MulOptionsT, 2 / 255), (OP.ADD, schema.AddOptionsT, -1)):
        name = "preprocess/Mul" if code == OP.MUL else "preprocess/Add"
        constant = net.constant(f"{name}.weight", np.full((1, 1, 1, 3), value, np.float32))
        x = net.add(code, [x, constant], net.tensor(name, (batch, 8, 8, 3)), kind())
    strides = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}

    def convolution(x: int, name: str, weight: Array, *, depthwise: bool = False, activation: int = RELU) -> int:
        channels = weight.shape[3] if depthwise else weight.shape[0]
        parameters = [net.constant(f"{name}.weight", weight), net.constant(f"{name}.bias", bias(channels))]
        out = net.tensor(name, (batch, 8, 8, channels))
        if depthwise:
            options = _activated(schema.DepthwiseConv2DOptionsT(), activation, depthMultiplier=1, **strides)
            return net.add(OP.DEPTHWISE_CONV_2D, [x, *parameters], out, options)
        return net.add(OP.CONV_2D, [x, *parameters], out, _activated(schema.Conv2DOptionsT(), activation, **strides))

    x = stem = convolution(x, "stem.0/Conv+stem.1/Relu", weights(width, 3, 3, 3))
    x = convolution(x, "body.0/Conv+body.1/Relu", weights(1, 3, 3, width) * 3, depthwise=True)
    x = convolution(x, "body.2/Conv", weights(width, 1, 1, width), activation=0)
    x = net.add(OP.ADD, [stem, x], net.tensor("model/Add", (batch, 8, 8, width)), _activated(schema.AddOptionsT(), 0))
    axes = np.array([1, 2], np.int32)
    if transposed:
        order = net.constant("model/Transpose.weight", np.array([0, 3, 1, 2], np.int32))
        x = net.add(OP.TRANSPOSE, [x, order], net.tensor("model/Transpose", (batch, width, 8, 8)))
        axes = np.array([2, 3], np.int32)
    reducer = schema.ReducerOptionsT()
    reducer.keepDims = False
    axis = net.constant("model/ReduceMean.weight", axes)
    x = net.add(OP.MEAN, [x, axis], net.tensor("model/ReduceMean", (batch, width)), reducer)
    size = width
    for name, wide, activation in (("hidden/Gemm+hidden_relu/Relu", hidden, RELU), ("output", 4, 0)):
        if wide:
            parameters = [net.constant(f"{name}.weight", weights(wide, size)), net.constant(f"{name}.bias", bias(wide))]
            options = _activated(schema.FullyConnectedOptionsT(), activation)
            x, size = net.add(OP.FULLY_CONNECTED, [x, *parameters], net.tensor(name, (batch, wide)), options), wide
    return net.file(given, x, input_name="image", output_name="output")


def floor_of_image() -> bytes:
    """``FLOOR(float(x))`` of uint8 (1, 4): nothing to quantize, nothing for an NPU."""
    net = Net()
    given = net.tensor("x", (1, 4), "uint8")
    return net.file(given, net.add(OP.FLOOR, [_cast(net, given, "cast")], net.tensor("y", (1, 4))))


def samples(count: int, seed: int = 0) -> Array:
    """Raw samples for :func:`convolutional`, (N, 8, 8, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def artifact(folder: Path, kind: str = "tflite", batch: int = 1) -> Artifact:
    """Of a folder with the ``model.tflite`` of :func:`convolutional`."""
    meta = {
        "input": {"name": "image", "shape": [8, 8, 3], "dtype": "uint8"},
        "outputs": [{"name": "output", "node": "head/Gemm", "shape": [4], "dtype": "float32"}],
        "batch": batch,
        "file": "model.tflite",
    }
    return Artifact(kind, "", folder, {"model.tflite": ""}, meta)


def run(file: bytes, inputs: Array, *, reference: bool = True) -> Array:
    """What LiteRT itself gives, as the file stores it: (N, ...)."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    interpreter = Interpreter(model_content=file, num_threads=1, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    batch = int(given["shape"][0])
    parts = []
    for start in range(0, len(inputs), batch):
        interpreter.set_tensor(given["index"], inputs[start : start + batch])
        interpreter.invoke()
        parts.append(interpreter.get_tensor(made["index"]).copy())
    return np.concatenate(parts)
