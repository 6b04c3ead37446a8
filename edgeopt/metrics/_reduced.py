"""A metric that needs only a few numbers of every sample."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from edgeopt import statistics
from edgeopt.metrics import Metric
from edgeopt.statistics import Interval

Array = npt.NDArray[Any]


class Reduced(Metric):
    """The bootstrap draws the reduced samples, so that it costs the same whatever the network gives."""

    @abstractmethod
    def reduce(self, outputs: Array, labels: Array) -> npt.NDArray[np.float64]:
        """(N, ...) what the value depends on, for each sample."""

    @abstractmethod
    def value(self, reduced: npt.NDArray[np.float64]) -> float:
        """The value over all samples."""

    def compute(self, outputs: Array, labels: Array) -> float:
        """The value over all samples."""
        return self.value(self.reduce(outputs, labels))

    def interval(self, outputs: Array, labels: Array, *, confidence: float, seed: int) -> Interval:
        """The percentile bootstrap over samples."""
        reduced = self.reduce(outputs, labels)
        return statistics.bootstrap_interval(
            lambda rows, _: self.value(rows), reduced, reduced, confidence=confidence, seed=seed
        ).interval

    def drop_interval(
        self, outputs: Array, baseline: Array, labels: Array, reference: Self, *, confidence: float, seed: int
    ) -> Interval:
        """The percentile bootstrap over the samples that both saw."""
        own, other = self.reduce(outputs, labels), reference.reduce(baseline, labels)
        return statistics.paired_bootstrap_interval(
            lambda rows, _: self.value(rows), other, own, own, confidence=confidence, seed=seed
        ).interval
