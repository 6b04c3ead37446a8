"""Verification: is it the same person? Error rates of embeddings, and what becomes of production's threshold.

The column ``identity`` says who every sample is of. All samples are compared with each other, or the ``pairs`` of the
split. FAR is the false accept rate, FRR the false reject rate and TAR = 1 - FRR; ISO/IEC 19795-1, Biometric performance
testing and reporting, calls them FMR and FNMR where every comparison counts, as it does here.

An optimised model may keep its equal error rate while its scores move. Production keeps the threshold that was fixed
with the float model, and then accepts more impostors. ``far_at`` shows that; it is taken beside the others without
being asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy.typing as npt

from edgeopt.metrics._verification import Far, Share, Verification, guards, measurable, plain, transfers
from edgeopt.recipe import MetricSpec
from edgeopt.statistics import Interval
from edgeopt.verification import LEAST_IDENTITIES, Design, difference_interval, quantiles, rate_interval

Array = npt.NDArray[Any]

_POINTS = 100


@dataclass(frozen=True)
class _OfCurve(Verification):
    """What the metrics that are points of the ROC have in common."""

    def roc(self, outputs: Array, labels: Design) -> Mapping[str, list[float]]:
        """The curve, to six digits."""
        with measurable():
            points = self.scores(outputs, labels).roc(_POINTS)
        return {name: [float(f"{value:.6g}") for value in values] for name, values in points._asdict().items()}


@dataclass(frozen=True)
class EqualErrorRate(_OfCurve):
    """Where FAR and FRR are equal, between two points of the ROC on the straight line."""

    name = "eer"
    better = "lower"

    @property
    def companions(self) -> tuple[MetricSpec, ...]:  # type: ignore[override]
        """What becomes of the threshold."""
        return transfers(self, "eer")

    @property
    def guards(self) -> tuple[str, ...]:  # type: ignore[override]
        return guards("eer")

    def compute(self, outputs: Array, labels: Design) -> float:
        """The rate, 0..1."""
        with measurable():
            return self.scores(outputs, labels).equal_error().rate

    def interval(self, outputs: Array, labels: Design, *, confidence: float, seed: int) -> Interval:
        """By the bootstrap over identities.

        Without any error the bounds of FAR and FRR at the threshold stand for it, for the rate lies between them.
        """
        scores = self.scores(outputs, labels)
        if (people := scores.trials.people) < LEAST_IDENTITIES:
            return None, None
        with measurable():
            rate, threshold = scores.equal_error()
            low, high = quantiles(scores.resampled("eer", seed).far, people, confidence)
            if low == high:
                high = max(rate_interval(scores, kind, threshold, confidence)[1] for kind in ("far", "frr"))
        return min(low, rate), max(high, rate)

    def drop_interval(
        self, outputs: Array, baseline: Array, labels: Design, reference: Self, *, confidence: float, seed: int
    ) -> Interval:
        """By the bootstrap over identities, the same ones for both."""
        own, before = self.scores(outputs, labels), self.scores(baseline, labels)
        if own.trials.people < LEAST_IDENTITIES:
            return None, None
        with measurable():
            rates = [scores.equal_error() for scores in (before, own)]
            differences = before.resampled("eer", seed).far - own.resampled("eer", seed).far
            value = rates[0].rate - rates[1].rate
            return difference_interval(differences, value, own, "frr", rates[1].threshold, confidence)


@dataclass(frozen=True)
class _AtFar(_OfCurve):
    """A rate at the threshold that gives a FAR on the same samples: what the model can do, not what production does.

    The threshold is the lowest one whose FAR is at most ``far``.

    Attributes:
        far: In (0, 1).
    """

    far: Share = 0.001

    @property
    def label(self) -> str:
        """``tar@far=0.001``."""
        return f"{self.name}@far={plain(self.far)}"

    @property
    def companions(self) -> tuple[MetricSpec, ...]:  # type: ignore[override]
        """What becomes of the threshold."""
        return transfers(self, self.far)

    @property
    def guards(self) -> tuple[str, ...]:  # type: ignore[override]
        return guards(self.far)

    @property
    def asked(self) -> Far | None:
        return self.far

    def compute(self, outputs: Array, labels: Design) -> float:
        """The rate, 0..1."""
        scores = self.scores(outputs, labels)
        self.enough(scores.impostor_count)
        with measurable():
            return float(self._of(scores.frr(scores.threshold(self.far))))

    def interval(self, outputs: Array, labels: Design, *, confidence: float, seed: int) -> Interval:
        """By the bootstrap over identities, and never shorter than if the threshold were known."""
        scores = self.scores(outputs, labels)
        if (people := scores.trials.people) < LEAST_IDENTITIES:
            return None, None
        with measurable():
            drawn = quantiles(scores.resampled(self.far, seed).frr, people, confidence)
            known = rate_interval(scores, "frr", scores.threshold(self.far), confidence)
        low, high = sorted(map(self._of, (min(drawn[0], known[0]), max(drawn[1], known[1]))))
        return low, high

    def drop_interval(
        self, outputs: Array, baseline: Array, labels: Design, reference: Self, *, confidence: float, seed: int
    ) -> Interval:
        """By the bootstrap over identities, the same ones for both."""
        own, before = self.scores(outputs, labels), self.scores(baseline, labels)
        if own.trials.people < LEAST_IDENTITIES:
            return None, None
        with measurable():
            drawn = [self._of(scores.resampled(self.far, seed).frr) for scores in (before, own)]
            value = reference.compute(baseline, labels) - self.compute(outputs, labels)
            threshold = own.threshold(self.far)
            return difference_interval(drawn[0] - drawn[1], value, own, "frr", threshold, confidence)

    def remark(self, outputs: Array, labels: Design) -> str:
        """The threshold too."""
        return f"threshold {self.scores(outputs, labels).threshold(self.far):.6g}; {super().remark(outputs, labels)}"

    def _of(self, frr: Any) -> Any:
        return frr if self.name == "frr" else 1 - frr


@dataclass(frozen=True)
class TrueAcceptRate(_AtFar):
    """Share of genuine pairs that are accepted at the threshold that gives a FAR."""

    name = "tar"


@dataclass(frozen=True)
class FalseRejectRate(_AtFar):
    """Share of genuine pairs that are not accepted at the threshold that gives a FAR."""

    name = "frr"
    better = "lower"


PLUGINS = (EqualErrorRate(), TrueAcceptRate(), FalseRejectRate())
