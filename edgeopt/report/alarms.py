"""What must not be missed, said before everything else: old thresholds, waivers, a disturbed machine, regressions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgeopt.report import facts, placements, wording
from edgeopt.report.wording import clean

if TYPE_CHECKING:
    from edgeopt.measure import Measurement
    from edgeopt.record import Interval, RunRecord, TargetRecord

#: False accepts at the threshold that production has: the float model's at a FAR, such as ``far@float=0.001``, or a
#: given one, such as ``far@threshold=0.42``. Of one of several evaluation sets: ``far@float=0.001[outdoor]``.
_TRANSFERRED = re.compile(r"far@(?P<by>float|threshold)=(?P<at>[^\[\]\s]+)(?P<set>\[[^\]]*\])?")


@dataclass(frozen=True)
class Alarm:
    """``tone`` is a verdict that has the same colour; ``target`` is empty if it concerns the run."""

    tone: Literal["fail", "waived", "inconclusive"]
    title: str
    text: str
    target: str = ""


def alarms(record: RunRecord) -> tuple[Alarm, ...]:
    """All alarms of a run, the worst first."""
    per_target = [
        *(alarm for name, target in record.targets.items() for alarm in _thresholds(name, target)),
        *_waivers(record),
        *(alarm for name, target in record.targets.items() for alarm in _fallbacks(name, target)),
        *(alarm for name, target in record.targets.items() for alarm in _disturbed(name, target)),
    ]
    order = ("fail", "waived", "inconclusive")
    return tuple(sorted(per_target, key=lambda alarm: order.index(alarm.tone)))


def reminder(found: Sequence[Alarm], where: Literal["above", "below"]) -> str:
    """What the decision ends with if an alarm is red, so that a SHIP never stands alone; empty if none is."""
    if not any(alarm.tone == "fail" for alarm in found):
        return ""
    return f"Read the {wording.count(len(found), 'alarm') if len(found) > 1 else 'alarm'} {where} before you sign."


def _thresholds(name: str, target: TargetRecord) -> Iterator[Alarm]:
    """Whether what ships accepts more impostors than the float model at the float model's threshold."""
    shipped, baseline = facts.shipped_of(target), facts.baseline_of(target)
    if shipped is None or baseline is None or shipped is baseline:
        return
    for after in shipped.measurements:
        match = _TRANSFERRED.fullmatch(after.metric)
        before = baseline.measurement(after.metric)
        if not match or before is None or after.value is None or before.value is None or after.value <= before.value:
            continue
        drop = shipped.measurement(f"{after.metric} drop")
        low, high = after.interval or (None, None)
        lost = drop.interval[0] if drop and drop.interval else None if low is None else low - before.value
        rates = f"{_rate(after)} instead of {_rate(before)}"
        growth = _growth(after.value, (low, high), before.value) + _label(after)
        fitted = match["by"] == "float"  # at a FAR, so that there may be a new threshold for the same one
        found = shipped.measurement(f"threshold@far={match['at']}{match['set'] or ''}") if fitted else None
        new = _recalibrated(found)
        where = f"on {clean(name)}{' ' + match['set'] if match['set'] else ''}"
        point = "equal error rate" if match["at"] == "eer" else f"FAR {match['at']}"
        kept = point if fitted else match["at"]
        text = (
            f"At the threshold that the float model has in production ({kept}), {clean(shipped.id)} accepts {rates} of "
            "the impostors"
        )
        if lost is not None and lost > 0:
            yield Alarm(
                "fail",
                f"Do not keep the float model's threshold {where}: false accepts {growth}",
                f"{text}. {new}",
                name,
            )
        else:
            yield Alarm(
                "inconclusive",
                f"The float model's threshold may let in more false accepts {where}",
                f"{text}; these samples cannot tell whether that is chance. {new}",
                name,
            )


def _rate(measurement: Measurement) -> str:
    """A share in percent with its interval and label, such as ``5.6 % [5.1, 6.0] (SIMULATED)``."""
    method = _label(measurement)
    percent = [100 * v for v in (measurement.value, *(measurement.interval or ())) if v is not None]
    if len(percent) < 3:
        return f"{percent[0]:.2g} %{method}"
    return f"{percent[0]:.2g} % [{percent[1]:.2g}, {percent[2]:.2g}]{method}"


def _label(measurement: Measurement) -> str:
    word = wording.METHOD_WORDS[measurement.method]
    return f" ({word})" if word else ""


def _growth(after: float, interval: Interval, before: float) -> str:
    """Such as ``grow 3.3× [3, 3.6]``."""
    if before <= 0:
        return "appear where there were none"
    bounds = ", ".join("?" if bound is None else f"{bound / before:.2g}" for bound in interval)
    return f"grow {after / before:.2g}× [{bounds}]"


def _recalibrated(threshold: Measurement | None) -> str:
    if threshold is None or threshold.value is None:
        return "Calibrate a new threshold before it ships."
    value = f"{wording.number(threshold.value)} {wording.interval(threshold.interval)}".rstrip() + _label(threshold)
    return f"The threshold calibrated anew for the same point is {value}."


def _waivers(record: RunRecord) -> Iterator[Alarm]:
    for waiver in record.waivers:
        by = f"{wording.excuse(waiver)}."
        if waiver.status in wording.INVALID_WAIVERS:
            problem = wording.waiver_problem(waiver)
            yield Alarm("fail", f"{problem[:1].upper()}{problem[1:]}", by, waiver.target)
        elif waiver.status == "not_judged":
            title = f"The waiver of {clean(waiver.gate)} on {clean(waiver.target)} excuses nothing"
            why = "Its gate was not decided in this run, or failed in a way that the waiver does not cover."
            yield Alarm("inconclusive", title, f"{why} {by}", waiver.target)
    for name, target in record.targets.items():
        for gate in (v for v in target.verdicts if v.outcome == "waived"):
            title = f"{clean(gate.gate)} on {clean(name)} fails and is waived"
            text = f"{wording.judged(gate)}, limit {wording.limit(gate)}; {clean(gate.why)}."
            if found := gate.waiver:
                text += f" {wording.excuse(found)}."
            yield Alarm("waived", title, text, name)


def _fallbacks(name: str, target: TargetRecord) -> Iterator[Alarm]:
    """Whether arithmetic of what ships runs elsewhere than on the processor that the target is for."""
    shipped = facts.shipped_of(target)
    found = shipped.placed if shipped else None
    if found and found.fallback_macs and found.total_macs:
        share = 100 * found.fallback_macs / found.total_macs
        title = f"{share:.2g} % of the arithmetic on {clean(name)} does not run on the {clean(found.processor)}"
        yield Alarm("inconclusive", title, placements.sentence(shipped), name)


def _disturbed(name: str, target: TargetRecord) -> Iterator[Alarm]:
    if target.disturbed:
        yield Alarm(
            "inconclusive",
            f"The machine was disturbed while {clean(name)} was timed",
            f"{facts.disturbances(target)} What disturbs makes slower, so that a gate on a latency that passes stays "
            "passed, and one that fails is inconclusive.",
            name,
        )
