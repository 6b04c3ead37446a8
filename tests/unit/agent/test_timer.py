from __future__ import annotations

import gc
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from edgeopt.agent import AgentError
from edgeopt.agent.timer import Interleaved, Limits, collect, measure_clock, steady, undisturbed, warm_up


class Recorder:
    """Stands in for a model: writes down what is called."""

    def __init__(self, name: str, log: list[tuple[str, str, int]], own_ns: int | None) -> None:
        self.name, self.log, self.seen, self.own_ns = name, log, -1, own_ns

    def load(self, inputs: Sequence[np.ndarray]) -> None:
        self.seen = int(inputs[0][0])
        self.log.append(("load", self.name, self.seen))

    def run(self) -> int | None:
        self.log.append(("run", self.name, self.seen))
        return self.own_ns


def interleaved(
    names: str = "abc", seed: int = 0, *, own_ns: int | None = None, **kwargs: Any
) -> tuple[Interleaved, list[tuple[str, str, int]]]:
    log: list[tuple[str, str, int]] = []
    models: Any = {name: Recorder(name, log, own_ns) for name in names}
    return Interleaved(models, [[np.array([value])] for value in range(4)], seed, **kwargs), log


def rounds(count: int) -> Limits:
    return Limits(0, 0.0, count, 0.0, 60.0)


def silent(seconds: float, done: int) -> None:
    pass


def test_every_round_times_each_once_on_the_same_batch_in_a_new_order() -> None:
    one_round, log = interleaved()
    series = collect(one_round, rounds(50), silent)
    assert {name: len(samples) for name, samples in series.items()} == {"a": 50, "b": 50, "c": 50}
    runs = [entry for entry in log if entry[0] == "run"]
    per_round = [runs[start : start + 3] for start in range(0, len(runs), 3)]
    assert all(sorted(name for _, name, _ in one) == ["a", "b", "c"] for one in per_round)
    assert [{batch for _, _, batch in one} for one in per_round] == [{index % 4} for index in range(50)]
    orders = Counter("".join(name for _, name, _ in one) for one in per_round)
    assert len(orders) == 6
    assert all(log[index][1:] == log[index + 1][1:] for index in range(0, len(log), 2))  # load, then run


def test_a_batch_that_is_in_place_is_not_copied_again() -> None:
    log: list[tuple[str, str, int]] = []
    one_round = Interleaved({"a": Recorder("a", log, None)}, [[np.array([7])]], 0)
    for index in range(3):
        one_round(index)
    assert log == [("load", "a", 7), *[("run", "a", 7)] * 3]


def test_the_order_follows_the_seed() -> None:
    def order(seed: int) -> list[tuple[str, str, int]]:
        one_round, log = interleaved(seed=seed)
        collect(one_round, rounds(30), silent)
        return log

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_a_preloaded_model_keeps_its_own_input() -> None:
    one_round, log = interleaved(preloaded="b")
    one_round(0)
    assert ("load", "b", 0) not in log
    assert ("run", "b", -1) in log


def test_a_sample_is_the_difference_of_the_two_readings_around_the_run() -> None:
    log: list[str] = []
    readings = iter([100, 107, 200, 213])

    def read() -> int:
        log.append("read")
        return next(readings)

    one_round, calls = interleaved("a", read=read)
    assert [one_round(0), one_round(1)] == [{"a": 7}, {"a": 13}]
    assert [kind for kind, _, _ in calls] == ["load", "run"] * 2
    assert len(log) == 4


@pytest.mark.parametrize(
    ("readings", "message"),
    [([100, 90], "while 'a' ran, the clock went backwards by 10 ns"), ([100, 100], "'a' took no time")],
)
def test_a_clock_that_cannot_time_is_an_error(readings: list[int], message: str) -> None:
    source = iter(readings)
    one_round, _ = interleaved("a", read=lambda: next(source))
    with pytest.raises(AgentError, match=message):
        one_round(0)


@pytest.mark.parametrize(("own_ns", "taken_ns"), [(80, 80), (99, 99), (100, 100), (101, 100), (0, 100), (-5, 100)])
def test_a_runtime_s_own_reading_counts_if_it_can_be_true(own_ns: int, taken_ns: int) -> None:
    source = iter([1000, 1100])
    one_round, _ = interleaved("a", own_ns=own_ns, read=lambda: next(source))
    assert one_round(0) == {"a": taken_ns}


