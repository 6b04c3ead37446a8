"""Regression metrics, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgeopt.metrics.regression import MeanAbsoluteError

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
