"""The reader of .tflite files, against the classes of the schema."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.agent import AgentError, tflite_file
from tests import tflite_nets

FILE = tflite_nets.convolutional()


def numbers(table: type) -> dict[int, str]:
    return {value: name for name, value in vars(table).items() if not name.startswith("_")}


def test_operators_and_types_are_those_of_the_schema() -> None:
    operators, types = numbers(schema.BuiltinOperator), numbers(schema.TensorType)
    assert {number: operators[number] for number in tflite_file.OPERATORS} == tflite_file.OPERATORS
    for number, (name, short) in tflite_file._TYPES.items():
        assert types[number].lower() == name
        assert short[1:] in name or (name, short) == ("bool", "bool")


def test_it_reads_what_was_written() -> None:
    graph = tflite_file.read(FILE)
    assert [operator.op for operator in graph.operators] == [
        "CAST", "MUL", "ADD", "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED",
    ]  # fmt: skip
    (image,), (output,) = graph.inputs, graph.outputs
    assert (image.name, image.dtype, image.shape, image.constant) == ("image", "uint8", (1, 8, 8, 3), False)
    assert (output.name, output.short, output.shape) == ("output", "f32", (1, 4))
    stem = graph.operators[3]
    assert (stem.name, stem.precision) == ("stem.0/Conv+stem.1/Relu", "f32")
    weight = stem.inputs[1]
    assert weight is not None
    assert (weight.shape, weight.constant, weight.outside, weight.bytes) == ((16, 3, 3, 3), True, False, 16 * 27 * 4)
    assert graph.operators[0].precision == "u8"


def test_a_dynamic_dimension_and_scales() -> None:
    net = tflite_nets.Net()
    given = net.tensor("x", (-1, 3), "int8")
    coding = schema.QuantizationParametersT()
    coding.scale, coding.zeroPoint = np.array([0.5], np.float32), np.array([-7], np.int64)
    net.graph.tensors[given].quantization = coding
    (tensor,) = tflite_file.read(net.file(given, given)).inputs
    assert (tensor.shape, tensor.scales, tensor.zero_points) == ((-1, 3), (0.5,), (-7,))


def test_operators_of_one_name_get_names_of_their_own() -> None:
    net = tflite_nets.Net()
    first = net.tensor("x", (1,))
    twins = [net.add(tflite_nets.OP.RELU, [first], net.tensor("y", (1,))) for _ in range(3)]
    graph = tflite_file.read(net.file(first, twins[-1]))
    assert [name for name, _ in tflite_file.named(graph)] == ["y", "y#2", "y#3"]


def test_what_delegates_compute_lies_between_their_ends() -> None:
    net = tflite_nets.Net()
    numbers = [net.tensor("x", (1,))]
    for name in "abcd":
        numbers.append(net.add(tflite_nets.OP.RELU, [numbers[-1]], net.tensor(name, (1,))))
    graph = tflite_file.read(net.file(numbers[0], numbers[-1]))
    node = {"inputs": [numbers[1]], "outputs": [numbers[3]]}
    assert tflite_file.delegated(graph, [node]) == {"b", "c"}
    assert tflite_file.delegated(graph, []) == frozenset()


@pytest.mark.parametrize("content", [b"", b"TFL3", b"no model at all", b"\x00" * 64, FILE[:40]])
def test_what_is_no_such_file_is_refused(content: bytes) -> None:
    with pytest.raises(AgentError, match=r"\.tflite"):
        tflite_file.read(content)


@given(st.data())
def test_a_damaged_file_is_an_error_or_is_read(data: st.DataObject) -> None:
    """Never another exception, and never without end."""
    content = bytearray(FILE[: data.draw(st.integers(8, len(FILE)))])
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, min(4000, len(content) - 1)))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(AgentError):
        tflite_file.read(bytes(content))
