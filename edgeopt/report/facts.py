"""What the reports say, worked out once from the record: every renderer and the screen show these rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeopt import parity, placement
from edgeopt.report import placements, wording
from edgeopt.report.wording import Quantity

if TYPE_CHECKING:
    from edgeopt.measure import Measurement
    from edgeopt.record import CandidateRecord, FlipRecord, RunRecord, StageRecord, TargetRecord, VerdictRecord

LATENCY = wording.LATENCY
#: How close the compiled network is to the float one that it was made from; no accuracies.
PARITY = tuple(parity.METRICS)
_HEADLINE = (LATENCY, "latency_ratio", "size_mib", "peak_memory_mib")
_FEW = 3  # accuracies in a table of candidates
_FURTHER = (  # of what ships, beside the headline
    "call_overhead_ms",
    "size_compressed_mib",
    "energy_mj",
    *("weights_mib", "activations_mib", "sram_mib", "flash_mib", "arena_mib"),
    *PARITY,
    *placement.METRICS,
)


@dataclass(frozen=True)
class MetricRow:
    """One metric of a target: the float baseline, what ships, and the gate on it if there is one.

    Attributes:
        name: Of the gate without its direction, such as ``top1`` or ``top1 drop``.
        baseline: In the runtime that ships; ``None`` for a drop or ratio, which is already relative to it.
        limit: Such as ``≤ 3 ms``; empty if the metric is not gated.
        outcome: Of the gate; empty if the metric is not gated.
        why: Of the outcome, or why there is no number.
    """

    name: str
    baseline: Quantity | None
    shipped: Quantity
    limit: str = ""
    outcome: str = ""
    why: str = ""


@dataclass(frozen=True)
class CandidateRow:
    """One candidate: ``letter`` marks it in the charts, ``fate`` is ``ships`` or why it did not."""

    letter: str
    record: CandidateRecord
    shipped: bool
    quantities: Mapping[str, Quantity]
    fate: str


def shipped_of(target: TargetRecord) -> CandidateRecord | None:
    """The candidate that ships, ``None`` if the target could not be served."""
    return next((c for c in target.candidates if c.id == target.shipped), None)


def baseline_of(target: TargetRecord) -> CandidateRecord | None:
    """The float baseline that the shipped candidate is compared with: the one in the same runtime."""
    shipped = shipped_of(target)
    baselines = [c for c in target.candidates if c.baseline]
    same = [c for c in baselines if shipped is not None and c.runtime == shipped.runtime]
    return next(iter(same or baselines), None)


def metric_rows(target: TargetRecord) -> tuple[MetricRow, ...]:
    """Gated metrics first, in the order of the verdicts, then the other headline metrics of the shipped candidate."""
    shipped, baseline = shipped_of(target), baseline_of(target)
    rows = []
    for gate in target.verdicts:
        relative = _row_name(gate) != gate.metric
        before = None if relative or baseline is None else _of(baseline, gate.metric)
        row = MetricRow(
            _row_name(gate), before, wording.judged(gate), wording.limit(gate), gate.outcome, _no_stop(gate.why)
        )
        rows.append(row)
    gated = {row.name for row in rows}
    measured = set(measured_metrics(target))
    others = (*accuracy_metrics(target), *(metric for metric in (*_HEADLINE, *_FURTHER) if metric in measured))
    for metric in others if shipped else ():
        if metric not in gated:
            before = None if baseline is None or wording.is_ratio(metric) else _of(baseline, metric)
            rows.append(MetricRow(metric, before, _of(shipped, metric), why=_why_missing(shipped, metric)))
    return tuple(rows)


def _of(candidate: CandidateRecord | None, metric: str) -> Quantity:
    return wording.quantity(candidate.measurement(metric) if candidate else None)


def _why_missing(candidate: CandidateRecord | None, metric: str) -> str:
    found = candidate.measurement(metric) if candidate else None
    return _no_stop(found.why) if found and found.value is None else ""


def _row_name(gate: VerdictRecord) -> str:
    kind = gate.gate.rpartition(" ")[2]
    return f"{gate.metric} {kind.removeprefix('max_')}" if kind in ("max_drop", "max_ratio") else gate.metric


def _no_stop(text: str) -> str:
    return text.removesuffix(".")


def measured_metrics(target: TargetRecord) -> tuple[str, ...]:
    """Metrics that at least one candidate has a measurement of, in order of first occurrence."""
    return tuple(dict.fromkeys(m.metric for c in target.candidates for m in c.measurements))


def accuracy_metrics(target: TargetRecord) -> tuple[str, ...]:
    """Metrics of the model's quality: what the selection looked at, and every other proportion."""
    selected = [m.metric for c in target.candidates for m in c.selection]
    proportions = [
        m.metric for c in target.candidates for m in c.measurements if wording.unit_of(m.metric, m.unit) == ""
    ]
    measured = set(measured_metrics(target)) - {*PARITY, *placement.METRICS}
    found = (metric for metric in dict.fromkeys((*selected, *proportions)) if metric in measured)
    return tuple(metric for metric in found if not metric.endswith(" drop"))


