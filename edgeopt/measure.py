"""What a measured number is, and how the candidates of a target are measured against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from edgeopt.access import Agent, Progress
from edgeopt.errors import StageError
from edgeopt.protocol import Protocol
from edgeopt.statistics import Estimate, Interval, percentile_interval, ratio_interval, samples_needed

_NS_PER_MS = 1e6


@dataclass(frozen=True)
class Measurement:
    """One number with its error bars and where it comes from.

    Attributes:
        metric: Like ``latency_p99_ms``.
        value: None if it was not measured; ``why`` then says why.
        unit: Like ``ms``, ``MiB``; ``1`` for ratios and proportions.
        better: Which direction is good.
        interval: (low, high) at ``confidence``; a bound is None where the data cannot support one. None altogether for
            a number without error bars (a file size, a single reading).
        n: Samples behind the value.
        method: How it was obtained.
        protocol: Digest of the measuring protocol; numbers of different protocols are never compared. May be empty.
        machine: The device.
        confidence: Of the interval.
        why: Why there is no value, or what else a reader must know.
        broken: There is no value because what was measured does not work, such as a network that gives NaN. Every gate
            on it fails.
    """

    metric: str
    value: float | None
    unit: str
    better: Literal["lower", "higher"]
    interval: Interval | None
    n: int
    method: Literal["measured", "simulated", "estimated"]
    protocol: str
    machine: str
    confidence: float = 0.95
    why: str = ""
    broken: bool = False

    def to_json(self) -> dict[str, Any]:
        """A JSON object; the interval becomes a list."""
        return {**asdict(self), "interval": None if self.interval is None else list(self.interval)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of ``to_json``."""
        interval = data["interval"]
        return cls(**{**data, "interval": None if interval is None else (interval[0], interval[1])})


@dataclass(frozen=True)
class Candidate:
    """What measuring has to know of a candidate: a new name, the runtime, and the file on the device."""

    name: str
    runtime: str
    path: str


class Timed(NamedTuple):
    """The measurements of one candidate, and its raw samples: (rounds,) int64 ns, the same rounds for all."""

    measurements: list[Measurement]
    samples_ns: npt.NDArray[np.int64]


def measure(
    agent: Agent,
    candidates: Sequence[Candidate],
    inputs: Sequence[npt.NDArray[Any]],
    protocol: Protocol,
    baselines: Mapping[str, str],
    *,
    machine: str,
    seed: int,
    progress: Progress | None = None,
    earlier: Mapping[str, npt.NDArray[np.int64]] | None = None,
) -> dict[str, Timed]:
    """Times the candidates of a target against each other in one agent, which should be fresh.

    The first candidate's baseline is opened twice and timed as one more candidate. Its ratio to itself is what this
    machine calls equal at the moment, and is recorded as ``latency_ratio_noise`` of that baseline.

    Args:
        agent: On the device.
        candidates: At least one, with unlike names.
        inputs: One array (N, …) per input, N ≥ 1 samples; the rounds cycle through them.
        protocol: How.
        baselines: For each candidate, the name of the one that its ratios refer to.
        machine: The device, as the measurements name it. It is not asked for here: probing loads every runtime.
        seed: Of the order of the candidates and of the bootstrap.
        progress: Called about twice a second with ``{"seconds", "rounds"}``.
        earlier: Samples by name that an earlier call with the same candidates returned; the new rounds are added to
            them, and the latencies and ratios are those of all. The noise is that of the new rounds.

    Returns:
        By name: ``load_ms``, ``first_inference_ms``, ``latency_p50_ms``, ``latency_p90_ms``, ``latency_p99_ms`` and the
        protocol's own percentile, ``latency_ratio`` and ``latency_ratio_p10`` to its baseline.

    Raises:
        StageError: A candidate does not open or run, or the agent died.
    """
    by_name = {candidate.name: candidate for candidate in candidates}
    if (
        len(by_name) != len(candidates)
        or set(baselines) != set(by_name)
        or not by_name.keys() >= set(baselines.values())
    ):
        raise ValueError(f"candidates need unlike names and a baseline among them: {list(by_name)}, {dict(baselines)}")
    twice = baselines[candidates[0].name]
    again = f"{twice} (again)"
    copies = [*candidates, replace(by_name[twice], name=again)]
    opened = {}
    try:
        for one in copies:
            opened[one.name] = agent.open(one.name, one.runtime, one.path, threads=protocol.threads)
        timing = agent.time(list(opened), inputs, protocol.limits(), seed=seed, batch=protocol.batch, progress=progress)
    finally:
        with suppress(StageError):  # it may be what is on its way already
            for name in opened:
                agent.close(name)

    def single(metric: str, value_ms: float) -> Measurement:
        return Measurement(metric, value_ms, "ms", "lower", None, 1, "measured", protocol.digest(), machine)

    new = timing.samples_ns
    series = {name: np.concatenate([earlier[name], new[name]]) if earlier else new[name] for name in by_name}
    results = {}
    for name in by_name:
        measurements = [
            single("load_ms", opened[name].load_ms),
            single("first_inference_ms", timing.first_inference_ns[name] / _NS_PER_MS),
            *latencies(series[name], protocol, machine),
            *compare(series[name], series[baselines[name]], protocol, machine, seed),
        ]
        if name == twice:
            noise, _ = compare(new[again], new[name], protocol, machine, seed, metric="latency_ratio_noise")
            measurements.append(noise)
        results[name] = Timed(measurements, series[name])
    return results


