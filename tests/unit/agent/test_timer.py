from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeopt.agent.timer import Limits, interleaved


class Recorder:
    """Stands in for a model: writes down what is called."""

    def __init__(self, name: str, log: list[tuple[str, str, int]]) -> None:
        self.name, self.log, self.seen = name, log, -1

    def load(self, inputs: Sequence[np.ndarray]) -> None:
        self.seen = int(inputs[0][0])
        self.log.append(("load", self.name, self.seen))

    def run(self) -> None:
        assert not gc.isenabled()
        self.log.append(("run", self.name, self.seen))


def time(limits: Limits, seed: int = 0, names: str = "abc") -> tuple[dict[str, Any], list[tuple[str, str, int]]]:
    log: list[tuple[str, str, int]] = []
    models: Any = {name: Recorder(name, log) for name in names}
    batches = [[np.array([value])] for value in range(4)]
    return interleaved(models, batches, limits, seed, lambda seconds, rounds: None), log


def test_every_round_times_each_once_on_the_same_batch_in_a_new_order() -> None:
    samples, log = time(Limits(2, 0.0, 50, 0.0, 60.0))
    assert {name: len(series) for name, series in samples.items()} == {"a": 50, "b": 50, "c": 50}
    assert gc.isenabled()
    runs = [entry for entry in log if entry[0] == "run"]
    assert len(runs) == 3 * 52
    rounds = [runs[start : start + 3] for start in range(0, len(runs), 3)]
    assert all(sorted(name for _, name, _ in one) == ["a", "b", "c"] for one in rounds)
    assert [{batch for _, _, batch in one} for one in rounds[2:]] == [{index % 4} for index in range(50)]
    orders = Counter("".join(name for _, name, _ in one) for one in rounds)
    assert len(orders) == 6
    assert all(log[index][1:] == log[index + 1][1:] for index in range(0, len(log), 2))  # load, then run


def test_the_order_follows_the_seed() -> None:
    limits = Limits(0, 0.0, 30, 0.0, 60.0)
    assert time(limits, seed=1)[1] == time(limits, seed=1)[1]
    assert time(limits, seed=1)[1] != time(limits, seed=2)[1]


def test_both_minima_are_reached_and_the_cap_wins() -> None:
    long = time(Limits(0, 0.0, 1, 0.05, 60.0), names="a")[0]["a"]
    assert len(long) > 10  # the run itself takes microseconds: the seconds decide
    capped = time(Limits(0, 0.0, 10**9, 0.0, 0.05), names="a")[0]["a"]
    assert 0 < len(capped) < 10**9
    endless_warmup = time(Limits(10**9, 0.0, 1, 0.0, 0.05), names="a")[0]["a"]
    assert len(endless_warmup) >= 1
