"""Timing candidates against each other in sessions, until every question is decided or the budget is spent.

Two openings of one file differ by up to a few percent for as long as they last, so that no number of rounds within one
opening can tell a slower model from an unlucky one. A session is therefore short, and starts afresh: a new agent, the
models opened in an order shuffled anew, warming up, interleaved rounds. A ratio is what the sessions agree on.

After some sessions the numbers are looked at. The chance that any look misleads is :data:`RATIO_LEVEL` for a ratio and
:data:`LATENCY_LEVEL` for a latency: each of k looks uses the k-th part of it (the union bound, Bonferroni), and the
looks are fixed before the first one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeopt import statistics
from edgeopt.access import Agent, Limits
from edgeopt.errors import StageError
from edgeopt.measure import Candidate, Measurement, bounded, single
from edgeopt.noise import SMALLEST_EFFECT, NoiseFloor
from edgeopt.protocol import Protocol
from edgeopt.session import Nanoseconds, Session, require_power_mode, time_session
from edgeopt.statistics import Estimate

#: (seconds done, seconds in all, note)
Progress = Callable[[float, float, str], None]
Outcome = Literal["faster", "slower", "same", "undecided"]

#: the chance that any look at a ratio misleads
RATIO_LEVEL = 0.01
#: the chance that any look at a latency misleads
LATENCY_LEVEL = 0.05
#: a machine that is noisier than this cannot show that two models take the same time
LARGEST_SAME = 0.05

_LOOKS = (4, 6, 10)
_MOST_SESSIONS = 20
#: sessions that are so much noisier than the stored floor were disturbed …
_NOISY = 4.0
#: … unless copies still agree this well
_QUIET = 0.01
_NS_PER_MS = 1e6
_AGAIN = " (again)"


@dataclass(frozen=True)
class Schedule:
    """How long a session is, and after how many sessions the numbers are looked at.

    Attributes:
        session_seconds: Timed seconds of each candidate in one session.
        max_seconds: Timed seconds of each candidate after which no session follows.
        looks: Numbers of sessions, rising.
    """

    session_seconds: float
    max_seconds: float
    looks: tuple[int, ...]

    @classmethod
    def of(cls, min_seconds: float, max_seconds: float) -> Schedule:
        """The first look comes after ``min_seconds`` of each candidate, the last one within ``max_seconds``."""
        first = _LOOKS[0]
        session_seconds = min_seconds / first
        last = min(_MOST_SESSIONS, max(first, int(max_seconds / session_seconds + 1e-9)))
        looks = (*(count for count in _LOOKS if count < last), last)
        return cls(session_seconds, max(min_seconds, max_seconds), looks)

    @property
    def ratio_confidence(self) -> float:
        return 1 - RATIO_LEVEL / len(self.looks)

    @property
    def latency_confidence(self) -> float:
        return 1 - LATENCY_LEVEL / len(self.looks)


@dataclass
class Sessions:
    """The sessions of some candidates so far, and what follows from them.

    Attributes:
        candidates: With unlike names. The first one is opened twice: its ratio to its copy is what this machine calls
            equal at the moment.
        protocol: How they are timed; its confidence and its seconds are those of the schedule.
        schedule: When to look.
        machine: The device, as measurements name it.
        floor: What earlier runs called equal here; None if nobody remembers.
        power_mode: In which the device must be, before and after every session; None if it does not matter.
    """

    candidates: Sequence[Candidate]
    protocol: Protocol
    schedule: Schedule
    machine: str
    floor: NoiseFloor | None = None
    power_mode: str | None = None
    done: list[Session] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = [candidate.name for candidate in self.candidates]
        if not names or len({*names}) != len(names):
            raise ValueError(f"candidates need unlike names: {names}")

    def add(
        self, agent: Agent, inputs: Sequence[npt.NDArray[Any]], seed: int, progress: Progress | None = None
    ) -> None:
        """One more session.

        Args:
            agent: On the device; fresh.
            inputs: One array (N, …) per input, N ≥ 1 samples; the rounds cycle through them.
            seed: Of the order of opening and of the rounds.
            progress: Told about twice a second.

        Raises:
            StageError: A candidate does not open or run, the agent died, or the device changed between two sessions, or
                is not in the power mode that it must be in.
        """
        limits, note = self._limits(), f"session {len(self.done) + 1}"
        look = next((count for count in self.schedule.looks if count > len(self.done)), len(self.done) + 1)
        earlier, until = self.seconds, limits.min_seconds * look

        def report(state: Mapping[str, float]) -> None:
            if progress:
                progress(earlier + state["seconds"], until, f"{note} of {look}")

        copy = replace(self.candidates[0], name=self.candidates[0].name + _AGAIN)
        session = time_session(agent, [*self.candidates, copy], inputs, self.protocol, limits, seed, report)
        for condition in (session.before, session.after):
            require_power_mode(self.power_mode, condition.power_mode, where="measure")
        if self.done and session.conditions != self.done[-1].conditions:
            found = f"{dict(self.done[-1].conditions)} and then {dict(session.conditions)}"
            raise StageError(f"the device changed between two sessions: {found}", where="measure")
        self.protocol = replace(self.protocol, clock=session.clock, **session.conditions)
        self.done.append(session)

    # What follows from them

    @property
    def seconds(self) -> float:
        """Timed so far."""
        return sum(session.seconds for session in self.done)

    def pace_ns(self, name: str) -> Nanoseconds:
        """What is compared, one session after the other: (rounds,)."""
        return np.concatenate([session.pace_ns[name] for session in self.done])

    def rounds(self) -> tuple[int, ...]:
        """Of each session."""
        first = self.candidates[0].name
        return tuple(len(session.pace_ns[first]) for session in self.done)

    def ratio(self, first: str, second: str, metric: str = "latency_ratio") -> Measurement:
        """How many times as long as ``second`` the candidate ``first`` takes; below 1 is faster.

        The median over the rounds of a session, agreed on by the sessions.
        """
        return self._ratio(metric, first, second, statistics.paired_log_ratio)

    def ratio_p10(self, first: str, second: str) -> Measurement:
        """As ``ratio``, of the 10 % quantiles."""
        return self._ratio("latency_ratio_p10", first, second, lambda a, b: statistics.quantile_log_ratio(a, b, 0.1))

    def noise(self) -> Measurement:
        """The ratio of the first candidate's copy to itself."""
        name = self.candidates[0].name
        return self.ratio(name + _AGAIN, name, "latency_ratio_noise")

    def spread(self) -> float:
        """Standard deviation, between sessions, of the logarithm of the ratio of two copies."""
        name = self.candidates[0].name
        return float(np.std(self._log_ratios(name + _AGAIN, name, statistics.paired_log_ratio), ddof=1))

    @property
    def smallest_effect(self) -> float:
        """The relative difference below which nothing is called faster or slower: the noise floor, at least 1 %."""
        return max(SMALLEST_EFFECT, (self.floor.typical if self.floor else None) or 0.0)

    def outcome(self, ratio: Measurement) -> Outcome:
        """What a ratio of this object shows."""
        return outcome(ratio, self.smallest_effect)

    def measurements(self, name: str) -> list[Measurement]:
        """Load and first inference (medians over the sessions), latency percentiles, and throughput if that was run."""
        measured = [
            self._single("load_ms", [session.load_ms[name] for session in self.done]),
            self._single("first_inference_ms", [session.first_inference_ms[name] for session in self.done]),
            *self._latencies(name),
        ]
        return [*measured, self._throughput(name)] if self.protocol.mode == "throughput" else measured

    def call_overhead(self, runtime: str) -> Measurement | None:
        """What the runtime's own call costs: the median of a model that does next to nothing."""
        series = [session.call_overhead_ns[runtime] for session in self.done if runtime in session.call_overhead_ns]
        if not series:
            return None
        estimate = self._percentile(series, 50)
        count = sum(map(len, series))
        return bounded("call_overhead_ms", "ms", estimate, count, self._judged_latency(), self.machine)

    def disturbed(self) -> tuple[str, ...]:
        """Why the latencies cannot be trusted, each one sentence; empty if nothing was seen.

        Half of the sessions have to be disturbed: a few are in the intervals.
        """
        hit = [session.disturbances[0] for session in self.done if session.disturbances]
        found = [f"in {len(hit)} of {len(self.done)} sessions: {hit[0]}"] if 2 * len(hit) >= len(self.done) else []
        typical = self.floor.typical if self.floor else None
        if typical is not None and (spread := self.spread()) > max(_QUIET, _NOISY * typical):
            found.append(
                f"two copies of one model differed by ±{spread:.1%} from session to session, "
                f"on this machine usually by ±{typical:.1%}"
            )
        return tuple(found)

    def condition(self) -> dict[str, Any]:
        """State of the device before the first and after the last session, and how many sessions were disturbed."""
        return {
            "before": asdict(self.done[0].before),
            "after": asdict(self.done[-1].after),
            "disturbed_sessions": sum(bool(session.disturbances) for session in self.done),
        }

    def described(self) -> dict[str, Any]:
        """The protocol as it was followed, for a record."""
        followed = self._judged_latency()
        return {
            **asdict(followed),
            "digest": followed.digest(),
            "sessions": list(self.rounds()),
            "looks": sum(count <= len(self.done) for count in self.schedule.looks),
            "noise": self.spread(),
            "noise_floor": self.floor.typical if self.floor else None,
        }

    def _limits(self) -> Limits:
        share, series = self.schedule.looks[0], len(self.candidates) + 1
        allowed = self._judged_latency().limits()
        windows = self.protocol.mode == "throughput"
        return replace(
            allowed,
            warmup_max_seconds=self.done[-1].warmup_max_seconds() if self.done else allowed.warmup_max_seconds,
            min_runs=2 if windows else math.ceil(allowed.min_runs / share),
            min_seconds=self.schedule.session_seconds * series,
            max_seconds=self.schedule.max_seconds / share * series,
        )

    def _judged_latency(self) -> Protocol:
        return replace(
            self.protocol,
            confidence=self.schedule.latency_confidence,
            min_seconds=self.schedule.session_seconds,
            max_seconds=self.schedule.max_seconds,
        )

    def _log_ratios(
        self, first: str, second: str, statistic: Callable[[Nanoseconds, Nanoseconds], float]
    ) -> list[float]:
        return [statistic(session.pace_ns[first], session.pace_ns[second]) for session in self.done]

    def _ratio(
        self, metric: str, first: str, second: str, statistic: Callable[[Nanoseconds, Nanoseconds], float]
    ) -> Measurement:
        confidence = self.schedule.ratio_confidence
        if first == second:
            estimate = Estimate(1.0, (1.0, 1.0))
        else:
            estimate = statistics.session_ratio(self._log_ratios(first, second, statistic), confidence)
        why = f"{len(self.done)} sessions are too few for an interval"
        judged = replace(self._judged_latency(), confidence=confidence)
        return bounded(metric, "1", estimate, sum(self.rounds()), judged, self.machine, why)

    def _latencies(self, name: str) -> list[Measurement]:
        """p50, p90, p99 and the protocol's percentile in ms; those that the count cannot support have no value."""
        sessions = [session.latency_ns[name] for session in self.done]
        samples = np.concatenate(sessions)
        protocol = self._judged_latency()
        measured = []
        for percentile in sorted({50.0, 90.0, 99.0, float(protocol.percentile)}):
            needed = statistics.samples_needed(percentile / 100, protocol.confidence)
            estimate, why = self._percentile(sessions, percentile), ""
            if len(samples) < needed:
                estimate, why = estimate._replace(interval=(None, None)), f"{len(samples)} samples; "
            elif len(self.done) < statistics.FEWEST_SESSIONS:
                why = f"{len(self.done)} sessions do not show how far openings lie apart; "
            elif None in estimate.interval:
                why = f"{len(samples)} samples of sessions that differ do not bound it; "
            why += f"p{percentile:g} needs {needed}"
            metric = f"latency_p{percentile:g}_ms"
            measured.append(bounded(metric, "ms", estimate, len(samples), protocol, self.machine, why))
        return measured

    def _percentile(self, sessions: Sequence[Nanoseconds], percentile: float) -> Estimate:
        confidence = self.schedule.latency_confidence
        times_ms = [series / _NS_PER_MS for series in sessions]
        return statistics.session_percentile_interval(times_ms, percentile / 100, confidence)

    def _throughput(self, name: str) -> Measurement:
        """Samples per second of the median window, as the sessions agree on: they have few windows each."""
        logs = [math.log(float(np.median(session.pace_ns[name]))) for session in self.done]
        value, (low, high) = statistics.session_ratio(logs, self.schedule.latency_confidence)
        per_s = Estimate(1e9 / value, (high and 1e9 / high, low and 1e9 / low))
        count = len(self.pace_ns(name))
        why = f"{count} windows are too few for an interval"
        measured = bounded("throughput_per_s", "1/s", per_s, count, self._judged_latency(), self.machine, why)
        return replace(measured, better="higher")

    def _single(self, metric: str, values_ms: Sequence[float | None]) -> Measurement:
        known = [value for value in values_ms if value is not None]
        if not known:
            return single(metric, None, "ms", self._judged_latency(), self.machine, "the device's tool does not tell")
        measured = single(metric, float(np.median(known)), "ms", self._judged_latency(), self.machine)
        return replace(measured, n=len(known))


