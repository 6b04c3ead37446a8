from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import numpy as np
import pytest

from edgeopt.agent.throughput import Saturated


class Lane:
    def __init__(self, busy: Busy) -> None:
        self.busy = busy
        self.seen = -1

    def load(self, inputs: Any) -> None:
        self.seen = int(inputs[0][0])

    def run(self) -> None:
        self.busy.enter(self.seen)
        time.sleep(0.01)
        self.busy.leave()


class Busy:
    """Stands in for a model with some streams: counts the inferences in flight."""

    def __init__(self, name: str, streams: int, log: list[str]) -> None:
        self.name, self.log = name, log
        self.lanes = [Lane(self) for _ in range(streams)]
        self.lock = threading.Lock()
        self.now = self.most = 0
        self.inputs: set[int] = set()

    def enter(self, seen: int) -> None:
        with self.lock:
            self.log.append(self.name)
            self.inputs.add(seen)
            self.now += 1
            self.most = max(self.most, self.now)

    def leave(self) -> None:
        with self.lock:
            self.now -= 1


def test_all_streams_are_busy_and_every_inference_counts_once() -> None:
    log: list[str] = []
    models: Any = {"one": Busy("one", 1, log), "three": Busy("three", 3, log)}
    with Saturated(models, [[np.array([5])], [np.array([6])]], seed=0, seconds=0.05) as one_round:
        windows = [one_round(index) for index in range(2)]
    for name, model in models.items():
        assert model.most == len(model.lanes)
        assert model.inputs == {5, 6}
        assert sum(window[name].runs for window in windows) == log.count(name)
    for window in (window for one in windows for window in one.values()):
        assert window.runs == len(window.latency_ns)
        assert window.ns >= max(0.05e9, window.latency_ns.max())
        assert window.latency_ns.min() >= 0.01e9
        assert window.ns_per_run == window.ns / window.runs


def test_a_window_shorter_than_an_inference_still_finishes_one_per_stream() -> None:
    models: Any = {"m": Busy("m", 2, [])}
    with Saturated(models, [[np.array([0])]], seed=0, seconds=0.0001) as one_round:
        assert one_round(0)["m"].runs == 2


def test_models_are_not_busy_at_the_same_time() -> None:
    log: list[str] = []
    models: Any = {name: Busy(name, 2, log) for name in "ab"}
    with Saturated(models, [[np.array([0])]], seed=0, seconds=0.03) as one_round:
        one_round(0)
    assert sum(before != after for before, after in itertools.pairwise(log)) == 1


def test_an_error_in_a_stream_is_raised() -> None:
    model: Any = Busy("m", 2, [])
    model.lanes[1].run = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError), Saturated({"m": model}, [[np.array([0])]], 0, 0.02) as one_round:
        one_round(0)
