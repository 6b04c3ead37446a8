"""Ranking: how well the scores order the samples of a class above the others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from edgeopt.metrics import Metric, NotMeasurable, _intervals
from edgeopt.metrics._classes import check, log_softmax, refuse_nan
from edgeopt.statistics import Estimate, Interval

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RocAuc(Metric):
    """Area under the ROC curve: the probability that a sample of the class scores above one that is not, ties half.

    Of a class against the rest (Hanley and McNeil, Radiology 143 (1982)); or the mean over the classes that the labels
    have, with equal weights, which for two classes is the same.

    Attributes:
        positive: Only this class against the rest; left out, the mean over the classes (macro).
        softmax: A class is scored by its probability, of which the outputs are the logits. False to take the outputs as
            they are. The score of a network with one output is always that output, of class 1.
    """

    positive: Annotated[int, Field(ge=0)] | None = None
    softmax: bool = True
    name = "roc_auc"

    @property
    def label(self) -> str:
        """``roc_auc`` for the mean, ``roc_auc:3`` for class 3."""
        return self.name if self.positive is None else f"{self.name}:{self.positive}"

    def compute(self, outputs: Array, labels: Array) -> float:
        """The area, or the mean of the areas, 0..1.

        Raises:
            NotMeasurable: No sample is of the class, or all are.
        """
        return float(np.mean([area for area, _ in self._areas(outputs, labels)]))

    def interval(self, outputs: Array, labels: Array, *, confidence: float, seed: int) -> Interval:
        """By :func:`score_interval`; of the mean by :func:`_intervals.mean_of`."""
        areas = self._areas(outputs, labels)
        counts = [int((labels == c).sum()) for c in self._classes(outputs, labels)]
        found = [
            Estimate(area, score_interval(area, count, len(labels) - count, confidence))
            for (area, _), count in zip(areas, counts, strict=True)
        ]
        if len(found) == 1:
            return found[0].interval
        correlation = _correlation(np.stack([influence for _, influence in areas]))
        return _intervals.within(_intervals.mean_of(found, correlation), 0, 1)

    def drop_interval(
        self, outputs: Array, baseline: Array, labels: Array, reference: Self, *, confidence: float, seed: int
    ) -> Interval:
        """By what each sample contributes to either area; see :func:`_intervals.paired_difference`.

        The two more samples pass half of the others each; without them it is the test of DeLong, DeLong and
        Clarke-Pearson, Biometrics 44 (1988).
        """
        own, other = self._areas(outputs, labels), reference._areas(baseline, labels)
        value = float(np.mean([a for a, _ in other]) - np.mean([a for a, _ in own]))
        counts = np.array([(labels == c).sum() for c in self._classes(outputs, labels)])
        past_half = 1 / (2 * np.minimum(counts, len(labels) - counts) * len(counts))
        bounds = _intervals.paired_difference(
            value,
            np.mean([influence for _, influence in other], axis=0),
            np.mean([influence for _, influence in own], axis=0),
            float(np.sqrt((past_half**2).mean())),
            confidence,
        )
        return _intervals.within(bounds, -1, 1)

    def _classes(self, outputs: Array, labels: Array) -> Array:
        if self.positive is not None:
            return np.array([self.positive])
        return np.array([1]) if outputs.shape[1] <= 2 else np.unique(labels)

    def _areas(self, outputs: Array, labels: Array) -> list[tuple[float, Floats]]:
        """Area and influence function (N,) of each class."""
        check(outputs, labels, 1)
        refuse_nan(outputs)
        found = []
        for c in self._classes(outputs, labels):
            is_class = labels == c
            if not 0 < is_class.sum() < len(labels):
                raise NotMeasurable(f"{'no' if not is_class.any() else 'every'} sample is of class {c}")
            found.append(_area(self._scores(outputs, int(c)), is_class))
        return found

    def _scores(self, outputs: Array, of_class: int) -> Floats:
        """(N,) log-odds of the class, which order as its probability does, but do not saturate."""
        if outputs.shape[1] == 1:
            return outputs[:, 0].astype(np.float64) * (1 if of_class == 1 else -1)
        if of_class >= outputs.shape[1]:
            raise ValueError(f"needs an output for class {of_class}, there are {outputs.shape[1]}")
        if not self.softmax:
            return outputs[:, of_class].astype(np.float64)
        if outputs.shape[1] == 2:
            return outputs[:, of_class].astype(np.float64) - outputs[:, 1 - of_class]
        log_p = log_softmax(outputs)
        others = np.delete(log_p, of_class, axis=1)
        highest = others.max(axis=1)
        rest: Floats = highest + np.log(np.exp(others - highest[:, None]).sum(axis=1))
        return log_p[:, of_class] - rest


def _area(scores: Floats, is_class: npt.NDArray[np.bool_]) -> tuple[float, Floats]:
    """The area, and its influence function (N,) by the structural components of DeLong (1988)."""
    inside, outside = np.sort(scores[is_class]), np.sort(scores[~is_class])
    components = np.empty(len(scores))
    components[is_class] = _share_below(outside, scores[is_class])
    components[~is_class] = 1 - _share_below(inside, scores[~is_class])
    area = float(components[is_class].mean())
    weight = np.where(is_class, len(scores) / len(inside), len(scores) / len(outside))
    return area, weight * (components - area)


def _share_below(ordered: Floats, values: Floats) -> Floats:
    """(M,) share of ``ordered`` that is below each value, those that are equal half."""
    both = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    share: Floats = both / (2 * len(ordered))
    return share


def score_interval(area: float, inside: int, outside: int, confidence: float) -> Interval:
    """Of an area under the ROC curve, from its value and the numbers of samples of the class and of the others.

    The areas θ for which |area - θ| ≤ z √V(θ), with the variance of Hanley and McNeil (1982),
    V = θ(1-θ) (1 + (m-1)(1-θ)/(2-θ) + (n-1)θ/(1+θ)) / (mn). It has a width also where all scores are in order.
    Source: Newcombe, Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part 2,
    Statistics in Medicine 25 (2006), method 3. The larger of V(θ) with m and n either way is taken.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtri

    z = float(ndtri(0.5 + confidence / 2))

    def spread(theta: float) -> float:
        falls, rises = (1 - theta) / (2 - theta), theta / (1 + theta)
        a, b = inside - 1, outside - 1
        inner = 1 + max(a * falls + b * rises, b * falls + a * rises)
        return z * math.sqrt(max(0.0, theta * (1 - theta) * inner / (inside * outside)))

    tiny = 1e-12  # at 0 and 1 themselves the spread is 0
    low = 0.0 if area <= tiny else brentq(lambda theta: area - theta - spread(theta), 0.0, area - tiny)
    high = 1.0 if area >= 1 - tiny else brentq(lambda theta: theta - area - spread(theta), area + tiny, 1.0)
    return float(low), float(high)


def _correlation(influences: Floats) -> Floats:
    """(K, K) of (K, N); of a constant with anything else it is 0."""
    products = influences @ influences.T
    norms = np.sqrt(np.diag(products))
    scale = np.outer(norms, norms)
    matrix: Floats = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    np.fill_diagonal(matrix, 1.0)
    return matrix


PLUGINS = (RocAuc(),)
