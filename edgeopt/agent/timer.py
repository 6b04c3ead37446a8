"""Interleaved timing: every round runs each candidate once, in an order shuffled anew.

Slow drifts of the machine (heat, neighbours, clock frequency) then hit all candidates alike and cancel in ratios, and
no candidate always runs after the same other one.

Timing starts when warming up has made every series steady. The rule: the lower quartiles of the last three windows of a
series lie within 5 % of each other. A window is at least ten rounds and 0.1 s, or three rounds if they take a second.
It is the rule of Georges, Buytaert and Eeckhout, Statistically Rigorous Java Performance Evaluation (OOPSLA 2007),
section 4.2 (the spread of the last iterations falls below a threshold), made robust: runs that warm up are slow
without exception, while a busy neighbour slows some of them, which a lower quartile does not see.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter, perf_counter_ns
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from . import AgentError
from .runtimes import Model

T = TypeVar("T")

#: names the rule above; raised when the rule changes
WARMUP_RULE = "3 windows of lower quartiles within 5 %"

_STEADY_WINDOWS = 3
_STEADY_SPREAD = 0.05
_SECONDS_BETWEEN_REPORTS = 0.5
_CLOCK_READINGS = 10_001


@dataclass(frozen=True)
class Limits:
    """When warming up and timing end. Seconds are wall time of all candidates together; a run is a round.

    Attributes:
        warmup_runs, warmup_seconds: Warming up ends when both are reached and all series are steady …
        min_runs, min_seconds: Timing ends when both are reached …
        max_seconds: … or when this has passed, whatever the others say.
        warmup_max_seconds: … or when this has passed, whatever the others say; the series may then be unsteady.
    """

    warmup_runs: int
    warmup_seconds: float
    min_runs: int
    min_seconds: float
    max_seconds: float
    warmup_max_seconds: float = 10.0


@dataclass(frozen=True)
class Clock:
    """The clock that timed.

    Attributes:
        name: The system's function behind it, and what times the calls of runtimes that have a clock of their own.
        resolution_ns: As the system declares it.
        step_ns: The smallest difference seen between two readings in a row that differ.
        overhead_ns: The median difference of two readings in a row; it is part of every sample that this clock took.
    """

    name: str
    resolution_ns: int
    step_ns: int
    overhead_ns: int


@dataclass(frozen=True)
class Warmup:
    """How warming up went; ``unsteady`` names the series that had not become steady when its time was over."""

    steady: bool
    rounds: int
    seconds: float
    unsteady: tuple[str, ...]


def measure_clock(read: Callable[[], int] = perf_counter_ns) -> Clock:
    """Reads the clock some thousand times in a row.

    Raises:
        AgentError: It went backwards.
    """
    differences = np.diff([read() for _ in range(_CLOCK_READINGS)])
    if differences.min() < 0:
        raise AgentError(_backwards(differences.min()))
    info = time.get_clock_info("perf_counter")
    resolution_ns = max(1, round(info.resolution * 1e9))
    moved = differences[differences > 0]
    step_ns = int(moved.min()) if moved.size else resolution_ns
    return Clock(info.implementation, resolution_ns, step_ns, int(np.median(differences)))


class Interleaved:
    """Called with a round's index, runs each model once and returns nanoseconds by name.

    Only ``Model.run`` lies between the two clock readings. Where a runtime has a clock of its own, its reading counts:
    it leaves out the call from Python. Such a clock may be the time of day, which is set now and then; a reading that
    cannot be, as it is not shorter than that of this clock, gives way to it. All models of a round see the same batch,
    except those that have inputs of their own; the rounds cycle through ``batches``.

    Args:
        models: Open models by name.
        batches: Inputs, each one complete set for one run.
        seed: Of the shuffles.
        preloaded: Names of models that are not given the batches: their inputs were loaded before.
        read: The clock, in ns.

    Raises (when called):
        AgentError: The clock went backwards, or did not advance during a run.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        batches: Sequence[Sequence[npt.NDArray[Any]]],
        seed: int,
        *,
        preloaded: Sequence[str] = (),
        read: Callable[[], int] = perf_counter_ns,
    ) -> None:
        self._models = models
        self._batches = batches
        self._order = list(models)
        self._shuffle = random.Random(seed).shuffle
        self._preloaded = frozenset(preloaded)
        self._loaded: dict[str, Sequence[npt.NDArray[Any]]] = {}
        self._read = read

    def __call__(self, index: int) -> dict[str, int]:
        batch = self._batches[index % len(self._batches)]
        read = self._read
        took: dict[str, int] = {}
        self._shuffle(self._order)
        for name in self._order:
            model = self._models[name]
            if name not in self._preloaded and self._loaded.get(name) is not batch:
                model.load(batch)
                self._loaded[name] = batch
            start = read()
            own = model.run()
            took[name] = read() - start
            if took[name] <= 0:
                raise AgentError(_no_time(name, took[name]))
            if own is not None and 0 < own < took[name]:
                took[name] = own
        return took


