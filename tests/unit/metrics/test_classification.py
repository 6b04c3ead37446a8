"""Classification metrics, by hand and against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeopt.metrics.classification import TopK
from edgeopt.metrics.probability import LogLoss

OUTPUTS = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.4, 0.4, 0.2]], dtype=np.float32)
LABELS = np.array([1, 1, 0, 0])


def test_top_k_by_hand():
    np.testing.assert_array_equal(TopK(1).hits(OUTPUTS, LABELS), [True, False, False, False])  # the last one is a tie
    np.testing.assert_array_equal(TopK(2).hits(OUTPUTS, LABELS), [True, True, False, True])
    assert TopK(1).compute(OUTPUTS, LABELS) == 0.25
    assert TopK(2).compute(OUTPUTS, LABELS) == 0.75
    assert (TopK(1).name, TopK(5).name, TopK(1).better, TopK(1).unit) == ("top1", "top5", "higher", "1")


@given(
    outputs=hnp.arrays(np.float32, (8, 4), elements=st.floats(-5, 5, width=32), unique=True),
    labels=hnp.arrays(np.int64, 8, elements=st.integers(0, 3)),
    k=st.integers(1, 3),
)
def test_top_k_without_ties_is_what_torch_finds(outputs, labels, k):
    best = torch.from_numpy(outputs).topk(k).indices.numpy()
    np.testing.assert_array_equal(
        TopK(k).hits(outputs, labels), [label in row for label, row in zip(labels, best, strict=True)]
    )


@pytest.mark.parametrize("k", [1, 2])
def test_a_network_that_says_always_the_same_is_never_right(k):
    assert TopK(k).compute(np.zeros((5, 3), np.float32), np.array([0, 1, 2, 0, 1])) == 0.0


def test_a_nan_counts_as_wrong():
    outputs = OUTPUTS.copy()
    outputs[0, 2] = np.nan
    assert not TopK(2).hits(outputs, LABELS)[0]
    np.testing.assert_array_equal(TopK(2).hits(outputs, LABELS)[1:], TopK(2).hits(OUTPUTS, LABELS)[1:])


def test_infinity_is_the_largest():
    outputs = np.array([[0, np.inf, 1], [0, -np.inf, 1]], np.float32)
    np.testing.assert_array_equal(TopK(1).hits(outputs, np.array([1, 1])), [True, False])


def test_log_loss_by_hand():
    outputs = np.array([[0.0, math.log(3)], [0.0, 0.0]], dtype=np.float32)  # softmax: 1/4 and 3/4; 1/2 and 1/2
    expected = -(math.log(3 / 4) + math.log(1 / 2)) / 2
    assert LogLoss().compute(outputs, np.array([1, 0])) == pytest.approx(expected, abs=1e-7)
    assert (LogLoss().better, LogLoss().unit, LogLoss().hits(outputs, np.array([1, 0]))) == ("lower", "nat", None)


@given(
    outputs=hnp.arrays(np.float32, (6, 3), elements=st.floats(-50, 50, width=32)),
    labels=hnp.arrays(np.int64, 6, elements=st.integers(0, 2)),
    shift=st.floats(-100, 100),
)
def test_log_loss_is_cross_entropy_whatever_the_offset(outputs, labels, shift):
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(outputs).double(), torch.from_numpy(labels)).item()
    assert LogLoss().compute(outputs, labels) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert LogLoss().compute(outputs.astype(np.float64) + shift, labels) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_log_loss_of_huge_outputs_does_not_overflow():
    outputs = np.array([[1e30, 0], [0, 1e4]], np.float32)
    assert LogLoss().compute(outputs, np.array([0, 1])) == 0.0
    assert LogLoss().compute(outputs[1:], np.array([0])) == 1e4


@pytest.mark.parametrize("metric", [TopK(1), LogLoss()], ids=lambda metric: metric.name)
@pytest.mark.parametrize(
    ("outputs", "labels", "why"),
    [
        (OUTPUTS, LABELS[:3], "needs outputs"),
        (OUTPUTS[0], LABELS, "needs outputs"),
        (OUTPUTS, LABELS[:, None], "needs outputs"),
        (OUTPUTS[:, :, None], LABELS, "needs outputs"),
        (OUTPUTS[:, :1], LABELS * 0, "needs at least 2 outputs, there are 1"),
        (OUTPUTS, LABELS / 1, "needs class numbers as labels, got float64"),
        (OUTPUTS, LABELS > 0, "needs class numbers as labels, got bool"),
        (OUTPUTS, LABELS + 2, "needs labels 0 to 2, got 2 to 3"),
        (OUTPUTS, LABELS - 1, "needs labels 0 to 2, got -1 to 0"),
    ],
)
def test_outputs_and_labels_that_do_not_fit(metric, outputs, labels, why):
    with pytest.raises(ValueError, match=why):
        metric.compute(outputs, labels)


def test_five_classes_are_too_few_for_top_5():
    with pytest.raises(ValueError, match="needs at least 6 outputs, there are 5"):
        TopK(5).hits(np.zeros((2, 5), np.float32), np.array([0, 1]))
