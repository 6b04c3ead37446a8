from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeopt.agent import AgentError
from edgeopt.agent.onnx_graph import Node, nodes, sources


def test_nodes_are_those_that_onnx_reads() -> None:
    made = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("QLinearAdd", ["c", ""], ["y", "z"], domain="com.microsoft"),
    ]
    weight = numpy_helper.from_array(np.zeros((300, 3), np.float32), "w")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    model = helper.make_model(helper.make_graph(made, "g", values[:1], values[1:], [weight]))
    assert nodes(model.SerializeToString()) == [
        Node("conv", "Conv", "", ("x", "w"), ("c",)),
        Node("y", "QLinearAdd", "com.microsoft", ("c", ""), ("y", "z")),
    ]
    assert nodes(onnx.ModelProto().SerializeToString()) == []


@pytest.mark.parametrize("data", [b"\x3a\xff\xff\x01abc", b"\x0b", b"\x3a", b"\xff\xff"])
def test_what_is_no_protobuf_is_refused(data: bytes) -> None:
    with pytest.raises(AgentError, match="not an ONNX file"):
        nodes(data)


def chain(*steps: tuple[str, str, str]) -> list[Node]:
    """Nodes from (name, "input,input", "output"); the operation is the name without digits."""
    return [Node(name, name.rstrip("0123456789"), "", tuple(ins.split(",")), (out,)) for name, ins, out in steps]


def test_fused_nodes_own_what_they_swallowed() -> None:
    original = chain(("Conv1", "x,w", "c"), ("BatchNorm1", "c", "b"), ("Relu1", "b", "r"), ("Conv2", "r,v", "y"))
    compiled = [
        Node("fused Conv1", "FusedConv", "", ("x", "w2"), ("r",)),
        Node("Conv2", "Conv", "", ("r", "v"), ("y",)),
    ]
    assert sources(compiled, original) == {"fused Conv1": ("Conv1", "BatchNorm1", "Relu1"), "Conv2": ("Conv2",)}


def test_a_residual_sum_belongs_to_the_later_branch_and_layout_changes_to_nobody() -> None:
    original = chain(
        ("Conv1", "x,w", "a"), ("Conv2", "x,v", "b"), ("Add1", "b,a", "s"), ("Relu1", "s", "r"), ("Flatten1", "r", "y")
    )
    compiled = [
        Node("a_nchwc", "Conv", "com.microsoft.nchwc", ("x", "w0"), ("reorder_token_1",)),
        Node("b_nchwc", "Conv", "com.microsoft.nchwc", ("x", "v0", "", "reorder_token_1"), ("reorder_token_2",)),
        Node("ReorderOutput", "ReorderOutput", "com.microsoft.nchwc", ("reorder_token_2",), ("r",)),
        Node("Flatten1", "Flatten", "", ("r",), ("y",)),
    ]
    assert sources(compiled, original) == {
        "a_nchwc": ("Conv1",),
        "b_nchwc": ("Conv2", "Add1", "Relu1"),
        "Flatten1": ("Flatten1",),
    }


def test_a_quantized_operation_owns_its_q_and_dq() -> None:
    original = chain(
        ("QuantizeLinear1", "x", "q"),
        ("DequantizeLinear1", "q", "d"),
        ("DequantizeLinear2", "w", "e"),
        ("Conv1", "d,e", "c"),
        ("Relu1", "c", "r"),
        ("QuantizeLinear2", "r", "s"),
        ("DequantizeLinear3", "s", "y"),
    )
    compiled = [
        Node("QuantizeLinear1", "QuantizeLinear", "", ("x",), ("q",)),
        Node("Conv1_token_3", "QLinearConv", "", ("q", "w"), ("anew",)),
        Node("DequantizeLinear3", "DequantizeLinear", "", ("anew",), ("y",)),
    ]
    assert sources(compiled, original) == {
        "QuantizeLinear1": ("QuantizeLinear1",),
        "Conv1_token_3": ("DequantizeLinear1", "DequantizeLinear2", "Conv1", "Relu1", "QuantizeLinear2"),
        "DequantizeLinear3": ("DequantizeLinear3",),
    }
