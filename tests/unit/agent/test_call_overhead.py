from __future__ import annotations

import onnx

from edgeopt.agent import call_overhead, onnx_graph


def test_the_model_is_valid_and_has_one_node() -> None:
    model = onnx.load_from_string(call_overhead.ONNX)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op for node in onnx_graph.nodes(call_overhead.ONNX)] == ["Relu"]
