"""MACs per node: an all-ones model adds up one for every multiplication, so that its outputs say how many there are."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeopt import macs
from tests import nets

FLOAT = TensorProto.FLOAT


def model(op: str, shapes: list[tuple[int, ...]], *, outputs=1, **attributes) -> onnx.ModelProto:
    """One node ``n`` whose first input is the model's, and whose others are constants, all ones."""
    names = [f"i{number}" if shape else "" for number, shape in enumerate(shapes)]
    node = helper.make_node(op, names, [f"o{n}" for n in range(outputs)], name="n", **attributes)
    ones = [
        helper.make_tensor(name, FLOAT, shape, np.ones(shape, np.float32).ravel())
        for name, shape in zip(names[1:], shapes[1:], strict=True)
        if shape
    ]
    given = helper.make_tensor_value_info("i0", FLOAT, ["batch", *shapes[0][1:]])
    graph = helper.make_graph([node], "g", [given], [helper.make_empty_tensor_value_info("o0")], ones)
    graph.output[0].type.tensor_type.elem_type = FLOAT
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def multiplications(proto: onnx.ModelProto, shape: tuple[int, ...]) -> int:
    """By running it on ones."""
    import onnxruntime

    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"i0": np.ones(shape, np.float32)})
    return int(sum(np.sum(output, dtype=np.float64) for output in outputs))


CASES = [
    ("Conv", [(2, 6, 9, 7), (4, 6, 3, 2)], {}),
    ("Conv", [(2, 6, 9, 7), (4, 3, 3, 3)], {"group": 2, "strides": [2, 1]}),
    ("Conv", [(1, 6, 9, 9), (6, 1, 3, 3)], {"group": 6, "dilations": [2, 2]}),
    ("Conv", [(3, 4, 11), (5, 4, 3)], {"strides": [2]}),
    ("Conv", [(1, 2, 5, 5, 5), (3, 2, 2, 2, 2)], {}),
    ("ConvTranspose", [(2, 6, 4, 5), (6, 3, 2, 3)], {"strides": [2, 2]}),
    ("ConvTranspose", [(1, 6, 4, 5), (6, 2, 3, 3)], {"group": 3}),
    ("Gemm", [(3, 8), (8, 5)], {}),
    ("Gemm", [(3, 8), (5, 8)], {"transB": 1}),
    ("Gemm", [(8, 3), (8, 5)], {"transA": 1}),
    ("MatMul", [(2, 3, 4, 8), (8, 5)], {}),
    ("MatMul", [(2, 1, 4, 8), (1, 3, 8, 5)], {}),
    ("MatMul", [(4, 8), (8,)], {}),
    ("Einsum", [(2, 3, 8), (4, 8)], {"equation": "bij, kj -> bik"}),
    ("Einsum", [(2, 3, 8), (2, 4, 8)], {"equation": "bij,bkj->bik"}),
]


@pytest.mark.parametrize(("op", "shapes", "attributes"), CASES)
def test_as_many_as_an_all_ones_model_adds_up(op, shapes, attributes):
    proto = model(op, shapes, **attributes)
    found = macs.per_node(proto.SerializeToString(), batch=shapes[0][0])
    assert found == {"n": multiplications(proto, shapes[0])}
    assert found["n"] > 0


@pytest.mark.parametrize("seed", range(10))
def test_any_convolution(seed):
    random = np.random.default_rng(seed)
    groups, per_group, filters, batch = (int(random.integers(1, 4)) for _ in range(4))
    kernel, size = random.integers(1, 4, 2), random.integers(7, 12, 2)
    shapes = [(batch, groups * per_group, *map(int, size)), (groups * filters, per_group, *map(int, kernel))]
    attributes = {"group": groups, "strides": random.integers(1, 3, 2).tolist()}
    proto = model("Conv", shapes, **attributes)
    assert macs.per_node(proto.SerializeToString(), batch)["n"] == multiplications(proto, shapes[0])


def test_padding_counts_like_any_other_input():
    proto = model("Conv", [(1, 2, 8, 8), (3, 2, 3, 3)], pads=[1, 1, 1, 1])
    assert macs.per_node(proto.SerializeToString()) == {"n": 3 * 8 * 8 * 2 * 3 * 3}
    assert multiplications(proto, (1, 2, 8, 8)) == 3 * 2 * 22 * 22  # 3 * 8 - 2 of each dimension do not lie outside


@pytest.mark.parametrize(("op", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
def test_a_recurrent_node(op, gates):
    """5 steps, 2 samples, 3 features to 7 hidden ones, both ways."""
    shapes = [(5, 2, 3), (2, gates * 7, 3), (2, gates * 7, 7)]
    proto = model(op, shapes, hidden_size=7, direction="bidirectional")
    assert macs.per_node(proto.SerializeToString(), 5) == {"n": 2 * 5 * 2 * gates * (3 * 7 + 7 * 7)}


def test_the_batch_multiplies_and_the_rest_has_none():
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="relu"),
        helper.make_node("MatMul", ["a", "w"], ["b"]),
        helper.make_node("Add", ["b", "b"], ["y"], name="add"),
    ]
    weight = helper.make_tensor("w", FLOAT, (4, 6), np.ones(24, np.float32))
    ports = [helper.make_tensor_value_info(name, FLOAT, ["n", size]) for name, size in (("x", 4), ("y", 6))]
    proto = helper.make_model(helper.make_graph(nodes, "g", ports[:1], ports[1:], [weight]))
    assert macs.per_node(proto.SerializeToString()) == {"relu": 0, "b": 24, "add": 0}  # without a name: its output's
    assert macs.per_node(proto.SerializeToString(), 3)["b"] == 72


