"""Thresholds from elsewhere: what production gets if it keeps the float model's, and what it would have to use instead.

An optimised model may keep its equal error rate while its scores move. Production keeps the threshold that was fixed
with the float model, and then accepts more impostors, or turns more people away.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from edgeopt.metrics._verification import Far, Verification, guards, measurable, plain, point
from edgeopt.recipe import MetricSpec
from edgeopt.statistics import Interval
from edgeopt.verification import (
    LEAST_IDENTITIES,
    Design,
    Kind,
    Scores,
    quantiles,
    rate_drop_interval,
    rate_interval,
)

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Fitted(Verification):
    """Something about a threshold that was fixed on ``select``."""

    _at: float | None = field(default=None, init=False, repr=False)

    def fit(self, outputs: Array, labels: Design) -> Self:
        """With the threshold at the asked FAR on these samples."""
        scores = self.scores(outputs, labels)
        self.enough(scores.impostor_count)
        made = copy.copy(self)
        with measurable():
            object.__setattr__(made, "_at", _threshold(scores, self.asked))
        return made


@dataclass(frozen=True)
class _AtThreshold(_Fitted):
    """A rate at a threshold from elsewhere: what production gets.

    One of ``far`` and ``threshold`` is given.

    Attributes:
        far: The threshold gives this FAR on ``select``; ``eer``: as many false accepts as false rejects.
        threshold: In units of the score.
        threshold_of: Whose scores on ``select`` fix it: the float ``baseline``'s, as if production kept its threshold,
            or the model's ``own``, as if production calibrated anew.
    """

    far: Far | None = None
    threshold: float | None = None
    threshold_of: Literal["baseline", "own"] = "baseline"
    better = "lower"

    def __post_init__(self) -> None:
        if self.far is not None and self.threshold is not None:
            raise ValueError("give one of far and threshold")
        if self.threshold is not None and self.threshold_of == "own":
            raise ValueError("threshold_of says where a threshold is fixed; one is given")

    @property
    def fitted_on(self) -> Literal["", "own", "baseline"]:  # type: ignore[override]
        return "" if self.threshold is not None else self.threshold_of

    @property
    def label(self) -> str:
        """``far@float=0.001``, ``far@own=0.001`` or ``far@threshold=0.42``."""
        if self.threshold is not None:
            return f"{self._kind}@threshold={plain(self.threshold)}"
        return f"{self._kind}@{'float' if self.threshold_of == 'baseline' else 'own'}={plain(self.asked)}"

    @property
    def guards(self) -> tuple[str, ...]:  # type: ignore[override]
        """False accepts at this very threshold, or at the point."""
        if self.threshold is not None:
            return (f"far@threshold={plain(self.threshold)}",)
        return guards(self.asked or 0.001)

    @property
    def note(self) -> str:  # type: ignore[override]
        if self._at is None:
            return ""
        whose = {"baseline": "the float baseline", "own": "this model"}[self.threshold_of]
        return f"threshold {self._at:.6g}, {point(self.asked)} of {whose} on select"

    def compute(self, outputs: Array, labels: Design) -> float:
        """The rate, 0..1."""
        scores = self.scores(outputs, labels)
        self.enough(scores.impostor_count)
        with measurable():
            return scores.far(self._given) if self._kind == "far" else scores.frr(self._given)

    def interval(self, outputs: Array, labels: Design, *, confidence: float, seed: int) -> Interval:
        """Wilson's, for as many pairs as the dependent ones are worth; the threshold is taken as known."""
        scores = self.scores(outputs, labels)
        if scores.trials.people < LEAST_IDENTITIES:
            return None, None
        with measurable():
            return rate_interval(scores, self._kind, self._given, confidence)

    def drop_interval(
        self, outputs: Array, baseline: Array, labels: Design, reference: Self, *, confidence: float, seed: int
    ) -> Interval:
        """Of the pairs on which the two disagree, as many as the dependent ones are worth."""
        own, before = self.scores(outputs, labels), self.scores(baseline, labels)
        if own.trials.people < LEAST_IDENTITIES:
            return None, None
        with measurable():
            return rate_drop_interval(before, own, self._kind, (reference._given, self._given), confidence)

    @property
    def _kind(self) -> Kind:
        return "far"

    @property
    def asked(self) -> Far | None:
        return None if self.threshold is not None else 0.001 if self.far is None else self.far

    @property
    def _given(self) -> float:
        given = self.threshold if self.threshold is not None else self._at
        if given is None:
            raise ValueError("needs its threshold to be fitted first")
        return given


