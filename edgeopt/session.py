"""One session: a fresh agent opens the candidates in a shuffled order, warms up, and times interleaved rounds."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt.access import Agent, Condition, Limits, Progress, Throughput
from edgeopt.errors import StageError
from edgeopt.measure import Candidate
from edgeopt.protocol import Protocol

Nanoseconds = npt.NDArray[np.int64]

#: how every session warms up, at least; the agent goes on until all series are steady
WARMUP: Mapping[str, Any] = {"warmup_seconds": 0.3, "warmup_runs": 10, "warmup_max_seconds": 4.0}

_NS_PER_MS = 1e6


@dataclass(frozen=True)
class Session:
    """What one session found; every mapping is by the candidate's name, unless it says otherwise.

    Attributes:
        pace_ns: What is compared: the time of each run, or in throughput mode of each window the time per sample;
            (rounds,) int64, element i of all arrays is the same round.
        latency_ns: Of single inferences, (n,) int64; in latency mode the same as ``pace_ns``.
        load_ms, first_inference_ms: Of this opening; None where a tool of the device loads and times.
        call_overhead_ns: By runtime, (rounds,) int64: a model that does next to nothing; empty in throughput mode.
        before, after: Condition of the device.
        disturbances: What disturbed it; each one sentence.
        clock: What timed.
        seconds: Of timing.
        conditions: Fields of a protocol that only the device knows.
    """

    pace_ns: Mapping[str, Nanoseconds]
    latency_ns: Mapping[str, Nanoseconds]
    load_ms: Mapping[str, float | None]
    first_inference_ms: Mapping[str, float | None]
    call_overhead_ns: Mapping[str, Nanoseconds]
    before: Condition
    after: Condition
    disturbances: tuple[str, ...]
    clock: str
    seconds: float
    conditions: Mapping[str, Any] = field(default_factory=dict)

    def warmup_max_seconds(self) -> float:
        """After which a session like this one need not warm up any longer.

        Enough for the agent to find slow models steady: it compares three windows of ten rounds, at least 0.1 s, or of
        three rounds, at least 1 s. A busy machine never finds a fast model steady.
        """
        round_seconds = sum(float(np.median(series)) for series in self.pace_ns.values()) / 1e9
        return max(1.5, 6 * min(max(0.1, 10 * round_seconds), max(1.0, 3 * round_seconds)))


def time_session(
    agent: Agent,
    candidates: Sequence[Candidate],
    inputs: Sequence[npt.NDArray[Any]],
    protocol: Protocol,
    limits: Limits,
    seed: int,
    progress: Progress,
) -> Session:
    """Opens the candidates in a shuffled order, warms up and times them.

    Args:
        agent: On the device; fresh.
        candidates: With unlike names.
        inputs: One array (N, …) per input, N ≥ 1 samples; the rounds cycle through them.
        protocol: How.
        limits: How long.
        seed: Of the order of opening and of the rounds.
        progress: Called about twice a second with ``{"seconds", "rounds"}``.

    Raises:
        StageError: A candidate does not open or run, or the agent died.
    """
    load_ms: dict[str, float | None] = {}
    settings: dict[str, Mapping[str, Any]] = {}
    for one in random.Random(seed).sample(candidates, len(candidates)):
        opened = agent.open(one.name, one.runtime, one.path, threads=protocol.threads, streams=protocol.streams)
        load_ms[one.name], settings[one.name] = opened.load_ms, opened.settings
    run = agent.throughput if protocol.mode == "throughput" else agent.time
    found = run(list(load_ms), inputs, limits, seed=seed, batch=protocol.batch, progress=progress)
    overhead: Mapping[str, Nanoseconds]
    if isinstance(found, Throughput):
        pace = {name: found.window_ns[name] // found.counts[name] for name in found.counts}
        latency, overhead = found.latency_ns, {}
    else:
        pace, latency, overhead = dict(found.samples_ns), found.samples_ns, found.call_overhead_ns
    return Session(
        pace_ns=pace,
        latency_ns=latency,
        load_ms=load_ms,
        first_inference_ms={name: value and value / _NS_PER_MS for name, value in found.first_inference_ns.items()},
        call_overhead_ns=overhead,
        before=found.before,
        after=found.after,
        disturbances=tuple(found.disturbances),
        clock=found.clock.name,
        seconds=found.seconds - found.warmup.seconds,
        conditions=_conditions(settings, found.before),
    )


def _conditions(settings: Mapping[str, Mapping[str, Any]], device: Condition) -> dict[str, Any]:
    """What a protocol says of how all candidates were timed, which runtimes and devices tell.

    Raises:
        StageError: The candidates were timed in different ways.
    """
    stamps = {name: said.get("conditions", {}) for name, said in settings.items()}
    first, stamp = next(iter(stamps.items()))
    for name, other in stamps.items():
        if other != stamp:
            differ = ", ".join(f"{key}: {stamp.get(key)} and {other.get(key)}" for key in {**stamp, **other})
            raise StageError(
                f"{first} and {name} would be timed under different conditions ({differ}), which says nothing",
                where="measure",
                fix="build both in the same way: the same tool, typing and processor",
            )
    clocks = {True: ["clocks locked"], False: ["clocks not locked"], None: []}[device.clocks_locked]
    return {
        "transfers": bool(stamp.get("transfers", False)),
        "cuda_graph": bool(stamp.get("cuda_graph", False)),
        "power_mode": device.power_mode or "",
        "conditions": tuple(sorted([*stamp.get("others", []), *clocks])),
    }


def require_power_mode(asked: str | None, found: str | None, *, where: str) -> None:
    """Stops where the device is not in the power mode that its target names.

    Args:
        asked: Of the target; None if it names none.
        found: Of the device; None or empty if it says none.
        where: What is told of the place.

    Raises:
        StageError: They differ.
    """
    if asked and asked != found:
        raise StageError(
            f"the target says that the device's power mode is {asked}, the device says {found or 'none'}",
            where=where,
            fix="set the mode on the device with `sudo nvpmodel -m ID`, or correct device.power_mode",
        )


def inputs_digest(inputs: Sequence[npt.NDArray[Any]]) -> str:
    """What a protocol says about the inputs: the beginning of the sha256 of their shapes, dtypes and values."""
    digest = hashlib.sha256()
    for array in inputs:
        digest.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