def headline_metrics(target: TargetRecord) -> tuple[str, ...]:
    """The few metrics that a reader compares candidates by: of many accuracies those with a gate, or the first."""
    measured, accuracies = set(measured_metrics(target)), accuracy_metrics(target)
    gated = {gate.metric for gate in target.verdicts}
    few = sorted(accuracies, key=lambda metric: metric not in gated)[:_FEW]
    return (*(m for m in accuracies if m in few), *(m for m in _HEADLINE if m in measured))


def noise(target: TargetRecord) -> str:
    """How far a candidate seems to differ from itself on this machine; empty if that was not measured."""
    found = next((m for c in target.candidates if (m := c.measurement("latency_ratio_noise"))), None)
    return f"Noise floor: a candidate against itself is {wording.quantity(found)} the latency." if found else ""


def sentences(target: TargetRecord) -> tuple[str, ...]:
    """What a reader must know of a target beside what ships."""
    shipped = shipped_of(target)
    found = (depth(target), placements.sentence(shipped), runtime_winner(target), noise(target), call_overhead(target))
    return tuple(filter(None, found))


def depth(target: TargetRecord) -> str:
    """Which numbers of what ships were not had on the device; empty if all were."""
    shipped = shipped_of(target)
    if shipped is None:
        return ""
    latency = shipped.measurement(LATENCY)
    parts = []
    if latency is None or latency.value is None:
        why = f": {_no_stop(latency.why)}" if latency and latency.why else ""
        parts.append(f"The latency is {wording.NOT_MEASURED.upper()}{why}.")
    elif latency.method != "measured":
        by = f" by {_no_stop(latency.why)}" if latency.why else ""
        parts.append(f"The latency is {wording.METHOD_WORDS[latency.method]}{by}; no device was timed.")
    accuracies = [m for metric in accuracy_metrics(target) if (m := shipped.measurement(metric))]
    if any(m.method == "simulated" and m.value is not None for m in accuracies):
        parts.append(f"The accuracy is {wording.METHOD_WORDS['simulated']}, not taken on the device.")
    elif accuracies and all(m.value is None for m in accuracies):
        parts.append(f"The accuracy is {wording.NOT_MEASURED.upper()}.")
    return " ".join(parts)


def unreal(target: TargetRecord) -> bool:
    """Whether a latency or an accuracy of a candidate was had otherwise than on the device."""
    shown = {LATENCY, *accuracy_metrics(target)}
    found = (m for c in target.candidates for m in c.measurements if m.metric in shown and m.value is not None)
    return any(m.method != "measured" for m in found)


def call_overhead(target: TargetRecord) -> str:
    """Which part of the latency is the runtime's own call; empty if that was not measured."""
    shipped = shipped_of(target)
    latency, overhead = (shipped.measurement(name) if shipped else None for name in (LATENCY, "call_overhead_ms"))
    if not latency or not overhead or not latency.value or overhead.value is None:
        return ""
    share = overhead.value / latency.value
    return (
        f"Of the median of what ships, {wording.quantity(latency)}, the runtime's own call takes "
        f"{wording.quantity(overhead)} ({100 * share:.0f} %): no optimisation of the network can shorten that."
    )


def disturbances(target: TargetRecord) -> str:
    """What disturbed the device while it was timed, in sentences; empty if nothing was seen."""
    found = (wording.clean(text).rstrip(".") for text in target.disturbed)
    return " ".join(f"{text[:1].upper()}{text[1:]}." for text in found)


def conditions(target: TargetRecord) -> tuple[tuple[str, str, str], ...]:
    """State of the device as ``(name, before timing, after it)``; ``not readable`` where the device does not say."""
    before, after = (dict(flat(target.condition.get(when) or {})) for when in ("before", "after"))
    over_all = flat({name: fact for name, fact in target.condition.items() if name not in ("before", "after")})
    unknown = "not readable"
    return (
        *((n, before.get(n) or unknown, after.get(n) or unknown) for n in dict.fromkeys((*before, *after))),
        *((name, "", text) for name, text in over_all),
    )


def flips(target: TargetRecord) -> tuple[tuple[str, str, tuple[FlipRecord, ...]], ...]:
    """``(title, what it means, flips)``, the losses first; groups without a flip are left out."""
    groups = (
        ("before", "Lost", "the float baseline is right, what ships is wrong"),
        ("after", "Gained", "the float baseline is wrong, what ships is right"),
        ("neither", "Wrong in another way", "both are wrong"),
        ("unknown", "Changed", "both count as right, or the truth is not known"),
    )
    found = ((title, text, tuple(f for f in target.flips if f.right == right)) for right, title, text in groups)
    return tuple(group for group in found if group[2])


