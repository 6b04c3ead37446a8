"""The words and numbers that every report and the screen share, so that none of them can disagree with another."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgeopt.printable import clean as clean

if TYPE_CHECKING:
    from edgeopt.measure import Measurement
    from edgeopt.record import Interval, RunRecord, VerdictRecord, WaiverRecord

#: How each outcome of a gate is written. Only ``pass`` may look like a pass.
VERDICT_WORDS = {
    "pass": "pass",
    "fail": "FAIL",
    "inconclusive": "inconclusive",
    "not_measured": "not measured",
    "waived": "WAIVED",
}
#: One sign per outcome, always shown beside the word, never instead of it.
VERDICT_SIGNS = {"pass": "✓", "fail": "✗", "inconclusive": "?", "not_measured": "○", "waived": "!"}

#: How a number that was not measured on the device is labelled, wherever it stands.
METHOD_WORDS = {"measured": "", "simulated": "SIMULATED", "estimated": "ESTIMATED"}
LATENCY = "latency_p50_ms"

SHIP, DONT_SHIP, CANT_TELL = "SHIP", "DON'T SHIP", "CAN'T TELL"
NOT_MEASURED = VERDICT_WORDS["not_measured"]
NOT_SERVED = "not served"
INTERVAL_NOTE = "A ? inside brackets means that the samples cannot bound that side."

INVALID_WAIVERS = frozenset({"expired", "unused"})  # these fail the run

ROUNDING = 1e-12  # a difference of two proportions below this is only the rounding of the subtraction

_RATIO_UNITS = frozenset({"×", "x", "ratio"})
_NAMED_GATES = 3  # how many gates the one-sentence decision spells out


@dataclass(frozen=True)
class Quantity:
    """A number as text, in parts, so that a narrow table can break between them.

    Attributes:
        value: With its unit, such as ``0.412 ms``.
        interval: Such as ``[0.405, 0.431]``, empty if there is none.
        method: ``ESTIMATED`` or ``SIMULATED``; empty for what was measured on the device.
    """

    value: str
    interval: str = ""
    method: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.value, self.interval, f"({self.method})" if self.method else "") if part)


@dataclass(frozen=True)
class Decision:
    """The answer to "can we ship this?" and one sentence why."""

    word: str
    sentence: str


def one_line(error: str) -> str:
    """An error message, which may say on a second line how to mend it, on one line."""
    return "; ".join(line for part in error.splitlines() if (line := clean(part)))


def verdict(outcome: str) -> str:
    """Sign and word, such as ``✓ pass`` or ``✗ FAIL``."""
    return f"{VERDICT_SIGNS[outcome]} {VERDICT_WORDS[outcome]}"


def number(value: float | None, unit: str = "") -> str:
    """One value with its unit: ``0.412 ms``, ``0.62×``, ``0.9883``, ``12 rows``.

    Quantities with a unit have three significant digits, numbers without one (accuracies, error rates) four decimals
    or, below 0.001, two significant digits: ``0.000041``, ``4.1e-08``.
    """
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    if unit in _RATIO_UNITS:
        return f"{_ratio(value)}×"
    if unit:
        return f"{_significant(value)} {unit}"
    return _fixed(value, 4)


def interval(bounds: Interval | None, unit: str = "") -> str:
    """``[0.979, 0.994]``, without the unit; ``?`` on a side that the data cannot bound; empty if there is none."""
    if bounds is None or bounds == (None, None):
        return ""
    return f"[{', '.join('?' if bound is None else _bound(bound, bounds, unit) for bound in bounds)}]"


def _bound(bound: float, bounds: Interval, unit: str) -> str:
    if not math.isfinite(bound):
        return "?"
    if unit in _RATIO_UNITS:
        return _ratio(bound)
    if unit:
        return _significant(bound)
    low, high = bounds
    narrow = low is not None and high is not None and abs(high - low) < 0.01
    return _fixed(bound, 4 if narrow else 3)


def _ratio(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 0.1 else _significant(value, 2)


def _significant(value: float, digits: int = 3) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 10**digits or (value.is_integer() and abs(value) >= 10 ** (digits - 1)):
        return f"{value:.0f}"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    return f"{value:.{max(0, digits - 1 - exponent)}f}"


def _fixed(value: float, decimals: int) -> str:
    if abs(value) >= 10:
        return _significant(value, 4)
    if abs(value) < ROUNDING:
        return f"{0:.{decimals}f}"
    if abs(value) < 1e-6:
        return f"{value:.1e}"
    if abs(value) < 0.001:
        return _significant(value, 2)
    return f"{value:.{decimals}f}"


def change(value: float, unit: str = "") -> str:
    """A difference with its sign, such as ``-0.0022`` or ``+0.31 ms``; ``0`` if nothing would be seen."""
    text = number(value, unit)
    if not any(c in "123456789" for c in text):
        return "0"
    return text if value < 0 else f"+{text}"


def seconds(value: float) -> str:
    """A duration: ``0.4 s``, ``42 s``, ``3 min 05 s``, ``1 h 02 min``."""
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def moment(timestamp: str) -> str:
    """An ISO 8601 time as ``2026-11-02 10:11:12 UTC``."""
    return timestamp.replace("T", " ").replace("+00:00", " UTC")


def count(n: int, noun: str) -> str:
    """``1 gate``, ``2 gates``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def unit_of(name: str, unit: str) -> str:
    """The unit to show for a metric: ratios are written ``0.62×`` and proportions bare, whatever unit they carry."""
    if unit in _RATIO_UNITS or is_ratio(name):
        return "×"
    return "" if unit == "1" else unit