def latencies(samples_ns: npt.NDArray[np.int64], protocol: Protocol, machine: str) -> list[Measurement]:
    """p50, p90, p99 and the protocol's percentile in ms; those that the count cannot support have no value."""
    measurements = []
    for percentile in sorted({50.0, 90.0, 99.0, float(protocol.percentile)}):
        estimate = percentile_interval(samples_ns / _NS_PER_MS, percentile / 100, protocol.confidence)
        needed = samples_needed(percentile / 100, protocol.confidence)
        why = f"{len(samples_ns)} samples; p{percentile:g} needs {needed}"
        measurements.append(
            _timed(f"latency_p{percentile:g}_ms", "ms", estimate, len(samples_ns), protocol, machine, why)
        )
    return measurements


def compare(
    samples_ns: npt.NDArray[np.int64],
    reference_ns: npt.NDArray[np.int64],
    protocol: Protocol,
    machine: str,
    seed: int,
    metric: str = "latency_ratio",
) -> tuple[Measurement, Measurement]:
    """The ratio of medians and of 10 % quantiles of two candidates that were timed together; below 1 is faster.

    The median is what the user feels; the low quantile repeats better on a busy machine.

    Returns:
        ``<metric>`` and ``<metric>_p10``.
    """

    def ratio(name: str, q: float) -> Measurement:
        if samples_ns is reference_ns:
            estimate = Estimate(1.0, (1.0, 1.0))
        else:
            estimate = ratio_interval(samples_ns, reference_ns, q, protocol.confidence, seed)
        why = f"{len(samples_ns)} rounds are too few for an interval"
        return _timed(name, "1", estimate, len(samples_ns), protocol, machine, why)

    return ratio(metric, 0.5), ratio(f"{metric}_p10", 0.1)


def _timed(
    metric: str, unit: str, estimate: Estimate, count: int, protocol: Protocol, machine: str, why_not: str
) -> Measurement:
    """A measurement that has a value only if both bounds of its interval are known."""
    supported = None not in estimate.interval
    return Measurement(
        metric=metric,
        value=estimate.value if supported else None,
        unit=unit,
        better="lower",
        interval=estimate.interval,
        n=count,
        method="measured",
        protocol=protocol.digest(),
        machine=machine,
        confidence=protocol.confidence,
        why="" if supported else why_not,
    )


def peak_memory_mib(
    start_agent: Callable[[], Agent],
    candidate: Candidate,
    inputs: Sequence[npt.NDArray[Any]],
    protocol: Protocol,
    machine: str,
) -> Measurement:
    """Peak resident memory of a fresh agent that opens the candidate and runs all of ``inputs`` once.

    It contains the interpreter, numpy and the runtime, which the device has to hold as well.

    Raises:
        StageError: The candidate does not open or run, or the agent died.
    """
    with start_agent() as agent:
        agent.open(candidate.name, candidate.runtime, candidate.path, threads=protocol.threads)
        agent.infer(candidate.name, inputs, batch=protocol.batch)
        peak = agent.memory().peak_mib
    return Measurement(
        metric="peak_memory_mib",
        value=peak,
        unit="MiB",
        better="lower",
        interval=None,
        n=0 if peak is None else 1,
        method="measured",
        protocol=protocol.digest(),
        machine=machine,
        why="" if peak is not None else "the system does not say how much memory a process used",
    )
