from __future__ import annotations

import onnx
import pytest

from edgeopt.agent import call_overhead, onnx_graph


def test_the_model_is_valid_and_has_one_node() -> None:
    model = onnx.load_from_string(call_overhead.ONNX)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op for node in onnx_graph.nodes(call_overhead.ONNX)] == ["Relu"]


@pytest.mark.parametrize("runtime", ["litert", "qnn", "rknn", "tensorrt", "tflm"])
def test_it_is_not_opened_where_only_compiled_files_are(runtime: str) -> None:
    assert not call_overhead.can_be_timed(runtime)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_it_is_opened_where_onnx_files_are(runtime: str) -> None:
    assert call_overhead.can_be_timed(runtime)