def is_ratio(metric: str) -> bool:
    """Whether a metric is a ratio to the float baseline, such as ``latency_ratio`` or ``size_mib ratio``."""
    return metric.endswith("ratio") or "_ratio_" in metric


def quantity(measurement: Measurement | None) -> Quantity:
    """A measurement as text; what is not measured says so, what is not real is labelled."""
    if measurement is None or measurement.value is None:
        return Quantity(NOT_MEASURED)
    unit = unit_of(measurement.metric, measurement.unit)
    shown = number(measurement.value, unit), interval(measurement.interval, unit)
    return Quantity(*shown, METHOD_WORDS[measurement.method])


def judged(gate: VerdictRecord) -> Quantity:
    """What a gate compared with its limit, labelled if it is not a real measurement."""
    if gate.value is None:
        return Quantity(NOT_MEASURED)
    unit = _gate_unit(gate)
    return Quantity(number(gate.value, unit), interval(gate.interval, unit), METHOD_WORDS[gate.method])


def limit(gate: VerdictRecord) -> str:
    """The threshold with its direction, such as ``≤ 3 ms``; its digits are those that the user wrote."""
    sign = "≥" if gate.gate.rpartition(" ")[2].startswith("min") else "≤"
    unit = _gate_unit(gate)
    return f"{sign} {gate.limit:.10g}{unit}" if unit == "×" else f"{sign} {gate.limit:.10g} {unit}".rstrip()


def _gate_unit(gate: VerdictRecord) -> str:
    return unit_of(f"{gate.metric} ratio" if gate.gate.endswith(" max_ratio") else gate.metric, gate.unit)


def decision(record: RunRecord) -> Decision:
    """Whether to ship, and why in one sentence. A run with a failed gate is never "can't tell".

    A second sentence says on how many targets nobody measured how long what ships takes.
    """
    answer = _decision(record)
    return replace(answer, sentence=" ".join(filter(None, (answer.sentence, _unmeasured_latency(record)))))


def _unmeasured_latency(record: RunRecord) -> str:
    """Where the latency of what ships was not measured; empty if it was on all targets that are served."""
    places: dict[str, list[str]] = {}
    for name, target in record.targets.items():
        shipped = next((c for c in target.candidates if c.id == target.shipped), None)
        found = shipped.measurement(LATENCY) if shipped else None
        if shipped and (found is None or found.value is None):
            places.setdefault(NOT_MEASURED.upper(), []).append(clean(name))
        elif found and (word := METHOD_WORDS[found.method]):
            places.setdefault(word, []).append(clean(name))
    if not places:
        return ""
    without = sum(map(len, places.values()))
    parts = [f"{word} on {_listed(names)}" for word, names in places.items()]
    return f"The latency was not measured on {without} of {count(len(record.targets), 'target')}: {'; '.join(parts)}."


def _decision(record: RunRecord) -> Decision:
    gates = [(name, gate) for name, target in record.targets.items() for gate in target.verdicts]
    failed = [_named(name, gate) for name, gate in gates if gate.outcome == "fail"]
    undecided = [_named(name, gate) for name, gate in gates if gate.outcome in ("inconclusive", "not_measured")]
    waived = [_named(name, gate) for name, gate in gates if gate.outcome == "waived"]
    broken = [f"{clean(name)} ({one_line(target.error)})" for name, target in record.targets.items() if target.error]
    invalid = [waiver_problem(waiver) for waiver in record.waivers if waiver.status in INVALID_WAIVERS]

    of_all = f"of {count(len(gates), 'gate')}"
    reasons = []
    if failed:
        reasons.append(f"{len(failed)} {of_all} failed: {_listed(failed)}")
    if invalid:
        reasons.append(_listed(invalid))
    if undecided:
        reasons.append(f"{len(undecided)} {of_all} could not be decided: {_listed(undecided)}")
    if broken:
        reasons.append(f"{count(len(broken), 'target')} could not be served: {_listed(broken)}")
    excused = [f"with {count(len(waived), 'waived gate')} {of_all}: {_listed(waived)}"] if waived else []
    if record.outcome == "pass" and not reasons:
        held = f"all {count(len(gates), 'gate')} passed" if len(gates) > 1 else "the only gate passed"
        plain = f"{held} on {count(len(record.targets), 'target')}" if gates else "no gate was set, so none failed"
        return Decision(SHIP, _sentence("".join(excused) or plain))
    word = DONT_SHIP if failed or invalid or record.outcome == "fail" else CANT_TELL
    return Decision(word, _sentence("; ".join(reasons + excused) or f"the run ended with the outcome {record.outcome}"))


def excuse(waiver: WaiverRecord) -> str:
    """Who waived a gate, until when and why."""
    return f"{clean(waiver.by)} waived it until {clean(waiver.until)}: {clean(waiver.reason)}"


def waiver_problem(waiver: WaiverRecord) -> str:
    """What is wrong with a waiver that fails the run."""
    name = f"the waiver of {clean(waiver.gate)} on {clean(waiver.target)} ({clean(waiver.where)})"
    if waiver.status == "expired":
        return f"{name} expired after {clean(waiver.until)}"
    return f"{name} is not needed: its gate did not fail, so it must be removed"


def _named(target: str, gate: VerdictRecord) -> str:
    return f"{clean(gate.gate)} on {clean(target)} ({judged(gate)}, limit {limit(gate)})"


def _listed(items: list[str]) -> str:
    more = len(items) - _NAMED_GATES
    return ", ".join(items[:_NAMED_GATES]) + (f" and {more} more" if more > 0 else "")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."
