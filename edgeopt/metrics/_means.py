"""A metric that is a function of means over the samples."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from edgeopt import statistics
from edgeopt.metrics import Metric
from edgeopt.statistics import Interval

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


class OfMeans(Metric):
    """The bootstrap draws the terms of the samples, so that it costs the same however large the outputs are."""

    @abstractmethod
    def terms(self, outputs: Array, labels: Array) -> Floats:
        """(N, D) whose means the value is a function of."""

    @abstractmethod
    def value(self, means: Floats) -> float:
        """The value, from the (D,) means."""

    def compute(self, outputs: Array, labels: Array) -> float:
        """The value over all samples."""
        return self.value(self.terms(outputs, labels).mean(axis=0))

    def interval(self, outputs: Array, labels: Array, *, confidence: float, seed: int) -> Interval:
        """The percentile bootstrap over samples."""
        terms = np.ascontiguousarray(self.terms(outputs, labels).T)
        rows = np.arange(terms.shape[1])
        return statistics.bootstrap_interval(
            lambda drawn, _: self.value(terms.take(drawn, axis=1).mean(axis=1)),
            rows,
            rows,
            confidence=confidence,
            seed=seed,
        ).interval

    def drop_interval(
        self, outputs: Array, baseline: Array, labels: Array, reference: Self, *, confidence: float, seed: int
    ) -> Interval:
        """The percentile bootstrap over the samples that both saw."""
        own = np.ascontiguousarray(self.terms(outputs, labels).T)
        other = np.ascontiguousarray(reference.terms(baseline, labels).T)
        rows = np.arange(own.shape[1])
        return statistics.paired_bootstrap_interval(
            lambda drawn, _: reference.value(other.take(drawn, axis=1).mean(axis=1)),
            rows,
            rows,
            rows,
            compute_b=lambda drawn, _: self.value(own.take(drawn, axis=1).mean(axis=1)),
            confidence=confidence,
            seed=seed,
        ).interval