@dataclass(frozen=True)
class FalseAcceptsAt(_AtThreshold):
    """FAR at a threshold from elsewhere: how many impostors production would let in."""

    name = "far_at"


@dataclass(frozen=True)
class FalseRejectsAt(_AtThreshold):
    """FRR at a threshold from elsewhere: how many genuine users production would turn away."""

    name = "frr_at"

    @property
    def companions(self) -> tuple[MetricSpec, ...]:  # type: ignore[override]
        """How many impostors the same threshold lets in."""
        same = {f.name: getattr(self, f.name) for f in fields(self) if f.init and getattr(self, f.name) != f.default}
        return (MetricSpec(name="far_at", args=same),)

    @property
    def _kind(self) -> Kind:
        return "frr"


@dataclass(frozen=True)
class Threshold(_Fitted):
    """The threshold that production would have to use with this model: that of its own scores on ``select``.

    Its drop from the float baseline says how far the scores moved. Lower is better as far as impostors score lower.

    Attributes:
        far: The FAR that it gives there; ``eer``: as many false accepts as false rejects.
    """

    far: Far = 0.001
    _select: Any = field(default=None, init=False, repr=False, compare=False)
    name = "threshold"
    unit = "score"
    better = "lower"
    fitted_on = "own"

    @property
    def label(self) -> str:
        """``threshold@far=0.001``."""
        return f"threshold@far={plain(self.far)}"

    @property
    def note(self) -> str:  # type: ignore[override]
        return "" if self._at is None else f"{point(self.far)} of this model on select"

    def fit(self, outputs: Array, labels: Design) -> Self:
        """Keeps the scores too, for the interval."""
        made = super().fit(outputs, labels)
        object.__setattr__(made, "_select", self.scores(outputs, labels))
        return made

    def compute(self, outputs: Array, labels: Design) -> float:
        """The threshold, whatever the outputs are."""
        self.scores(outputs, labels)
        if self._at is None:
            raise ValueError("needs its threshold to be fitted first")
        return self._at

    def remark(self, outputs: Array, labels: Design) -> str:
        """Only the note: these samples play no part."""
        return self.note

    def interval(self, outputs: Array, labels: Design, *, confidence: float, seed: int) -> Interval:
        """By the bootstrap over the identities of ``select``."""
        value = self.compute(outputs, labels)
        if (people := self._select.trials.people) < LEAST_IDENTITIES:
            return None, None
        with measurable():
            low, high = quantiles(self._drawn(seed), people, confidence)
        return min(low, value), max(high, value)

    def drop_interval(
        self, outputs: Array, baseline: Array, labels: Design, reference: Self, *, confidence: float, seed: int
    ) -> Interval:
        """By the bootstrap over the identities of ``select``, the same ones for both."""
        value = reference.compute(baseline, labels) - self.compute(outputs, labels)
        if (people := self._select.trials.people) < LEAST_IDENTITIES:
            return None, None
        with measurable():
            low, high = quantiles(reference._drawn(seed) - self._drawn(seed), people, confidence)
        return min(low, value), max(high, value)

    @property
    def asked(self) -> Far | None:
        return self.far

    def _drawn(self, seed: int) -> Floats:
        scores: Scores = self._select
        return scores.resampled(self.far, seed).threshold


def _threshold(scores: Scores, far: Far | None) -> float:
    """Where a FAR is on these scores."""
    if far is None:
        raise ValueError("needs no threshold of other samples")
    return scores.equal_error().threshold if far == "eer" else scores.threshold(far)


PLUGINS = (FalseAcceptsAt(), FalseRejectsAt(), Threshold())
