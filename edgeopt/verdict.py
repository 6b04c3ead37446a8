"""Judging: gates on intervals, and the choice of what ships.

A gate is decided on the interval of the number, not on the number: all of it inside the limit passes, all of it outside
fails, anything else is inconclusive. What was not measured never passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edgeopt import parity, placement
from edgeopt.errors import ExitCode
from edgeopt.measure import Measurement
from edgeopt.noise import SMALLEST_EFFECT
from edgeopt.recipe import Gates, Limit
from edgeopt.record import GateOutcome, RunOutcome, VerdictRecord, WaiverRecord

Bound = Literal["max", "min", "max_drop", "max_ratio"]

#: What is measured on the device or told by the toolkit: metric -> unit. In all of them lower is better.
DEVICE_METRICS: Mapping[str, str] = {
    "latency_p50_ms": "ms",
    "latency_p90_ms": "ms",
    "latency_p99_ms": "ms",
    "latency_ratio": "1",
    "latency_ratio_p10": "1",
    "load_ms": "ms",
    "first_inference_ms": "ms",
    "load_memory_mib": "MiB",
    "peak_memory_mib": "MiB",
    "steady_memory_mib": "MiB",
    "size_mib": "MiB",
    "size_compressed_mib": "MiB",
    "energy_mj": "mJ",
    "weights_mib": "MiB",
    "activations_mib": "MiB",
    "sram_mib": "MiB",
    "flash_mib": "MiB",
    "arena_mib": "MiB",
    **placement.METRICS,
}
#: What is known of a compiled artefact whatever the product's own metrics are, with the direction that is good.
OF_THE_ARTIFACT: Mapping[str, Literal["lower", "higher"]] = {
    **dict.fromkeys(DEVICE_METRICS, "lower"),
    **parity.METRICS,
}


_CANNOT_RUN = "the device cannot run it; it is what the others are compared with"


@dataclass(frozen=True)
class Gate:
    """One threshold: ``bound`` says how ``limit`` is compared."""

    metric: str
    bound: Bound
    limit: float

    @property
    def name(self) -> str:
        return f"{self.metric} {self.bound}"

    @property
    def measurement(self) -> str:
        """Name of the measurement that is compared with the limit."""
        suffix = {"max_drop": " drop", "max_ratio": " ratio"}.get(self.bound, "")
        return f"{self.metric}{suffix}"

    @property
    def is_upper(self) -> bool:
        return self.bound != "min"


def gates_of(*layers: Gates) -> tuple[Gate, ...]:
    """The gates of several layers, a later one replacing the same metric of an earlier one."""
    merged: dict[str, Limit] = {}
    for layer in layers:
        merged.update(layer)
    bounds: tuple[Bound, ...] = ("max", "min", "max_drop", "max_ratio")
    return tuple(
        Gate(metric, bound, float(limit))
        for metric, limits in merged.items()
        for bound in bounds
        if (limit := getattr(limits, bound)) is not None
    )


def gate_problem(metric: str, limit: Limit, better: Literal["lower", "higher"] | None) -> str:
    """Why ``limit`` makes no sense for ``metric``; empty if it does. ``better`` is None if it is not known yet."""
    if limit.max is not None and better == "higher":
        return f"{metric} is better when higher: a gate on it is `min` or `max_drop`, not `max`"
    if limit.min is not None and better == "lower":
        return f"{metric} is better when lower: a gate on it is `max`, not `min`"
    on_device = metric in DEVICE_METRICS
    if metric in parity.METRICS and (limit.max_drop is not None or limit.max_ratio is not None):
        return f"{metric} compares with the float network already; give `{'max' if better == 'lower' else 'min'}`"
    if limit.max_drop is not None and on_device:
        return f"`max_drop` is for accuracy; for {metric} give `max`, or gate latency_ratio"
    if limit.max_ratio is not None and metric not in ("size_mib", "peak_memory_mib"):
        instead = "gate latency_ratio" if on_device else "give `max_drop`"
        return f"`max_ratio` is for size_mib and peak_memory_mib; for {metric} give `max`, or {instead}"
    return ""


def bound_problem(gate: Gate, better: Literal["lower", "higher"]) -> str:
    """As :func:`gate_problem`, for one bound of an accuracy gate."""
    return gate_problem(gate.metric, Limit(**{gate.bound: gate.limit}), better)


def decide(gate: Gate, measurement: Measurement | None, accept: Sequence[str] = ()) -> VerdictRecord:
    """Judge one gate.

    Args:
        gate: The threshold.
        measurement: Of ``gate.measurement``; ``None`` if nothing measured it.
        accept: Methods other than ``measured`` that may pass.

    Returns:
        The verdict with a sentence that says why.
    """

    def verdict(outcome: GateOutcome, why: str) -> VerdictRecord:
        value, interval, unit = (
            (measurement.value, measurement.interval, measurement.unit) if measurement else (None,) * 3
        )
        judged = VerdictRecord(gate.name, gate.metric, gate.limit, value, interval, outcome, why, unit or "")
        if measurement is None:
            return judged
        confidence = measurement.confidence if interval else None
        return replace(judged, confidence=confidence, method=measurement.method)

    if measurement is None:
        return verdict("not_measured", "nothing measures it on this target")
    if measurement.broken:
        return verdict("fail", measurement.why)
    if measurement.value is None:
        return verdict("not_measured", measurement.why or "it was not measured")
    if measurement.method != "measured" and measurement.method not in accept:
        return verdict("not_measured", f"the number is {measurement.method}, and the target does not accept that")
    low, high = measurement.interval or (measurement.value, measurement.value)
    sides = "at or below" if gate.is_upper else "at or above"
    limit = f"{gate.limit:g}"
    safe, bad = (high, low) if gate.is_upper else (low, high)
    if safe is not None and (safe <= gate.limit if gate.is_upper else safe >= gate.limit):
        return verdict("pass", f"the whole interval is {sides} {limit}")
    if bad is not None and (bad > gate.limit if gate.is_upper else bad < gate.limit):
        return verdict("fail", f"the whole interval is {'above' if gate.is_upper else 'below'} {limit}")
    if low is None or high is None:
        by = f"{measurement.n} samples do" if measurement.n > 1 else "what is known does"
        return verdict("inconclusive", f"{by} not bound it on the side of {limit}")
    return verdict("inconclusive", f"the interval [{low:.4g}, {high:.4g}] straddles {limit} with n = {measurement.n}")


def disturbed(judged: VerdictRecord, why: Sequence[str]) -> VerdictRecord:
    """The verdict, given what disturbed the device while timing: a latency that is too high may be another one's fault.

    A pass stays: what disturbs makes slower. So does a gate on a ratio: candidates are timed interleaved, and the
    interval of a ratio is that between sessions, disturbed ones included.
    """
    times = judged.metric.startswith("latency") and not judged.metric.startswith("latency_ratio")
    if not why or judged.outcome != "fail" or not (times or judged.metric == "first_inference_ms"):
        return judged
    return replace(judged, outcome="inconclusive", why=f"{judged.why}, but the machine was disturbed: {'; '.join(why)}")


@dataclass(frozen=True)
class Contender:
    """A candidate as :func:`select` sees it.

    Attributes:
        id: Of the candidate.
        rank: 0 for a float baseline, higher for more optimised ones.
        runtime: Which runtime executes it.
        latency_ms: Median latency, to order the candidates.
        accuracy: Verdicts of the accuracy gates on the selection split.
        budgets: Verdicts of gates on exact numbers, such as the size.
        ships: Whether it may ship; a float baseline that the device cannot run may not.
    """

    id: str
    rank: int
    runtime: str
    latency_ms: float
    accuracy: Sequence[VerdictRecord]
    budgets: Sequence[VerdictRecord] = ()
    ships: bool = True


@dataclass(frozen=True)
class Choice:
    """What ships, why, and why not the others (candidate -> reason).

    Attributes:
        open: Whether a comparison between candidates straddled 1, so that more samples could change the choice.
    """

    shipped: str
    reason: str
    rejected: Mapping[str, str]
    open: bool


Compare = Callable[[str, str], Measurement]


def select(contenders: Sequence[Contender], compare: Compare) -> Choice:
    """Do no harm: the fastest candidate whose accuracy holds and whose measured gain is real; else the next one.

    A candidate's gain is real if the whole interval of its latency ratio is below 1 against the float baseline in the
    same runtime, against the best float baseline of the target, and against every less optimised candidate that could
    ship.

    Args:
        contenders: All candidates of the target, with at least one float baseline that ships.
        compare: Ratio of the latencies of two candidates, first over second, with an interval.

    Returns:
        The choice. A float baseline ships if nothing else can.
    """
    rejected = {c.id: _CANNOT_RUN for c in contenders if not c.ships}
    contenders = [c for c in contenders if c.ships]
    baselines = sorted((c for c in contenders if c.rank == 0), key=lambda c: c.latency_ms)
    eligible: list[Contender] = []
    within_budget = any(not _over_budget(c) for c in contenders if c.rank == 0 or not _inaccurate(c))
    for contender in contenders:
        reason = _inaccurate(contender) or (_over_budget(contender) if within_budget else "")
        if contender.rank == 0 or not reason:
            eligible.append(contender)
        else:
            rejected[contender.id] = reason
    undecided = False
    for contender in sorted(eligible, key=lambda c: (c.latency_ms, c.rank)):
        if contender.rank == 0 and contender is not baselines[0]:
            rejected[contender.id] = f"{baselines[0].id} is the faster float baseline"
            continue
        if contender.rank == 0:
            continue
        rivals = [c for c in eligible if c.rank < contender.rank]
        ratios = [(rival, compare(contender.id, rival.id)) for rival in rivals]
        if slower := [(rival, ratio) for rival, ratio in ratios if not _is_gain(ratio)]:
            rival, ratio = next((pair for pair in slower if not _straddles(pair[1])), slower[0])
            undecided = undecided or _straddles(ratio)
            rejected[contender.id] = f"no measured gain over {rival.id}: {_ratio_text(ratio)}"
            continue
        for other in eligible:
            if other.id != contender.id and other.id not in rejected:
                rejected[other.id] = f"{contender.id} is faster: {_ratio_text(compare(contender.id, other.id))}"
        own = next((c for c in baselines if c.runtime == contender.runtime), baselines[0])
        gain = _ratio_text(compare(contender.id, own.id))
        of = "its float baseline" if own.runtime == contender.runtime else f"the float baseline {own.id}"
        reason = f"fastest candidate whose accuracy holds; {gain} of {of}"
        if len(baselines) > 1 and baselines[0] is not own:
            reason += f", {_ratio_text(compare(contender.id, baselines[0].id))} of the best float ({baselines[0].id})"
        return Choice(contender.id, reason, rejected, undecided)
    rejected.pop(baselines[0].id, None)
    return Choice(baselines[0].id, _why_baseline(contenders, rejected, baselines[0].id), rejected, undecided)


def prefer(contenders: Sequence[Contender], order: str) -> Choice:
    """The choice where no gain can be measured: the first one whose accuracy holds and that is within its budgets.

    Args:
        contenders: All candidates of the target in an order of preference, the float baselines last.
        order: What the order means and why it decides.

    Returns:
        The choice. If none may ship and no baseline can run on the device, the first one, whose gates then fail.
    """
    rejected: dict[str, str] = {}
    able = [contender for contender in contenders if contender.ships]
    for contender in contenders:
        if contender not in able:
            rejected[contender.id] = _CANNOT_RUN
    for contender in able:
        why = "" if contender.rank == 0 else _inaccurate(contender) or _over_budget(contender)
        if not why:
            reason = f"the first in order of preference whose accuracy holds ({order})"
            if contender.rank == 0:
                reason = f"{_why_baseline(contenders, rejected, contender.id)} ({order})"
            others = {other.id: f"{contender.id} is preferred ({order})" for other in able if other is not contender}
            return Choice(contender.id, reason, {**others, **rejected}, False)
        rejected[contender.id] = why
    reason = f"no candidate may ship, and the device runs no float one; {able[0].id}: {rejected.pop(able[0].id)}"
    return Choice(able[0].id, reason, rejected, False)


def unselected(judged: VerdictRecord, on_select: Sequence[VerdictRecord]) -> VerdictRecord:
    """The verdict of what ships although its accuracy does not hold on the selection split: no pass.

    It ships only where the device runs nothing else.
    """
    bound = judged.gate.rpartition(" ")[2]
    of_all_sets = f"{judged.metric.partition('[')[0]} {bound}"
    for seen in on_select:
        if seen.gate == of_all_sets and seen.outcome != "pass" and judged.outcome == "pass":
            return replace(judged, outcome=seen.outcome, why=f"on the selection split: {seen.why}")
    return judged


def _inaccurate(contender: Contender) -> str:
    for verdict in contender.accuracy:
        if verdict.outcome != "pass":
            value = "not measured" if verdict.value is None else f"{verdict.value:.4g}"
            return f"accuracy does not hold on the selection split: {verdict.gate} is {value}; {verdict.why}"
    return ""


def _over_budget(contender: Contender) -> str:
    """A budget that no candidate meets does not choose between them; its gate fails whichever ships."""
    failed = next((verdict for verdict in contender.budgets if verdict.outcome == "fail"), None)
    return f"over budget: {failed.gate}; {failed.why}" if failed else ""


def _is_gain(ratio: Measurement) -> bool:
    high = ratio.interval[1] if ratio.interval else None
    return high is not None and high < 1.0


def _straddles(ratio: Measurement) -> bool:
    """Whether more samples could still show a difference that is worth the name."""
    low, high = ratio.interval or (None, None)
    if low is None or high is None:
        return True
    return low < 1.0 <= high and not (low >= 1 / (1 + SMALLEST_EFFECT) and high <= 1 + SMALLEST_EFFECT)


def _ratio_text(ratio: Measurement) -> str:
    if ratio.value is None or not ratio.interval:
        return "latency ratio not measured"
    low, high = ratio.interval
    return f"{ratio.value:.3f}× the latency [{_number(low)}, {_number(high)}]"


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.3f}"


def _why_baseline(contenders: Sequence[Contender], rejected: Mapping[str, str], baseline: str) -> str:
    reasons = [f"{c.id}: {rejected[c.id]}" for c in contenders if c.rank > 0 and c.id in rejected]
    return f"the float baseline {baseline} ships, since no optimised candidate may" + (
        f" ({'; '.join(reasons)})" if reasons else " (there is none)"
    )


def outcome_of(
    verdicts: Sequence[VerdictRecord], errors: bool, waivers: Sequence[WaiverRecord] = ()
) -> tuple[RunOutcome, ExitCode]:
    """The outcome of a run and its exit code: an error outweighs a failed gate, that an undecided one.

    A waiver that has expired, or that nothing needed, weighs as much as a failed gate.
    """
    outcomes = {verdict.outcome for verdict in verdicts}
    if errors:
        return "error", ExitCode.TOOL_FAILED
    if "fail" in outcomes or {waiver.status for waiver in waivers} & {"expired", "unused"}:
        return "fail", ExitCode.GATE_FAILED
    if outcomes - {"pass", "waived"}:
        return "inconclusive", ExitCode.INCONCLUSIVE
    return "pass", ExitCode.OK
