"""Presentation attack detection: how many attacks get through, and how many genuine users are turned away.

Source: ISO/IEC 30107-3, Biometric presentation attack detection, part 3: Testing and reporting. Presentations that the
sensor did not acquire at all (non-responses) are not in the data: the rates are those of the detector on acquired
samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from edgeopt.metrics import NotMeasurable, _intervals
from edgeopt.metrics._attacks import AttackDetection, types_of
from edgeopt.statistics import Estimate, Interval, paired_proportion_difference

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Apcer(AttackDetection):
    """Attack presentation classification error rate: the share of attacks that are taken for bona fide.

    By itself it is that of the worst attack type, which is what the standard asks for; ``attack`` names one type.

    Attributes:
        attack: Of this type only.
    """

    attack: str = ""
    name = "apcer"

    @property
    def _subject(self) -> str:
        return f"apcer:{self.attack}" if self.attack else "apcer"

    def require(self, labels: Array, *, fitting: bool) -> None:
        """As the others; attacks suffice where no threshold is fixed, and those of the type have to be there."""
        if fitting:
            super().require(labels, fitting=True)
        self._require(labels, attacks=True, bona_fide=False)
        if self.attack and self.attack not in types_of(labels):
            raise NotMeasurable(
                f"no sample is an attack of type {self.attack!r} (there are: {', '.join(types_of(labels)) or 'none'})"
            )

    def compute(self, outputs: Array, labels: Array) -> float:
        """Of the worst type, 0..1."""
        return max(missed / count for missed, count in self._counts(outputs, labels).values())

    def remark(self, outputs: Array, labels: Array) -> str:
        """The threshold, and the rate of each type."""
        counts = self._counts(outputs, labels)
        rates = ", ".join(f"{kind} {missed}/{count}" for kind, (missed, count) in counts.items())
        if self.attack:
            told = rates
        elif len(counts) == 1:
            told = f"the only attack type is {next(iter(counts))}: {rates}"
        else:
            worst = max(counts, key=lambda kind: counts[kind][0] / counts[kind][1])
            told = f"worst of {len(counts)} attack types is {worst}: {rates}"
        return "; ".join(part for part in (told, self.note) if part)

    def interval(self, outputs: Array, labels: Array, *, confidence: float, seed: int) -> Interval:
        """Exact for one type; else see :func:`_intervals.largest_proportion`."""
        return _intervals.largest_proportion(list(self._counts(outputs, labels).values()), confidence)

    def drop_interval(
        self, outputs: Array, baseline: Array, labels: Array, reference: Self, *, confidence: float, seed: int
    ) -> Interval:
        """Of one type the paired difference of proportions.

        The difference of two maxima over the same types lies between the least and the greatest of the types'
        differences, and so between the least of their lower and the greatest of their upper bounds.
        """
        own, other = ~self._is_attack(outputs, labels), ~reference._is_attack(baseline, labels)
        bounds = [
            paired_proportion_difference(other[labels == kind], own[labels == kind], confidence).interval
            for kind in self._counts(outputs, labels)
        ]
        return min(low for low, _ in bounds if low is not None), max(high for _, high in bounds if high is not None)

    def _counts(self, outputs: Array, labels: Array) -> dict[str, tuple[int, int]]:
        """Attack type -> (taken for bona fide, all)."""
        self.require(labels, fitting=False)
        missed = ~self._is_attack(outputs, labels)
        kinds = [self.attack] if self.attack else types_of(labels)
        return {kind: (int(missed[labels == kind].sum()), int((labels == kind).sum())) for kind in kinds}


@dataclass(frozen=True)
class Bpcer(AttackDetection):
    """Bona fide presentation classification error rate: the share of bona fide that are taken for attacks."""

    name = "bpcer"

    def require(self, labels: Array, *, fitting: bool) -> None:
        """As the others; bona fide presentations suffice where no threshold is fixed."""
        if fitting:
            super().require(labels, fitting=True)
        self._require(labels, attacks=False, bona_fide=True)

    def compute(self, outputs: Array, labels: Array) -> float:
        """Share, 0..1."""
        return float(self._turned_away(outputs, labels).mean())

    def remark(self, outputs: Array, labels: Array) -> str:
        """The threshold, and the counts."""
        turned = self._turned_away(outputs, labels)
        return "; ".join(part for part in (f"{turned.sum()}/{len(turned)} bona fide", self.note) if part)

    def interval(self, outputs: Array, labels: Array, *, confidence: float, seed: int) -> Interval:
        """Exact, at the threshold as it is."""
        turned = self._turned_away(outputs, labels)
        return _intervals.exact(int(turned.sum()), len(turned), confidence)

    def drop_interval(
        self, outputs: Array, baseline: Array, labels: Array, reference: Self, *, confidence: float, seed: int
    ) -> Interval:
        """The paired difference of proportions."""
        own, other = self._turned_away(outputs, labels), reference._turned_away(baseline, labels)
        return paired_proportion_difference(other, own, confidence).interval

    def _turned_away(self, outputs: Array, labels: Array) -> Bools:
        """Whether each bona fide presentation is taken for an attack."""
        self.require(labels, fitting=False)
        turned: Bools = self._is_attack(outputs, labels)[labels == ""]
        return turned


@dataclass(frozen=True)
class Acer(AttackDetection):
    """Average classification error rate: the mean of APCER, of the worst attack type, and BPCER.

    Source: Boulkenafet et al., OULU-NPU, FG 2017. The mean hides which of the two errors is made: gate both as well.
    """

    name = "acer"

    def compute(self, outputs: Array, labels: Array) -> float:
        """Mean of both rates, 0..1."""
        apcer, bpcer = self._parts()
        return (apcer.compute(outputs, labels) + bpcer.compute(outputs, labels)) / 2

    def remark(self, outputs: Array, labels: Array) -> str:
        """Both rates and the threshold."""
        apcer, bpcer = (part.compute(outputs, labels) for part in self._parts())
        return "; ".join(part for part in (f"APCER {apcer:.4g}, BPCER {bpcer:.4g}", self.note) if part)

    def interval(self, outputs: Array, labels: Array, *, confidence: float, seed: int) -> Interval:
        """From those of both rates, which are of different samples; see :func:`_intervals.mean_of`."""
        parts = [
            Estimate(part.compute(outputs, labels), part.interval(outputs, labels, confidence=confidence, seed=seed))
            for part in self._parts()
        ]
        return _intervals.within(_intervals.mean_of(parts), 0, 1)

    def drop_interval(
        self, outputs: Array, baseline: Array, labels: Array, reference: Self, *, confidence: float, seed: int
    ) -> Interval:
        """From those of both rates; see :func:`_intervals.mean_of`."""
        parts = [
            Estimate(
                other.compute(baseline, labels) - own.compute(outputs, labels),
                own.drop_interval(outputs, baseline, labels, other, confidence=confidence, seed=seed),
            )
            for own, other in zip(self._parts(), reference._parts(), strict=True)
        ]
        return _intervals.mean_of(parts)

    def _parts(self) -> tuple[Apcer, Bpcer]:
        """Both rates at this threshold."""
        threshold = self.threshold if self._fixed is None else self._fixed
        how = {"output": self.output, "high": self.high, "softmax": self.softmax, "threshold": threshold}
        return Apcer(**how), Bpcer(**how)  # type: ignore[arg-type]


PLUGINS = (Apcer(), Bpcer(), Acer())
