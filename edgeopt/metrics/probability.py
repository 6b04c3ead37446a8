"""How good the probabilities of a classifier are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from edgeopt.metrics import Metric, _intervals
from edgeopt.metrics._classes import check, log_softmax, refuse_nan
from edgeopt.metrics._means import OfMeans
from edgeopt.statistics import Estimate, Interval, independent_difference

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LogLoss(OfMeans):
    """Mean negative log-likelihood of the labels, in nats (Bishop 2006, eq. 4.108).

    Attributes:
        softmax: The outputs are logits. False for a network that gives probabilities; they are then at least
            1.2e-7, the resolution of float32, as in ``sklearn.metrics.log_loss``.
    """

    softmax: bool = True
    name = "log_loss"
    unit = "nat"
    better = "lower"

    def terms(self, outputs: Array, labels: Array) -> Floats:
        """(N, 1) of each sample."""
        check(outputs, labels, 2)
        own = np.take_along_axis(_log_probabilities(outputs, self.softmax), labels[:, None].astype(np.int64), axis=1)
        return -own

    def value(self, means: Floats) -> float:
        """Their mean."""
        return float(means[0])


@dataclass(frozen=True)
class CalibrationError(Metric):
    """Expected calibration error: how far the confidence is from the share of right answers, by bins of confidence.

    Σ_b n_b / N · |accuracy_b - confidence_b| over equal-width bins ((b - 1) / B, b / B] of the largest probability.
    Source: Guo et al., On calibration of modern neural networks, ICML 2017, eq. 3. The number is biased upwards, the
    more so the fewer samples a bin has; compare it only between models on the same samples, with the same bins.

    Attributes:
        bins: B; 15 as in the paper.
        softmax: The outputs are logits. False for a network that gives probabilities.
    """

    bins: Annotated[int, Field(ge=1, le=1000)] = 15
    softmax: bool = True
    name = "ece"
    better = "lower"

    @property
    def label(self) -> str:
        """With the number of bins, if it is not that of the paper."""
        return self.name if self.bins == 15 else f"{self.name}:{self.bins}"

    def compute(self, outputs: Array, labels: Array) -> float:
        """Sum over the bins of |Σ (confidence - right)|, by the number of samples."""
        sure, right, bins = self._answers(outputs, labels)
        return float(np.abs(self._per_bin(sure - right, bins)).sum())

    def interval(self, outputs: Array, labels: Array, *, confidence: float, seed: int) -> Interval:
        """From the spread σ of the gap of each bin: [ECE - Σ σ √(2/π) - z √(Σ σ²), ECE + z √(Σ σ²)].

        The first sum, over the bins whose gap is below 2σ, is how far the absolute values of mere noise lift the ECE:
        the mean of |N(0, σ)|. No bootstrap: it would add that bias once more instead of taking it off.
        """
        from scipy.special import ndtri

        sure, right, bins = self._answers(outputs, labels)
        variance = self._per_bin(np.maximum(sure * (1 - sure), (sure - right) ** 2), bins) / len(bins)
        spread, gaps = np.sqrt(variance), np.abs(self._per_bin(sure - right, bins))
        lifted = float(spread[gaps < 2 * spread].sum()) * math.sqrt(2 / math.pi)
        half = float(ndtri(0.5 + confidence / 2) * np.sqrt((spread**2).sum()))
        value = float(gaps.sum())
        return _intervals.within((value - lifted - half, value + half), 0, 1)

    def drop_interval(
        self, outputs: Array, baseline: Array, labels: Array, reference: Self, *, confidence: float, seed: int
    ) -> Interval:
        """From both intervals, as if they were independent: the bias of either model is another one."""
        before, after = (
            Estimate(metric.compute(given, labels), metric.interval(given, labels, confidence=confidence, seed=seed))
            for metric, given in ((reference, baseline), (self, outputs))
        )
        return independent_difference(before, after).interval

    def _answers(self, outputs: Array, labels: Array) -> tuple[Floats, npt.NDArray[np.bool_], Array]:
        """Confidence, whether the answer is right, and the bin: (N,) each."""
        check(outputs, labels, 2)
        refuse_nan(outputs)
        sure: Floats = np.exp(_log_probabilities(outputs, self.softmax).max(axis=1))
        bins = np.clip(np.ceil(sure * self.bins) - 1, 0, self.bins - 1).astype(np.int64)
        return sure, outputs.argmax(axis=1) == labels, bins

    def _per_bin(self, terms: Floats, bins: Array) -> Floats:
        """(B,) sum of the terms, over the number of all samples."""
        return np.bincount(bins, weights=terms, minlength=self.bins) / len(bins)


def _log_probabilities(outputs: Array, softmax: bool) -> Floats:
    if softmax:
        return log_softmax(outputs)
    if outputs.min() < 0 or outputs.max() > 1 + 1e-3:
        raise ValueError("the outputs are no probabilities; leave out `softmax: false`")
    clipped: Floats = np.log(np.clip(outputs, np.finfo(np.float32).eps, 1).astype(np.float64))
    return clipped


PLUGINS = (LogLoss(), CalibrationError())
