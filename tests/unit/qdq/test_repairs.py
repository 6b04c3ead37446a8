"""Repairs: TensorRT takes the result, and the numbers are what the change says."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from benchmarks.qdq_graphs import TensorRtRtx
from edgeopt.qdq import lint, refused, repair
from tests.unit.qdq import patterns

#: Patterns that no change of the model can mend, because what is meant is not known.
HOPELESS = {
    "uint8 input, pooled before it is cast",
    "zero point is an input", "int16 input", "int16 output", "cast to uint8", "output_dtype uint8", "int32 quantized",
    "DQ without Q", "two DQ", "Q without DQ before a convolution", "int8 weights without DQ",
    "Q on one side of an addition", "Sigmoid of int8", "Softmax of int8", "global mean of int8",
    "product of two int8", "activation, scale 0", "activation, scale is not a number", "5 scales for 8 channels",
    "axis outside", "a bias along axis 1, which is the default", "axis 0 before opset 13",
    "scales with two dimensions", "blocks that do not divide", "blocks along the first of four axes",
    "an int8 constant is an output", "QLinearConv",
    "zero point from ConstantOfShape", "zero point from ConstantOfShape, 0", "zero point from a difference",
    "weights around a branch", "scale is value_float 0", "scale is value_float -1", "scale is value_floats",
    "scale is sparse",
    *(name for name, (rule, _) in patterns.REFUSED.items()
      if rule in ("float-operator", "missing-dequantize", "mixed-types", "quantized-product")),
}  # fmt: skip
#: ONNX Runtime does not run these as they are: ONNX does not define them.
UNDEFINED = {
    "one zero point for 8 scales", "one scale with four dimensions", "output without a type",
    "zero point of type int32", "zero point in another domain", "int16 in a function",
}  # fmt: skip
WIDER = {
    "activation, int8, zero point 3": 0.051, "activation, uint8, zero point 57": 0.05 * 198 / 127,
    "uint8, zero point 0": 0.05 * 255 / 127,
}  # fmt: skip


def outputs(model: Any) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    feeds = {}
    for port in session.get_inputs():
        if port.type == "tensor(bool)":
            feeds[port.name] = np.ones(port.shape, bool)
        elif port.type in ("tensor(int8)", "tensor(uint8)"):
            feeds[port.name] = random.integers(0, 120, port.shape).astype(port.type[7:-1])
        else:
            feeds[port.name] = random.uniform(-0.4, 2, port.shape).astype(np.float32)
    return [np.asarray(values) for values in session.run(None, feeds)]


@pytest.fixture(scope="module")
def tensorrt() -> TensorRtRtx:
    return TensorRtRtx()


@pytest.mark.parametrize("name", [name for name in patterns.REFUSED if name not in HOPELESS])
def test_a_repaired_model_is_accepted_and_computes_what_is_said(name: str, tensorrt: TensorRtRtx) -> None:
    model = patterns.REFUSED[name][1]()
    before = model.SerializeToString()
    repaired = repair(model)
    assert model.SerializeToString() == before
    assert refused(repaired.left) == ()
    assert repaired.changes
    answer = tensorrt.ask(repaired.model.SerializeToString())
    assert answer.accepted, answer.why
    if name in UNDEFINED:
        return
    for wanted, given in zip(outputs(model), outputs(repaired.model), strict=True):
        assert wanted.dtype == given.dtype
        if all(change.exact for change in repaired.changes):
            np.testing.assert_array_equal(given, wanted)
        else:
            assert not np.array_equal(given, wanted), "it is exact, and says that it is not"
            assert 10 * np.log10((wanted**2).sum() / ((given - wanted) ** 2).sum()) > 20


@pytest.mark.parametrize("name", sorted(HOPELESS))
def test_what_cannot_be_repaired_is_left_and_named(name: str) -> None:
    model = patterns.REFUSED[name][1]()
    left = refused(repair(model).left)
    assert left
    assert not any(finding.repairable for finding in left)


@pytest.mark.parametrize(("name", "step"), WIDER.items())
def test_a_range_is_kept_in_wider_steps(name: str, step: float) -> None:
    """zero -> the larger of (z - low) / 128 and (high - z) / 127 steps, so that no value is cut off."""
    model = (patterns.REFUSED[name][1] if name in patterns.REFUSED else patterns.ACCEPTED[name])()
    repaired = repair(model)
    node = next(node for node in repaired.model.graph.node if node.op_type == "QuantizeLinear")
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in repaired.model.graph.initializer}
    wanted = 0.05 * max(131 / 128, 124 / 127) if step == 0.051 else step
    assert constants[node.input[1]] == pytest.approx(wanted, rel=1e-6)
    assert constants[node.input[2]].dtype == np.int8
    assert [change.exact for change in repaired.changes] == [False]
    assert "changes the numbers" in str(repaired.changes[0])


def test_uint8_around_128_is_int8_around_0_exactly() -> None:
    model = patterns.REFUSED["activation, uint8, zero point 128"][1]()
    repaired = repair(model)
    assert [change.exact for change in repaired.changes] == [True]


def test_nothing_to_repair_changes_nothing_but_inferred_shapes() -> None:
    model = patterns.conv()
    repaired = repair(model)
    assert repaired.changes == ()
    assert [node.SerializeToString() for node in repaired.model.graph.node] == [
        node.SerializeToString() for node in model.graph.node
    ]


def test_repairs_of_random_graphs_are_exact_or_say_so(tensorrt: TensorRtRtx) -> None:
    from benchmarks.qdq_graphs import draw

    mended = 0
    for seed in range(7000, 7120):
        model = draw(seed)
        if not refused(lint(model)):
            continue
        repaired = repair(model)
        if refused(repaired.left):
            continue
        mended += 1
        answer = tensorrt.ask(repaired.model.SerializeToString(), build=False)
        assert answer.accepted, (seed, answer.why)
        undefined = {"scale-shape", "output-without-type"} & {change.rule for change in repaired.changes}
        if (
            not undefined
            and all(change.exact for change in repaired.changes)
            and all(o.type.tensor_type.elem_type for o in model.graph.output)
        ):
            for wanted, given in zip(outputs(model), outputs(repaired.model), strict=True):
                np.testing.assert_array_equal(given, wanted, err_msg=f"graph {seed}")
    assert mended > 10
