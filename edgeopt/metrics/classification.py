"""Classification: the share of right answers, and how good the probabilities are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt.metrics import Better, Metric

Array = npt.NDArray[Any]


def _check(outputs: Array, labels: Array, least_classes: int) -> None:
    if outputs.ndim != 2 or labels.ndim != 1 or len(outputs) != len(labels):
        raise ValueError(f"needs outputs (N, K) and labels (N,), got {outputs.shape} and {labels.shape}")
    if outputs.shape[1] < least_classes:
        raise ValueError(f"needs at least {least_classes} outputs, there are {outputs.shape[1]}")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"needs class numbers as labels, got {labels.dtype}")
    if labels.size and not 0 <= labels.min() <= labels.max() < outputs.shape[1]:
        raise ValueError(f"needs labels 0 to {outputs.shape[1] - 1}, got {labels.min()} to {labels.max()}")


@dataclass(frozen=True)
class TopK(Metric):
    """Share of samples whose label is among the ``k`` largest outputs. A NaN output counts as wrong."""

    k: int

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"top{self.k}"

    def hits(self, outputs: Array, labels: Array) -> npt.NDArray[np.bool_]:
        """(N,) whether fewer than ``k`` other classes score at least as high as the label; a tie counts as wrong."""
        _check(outputs, labels, self.k + 1)
        own = np.take_along_axis(outputs, labels[:, None].astype(np.int64), axis=1)
        finite = ~np.isnan(outputs).any(axis=1)
        found: npt.NDArray[np.bool_] = ((outputs >= own).sum(axis=1) - 1 < self.k) & finite
        return found

    def compute(self, outputs: Array, labels: Array) -> float:
        """Share of hits, 0..1."""
        return float(self.hits(outputs, labels).mean())

    def decisions(self, outputs: Array) -> Array | None:
        """The class with the largest output."""
        return outputs.argmax(axis=1) if outputs.ndim == 2 and self.k == 1 else None


@dataclass(frozen=True)
class LogLoss(Metric):
    """Mean negative log-likelihood of the labels under the softmax of the outputs, in nats (Bishop 2006, eq. 4.108)."""

    name: str = "log_loss"
    unit: str = "nat"
    better: Better = "lower"

    def compute(self, outputs: Array, labels: Array) -> float:
        """Mean over the samples."""
        _check(outputs, labels, 2)
        scores = outputs.astype(np.float64)
        scores = scores - scores.max(axis=1, keepdims=True)
        own = np.take_along_axis(scores, labels[:, None].astype(np.int64), axis=1)[:, 0]
        return float((np.log(np.exp(scores).sum(axis=1)) - own).mean())


PLUGINS = (TopK(1), TopK(5), LogLoss())
