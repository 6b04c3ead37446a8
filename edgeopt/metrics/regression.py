"""Regression: how far the outputs are from the targets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt.metrics import NotMeasurable
from edgeopt.metrics._means import OfMeans

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


def _pairs(outputs: Array, targets: Array) -> tuple[Floats, Floats]:
    """Both as (N, K) float64.

    Raises:
        ValueError: Their shapes do not fit. Broadcasting would give a number without a meaning.
    """
    if not len(outputs) or len(outputs) != len(targets):
        raise ValueError(f"needs as many targets as outputs, got {targets.shape} and {outputs.shape}")
    flat, wanted = outputs.reshape(len(outputs), -1), targets.reshape(len(targets), -1)
    if flat.shape != wanted.shape:
        raise ValueError(f"needs as many targets as outputs, got {targets.shape} and {outputs.shape}")
    return flat.astype(np.float64), wanted.astype(np.float64)


@dataclass(frozen=True)
class MeanAbsoluteError(OfMeans):
    """Mean of |output - target| over samples and outputs, in the unit of the target."""

    name = "mae"
    unit = ""
    better = "lower"

    def terms(self, outputs: Array, labels: Array) -> Floats:
        """(N, 1) of each sample.

        Raises:
            ValueError: Outputs (N, K) and targets (N,) or (N, K) do not fit.
        """
        found, wanted = _pairs(outputs, labels)
        mean: Floats = np.abs(found - wanted).mean(axis=1, keepdims=True)
        return mean

    def value(self, means: Floats) -> float:
        """Their mean."""
        return float(means[0])


@dataclass(frozen=True)
class RootMeanSquaredError(OfMeans):
    """√ of the mean of (output - target)² over samples and outputs, in the unit of the target."""

    name = "rmse"
    unit = ""
    better = "lower"

    def terms(self, outputs: Array, labels: Array) -> Floats:
        """(N, 1) mean square of each sample.

        Raises:
            ValueError: Outputs (N, K) and targets (N,) or (N, K) do not fit.
        """
        found, wanted = _pairs(outputs, labels)
        mean: Floats = ((found - wanted) ** 2).mean(axis=1, keepdims=True)
        return mean

    def value(self, means: Floats) -> float:
        """The root of their mean."""
        return math.sqrt(means[0])


@dataclass(frozen=True)
class RSquared(OfMeans):
    """1 - Σ (output - target)² / Σ (target - mean)² of each output, averaged over the outputs with equal weights.

    Below 0 the outputs are worse than the mean of the targets. Source: the coefficient of determination, as
    ``sklearn.metrics.r2_score``, which however calls targets that are all the same 0 or 1.
    """

    name = "r2"

    def terms(self, outputs: Array, labels: Array) -> Floats:
        """(N, 3K) square errors, targets less their mean, and the squares of those.

        Raises:
            ValueError: Outputs (N, K) and targets (N,) or (N, K) do not fit.
            NotMeasurable: The targets of an output are all the same.
        """
        found, wanted = _pairs(outputs, labels)
        if (np.ptp(wanted, axis=0) == 0).any():
            raise NotMeasurable("the targets of an output are all the same, so that there is nothing to explain")
        centred = wanted - wanted.mean(axis=0)
        return np.hstack([(found - wanted) ** 2, centred, centred**2])

    def value(self, means: Floats) -> float:
        """Mean over the outputs."""
        error, target, square = means.reshape(3, -1)
        return float((1 - error / (square - target**2)).mean())


PLUGINS = (MeanAbsoluteError(), RootMeanSquaredError(), RSquared())
