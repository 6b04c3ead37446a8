"""Models that their tool times, planted: how long the tool is asked to run."""

from __future__ import annotations

import numpy as np
import pytest

from edgeopt.agent.blocks import Block, Limits, collect
from edgeopt.agent.timer import Clock


class Planted:
    """Every run takes so long; like ``trtexec`` it runs on until both the seconds and the runs are reached."""

    clock = Clock("planted", 1, 1, 0)

    def __init__(self, run_seconds: float) -> None:
        self._run_seconds = run_seconds
        self.seconds = 0.0

    def load(self, inputs) -> None: ...

    def block(self, seconds: float, runs: int, read) -> Block:
        count = max(runs, int(np.ceil(seconds / self._run_seconds)))
        self.seconds += count * self._run_seconds
        return Block(np.full(count, int(self._run_seconds * 1e9)), count, read(), read())


@pytest.mark.parametrize(
    ("run_seconds", "runs", "seconds"),
    [
        (0.001, 2000, 2.0),  # the seconds decide
        (0.1, 50, 7.0),  # the runs, for which a first block of 2 s is not enough
        (1.0, 8, 10.0),  # the longest time: 8 of the 50 runs fit
        (30.0, 1, 30.0),  # one run at least
    ],
)
def test_a_slow_model_runs_no_longer_than_it_may(run_seconds: float, runs: int, seconds: float) -> None:
    models = {"a": Planted(run_seconds), "b": Planted(run_seconds)}
    limits = Limits(warmup_runs=0, warmup_seconds=0.0, min_runs=50, min_seconds=4.0, max_seconds=16.0)
    _, series = collect(models, [], limits, 0, lambda seconds, runs: None)
    assert {name: len(samples) for name, samples in series.items()} == {"a": runs, "b": runs}
    assert models["a"].seconds == pytest.approx(seconds)
