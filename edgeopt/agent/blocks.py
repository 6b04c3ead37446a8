"""Timing by a tool that runs a whole series at once and times it itself, like ``trtexec`` on a board without bindings.

Such a model offers :meth:`Timed.block` beside :meth:`Model.run`, which starts the tool anew for every inference. A
session then is one block of each model, in an order shuffled anew; rounds of different models are not interleaved, so
that only the agreement of several sessions says anything about a ratio.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from . import AgentError
from .runtimes import Model
from .timer import Clock, Limits, Warmup, steady

T = TypeVar("T")

_WINDOWS = 3


@dataclass(frozen=True)
class Block(Generic[T]):
    """A series that a tool ran.

    Attributes:
        samples_ns: Of the timed runs, (runs,).
        runs: That many were run between the two readings, those that warmed up among them.
        before, after: What was read right before the first run and right after the last one.
    """

    samples_ns: npt.NDArray[np.int64]
    runs: int
    before: T
    after: T


@runtime_checkable
class Timed(Protocol):
    """A model that is timed by its tool.

    Attributes:
        clock: What times.
    """

    clock: Clock

    def load(self, inputs: Sequence[npt.NDArray[Any]]) -> None:
        """As :meth:`edgeopt.agent.runtimes.Lane.load`."""

    def block(self, seconds: float, runs: int, read: Callable[[], T]) -> Block[T]:
        """Runs a series, of at least so many seconds and timed runs, after warming up."""


def timed(models: Mapping[str, Model]) -> dict[str, Timed] | None:
    """The models, if their tools time them; None if the agent does.

    Raises:
        AgentError: Both kinds are among them, whose times mean different things.
    """
    found: dict[str, Timed] = {name: model for name, model in models.items() if isinstance(model, Timed)}
    if found and len(found) < len(models):
        rest = ", ".join(name for name in models if name not in found)
        raise AgentError(f"{', '.join(found)} are timed by their tool and {rest} by the agent: not comparable")
    return found or None


def collect(
    models: Mapping[str, Timed],
    batch: Sequence[npt.NDArray[Any]],
    limits: Limits,
    seed: int,
    report: Callable[[float, int], None],
) -> tuple[Warmup, dict[str, list[int]]]:
    """One block of each model, in a shuffled order, cut to the same number of runs.

    Args:
        models: By name.
        batch: Input of all runs.
        limits: The seconds of all models together, and the runs of each: fewer where a model is so slow that they would
            take longer than its part of ``max_seconds``.
        seed: Of the order.
        report: Called after each block with (seconds so far, runs so far).
    """
    begin, share = perf_counter(), max(limits.min_seconds / len(models), 0.0)
    taken: dict[str, npt.NDArray[np.int64]] = {}
    for name in random.Random(seed).sample(list(models), len(models)):
        models[name].load(batch)
        taken[name] = _series(models[name], share, limits.min_runs, limits.max_seconds / len(models))
        report(perf_counter() - begin, sum(map(len, taken.values())))
    count = min(map(len, taken.values()))
    unsteady = tuple(name for name in models if not _steady(taken[name]))
    warmup = Warmup(not unsteady, 0, 0.0, unsteady)
    return warmup, {name: taken[name][:count].tolist() for name in models}


def _series(model: Timed, seconds: float, runs: int, max_seconds: float) -> npt.NDArray[np.int64]:
    """Samples of one block. A tool cannot be told when to stop: how many runs fit is known from a first block."""
    first = model.block(seconds, 1, lambda: None).samples_ns
    fitting = min(runs, int(max_seconds * 1e9 / float(np.median(first))))
    return first if len(first) >= fitting else model.block(seconds, fitting, lambda: None).samples_ns


def _steady(samples_ns: npt.NDArray[np.int64]) -> bool:
    """Whether the tool had warmed up: by the rule of :mod:`edgeopt.agent.timer`, over the thirds of the block."""
    if len(samples_ns) < _WINDOWS:
        return False
    return steady([float(np.quantile(part, 0.25)) for part in np.array_split(samples_ns, _WINDOWS)])
