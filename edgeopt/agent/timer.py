"""Interleaved timing: every round times each candidate once, in an order shuffled anew.

Slow drifts of the machine (heat, neighbours, clock frequency) then hit all candidates alike and cancel in ratios, and
no candidate always runs after the same other one.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter, perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from .runtimes import Model

_SECONDS_BETWEEN_REPORTS = 0.5


@dataclass(frozen=True)
class Limits:
    """When warming up and timing end. Seconds are wall time of all candidates together; a run is a round.

    Attributes:
        warmup_runs, warmup_seconds: Warming up ends when both are reached.
        min_runs, min_seconds: Timing ends when both are reached …
        max_seconds: … or when this has passed, whatever the others say.
    """

    warmup_runs: int
    warmup_seconds: float
    min_runs: int
    min_seconds: float
    max_seconds: float


def interleaved(
    models: Mapping[str, Model],
    batches: Sequence[Sequence[npt.NDArray[Any]]],
    limits: Limits,
    seed: int,
    report: Callable[[float, int], None],
) -> dict[str, npt.NDArray[np.int64]]:
    """Times the models against each other; only ``Model.run`` lies between the two clock readings.

    All models of a round see the same batch; the rounds cycle through ``batches``. Garbage collection is off
    meanwhile.

    Args:
        models: Open models by name.
        batches: Inputs, each one complete set for one run.
        limits: When to end.
        seed: Of the shuffles.
        report: Called now and then between rounds with (seconds of timing so far, rounds so far).

    Returns:
        Nanoseconds of each run by name, (rounds,) each; element i of all arrays is the same round.
    """
    order = list(models)
    shuffle = random.Random(seed).shuffle
    samples: dict[str, list[int]] = {name: [] for name in order}

    def run_round(index: int) -> None:
        batch = batches[index % len(batches)]
        shuffle(order)
        for name in order:
            model = models[name]
            model.load(batch)
            start = perf_counter_ns()
            model.run()
            samples[name].append(perf_counter_ns() - start)

    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        begin, rounds = perf_counter(), 0
        while rounds < limits.warmup_runs or perf_counter() - begin < limits.warmup_seconds:
            run_round(rounds)
            rounds += 1
            if perf_counter() - begin > limits.max_seconds:
                break
        for series in samples.values():
            series.clear()
        begin, rounds, reported = perf_counter(), 0, 0.0
        while True:
            run_round(rounds)
            rounds += 1
            seconds = perf_counter() - begin
            if seconds >= limits.max_seconds or (rounds >= limits.min_runs and seconds >= limits.min_seconds):
                break
            if seconds - reported >= _SECONDS_BETWEEN_REPORTS:
                report(seconds, rounds)
                reported = seconds
    finally:
        if was_enabled:
            gc.enable()
    return {name: np.array(series, dtype=np.int64) for name, series in samples.items()}
