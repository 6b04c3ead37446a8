"""Classification: the share of right answers, over all samples and by class."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from edgeopt.metrics import Metric, NotMeasurable, _intervals
from edgeopt.metrics._classes import check, refuse_nan
from edgeopt.statistics import Estimate, Interval

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TopK(Metric):
    """Share of samples whose label is among the ``k`` largest outputs. A NaN output counts as wrong."""

    k: Annotated[int, Field(ge=1)] = 1

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"top{self.k}"

    def hits(self, outputs: Array, labels: Array) -> npt.NDArray[np.bool_]:
        """(N,) whether fewer than ``k`` other classes score at least as high as the label; a tie counts as wrong."""
        check(outputs, labels, self.k + 1)
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
class AnyTopK(TopK):
    """``{top_k: {k: 3}}``, called ``top3``."""

    name = "top_k"

    @property
    def label(self) -> str:
        """``top3``."""
        return f"top{self.k}"


@dataclass(frozen=True)
class _ByClass(Metric):
    """A ratio for each class, and its mean over the classes that the labels have.

    For class c it is ``(t + p) TP / (t P + p P')`` of the true positives TP, the samples P of the class and the samples
    P' that are said to be, which has an exact interval: given the samples that it looks at, TP is binomial.

    Attributes:
        positive: Only this class against the rest; left out, the mean over the classes with equal weights (macro).
        threshold: For a network with one output: at or above it the answer is class 1, else class 0.
    """

    positive: Annotated[int, Field(ge=0)] | None = None
    threshold: float | None = None
    weights: ClassVar[tuple[int, int]]  # (t, p)

    @property
    def label(self) -> str:
        """``f1`` for the mean, ``f1:3`` for class 3."""
        return self.name if self.positive is None else f"{self.name}:{self.positive}"

    def compute(self, outputs: Array, labels: Array) -> float:
        """The ratio of the class, or the mean over the classes, 0..1; 0 where a ratio is 0/0.

        Raises:
            NotMeasurable: No sample is of the class.
        """
        return float(self._table(outputs, labels).ratios.mean())

    def decisions(self, outputs: Array) -> Array | None:
        """The class with the largest output."""
        if outputs.ndim != 2:
            return None
        if outputs.shape[1] == 1:
            if self.threshold is None:
                raise ValueError("needs `threshold` for a network with one output: at or above it, it is class 1")
            return (outputs[:, 0] >= self.threshold).astype(np.int64)
        if self.threshold is not None:
            raise ValueError(f"needs no `threshold`: the largest of {outputs.shape[1]} outputs decides")
        largest: Array = outputs.argmax(axis=1)
        return largest

    def right(self, outputs: Array, labels: Array) -> npt.NDArray[np.bool_] | None:
        """(N,) whether the decision is the label."""
        decisions = self.decisions(outputs)
        return None if decisions is None else decisions == labels

    def interval(self, outputs: Array, labels: Array, *, confidence: float, seed: int) -> Interval:
        """Exact for one class; of the mean the wider of two, on either side.

        The first, :func:`_intervals.mean_of`, is too short above where most classes have no error, the second,
        :meth:`_Table.stretched_accuracy`, below where only some have. A wrong answer counts against two classes in F1:
        the variance of its mean is up to twice that of independent ratios, since (a + b)² ≤ 2 (a² + b²), and is taken
        as that.
        """
        table = self._table(outputs, labels)
        exact = [self._exact(*counts, confidence) for counts in table.counts()]
        if len(exact) == 1:
            return exact[0].interval
        by_class = _intervals.mean_of(exact, np.eye(len(exact)) * sum(self.weights))
        over_all = table.stretched_accuracy(confidence)
        return _intervals.within((min(by_class[0], over_all[0]), max(by_class[1], over_all[1])), 0, 1)

    def drop_interval(
        self, outputs: Array, baseline: Array, labels: Array, reference: Self, *, confidence: float, seed: int
    ) -> Interval:
        """By what each sample contributes to either value; see :func:`_intervals.paired_difference`."""
        own, other = self._table(outputs, labels), reference._table(baseline, labels)
        value = float(other.ratios.mean() - own.ratios.mean())
        one = max(own.one_sample, other.one_sample)
        return _intervals.within(
            _intervals.paired_difference(value, other.influence, own.influence, one, confidence), -1, 1
        )

    def _table(self, outputs: Array, labels: Array) -> _Table:
        check(outputs, labels, 1)
        refuse_nan(outputs)
        predicted = self.decisions(outputs)
        assert predicted is not None
        there = np.unique(labels)
        if self.positive is None:
            classes = there
        elif self.positive not in there:
            raise NotMeasurable(f"no sample is of class {self.positive}")
        else:
            classes = np.array([self.positive])
        return _Table(labels, predicted, classes, self.weights)

    @abstractmethod
    def _exact(self, hits: int, true: int, predicted: int, confidence: float) -> Estimate:
        """The ratio of one class with its interval, from its counts."""


@dataclass(frozen=True)
class _Table:
    """Counts of answers.

    Attributes:
        labels, predicted: (N,) classes.
        classes: Those that are looked at.
        weights: Of :class:`_ByClass`.
    """

    labels: Array
    predicted: Array
    classes: Array
    weights: tuple[int, int]

    @cached_property
    def _counts(self) -> tuple[Array, Array, Array]:
        """True positives, samples of the class, and samples said to be: (K,) each, over all classes."""
        size = int(max(self.labels.max(), self.predicted.max())) + 1
        hit = self.labels[self.labels == self.predicted]
        true, said = (np.bincount(values, minlength=size) for values in (self.labels, self.predicted))
        return np.bincount(hit, minlength=size), true, said

    def counts(self) -> list[tuple[int, int, int]]:
        """(true positives, samples of the class, samples said to be) of each class that is looked at."""
        return [(int(a[c]), int(b[c]), int(d[c])) for a, b, d in [self._counts] for c in self.classes]

    @cached_property
    def _totals(self) -> Floats:
        """(K,) denominators, over all classes."""
        _, true, said = self._counts
        total: Floats = (self.weights[0] * true + self.weights[1] * said).astype(np.float64)
        return total

    @property
    def ratios(self) -> Floats:
        """(C,) of the classes that are looked at."""
        return self._ratios[self.classes]

    @cached_property
    def _ratios(self) -> Floats:
        total = self._totals
        hits = sum(self.weights) * self._counts[0]
        ratios: Floats = np.divide(hits, total, out=np.zeros_like(total), where=total > 0)
        return ratios

    @cached_property
    def _per_sample(self) -> Floats:
        """(K,) how much one sample of weight 1 counts in the mean; 0 for classes that are not looked at."""
        share = np.zeros_like(self._totals)
        there = self.classes[self._totals[self.classes] > 0]
        share[there] = 1 / (self._totals[there] * len(self.classes))
        return share

    @property
    def influence(self) -> Floats:
        """(N,) influence function of the mean of the ratios."""
        (t, p), one, ratio = self.weights, self._per_sample, self._ratios
        y, said = self.labels, self.predicted
        found: Floats = (t + p) * (y == said) * one[y] - t * (one * ratio)[y] - p * (one * ratio)[said]
        return found * len(y)

    def stretched_accuracy(self, confidence: float) -> tuple[float, float]:
        """The exact interval of the accuracy, stretched to the standard error of the mean of the ratios, around it.

        Source: Dobson et al., Confidence intervals for weighted sums of Poisson parameters, Statistics in Medicine 10
        (1991), with binomial counts.
        """
        n, hits = len(self.labels), int((self.labels == self.predicted).sum())
        mean, accuracy = float(self.ratios.mean()), hits / n
        if hits in (0, n):
            return mean, mean
        low, high = _intervals.exact(hits, n, confidence)
        stretch = float(np.sqrt((self.influence**2).mean() / (accuracy * (1 - accuracy))))
        return mean - stretch * (accuracy - low), mean + stretch * (high - accuracy)

    @property
    def one_sample(self) -> float:
        """How far a sample that changes sides moves the mean, over the classes (root mean square)."""
        moved = sum(self.weights) * self._per_sample[self.classes]
        return float(np.sqrt((moved**2).mean()))


@dataclass(frozen=True)
class Recall(_ByClass):
    """Of the samples of a class, the share that is said to be. The mean over the classes is the balanced accuracy."""

    name = "recall"
    weights = (1, 0)

    def _exact(self, hits: int, true: int, predicted: int, confidence: float) -> Estimate:
        return Estimate(hits / true, _intervals.exact(hits, true, confidence))


@dataclass(frozen=True)
class Precision(_ByClass):
    """Of the samples that are said to be of a class, the share that is. Nothing is known of it where there are none."""

    name = "precision"
    weights = (0, 1)

    def _exact(self, hits: int, true: int, predicted: int, confidence: float) -> Estimate:
        return Estimate(hits / max(predicted, 1), _intervals.exact(hits, predicted, confidence))


@dataclass(frozen=True)
class F1(_ByClass):
    """Harmonic mean of precision and recall: 2 TP / (P + P').

    It is 2J / (1 + J) of the Jaccard index J = TP / (P + P' - TP), which is a proportion of the samples that are of the
    class or are said to be: hence its exact interval.
    """

    name = "f1"
    weights = (1, 1)

    def _exact(self, hits: int, true: int, predicted: int, confidence: float) -> Estimate:
        either = true + predicted - hits
        low, high = _intervals.exact(hits, either, confidence)
        return Estimate(_f1(hits / either), (_f1(low), _f1(high)))


def _f1(jaccard: float) -> float:
    return 2 * jaccard / (1 + jaccard)


PLUGINS = (TopK(1), TopK(5), AnyTopK(1), Recall(), Precision(), F1())
