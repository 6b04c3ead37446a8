"""Names of operators after the nodes of the ONNX file, from what the converter (litert-torch 0.10.0) leaves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgeopt import tflite
from edgeopt.agent import tflite_file
from edgeopt.tflite import names
from tests import tflite_nets
from tests.tflite_nets import OP


def operators(model: schema.ModelT) -> list[str]:
    return [operator.name for operator in tflite_file.read(tflite.dump(model)).operators]


def perceptron(layers: Sequence[tuple[str, str, bool]]) -> schema.ModelT:
    """Fully connected layers, (name of the output, name of the weight, with an activation)."""
    net = tflite_nets.Net()
    first = x = net.tensor("serving_default_args_0", (1, 4))
    for output, weight, activated in layers:
        parameters = [net.constant(weight, np.ones((4, 4), np.float32)), net.constant("", np.zeros(4, np.float32))]
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = tflite_nets.RELU if activated else 0
        x = net.add(OP.FULLY_CONNECTED, [x, *parameters], net.tensor(output, (1, 4)), options)
    return tflite.load(net.file(first, x))


def test_a_perceptron_whose_activations_are_functions_of_the_network_itself() -> None:
    """``h(relu(b(relu(a(x)))))``: the converter names the layer before the activation."""
    model = perceptron(
        [
            ("module:network.a;;module:network;", "module:network.a;", True),
            ("module:network.b;;module:network;;module:network;", "module:network.b;1", True),
            ("serving_default_output_0_output", "module:network.h;1", False),
        ]
    )
    assert names.tidy(model, "x", ["output"]) == ["h/Gemm"]
    assert operators(model) == ["a/Gemm+model/Relu", "b/Gemm+model/Relu#2", "output"]
    graph = tflite_file.read(tflite.dump(model))
    assert names.origin(graph, [{"name": "output", "node": "h/Gemm"}]) == {
        "a/Gemm+model/Relu": ("a/Gemm", "model/Relu"),
        "b/Gemm+model/Relu#2": ("b/Gemm", "model/Relu#2"),
        "output": ("h/Gemm",),
    }


def test_a_perceptron_whose_activations_are_modules() -> None:
    model = perceptron(
        [
            ("module:network.body.0;;module:network.body.1;", "module:network.body.0;", True),
            ("module:network.body.2;;module:network.body.3;", "module:network.body.2;1", True),
        ]
    )
    names.tidy(model, "x", ["output"])
    assert operators(model)[0] == "body.0/Gemm+body.1/Relu"


def test_a_perceptron_with_a_folded_normalisation() -> None:
    """The weight is named after what was folded into it, and not after the layer."""
    output, folded = (
        "module:network.l;;module:network.act;;module:network.bn;",
        "module:network.act;;module:network.bn;",
    )
    model = perceptron([(output, folded, True), ("serving_default_output_0_output", "module:network.h;1", False)])
    names.tidy(model, "x", ["output"])
    assert operators(model) == ["l/Gemm+act/Relu", "output"]


@pytest.mark.parametrize("added", ["", "_quantized", "_dequant", "_dequantized", "_requant", "_duplicated_2"])
def test_what_the_quantizer_appends_is_no_part_of_a_node(added: str) -> None:
    assert names.sources(f"a/Conv+b/Relu{added}") == ("a/Conv", "b/Relu")


@pytest.mark.parametrize(
    ("output", "weight", "expected"),
    [
        ("module:network;;module:network.a;1", "module:network.a;", "a/Conv+model/Relu"),
        (
            "module:network.act;;module:network.bn;;module:network.d;2",
            "module:network.act;;module:network.bn;;module:network.d;1",
            "d/Conv+act/Relu",
        ),
        ("module:network.block;", "module:network.block;", "block/Conv+block/Relu"),
    ],
)
def test_convolutions(output: str, weight: str, expected: str) -> None:
    """Their last operation comes first."""
    net = tflite_nets.Net()
    given = net.tensor("serving_default_args_0", (1, 2, 2, 3))
    parameters = [net.constant(weight, np.ones((3, 1, 1, 3), np.float32)), net.constant("", np.zeros(3, np.float32))]
    options = schema.Conv2DOptionsT()
    options.fusedActivationFunction, options.strideH, options.strideW = tflite_nets.RELU, 1, 1
    x = net.add(OP.CONV_2D, [given, *parameters], net.tensor(output, (1, 2, 2, 3)), options)
    model = tflite.load(net.file(given, net.add(OP.LOGISTIC, [x], net.tensor("module:network;2", (1, 2, 2, 3)))))
    names.tidy(model, "x", ["output"])
    assert operators(model) == [expected, "output"]


def test_the_second_input_of_an_addition_does_not_name_it() -> None:
    net = tflite_nets.Net()
    given = net.tensor("serving_default_args_0", (1, 4))
    other = net.add(OP.LOGISTIC, [given], net.tensor("module:network.gate;1", (1, 4)))
    total = net.add(OP.ADD, [given, other], net.tensor("module:network.body;2", (1, 4)), schema.AddOptionsT())
    model = tflite.load(net.file(given, net.add(OP.RELU, [total], net.tensor("module:network;3", (1, 4)))))
    names.tidy(model, "x", ["output"])
    assert operators(model) == ["gate/Sigmoid", "body/Add", "output"]
