"""Files that compute the same in fewer operators, and files with everything inside."""

from __future__ import annotations

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgeopt import tflite
from edgeopt.agent import tflite_file
from edgeopt.tflite import names, rewrite
from tests import tflite_nets
from tests.tflite_nets import OP

SAMPLES = tflite_nets.samples(6)


def kinds(file: bytes) -> list[str]:
    return [operator.op for operator in tflite_file.read(file).operators]


def test_equal_models_give_equal_bytes_whatever_was_loaded_before() -> None:
    file = tflite_nets.convolutional()
    assert tflite.inlined(file) == tflite.inlined(tflite.inlined(file))


def test_buffers_are_aligned_to_16_bytes() -> None:
    """``force_align`` of the schema, which the generated classes do not keep to."""
    file = tflite_nets.convolutional(width=5)
    base = np.frombuffer(file, np.uint8).__array_interface__["data"][0]
    model = schema.Model.GetRootAs(file, 0)
    filled = [model.Buffers(number) for number in range(model.BuffersLength())]
    offsets = [one.DataAsNumpy().__array_interface__["data"][0] - base for one in filled if one.DataLength()]
    assert len(offsets) > 5
    assert {offset % 16 for offset in offsets} == {0}


def as_the_classes_write(model: schema.ModelT) -> bytes:
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_buffers_behind_the_flatbuffer_come_inside() -> None:
    file = tflite_nets.convolutional()
    model = tflite.load(file)
    moved = [buffer for buffer in model.buffers if buffer.data is not None]
    contents = [bytes(buffer.data) for buffer in moved]
    for buffer in moved:  # as ai-edge-quantizer writes them; what the offsets are does not change the size
        buffer.data, buffer.offset, buffer.size = None, 2, 1
    start = len(as_the_classes_write(model))
    behind = b""
    for buffer, content in zip(moved, contents, strict=True):
        buffer.offset, buffer.size = start + len(behind), len(content)
        behind += content
    outside = as_the_classes_write(model) + behind
    assert any(tensor.outside for tensor in tflite_file.read(outside).tensors)
    inside = tflite.inlined(outside)
    assert not any(tensor.outside for tensor in tflite_file.read(inside).tensors)
    np.testing.assert_array_equal(tflite_nets.run(inside, SAMPLES), tflite_nets.run(file, SAMPLES))


def test_a_mean_is_taken_without_transposing_first() -> None:
    file = tflite_nets.convolutional(transposed=True)
    model = tflite.load(file)
    assert rewrite.reduce_in_place(model) == 1
    shorter = tflite.dump(model)
    assert kinds(shorter) == [kind for kind in kinds(file) if kind != "TRANSPOSE"]
    np.testing.assert_allclose(tflite_nets.run(shorter, SAMPLES), tflite_nets.run(file, SAMPLES), rtol=1e-5, atol=1e-6)
    assert not [tensor for tensor in tflite_file.read(shorter).tensors if "Transpose" in tensor.name]


@pytest.mark.parametrize("keep", [True, False])
def test_a_mean_that_would_give_other_axes_is_left(keep: bool) -> None:
    net = tflite_nets.Net()
    given = net.tensor("x", (2, 3, 4))
    order = net.constant("order", np.array([1, 0, 2] if keep else [2, 1, 0], np.int32))
    turned = net.add(OP.TRANSPOSE, [given, order], net.tensor("t", (3, 2, 4) if keep else (4, 3, 2)))
    reducer = schema.ReducerOptionsT()
    reducer.keepDims = keep
    axis = net.constant("axis", np.array([0 if keep else 2], np.int32))
    out = net.add(OP.MEAN, [turned, axis], net.tensor("y", (1, 2, 4) if keep else (4, 3)), reducer)
    model = tflite.load(net.file(given, out))
    assert rewrite.reduce_in_place(model) == 0
    assert kinds(tflite.dump(model)) == ["TRANSPOSE", "MEAN"]


def test_a_transposition_with_another_use_is_left() -> None:
    net = tflite_nets.Net()
    given = net.tensor("x", (1, 2, 2, 3))
    order = net.constant("order", np.array([0, 3, 1, 2], np.int32))
    turned = net.add(OP.TRANSPOSE, [given, order], net.tensor("t", (1, 3, 2, 2)))
    reducer = schema.ReducerOptionsT()
    reducer.keepDims = False
    net.add(OP.MEAN, [turned, net.constant("axis", np.array([2, 3], np.int32))], net.tensor("m", (1, 3)), reducer)
    relu = net.add(OP.RELU, [turned], net.tensor("r", (1, 3, 2, 2)))
    assert rewrite.reduce_in_place(tflite.load(net.file(given, relu))) == 0


