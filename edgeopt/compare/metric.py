"""One metric of what ships, on one target: whether it changed, and whether that can be known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from edgeopt import protocol, statistics
from edgeopt.compare import definition, kinds
from edgeopt.compare.kinds import Kind
from edgeopt.compare.model import Change, Result
from edgeopt.compare.side import Side
from edgeopt.measure import Measurement
from edgeopt.record import CandidateRecord, Interval
from edgeopt.statistics import Estimate

#: Fewer sessions do not show how far sessions lie apart.
_FEWEST_SESSIONS = 3
#: Two float baselines whose sizes differ by no more may be one network, trained twice.
_SAME_SIZE = 0.01


@dataclass(frozen=True)
class Pair:
    """One metric on both sides."""

    old: Side
    new: Side
    metric: str
    tolerance: float
    tolerances: Mapping[str, float]

    def change(self) -> Change:
        was, now = self.old.shipped.measurement(self.metric), self.new.shipped.measurement(self.metric)
        known = now or was
        assert known is not None
        accepted = self.tolerances.get(self.metric, self._tolerated(was))
        result: Result = "not_comparable"
        effect, confidence, regression = None, None, False
        if now is not None and now.broken and not (was is not None and was.broken):
            result, regression, reason = "worse", True, now.why
        else:
            reason = self._obstacle(was, now)
        if not reason and was is not None and now is not None:
            confidence = min((side.confidence for side in (was, now) if side.interval), default=None)
            if self.kind == "resource":
                effect = self._ratio(was, now, self.old.shipped, self.new.shipped)
                result, regression, reason = self._resource(effect, known, accepted)
            else:
                effect = self._difference(_estimate(now), _estimate(was))
                result, regression, reason = self._accuracy(effect, known.better, accepted)
        exact = effect is None or effect.interval == (effect.value, effect.value)
        return Change(
            metric=self.metric,
            unit=known.unit,
            better=known.better,
            before=was,
            after=now,
            result=result,
            scale="ratio" if self.kind == "resource" else "difference",
            value=effect.value if effect else None,
            interval=effect.interval if effect and not exact else None,
            confidence=None if exact else confidence,
            tolerance=accepted,
            regression=regression,
            why=reason,
            lost=_has_value(was) and not _has_value(now) and (self.kind == "quality" or self._was_gated),
        )

    @cached_property
    def kind(self) -> Kind:
        """Whether it is a resource, a share of the network or a quality of its outputs."""
        sides = (self.old, self.new)
        measurements = [side.shipped.measurement(self.metric) for side in sides]
        return kinds.of(self.metric, measurements, [side.release.record for side in sides])

    def _tolerated(self, was: Measurement | None) -> float:
        """By default: a part of what a resource or an extreme was, a part of the network, nothing of a quality."""
        if self.metric == kinds.EXTREME:
            return self.tolerance * (was.value or 0.0) if was else 0.0
        return 0.0 if self.kind == "quality" else self.tolerance

    @property
    def _was_gated(self) -> bool:
        return any(verdict.metric == self.metric for verdict in self.old.target.verdicts)

    def _obstacle(self, was: Measurement | None, now: Measurement | None) -> str:
        """Why the two numbers cannot be compared; empty if they can."""
        if was is not None and now is not None and was.value is None and now.value is None:
            return f"not measured in either run: {now.why or 'no reason is given'}"
        for measurement, run in ((was, "earlier"), (now, "later")):
            if measurement is None:
                return f"the {run} run does not have it"
            if measurement.value is None:
                return f"not measured in the {run} run: {measurement.why or 'no reason is given'}"
        assert was is not None
        assert now is not None
        for what in ("method", "unit", "better"):
            if getattr(was, what) != getattr(now, what):
                return f"the {what} was {getattr(was, what)}, now it is {getattr(now, what)}"
        before, after = (kinds.assumptions(side, self.kind) for side in (was, now))
        if before != after:
            both = f"before, {before or 'nobody tells'}; now, {after or 'nobody tells'}"
            return f"it was {was.method} otherwise: {both}"
        if self.kind == "quality":
            return self._other_accuracy()
        if self.kind == "share" or was.value == now.value == 0:
            return ""
        if was.protocol != now.protocol:
            changed = protocol.differences(self.old.target.protocol, self.new.target.protocol)
            listed = "; ".join(f"{d.field}: {_side(d.a)} before, {_side(d.b)} now" for d in changed)
            return f"the measuring protocols differ: {listed or 'the record does not say in what'}"
        if was.protocol:
            if moved := protocol.machine_differences(self.old.target.machine, self.new.target.machine):
                listed = "; ".join(f"{d.field}: {_side(d.a)} before, {_side(d.b)} now" for d in moved)
                return f"the machines differ: {listed}"
            for side, run in ((self.old, "earlier"), (self.new, "later")):
                if side.target.disturbed and was.unit != "MiB":
                    return f"the machine was disturbed in the {run} run: {'; '.join(side.target.disturbed)}"
        if not was.value or was.value < 0 or not now.value or now.value < 0:
            return "a ratio needs two positive numbers"
        return ""

    def _other_accuracy(self) -> str:
        """Why the two accuracies are of different things: what was computed, or on which data; else empty."""
        before, after = (definition.find(side.release.record, self.metric) for side in (self.old, self.new))
        if before and after and before.differs(after):
            old, new = (f"{d.spec.factory or d.spec.name} {d.spec.args or ''}".strip() for d in (before, after))
            return f"the metric is defined otherwise: {old} before, {new} now"
        if before and after and before.code and after.code and before.code != after.code:
            return f"the code of the metric has changed: {after.spec.factory or after.spec.name}"
        fitted = any(found is not None and found.fitted for found in (before, after))
        for what, split in (("evaluated", "evaluate"), ("fitted thresholds on", "select"))[: 1 + fitted]:
            old_data, new_data = (side.data(split) for side in (self.old, self.new))
            other = [name for name in {**old_data, **new_data} if old_data.get(name) != new_data.get(name)]
            if old_data and new_data and other:
                return f"the runs {what} different data: {', '.join(other)}"
        return ""

    def _difference(self, now: Estimate, was: Estimate) -> Estimate:
        if now == was and self._same_artifact:
            return Estimate(0.0, (0.0, 0.0))
        if self.kind == "share":  # its bounds are certain
            return Estimate(now.value - was.value, _apart(now.interval, was.interval))
        return statistics.independent_difference(now, was)

    @property
    def _same_artifact(self) -> bool:
        return self.old.shipped.artifact.digest == self.new.shipped.artifact.digest

    def _accuracy(self, change: Estimate, better: str, accepted: float) -> tuple[Result, bool, str]:
        low, high = change.interval
        least, most = (low, high) if better == "lower" else (_negative(high), _negative(low))  # of how much worse it is
        if low == 0 and high == 0:
            alike = "the same artefact on the same data" if self._same_artifact else "the two numbers are equal"
            return "no_difference", False, alike
        known = self.kind == "share" or (self.old.data("evaluate") and self.new.data("evaluate"))
        note = "" if known else "; the records do not say whether both runs evaluated the same data"
        what = "it is" if low == high else "the whole interval is"
        if least is not None and least > 0:
            beyond = least > accepted
            return "worse", beyond, f"{what} worse{_than(beyond, f'{accepted:.3g}')}{note}"
        if most is not None and most < 0:
            return "better", False, f"{what} better{note}"
        return "no_difference", False, f"the interval contains 0{note}"

    def _resource(self, change: Estimate, known: Measurement, accepted: float) -> tuple[Result, bool, str]:
        if kinds.is_exact(known):
            beyond = _result(change, known.better, accepted) == "worse"
            result = _result(change, known.better, 0.0)
            exact = "it is exact" if known.method == "measured" else f"it is {known.method}, with the same assumptions"
            exact += ", and the same is left out" if known.interval else ""
            return result, beyond, f"{exact}{_than(beyond, f'{100 * accepted:g} %')}" if result == "worse" else exact
        noise = max(self.old.noise(), self.new.noise()) if known.unit == "ms" else 0.0
        margin = max(accepted, noise)
        beyond_text = f"{100 * accepted:g} %" + (f" and the noise floor of {100 * noise:.1f} %" if noise else "")
        result = _result(change, known.better, margin)
        if result == "no_difference" and (seen := _result(change, known.better, accepted)) != result:
            what = f"the whole interval is {seen} by more than {100 * accepted:g} %"
            return "not_comparable", False, f"{what}, but not beyond the noise floor of {100 * noise:.1f} %"
        if result == "no_difference":
            return result, False, f"not beyond {beyond_text} with the whole interval"
        if self._same_artifact:
            what = f"the artefact is the same byte for byte, yet it needs {change.value:.3g}× as much"
            return "not_comparable", False, f"{what}: the machine has changed"
        surely = f"the whole interval is beyond {beyond_text}"
        drift = self._drift()
        if drift is None:
            note = "no float baseline is in both runs, so that a drift of the machine cannot be told apart"
            return result, result == "worse", f"{surely}; {note}"
        needs = f"which needs {drift.value:.3g}×"
        if _result(_divided(change, drift), known.better, margin) == result:
            return result, result == "worse", f"{surely}, also against the float baseline, {needs}"
        if not self._same_baseline:
            what = f"not beyond {beyond_text} against the float baseline, {needs}, but is another file"
            return "not_comparable", False, f"{what}: the machine or the network may have changed"
        if _result(drift, known.better, 0.0) == result:
            what = f"not beyond {beyond_text} against the float baseline, {needs}"
            return "no_difference", False, f"{what}: the machine has drifted"
        return result, result == "worse", f"{surely}; the float baseline, {needs}, is not sure to have drifted"

    @property
    def _same_baseline(self) -> bool:
        return self.old.baseline.artifact.digest == self.new.baseline.artifact.digest

    def _drift(self) -> Estimate | None:
        """How the float baseline changed; ``None`` if the runs do not have the same one, or one of the same size."""
        old, new = self.old.baseline, self.new.baseline
        was, now = old.measurement(self.metric), new.measurement(self.metric)
        same_size = math.isclose(old.artifact.size_mib, new.artifact.size_mib, rel_tol=_SAME_SIZE)
        if old.runtime != new.runtime or not (same_size or self._same_baseline):
            return None
        if was is None or now is None or not was.value or not now.value or was.protocol != now.protocol:
            return None
        return self._ratio(was, now, old, new)

    def _ratio(self, was: Measurement, now: Measurement, old: CandidateRecord, new: CandidateRecord) -> Estimate:
        """``now / was``: from the raw samples where both runs have them, session by session where they are told apart,
        else from the two intervals.
        """
        if was.value == now.value == 0:
            return Estimate(1.0, (1.0, 1.0))
        before, after = self.old.samples(old), self.new.samples(new)
        percentile = self.metric.removeprefix("latency_p").removesuffix("_ms")
        if before is None or after is None or f"latency_p{percentile}_ms" != self.metric:
            return _divided(_estimate(now), _estimate(was))
        q, confidence = float(percentile) / 100, min(was.confidence, now.confidence)
        earlier, later = self.old.sessions(old, q), self.new.sessions(new, q)
        if min(len(earlier), len(later)) >= _FEWEST_SESSIONS:
            return statistics.independent_session_ratio(later, earlier, confidence)
        return statistics.independent_ratio(after, before, q, confidence)


def _has_value(measurement: Measurement | None) -> bool:
    return measurement is not None and measurement.value is not None


def _side(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return "unknown" if value is None else text or "none"


def _estimate(measurement: Measurement) -> Estimate:
    """A number without error bars is its own interval."""
    assert measurement.value is not None
    interval = None if kinds.is_exact(measurement) else measurement.interval
    return Estimate(measurement.value, interval or (measurement.value, measurement.value))


def _divided(a: Estimate, b: Estimate) -> Estimate:
    """a / b of independent positive estimates, by the difference of their logarithms."""
    log_a, log_b = (Estimate(math.log(e.value), _mapped(e.interval, _log)) for e in (a, b))
    change = statistics.independent_difference(log_a, log_b)
    return Estimate(math.exp(change.value), _mapped(change.interval, math.exp))


def _apart(a: Interval, b: Interval) -> Interval:
    """Bounds of a - b, of which nothing is known but their bounds."""
    (a_low, a_high), (b_low, b_high) = a, b
    low = None if a_low is None or b_high is None else a_low - b_high
    return low, None if a_high is None or b_low is None else a_high - b_low


def _log(bound: float) -> float | None:
    return math.log(bound) if bound > 0 else None


def _mapped(interval: Interval, function: Callable[[float], float | None]) -> Interval:
    low, high = (None if bound is None else function(bound) for bound in interval)
    return low, high


def _result(ratio: Estimate, better: str, margin: float) -> Result:
    """Whether the whole interval of a ratio lies beyond ``margin``."""
    low, high = ratio.interval
    if high is not None and high < 1 / (1 + margin):
        return "better" if better == "lower" else "worse"
    if low is not None and low > 1 + margin:
        return "worse" if better == "lower" else "better"
    return "no_difference"


def _negative(bound: float | None) -> float | None:
    return None if bound is None else -bound


def _than(beyond: bool, accepted: str) -> str:
    return f", by more than the tolerated {accepted}" if beyond else f", but not by more than the tolerated {accepted}"
