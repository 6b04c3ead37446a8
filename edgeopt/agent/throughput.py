"""Throughput: how many inferences finish when several are always in flight, and how long each then takes.

Every stream is a calling thread with its own request, which runs one inference after the other. OpenVINO gets as many
streams as there are callers; for ONNX Runtime they share one session, as its documentation recommends. With more than
one thread per inference, the callers of ONNX Runtime share one pool of workers, while each stream of OpenVINO has its
own. A round gives each candidate one window of time, in an order shuffled anew.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import perf_counter_ns
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import AgentError
from .runtimes import Lane, Model


class Window(NamedTuple):
    """What was done in one window: inferences, its length to the end of the last one, and how long each took."""

    runs: int
    ns: int
    latency_ns: npt.NDArray[np.int64]

    @property
    def ns_per_run(self) -> float:
        """Wall time per finished inference."""
        return self.ns / self.runs


class Saturated:
    """Called with a round's index, keeps all streams of each model busy for one window, model after model.

    A context manager, which ends the calling threads.

    Args:
        models: Open models by name.
        batches: Inputs, each one complete set for one run; the rounds cycle through them.
        seed: Of the shuffles.
        seconds: Length of a window. What was started before its end is finished and counted, and the window's length
            is taken to the end of the last inference, so that streams may idle at the end for less than one inference.
    """

    def __init__(
        self, models: Mapping[str, Model], batches: Sequence[Sequence[npt.NDArray[Any]]], seed: int, seconds: float
    ) -> None:
        self._models = models
        self._batches = batches
        self._order = list(models)
        self._shuffle = random.Random(seed).shuffle
        self._window_ns = round(seconds * 1e9)
        self._callers = {name: ThreadPoolExecutor(len(model.lanes)) for name, model in models.items()}

    def __enter__(self) -> Saturated:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for callers in self._callers.values():
            callers.shutdown()

    def __call__(self, index: int) -> dict[str, Window]:
        batch = self._batches[index % len(self._batches)]
        self._shuffle(self._order)
        return {name: self._window(name, batch) for name in self._order}

    def _window(self, name: str, batch: Sequence[npt.NDArray[Any]]) -> Window:
        lanes = self._models[name].lanes
        for lane in lanes:
            lane.load(batch)
        together = Barrier(len(lanes))

        def call(lane: Lane) -> list[int]:
            together.wait()
            readings = [perf_counter_ns()]
            end = readings[0] + self._window_ns
            while readings[-1] < end:
                lane.run()
                readings.append(perf_counter_ns())
            return readings

        readings = list(self._callers[name].map(call, lanes))
        latency_ns = np.concatenate([np.diff(one) for one in readings])
        if latency_ns.min() <= 0:
            raise AgentError(f"while {name!r} ran, the clock stood still or went backwards")
        begin, end = min(one[0] for one in readings), max(one[-1] for one in readings)
        return Window(len(latency_ns), end - begin, latency_ns)
