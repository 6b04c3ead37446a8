"""Log-loss and calibration error, by hand and against torch and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeopt import metrics
from edgeopt.metrics.probability import CalibrationError, LogLoss
from edgeopt.recipe import MetricSpec

SETTINGS = {"confidence": 0.95, "seed": 0}


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


@given(seed=st.integers(0, 10_000))
def test_log_loss_of_probabilities_is_that_of_scikit_learn(seed):
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(4), 50) * 0.999 + 0.001 / 4
    labels = np.arange(50) % 4
    expected = sklearn.metrics.log_loss(labels, probabilities)
    assert LogLoss(softmax=False).compute(probabilities, labels) == pytest.approx(expected, rel=1e-12)


def test_an_answer_that_is_surely_wrong_costs_what_float32_can_tell():
    found = LogLoss(softmax=False).compute(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), np.array([1, 1]))
    assert found == pytest.approx(23 * math.log(2) / 2)


@pytest.mark.parametrize("metric", [LogLoss(softmax=False), CalibrationError(softmax=False)], ids=lambda m: m.name)
def test_logits_are_no_probabilities(metric):
    with pytest.raises(ValueError, match="no probabilities; leave out `softmax: false`"):
        metric.compute(np.array([[2.0, -1.0]]), np.array([0]))


def test_calibration_error_by_hand():
    """Confidence 0.6 twice, right once: gap 0.1. Confidence 0.9 three times, right all: gap 0.1. 0.75 once, wrong."""
    sure = np.array([0.6, 0.6, 0.9, 0.9, 0.9, 0.75])
    outputs = np.stack([sure, 1 - sure], axis=1)
    labels = np.array([0, 1, 0, 0, 0, 1])
    expected = (2 * 0.1 + 3 * 0.1 + 1 * 0.75) / 6
    assert CalibrationError(softmax=False).compute(outputs, labels) == pytest.approx(expected)
    assert CalibrationError().compute(np.log(outputs), labels) == pytest.approx(expected)
    one = CalibrationError(bins=1, softmax=False)
    assert one.compute(outputs, labels) == pytest.approx(abs(sure.mean() - 4 / 6))
    assert (CalibrationError().label, one.label, one.better) == ("ece", "ece:1", "lower")


def test_a_confidence_on_the_edge_belongs_to_the_lower_bin():
    """Guo et al. 2017: bin b is ((b - 1) / B, b / B]. With two bins 0.5 and 0.5 + ε do not cancel."""
    outputs = np.array([[0.5, 0.5, 0.0], [0.51, 0.49, 0.0]])
    found = CalibrationError(bins=2, softmax=False).compute(outputs, np.array([0, 1]))
    assert found == pytest.approx((0.5 + 0.51) / 2)


def test_sure_and_right_is_calibrated():
    outputs = np.array([[1000.0, 0.0], [0.0, 1000.0]])
    assert CalibrationError().compute(outputs, np.array([0, 1])) == 0
    assert CalibrationError().compute(outputs, np.array([1, 0])) == 1


@pytest.mark.parametrize("args", [{"bins": 0}, {"bins": 2.5}, {"softmax": "often"}])
def test_parameters_that_make_no_sense(args):
    with pytest.raises(ValueError, match=f"{next(iter(args))}: "):
        metrics.build(MetricSpec(name="ece", args=args))


def calibrated(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    logits = random.standard_normal((count, 4)) * 2
    odds = np.exp(logits)
    edges = (odds / odds.sum(axis=1, keepdims=True)).cumsum(axis=1)
    return logits, (edges < random.random((count, 1))).sum(axis=1).clip(0, 3)


@pytest.mark.parametrize("sharpen", [1.0, 1.5])
def test_the_interval_covers_the_truth_although_the_ece_of_few_samples_is_too_large(sharpen):
    metric, rounds = CalibrationError(), 100
    outputs, labels = calibrated(np.random.default_rng(0), 300_000)
    true = metric.compute(outputs * sharpen, labels)
    values, outside = [], 0
    for seed in range(rounds):
        outputs, labels = calibrated(np.random.default_rng(seed), 500)
        values.append(metric.compute(outputs * sharpen, labels))
        low, high = metric.interval(outputs * sharpen, labels, **SETTINGS)
        outside += not low <= true <= high
    assert np.mean(values) > true + 0.005
    assert outside / rounds <= 0.07


def test_a_network_that_became_too_sure_has_dropped():
    outputs, labels = calibrated(np.random.default_rng(0), 4000)
    found = metrics.drop(CalibrationError(), CalibrationError(), outputs * 3, outputs, labels, **SETTINGS)
    assert found.value > 0.1
    assert found.interval[0] > 0