def candidate_rows(target: TargetRecord) -> tuple[CandidateRow, ...]:
    """All candidates; accuracy on the selection split is listed as ``<metric> (selection)``."""
    rows = []
    for index, candidate in enumerate(target.candidates):
        quantities = {m.metric: wording.quantity(m) for m in candidate.measurements}
        quantities |= {f"{m.metric} (selection)": wording.quantity(m) for m in candidate.selection}
        ships = candidate.id == target.shipped
        fate = "ships" if ships else _no_stop(candidate.rejected) or "did not ship"
        rows.append(CandidateRow(_letter(index), candidate, ships, quantities, fate))
    return tuple(rows)


def _letter(index: int) -> str:
    """A, B, …, Z, AA, AB, …"""
    quotient, remainder = divmod(index, 26)
    return (_letter(quotient - 1) if quotient else "") + chr(ord("A") + remainder)


def selection_metrics(target: TargetRecord) -> tuple[str, ...]:
    """Columns of :func:`candidate_rows` that hold the headline accuracies on the selection split."""
    names = {m.metric for c in target.candidates for m in c.selection}
    return tuple(f"{name} (selection)" for name in headline_metrics(target) if name in names)


def runtime_winner(target: TargetRecord) -> str:
    """Which runtime won and by how much, in one or two sentences; empty if there was no contest."""
    shipped = shipped_of(target)
    mine = shipped.measurement(LATENCY) if shipped else None
    if shipped is None or mine is None or not mine.value or mine.method != "measured":
        return ""
    found = []
    for runtime in dict.fromkeys(c.runtime for c in target.candidates if c.runtime != shipped.runtime):
        rivals = [(m.value, c, m) for c in target.candidates if c.runtime == runtime and (m := _timed(c)) and m.value]
        if not rivals:
            found.append(f"{runtime} was not measured.")
            continue
        _, rival, theirs = min(rivals, key=lambda item: item[0])
        found.append(_contest(shipped, mine, rival, theirs))
    return " ".join(found)


def _timed(candidate: CandidateRecord) -> Measurement | None:
    found = candidate.measurement(LATENCY)
    return found if found and found.method == "measured" else None


def _contest(shipped: CandidateRecord, mine: Measurement, rival: CandidateRecord, theirs: Measurement) -> str:
    assert mine.value is not None
    assert theirs.value is not None
    numbers = f"p50 {wording.quantity(mine)} against {wording.quantity(theirs)}"
    if theirs.value < mine.value:
        reason = f": {_no_stop(rival.rejected)}" if rival.rejected else ""
        return f"{rival.runtime} ({rival.id}) is faster, {numbers}, but does not ship{reason}."
    lead = f"{shipped.runtime} wins over {rival.runtime}: {numbers} for its fastest candidate, {rival.id}"
    factor = wording.number(theirs.value / mine.value, "×")
    return f"{lead}; {rival.runtime} takes {factor} the time{', within the noise' if _overlap(mine, theirs) else ''}."


def _overlap(a: Measurement, b: Measurement) -> bool:
    if a.interval is None or b.interval is None:
        return False
    (a_low, a_high), (b_low, b_high) = a.interval, b.interval
    a_before_b = a_high is not None and b_low is not None and a_high < b_low
    b_before_a = b_high is not None and a_low is not None and b_high < a_low
    return not (a_before_b or b_before_a)


def notes(record: RunRecord) -> tuple[tuple[str, str], ...]:
    """``(step, note)`` of everything the user must know: fallbacks, protected layers, targets missed."""
    return tuple((stage.id, note) for stage in record.stages for note in stage.notes)


def done(step: StageRecord) -> str:
    """``reused``, ``ran`` or ``failed``: a step without a key never came to its end."""
    return "reused" if step.cached else "ran" if step.key else "failed"


def caveats(target: TargetRecord) -> tuple[str, ...]:
    """What a reader must know about single measurements, and why some are missing."""
    found: dict[str, list[str]] = {}
    for candidate in target.candidates:
        for m in candidate.measurements:
            if m.why:
                found.setdefault(f"{m.metric}: {_no_stop(m.why)}", []).append(candidate.id)
    return tuple(f"{text} ({', '.join(ids)})" for text, ids in found.items())


def flat(mapping: Mapping[str, Any], prefix: str = "") -> tuple[tuple[str, str], ...]:
    """Nested facts as ``(dotted name, text)``; lists become comma-separated."""
    rows: list[tuple[str, str]] = []
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows.extend(flat(value, f"{name}."))
        elif isinstance(value, list | tuple):
            rows.append((name, ", ".join(str(item) for item in value)))
        else:
            rows.append((name, "" if value is None else str(value)))
    return tuple(rows)


def interval_note(record: RunRecord) -> str:
    """What the brackets mean, such as ``Brackets: 95 % confidence interval``."""
    levels = sorted(
        {
            m.confidence
            for target in record.targets.values()
            for candidate in target.candidates
            for m in candidate.measurements
            if m.interval is not None and m.confidence
        }
    )
    text = " or ".join(f"{100 * level:.3g} %" for level in levels)
    return f"Brackets hold the {text + ' ' if text else ''}confidence interval. {wording.INTERVAL_NOTE}"