@contextmanager
def undisturbed() -> Iterator[None]:
    """Garbage collection is off inside."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def warm_up(
    run_round: Callable[[int], Mapping[str, T]], names: Sequence[str], limits: Limits, pace: Callable[[T], float]
) -> Warmup:
    """Runs rounds until all series are steady by the module's rule and the minima are reached, or time is over.

    Args:
        run_round: Runs the round of that index; what it returns for each series …
        names: Of the series that must be steady.
        limits: When to end.
        pace: … tells the time of one inference.
    """
    window: dict[str, list[float]] = {name: [] for name in names}
    quartiles: dict[str, list[float]] = {name: [] for name in names}
    unsteady = tuple(names)
    begin = opened = perf_counter()
    rounds = count = 0
    while True:
        results = run_round(rounds)
        for name, series in window.items():
            series.append(pace(results[name]))
        rounds, count = rounds + 1, count + 1
        now = perf_counter()
        if (count >= 10 and now - opened >= 0.1) or (count >= 3 and now - opened >= 1.0):
            for name, series in window.items():
                quartiles[name].append(sorted(series)[count // 4])
                series.clear()
            unsteady = tuple(name for name in names if not steady(quartiles[name]))
            opened, count = now, 0
        done = rounds >= limits.warmup_runs and now - begin >= limits.warmup_seconds and not unsteady
        if done or now - begin >= limits.warmup_max_seconds:
            return Warmup(not unsteady, rounds, now - begin, unsteady)


def steady(quartiles: Sequence[float]) -> bool:
    """Whether the last three windows of a series agree within 5 % of the lowest."""
    last = quartiles[-_STEADY_WINDOWS:]
    return len(last) == _STEADY_WINDOWS and max(last) <= (1 + _STEADY_SPREAD) * min(last)


def collect(
    run_round: Callable[[int], Mapping[str, T]], limits: Limits, report: Callable[[float, int], None]
) -> dict[str, list[T]]:
    """Runs rounds until the minima are reached or time is over.

    Args:
        run_round: Runs the round of that index.
        limits: When to end.
        report: Called now and then between rounds with (seconds so far, rounds so far).

    Returns:
        What ``run_round`` returned, by name; element i of all lists is the same round.
    """
    series: dict[str, list[T]] = {}
    begin, rounds, reported = perf_counter(), 0, 0.0
    while True:
        for name, result in run_round(rounds).items():
            series.setdefault(name, []).append(result)
        rounds += 1
        seconds = perf_counter() - begin
        if seconds >= limits.max_seconds or (rounds >= limits.min_runs and seconds >= limits.min_seconds):
            return series
        if seconds - reported >= _SECONDS_BETWEEN_REPORTS:
            report(seconds, rounds)
            reported = seconds


def _no_time(name: str, nanoseconds: int) -> str:
    if nanoseconds < 0:
        return f"while {name!r} ran, {_backwards(nanoseconds)}"
    return f"a run of {name!r} took no time by this device's clock; time it with larger batches"


def _backwards(nanoseconds: int) -> str:
    return f"the clock went backwards by {-nanoseconds} ns; nothing can be timed on this device"