def test_both_minima_are_reached_and_the_cap_wins() -> None:
    long = collect(interleaved("a")[0], Limits(0, 0.0, 1, 0.05, 60.0), silent)["a"]
    assert len(long) > 10  # the run itself takes microseconds: the seconds decide
    capped = collect(interleaved("a")[0], Limits(0, 0.0, 10**9, 0.0, 0.05), silent)["a"]
    assert 0 < len(capped) < 10**9


def test_nothing_is_collected_while_timing() -> None:
    with undisturbed():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError), undisturbed():
        raise KeyError
    assert gc.isenabled()


def test_three_windows_within_five_percent_are_steady() -> None:
    assert not steady([1.0, 1.0])
    assert steady([1.0, 1.049, 1.02])
    assert not steady([1.0, 1.051, 1.02])
    assert steady([9.0, 1.0, 1.0, 1.0])  # only the last three count
    assert not steady([9.0, 1.0, 1.0])


class Machine:
    """A round takes as long as ``durations`` say, by a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **durations: Iterator[float]) -> None:
        self.now, self.durations = 0.0, durations
        monkeypatch.setattr("edgeopt.agent.timer.perf_counter", lambda: self.now)

    def __call__(self, index: int) -> dict[str, float]:
        took = {name: next(series) for name, series in self.durations.items()}
        self.now += sum(took.values())
        return took


def test_warming_up_lasts_until_every_series_is_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    falling = itertools.chain((0.02 * 0.99**i for i in range(300)), itertools.repeat(0.02 * 0.99**300))
    machine = Machine(monkeypatch, a=itertools.repeat(0.001), b=falling)
    result = warm_up(machine, list(machine.durations), Limits(0, 0.0, 1, 0.0, 60.0, warmup_max_seconds=1e6), float)
    assert result.steady
    assert result.unsteady == ()
    assert result.rounds > 300  # 10 rounds change by 10 % as long as it falls
    assert result.seconds == pytest.approx(machine.now)


def test_a_disturbed_minority_of_runs_does_not_prolong_it(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    noisy = (1 / 64 if random.random() > 0.3 else 1 / 16 for _ in itertools.count())
    result = warm_up(Machine(monkeypatch, a=noisy), "a", Limits(0, 0.0, 1, 0.0, 60.0), float)
    assert (result.steady, result.rounds) == (True, 30)


def test_what_never_becomes_steady_is_capped_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    swinging = (0.01 if index // 15 % 2 else 0.02 for index in itertools.count())
    machine = Machine(monkeypatch, a=itertools.repeat(0.001), b=swinging)
    result = warm_up(machine, list(machine.durations), Limits(0, 0.0, 1, 0.0, 60.0, warmup_max_seconds=5.0), float)
    assert not result.steady
    assert result.unsteady == ("b",)
    assert 5.0 <= result.seconds < 5.1


def test_series_that_are_not_named_need_not_be_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    swinging = (1 / 64 if index // 15 % 2 else 1 / 32 for index in itertools.count())
    machine = Machine(monkeypatch, a=itertools.repeat(1 / 64), b=swinging)
    result = warm_up(machine, ["a"], Limits(0, 0.0, 1, 0.0, 60.0), float)
    assert (result.steady, result.unsteady) == (True, ())


def test_the_minima_of_warming_up_hold_and_its_cap_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    def rounds_of(limits: Limits) -> int:
        return warm_up(Machine(monkeypatch, a=itertools.repeat(1 / 64)), "a", limits, float).rounds

    assert rounds_of(Limits(0, 0.0, 1, 0.0, 60.0)) == 30
    assert rounds_of(Limits(77, 0.0, 1, 0.0, 60.0)) == 77
    assert rounds_of(Limits(0, 2.0, 1, 0.0, 60.0)) == 128
    assert rounds_of(Limits(10**9, 0.0, 1, 0.0, 60.0, warmup_max_seconds=1.0)) == 64


def test_slow_models_need_three_rounds_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    result = warm_up(Machine(monkeypatch, a=itertools.repeat(0.5)), "a", Limits(0, 0.0, 1, 0.0, 60.0), float)
    assert (result.rounds, result.steady) == (9, True)


def test_the_clock_is_described() -> None:
    ticks = itertools.chain.from_iterable(itertools.repeat(value, 4) for value in itertools.count(0, 1000))
    coarse = measure_clock(lambda: next(ticks))
    assert (coarse.step_ns, coarse.overhead_ns) == (1000, 0)
    assert coarse.name
    real = measure_clock()
    assert real.step_ns >= real.resolution_ns >= 1
    falling = itertools.count(10**9, -1)
    with pytest.raises(AgentError, match="the clock went backwards by 1 ns"):
        measure_clock(lambda: next(falling))