def quantized_input(dtype: str) -> tuple[bytes, float, int]:
    """``QUANTIZE(CAST(x))`` of integers, with its scale and zero point."""
    net = tflite_nets.Net()
    given = net.tensor("x", (1, 4), dtype)
    cast = tflite_nets._cast(net, given, "cast")
    out = net.tensor("y", (1, 4), "int8")
    coding = schema.QuantizationParametersT()
    scale, zero = {"uint8": (1.0, -128), "int16": (258.0, 3)}[dtype]
    coding.scale, coding.zeroPoint = np.array([scale], np.float32), np.array([zero], np.int64)
    net.graph.tensors[out].quantization = coding
    net.add(OP.QUANTIZE, [cast], out)
    return net.file(given, out), scale, zero


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_raw_integers_are_quantized_without_a_cast(dtype: str) -> None:
    file, scale, zero = quantized_input(dtype)
    model = tflite.load(file)
    assert rewrite.integer_input(model)
    shorter = tflite.dump(model)
    assert kinds(shorter) == ["QUANTIZE"]
    limits = np.iinfo(dtype)
    every = np.linspace(limits.min, limits.max, 256).round().astype(dtype).reshape(-1, 4)
    given = tflite_nets.run(shorter, every)
    exact = np.clip(np.round(every / scale) + zero, -128, 127)
    assert np.abs(given - exact).max() <= (0 if dtype == "uint8" else 1)  # the multiplier is rounded
    assert not rewrite.integer_input(tflite.load(shorter))


def test_a_cast_that_computes_in_float_is_left() -> None:
    file = tflite_nets.convolutional()
    model = tflite.load(file)
    assert not rewrite.integer_input(model)
    assert tflite.dump(model) == tflite.inlined(file)


def location(*modules: str, number: str = "1") -> str:
    """As the converter writes it."""
    return ";;".join(f"module:network{'.' if module else ''}{module}" for module in modules) + f";{number}"


def test_operators_are_called_after_the_nodes_of_the_onnx_file() -> None:
    net = tflite_nets.Net()
    given = net.tensor("serving_default_args_0", (1, 2, 2, 3))
    weight = net.constant("arith.constant", np.ones((3, 1, 1, 3), np.float32))
    bias = net.constant("arith.constant1", np.zeros(3, np.float32))
    options = schema.Conv2DOptionsT()
    options.fusedActivationFunction, options.strideH, options.strideW = tflite_nets.RELU, 1, 1
    name = location("stem.2", "stem.1", "stem.0")
    x = net.add(OP.CONV_2D, [given, weight, bias], net.tensor(name, (1, 2, 2, 3)), options)
    x = net.add(OP.LOGISTIC, [x], net.tensor(location("", number="2"), (1, 2, 2, 3)))
    x = net.add(OP.LOGISTIC, [x], net.tensor(location("", number="3"), (1, 2, 2, 3)))
    last = net.add(OP.RELU, [x], net.tensor("StatefulPartitionedCall:0", (1, 2, 2, 3)))
    model = tflite.load(net.file(given, last))
    assert names.tidy(model, "image", ["output"]) == ["model/Relu"]
    graph = tflite_file.read(tflite.dump(model))
    assert [operator.name for operator in graph.operators] == [
        "stem.0/Conv+stem.2/Relu", "model/Sigmoid", "model/Sigmoid#2", "output",
    ]  # fmt: skip
    assert [tensor.name for tensor in graph.tensors if tensor.constant] == [
        "stem.0/Conv+stem.2/Relu.weight",
        "stem.0/Conv+stem.2/Relu.bias",
    ]
    assert graph.inputs[0].name == "image"
    assert names.origin(graph, [{"name": "output", "node": "model/Relu"}]) == {
        "stem.0/Conv+stem.2/Relu": ("stem.0/Conv", "stem.2/Relu"),
        "model/Sigmoid": ("model/Sigmoid",),
        "model/Sigmoid#2": ("model/Sigmoid#2",),
        "output": ("model/Relu",),
    }
    assert b"module:" not in tflite.dump(model)
    (end,) = model.signatureDefs[0].inputs
    assert end.name == "image"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a/Conv+b/Relu_quantized", ("a/Conv", "b/Relu")),
        ("a/Conv#2", ("a/Conv#2",)),
        ("a/Conv_dequantized", ("a/Conv",)),
        ("StatefulPartitionedCall:0", ()),
    ],
)
def test_the_nodes_that_a_name_tells_of(name: str, wanted: tuple[str, ...]) -> None:
    assert names.sources(name) == wanted
