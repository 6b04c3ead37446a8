"""How good the probabilities of a classifier are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from edgeopt.metrics._classes import check, log_softmax, refuse_nan
from edgeopt.metrics._reduced import Reduced

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LogLoss(Reduced):
    """Mean negative log-likelihood of the labels, in nats (Bishop 2006, eq. 4.108).

    Attributes:
        softmax: The outputs are logits. False for a network that gives probabilities; they are then at least
            1.2e-7, the resolution of float32, as in ``sklearn.metrics.log_loss``.
    """

    softmax: bool = True
    name = "log_loss"
    unit = "nat"
    better = "lower"

    def reduce(self, outputs: Array, labels: Array) -> Floats:
        """(N,) of each sample."""
        check(outputs, labels, 2)
        own = np.take_along_axis(_log_probabilities(outputs, self.softmax), labels[:, None].astype(np.int64), axis=1)
        return -own[:, 0]

    def value(self, reduced: Floats) -> float:
        """Their mean."""
        return float(reduced.mean())


@dataclass(frozen=True)
class CalibrationError(Reduced):
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

    def reduce(self, outputs: Array, labels: Array) -> Floats:
        """(N, 2) bin, and confidence less 1 if the answer is right."""
        check(outputs, labels, 2)
        refuse_nan(outputs)
        confidence = np.exp(_log_probabilities(outputs, self.softmax).max(axis=1))
        right = outputs.argmax(axis=1) == labels
        bins = np.clip(np.ceil(confidence * self.bins) - 1, 0, self.bins - 1)
        return np.stack([bins, confidence - right], axis=1)

    def value(self, reduced: Floats) -> float:
        """Sum over the bins of |Σ (confidence - right)|, by the number of samples."""
        gaps = np.bincount(reduced[:, 0].astype(np.int64), weights=reduced[:, 1], minlength=self.bins)
        return float(np.abs(gaps).sum() / len(reduced))


def _log_probabilities(outputs: Array, softmax: bool) -> Floats:
    if softmax:
        return log_softmax(outputs)
    if outputs.min() < 0 or outputs.max() > 1 + 1e-3:
        raise ValueError("the outputs are no probabilities; leave out `softmax: false`")
    clipped: Floats = np.log(np.clip(outputs, np.finfo(np.float32).eps, 1).astype(np.float64))
    return clipped


PLUGINS = (LogLoss(), CalibrationError())