def test_what_cannot_be_known_is_none_and_not_zero():
    """As many rows as there are elements that are not zero."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["at"], name="nonzero"),
        helper.make_node("Cast", ["at"], ["f"], name="cast", to=FLOAT),
        helper.make_node("MatMul", ["w", "f"], ["y"], name="matmul"),
    ]
    weight = helper.make_tensor("w", FLOAT, (5, 2), np.ones(10, np.float32))
    given = helper.make_tensor_value_info("x", FLOAT, ["n", 4])
    out = helper.make_tensor_value_info("y", FLOAT, [5, None])
    proto = helper.make_model(helper.make_graph(nodes, "g", [given], [out], [weight]))
    assert macs.per_node(proto.SerializeToString()) == {"nonzero": 0, "cast": 0, "matmul": None}


@pytest.mark.parametrize(
    ("op", "domain"), [("Gelu", "com.microsoft"), ("MatMul", "our.own"), ("Attention", ""), ("DeformConv", "")]
)
def test_what_is_not_counted_is_none_and_not_zero(op, domain):
    nodes = [
        helper.make_node(op, ["x", "x", "x"], ["a"], name="n", domain=domain),
        helper.make_node("Relu", ["x"], ["y"], name="relu"),
    ]
    ports = [helper.make_tensor_value_info(name, FLOAT, ["n", 4, 4]) for name in "xy"]
    opsets = [
        helper.make_opsetid(name, version) for name, version in {"": 20, "our.own": 1, "com.microsoft": 1}.items()
    ]
    proto = helper.make_model(helper.make_graph(nodes, "g", ports[:1], ports[1:]), opset_imports=opsets)
    assert macs.per_node(proto.SerializeToString()) == {"n": None, "relu": 0}


@pytest.mark.parametrize(("second", "together"), [("MatMul", 8 * 8 + 8 * 8), ("Relu", 64), ("Attention", None)])
def test_nodes_of_one_name_count_together(second, together):
    weight = helper.make_tensor("w", FLOAT, (8, 8), np.ones(64, np.float32))
    first = helper.make_node("MatMul", ["x", "w"], ["a"], name="m")
    after = helper.make_node(second, ["a", "w"] if second == "MatMul" else ["a"], ["y"], name="m")
    ports = [helper.make_tensor_value_info(name, FLOAT, ["n", 8]) for name in "xy"]
    proto = helper.make_model(helper.make_graph([first, after], "g", ports[:1], ports[1:], [weight]))
    assert macs.per_node(proto.SerializeToString()) == {"m": together}


def test_both_branches_of_an_if_count():
    weight = helper.make_tensor("w", FLOAT, (4, 6), np.ones(24, np.float32))
    out = helper.make_tensor_value_info("y", FLOAT, ["n", 6])

    def branch(name: str) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], [name])], name, [],
            [helper.make_tensor_value_info(name, FLOAT, ["n", 6])],
        )  # fmt: skip

    node = helper.make_node("If", ["c"], ["y"], name="if", then_branch=branch("t"), else_branch=branch("e"))
    condition = helper.make_tensor("c", TensorProto.BOOL, (), [True])
    given = helper.make_tensor_value_info("x", FLOAT, ["n", 4])
    proto = helper.make_model(helper.make_graph([node], "g", [given], [out], [weight, condition]))
    assert macs.per_node(proto.SerializeToString()) == {"if": 48}


def exported(network, shape: tuple[int, ...]) -> bytes:
    import torch

    memory = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would rather be the newer exporter, which takes ten times as long
        torch.onnx.export(network.eval(), (torch.zeros(1, *shape),), memory, dynamo=False)
    return memory.getvalue()


def test_resnet_20_has_what_the_literature_says():
    """40.8 million: the stem, three stages, two shortcuts by 1x1 convolutions, the head."""
    found = macs.per_node(exported(nets.ResNet20(16, "conv", classes=10), (3, 32, 32)))
    stages = 14_155_776 + 12_976_128 + 12_976_128
    assert sum(found.values()) == 442_368 + stages + 2 * 131_072 + 640 == 40_813_184


def test_mobilenet_v2_has_what_its_layers_add_up_to():
    """The same network counted by what goes through its modules."""
    import torch
    from torch import nn

    network = nets.MobileNetV2().eval()
    seen = []

    def count(module, given, output):
        weight = module.weight
        positions = output[0, 0].numel() if isinstance(module, nn.Conv2d) else 1
        seen.append(weight.numel() * positions)

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 1, 32, 32))
    found = macs.per_node(exported(nets.MobileNetV2(), (1, 32, 32)))
    assert sum(found.values()) == sum(seen)
    assert sorted(filter(None, found.values())) == sorted(seen)