def outcome(ratio: Measurement, smallest_effect: float) -> Outcome:
    """What a ratio shows: its whole interval lies beyond the smallest effect, or within it."""
    low, high = ratio.interval or (None, None)
    edge = 1 + smallest_effect
    if low is None or high is None:
        return "undecided"
    if low > edge:
        return "slower"
    if high < 1 / edge:
        return "faster"
    same = 1 + min(smallest_effect, LARGEST_SAME)
    return "same" if low >= 1 / same and high <= same else "undecided"


def sample(
    connect: Callable[[], Agent],
    sessions: Sessions,
    inputs: Sequence[npt.NDArray[Any]],
    *,
    seed: int,
    decided: Callable[[], bool],
    progress: Progress | None = None,
) -> None:
    """Adds sessions until a look decides, or the budget is spent; then the floor learns what this run saw.

    Args:
        connect: Starts a fresh agent on the device.
        sessions: Empty ones, which are filled.
        inputs: As for :meth:`Sessions.add`.
        seed: Of all orders.
        decided: The look: whether ``sessions`` answer every question.
        progress: Told about twice a second.

    Raises:
        StageError: A candidate does not open or run, or an agent died.
    """
    schedule, series = sessions.schedule, len(sessions.candidates) + 1
    for count in schedule.looks:
        while len(sessions.done) < count:
            with connect() as agent:
                sessions.add(agent, inputs, seed + len(sessions.done), progress)
        if decided() or sessions.seconds >= schedule.max_seconds * series:
            break
    if sessions.floor and not sessions.disturbed():
        sessions.floor.remember(sessions.spread())
