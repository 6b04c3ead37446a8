"""Float16 by Cast nodes: what is changed, what stays float32, and the rounding that a CPU does not show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeopt.errors import StageError
from edgeopt.half import halve, rounded
from tests import onnx_nets


def types(model: Any) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    known = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    return known | {tensor.name: tensor.data_type for tensor in inferred.initializer}


def small(nodes: list[Any], constants: dict[str, Any], output: str = "y", opset: int = 20) -> Any:
    """float32 (1, 4) in and out, nodes as given."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def op(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), [output], name=f"net.{output}/{kind}", **attributes)


@pytest.mark.parametrize(("value", "why"), [(1e6, "reaches 1e.06"), (1e-12, "would be 0")])
def test_a_constant_that_float16_cannot_hold_stays_float32(value: float, why: str) -> None:
    model = small([op("Add", "x c", "a"), op("Relu", "a", "y")], {"c": np.float32(value)})
    halved = halve(model, (), {})
    assert list(halved.kept) == ["net.a/Add"]
    assert why.replace(".", "+") in halved.kept["net.a/Add"] or why in halved.kept["net.a/Add"]
    assert halved.half == 1
    onnx.checker.check_model(halved.model, full_check=True)


def test_nothing_left_is_an_error() -> None:
    model = small([op("Add", "x c", "y")], {"c": np.float32(1e6)})
    with pytest.raises(StageError, match="nothing of this model can compute in float16: 'c' reaches"):
        halve(model, (), {})


def test_scales_of_resize_and_types_in_attributes() -> None:
    nodes = [
        op("Reshape", "x shape", "square"),
        helper.make_node("Resize", ["square", "", "scales"], ["wide"], name="net.up/Resize", mode="nearest"),
        op("GlobalAveragePool", "wide", "mean"),
        op("Cast", "mean", "again", to=TensorProto.FLOAT),
        op("Reshape", "again one", "flat"),
        op("Add", "x flat", "y"),
    ]
    constants = {
        "shape": np.array([1, 1, 2, 2], np.int64),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "one": np.array([1, 1], np.int64),
    }
    model = small(nodes, constants)
    halved = halve(model, (), {})
    assert halved.kept == {}
    onnx.checker.check_model(halved.model, full_check=True)
    known = types(halved.model)
    assert known["scales"] == TensorProto.FLOAT
    assert known["again"] == TensorProto.FLOAT16


def test_a_tensor_that_is_read_inside_of_an_if_stays_float32() -> None:
    branch = helper.make_graph(
        [helper.make_node("Neg", ["a"], ["z"])],
        "b",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 4])],
    )
    other = helper.make_graph(
        [helper.make_node("Abs", ["a"], ["w"])],
        "c",
        [],
        [helper.make_tensor_value_info("w", TensorProto.FLOAT, [1, 4])],
    )
    nodes = [
        op("Relu", "x", "b"),
        op("Sigmoid", "b", "a"),
        helper.make_node("If", ["condition"], ["i"], name="net.if/If", then_branch=branch, else_branch=other),
        op("Add", "i b", "y"),
    ]
    halved = halve(small(nodes, {"condition": np.bool_(True)}), (), {})
    assert set(halved.kept) == {"net.a/Sigmoid", "net.if/If"}
    onnx.checker.check_model(halved.model, full_check=True)


def test_an_output_that_is_also_read(tmp_path: Path) -> None:
    model = small([op("Relu", "x", "y"), op("Sigmoid", "y", "z")], {})
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 4]))
    halved = halve(model, (), {})
    onnx.checker.check_model(halved.model, full_check=True)
    onnx.save(halved.model, tmp_path / "model.onnx")
    values = np.array([[-1, 0, 0.5, 2]], np.float32)
    np.testing.assert_allclose(onnx_nets.run(tmp_path / "model.onnx", values), np.maximum(values, 0), rtol=1e-3)


def test_rounded_rounds_every_tensor_and_lets_it_overflow(tmp_path: Path) -> None:
    """x + 1 in float16 by numpy; and 1000 * 1000 is infinity, which ONNX Runtime alone does not show."""
    nodes = [op("Add", "x c", "a"), op("Mul", "a a", "b"), op("Sub", "b b", "d"), op("Add", "a d", "y")]
    halved = halve(small(nodes, {"c": np.float32(1 / 3)}), (), {})
    onnx.save(rounded(halved.model), tmp_path / "model.onnx")
    values = np.array([[0.1, 7.77, 100, 1000]], np.float32)
    given = onnx_nets.run(tmp_path / "model.onnx", values)
    a = values.astype(np.float16) + np.float16(1 / 3)
    assert a.dtype == np.float16
    np.testing.assert_array_equal(given[0, :3], a[0, :3].astype(np.float32))
    assert not np.isfinite(given[0, 3])
