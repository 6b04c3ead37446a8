"""Regression metrics, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.metrics import NotMeasurable
from edgeopt.metrics.regression import MeanAbsoluteError, RootMeanSquaredError, RSquared
from edgeopt.statistics import bootstrap_interval, paired_bootstrap_interval

MAE = MeanAbsoluteError()


def test_mean_absolute_error_by_hand():
    outputs = np.array([[1.0, 2.0], [3.0, -4.0]], np.float32)
    targets = np.array([[1.5, 2.0], [1.0, 4.0]])
    assert MAE.compute(outputs, targets) == (0.5 + 0 + 2 + 8) / 4
    assert MAE.compute(outputs, outputs) == 0.0
    assert (MAE.name, MAE.better, MAE.hits(outputs, targets)) == ("mae", "lower", None)


@pytest.mark.parametrize(
    ("outputs", "targets"), [((3, 1), (3,)), ((3,), (3, 1)), ((3, 2), (3, 2)), ((3, 2, 2), (3, 4))]
)
def test_shapes_that_fit(outputs, targets):
    assert MAE.compute(np.full(outputs, 2.0, np.float32), np.full(targets, 5)) == 3.0


@pytest.mark.parametrize(("outputs", "targets"), [((3, 2), (3,)), ((3, 1), (2,)), ((3, 2), (2, 3))])
def test_shapes_that_do_not_fit(outputs, targets):
    """Broadcasting would give a number without a meaning."""
    with pytest.raises(ValueError, match="needs as many targets as outputs"):
        MAE.compute(np.zeros(outputs, np.float32), np.zeros(targets))


def test_integer_targets_do_not_wrap_around():
    assert MAE.compute(np.array([[0.0]], np.float32), np.array([200], np.uint8)) == 200.0


def test_root_mean_squared_error_by_hand():
    outputs, targets = np.array([[1.0, 2.0], [3.0, -4.0]]), np.array([[1.0, 4.0], [3.0, -2.0]])
    assert RootMeanSquaredError().compute(outputs, targets) == pytest.approx((8 / 4) ** 0.5)
    assert RootMeanSquaredError().better == "lower"


def test_r_squared_by_hand():
    """Errors 1, 0, 1 against a spread of 4 + 0 + 4 about the mean."""
    assert RSquared().compute(np.array([1.0, 2.0, 5.0]), np.array([0.0, 2.0, 4.0])) == pytest.approx(1 - 2 / 8)
    assert RSquared().compute(np.array([2.0, 2.0, 2.0]), np.array([0.0, 2.0, 4.0])) == 0.0
    assert RSquared().better == "higher"
    with pytest.raises(NotMeasurable, match="all the same"):
        RSquared().compute(np.array([1.0, 2.0]), np.array([3.0, 3.0]))


@given(seed=st.integers(0, 10_000), outputs=st.integers(1, 4), scale=st.sampled_from([1e-3, 1.0, 1e4]))
def test_they_are_those_of_scikit_learn(seed, outputs, scale):
    random = np.random.default_rng(seed)
    targets = random.standard_normal((40, outputs)) * scale + 3 * scale
    found = targets + random.standard_normal((40, outputs)) * scale / 2
    assert MAE.compute(found, targets) == pytest.approx(sklearn.metrics.mean_absolute_error(targets, found), rel=1e-12)
    expected = sklearn.metrics.mean_squared_error(targets, found) ** 0.5
    assert RootMeanSquaredError().compute(found, targets) == pytest.approx(expected, rel=1e-12)
    assert RSquared().compute(found, targets) == pytest.approx(sklearn.metrics.r2_score(targets, found), rel=1e-9)


def test_the_bootstrap_is_that_of_whole_samples():
    """It draws what each sample contributes, which gives what drawing the outputs themselves does."""
    random = np.random.default_rng(0)
    targets = random.standard_normal((80, 2))
    found = targets + random.standard_normal((80, 2)) / 2
    for metric in (MAE, RootMeanSquaredError(), RSquared()):
        expected = bootstrap_interval(metric.compute, found, targets, seed=3).interval
        assert metric.interval(found, targets, confidence=0.95, seed=3) == pytest.approx(expected, rel=1e-9)
        worse = found + random.standard_normal((80, 2)) / 2
        lost = paired_bootstrap_interval(metric.compute, found, worse, targets, seed=3).interval
        assert metric.drop_interval(worse, found, targets, metric, confidence=0.95, seed=3) == pytest.approx(lost)
