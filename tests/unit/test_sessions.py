"""Sessions on planted and on real timings: schedule, intervals, what is compared and what is called a difference."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.access import Agent, Condition, local
from edgeopt.errors import StageError
from edgeopt.measure import Candidate, Measurement
from edgeopt.noise import NoiseFloor
from edgeopt.protocol import Protocol
from edgeopt.session import Session, inputs_digest
from edgeopt.sessions import LATENCY_LEVEL, RATIO_LEVEL, Schedule, Sessions, outcome, sample
from edgeopt.statistics import samples_needed
from tests.onnx_chains import chain

PROTOCOL = Protocol(percentile=90, min_runs=1, warmup_seconds=0.05, warmup_runs=5, warmup_max_seconds=0.5)
ONCE = Schedule.of(0.4, 0.4)


def planted(ratios: list[float], *, copies: list[float] | None = None, rounds: int = 50) -> Sessions:
    """Sessions of a and b with 1 ms times what is planted; no noise within a session."""
    made = Sessions([Candidate("a", "r", "a"), Candidate("b", "r", "b")], PROTOCOL, Schedule.of(1, 5), "here")
    base = np.linspace(1e6, 2e6, rounds)
    for index, ratio in enumerate(ratios):
        pace = {"a": base, "b": base * ratio, "a (again)": base * (copies[index] if copies else 1.0)}
        nanoseconds = {name: values.astype(np.int64) for name, values in pace.items()}
        one = dict.fromkeys(("a", "b"), 1.0)
        at = Condition(at_s=0.0)
        made.done.append(Session(nanoseconds, nanoseconds, one, one, {}, at, at, (), "planted", 1.0))
    return made


@given(st.floats(0.01, 100), st.floats(0.01, 1000))
def test_the_levels_of_all_looks_sum_up_to_the_level(min_seconds: float, max_seconds: float) -> None:
    schedule = Schedule.of(min_seconds, max_seconds)
    looks = len(schedule.looks)
    assert looks * (1 - schedule.ratio_confidence) == pytest.approx(RATIO_LEVEL)
    assert looks * (1 - schedule.latency_confidence) == pytest.approx(LATENCY_LEVEL)
    assert list(schedule.looks) == sorted({*schedule.looks})
    assert schedule.looks[0] == 4
    assert schedule.looks[0] * schedule.session_seconds == pytest.approx(min_seconds)
    assert schedule.looks[-1] * schedule.session_seconds <= max(min_seconds, max_seconds) * (1 + 1e-6)


def test_the_usual_schedule() -> None:
    assert Schedule.of(2, 10) == Schedule(0.5, 10, (4, 6, 10, 20))
    assert Schedule.of(2, 2) == Schedule(0.5, 2, (4,))
    assert Schedule.of(2, 1).max_seconds == 2


@pytest.mark.parametrize(
    ("ratios", "outcome"),
    [
        ([1.05, 1.051, 1.05, 1.049], "slower"),
        ([0.95, 0.951, 0.95, 0.949], "faster"),
        ([1.001, 0.999, 1.0, 1.0], "same"),
        ([1.05, 1.05, 1.05, 0.98], "undecided"),
        ([1.005, 1.005, 1.005, 1.005], "same"),  # surely slower, but by less than is worth the word
        ([1.05, 1.05], "undecided"),
    ],
)
def test_what_is_called_a_difference(ratios: list[float], outcome: str) -> None:
    made = planted(ratios)
    assert made.outcome(made.ratio("b", "a")) == outcome


def test_a_ratio_is_what_the_sessions_agree_on() -> None:
    made = planted([1.0, 1.1, 1.21])
    ratio = made.ratio("b", "a")
    assert ratio.value == pytest.approx(1.1, rel=1e-5)
    assert ratio.confidence == 1 - 0.01 / 4
    assert ratio.n == 150
    low, high = ratio.interval or (None, None)
    assert low is not None
    assert high is not None
    assert low * high == pytest.approx(1.21, rel=1e-4)
    assert made.ratio("a", "a").interval == (1.0, 1.0)
    assert made.ratio_p10("b", "a").value == pytest.approx(1.1, rel=1e-5)
    few = planted([1.0, 1.1]).ratio("b", "a")
    assert (few.value, few.why) == (None, "2 sessions are too few for an interval")


def test_copies_that_disagree_far_more_than_usual_disturb() -> None:
    made = planted([1.0] * 4, copies=[1.1, 0.9, 1.0, 1.0])
    assert made.disturbed() == ()
    made.floor = NoiseFloor(Path("nowhere"), (0.01, 0.01, 0.01))
    assert "two copies of one model differed by ±8.2%" in made.disturbed()[0]
    made.floor = NoiseFloor(Path("nowhere"), (0.08, 0.08, 0.08))
    assert made.disturbed() == ()
    assert made.smallest_effect == 0.08


def test_percentiles_need_their_samples() -> None:
    made = planted([1.0] * 4, rounds=12)
    values = {m.metric: m for m in made.measurements("a")}
    p99 = values["latency_p99_ms"]
    needed = samples_needed(0.99, made.schedule.latency_confidence)
    assert p99.value is None
    assert p99.why == f"48 samples; p99 needs {needed}"
    assert values["latency_p50_ms"].value is not None


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> list[Candidate]:
    folder = tmp_path_factory.mktemp("chains")
    return [
        Candidate("small", "onnxruntime", str(chain(folder / "small.onnx", 1))),
        Candidate("large", "openvino", str(chain(folder / "large.onnx", 40))),
    ]


INPUTS = [np.ones((4, 256), np.float32)]


def test_real_candidates_are_timed_until_the_look_decides(candidates: list[Candidate], tmp_path: Path) -> None:
    made = Sessions(candidates, PROTOCOL, Schedule.of(0.2, 0.6), "here", NoiseFloor(tmp_path / "n.json", ()))
    seen: list[int] = []
    sample(local.start, made, INPUTS, seed=0, decided=lambda: seen.append(len(made.done)) or len(seen) == 2)
    assert seen == [4, 6]
    assert len(made.rounds()) == 6
    assert made.pace_ns("small").shape == made.pace_ns("large").shape == (sum(made.rounds()),)
    assert made.outcome(made.ratio("small", "large")) == "faster"
    by_metric = {m.metric: m for m in made.measurements("small")}
    assert set(by_metric) == {"load_ms", "first_inference_ms", *(f"latency_p{p}_ms" for p in (50, 90, 99))}
    assert {m.protocol for m in by_metric.values()} == {made.described()["digest"]} == {made.protocol.digest()}
    assert by_metric["load_ms"].n == 6
    overhead, median = made.call_overhead("onnxruntime"), by_metric["latency_p50_ms"]
    assert overhead is not None
    assert overhead.value is not None
    assert median.value is not None
    assert 0 < overhead.value < median.value
    noise = made.noise()
    assert noise.value is not None
    assert 0.5 < noise.value < 2
    assert made.condition()["before"]["at_s"] < made.condition()["after"]["at_s"] or made.disturbed()
    assert (tmp_path / "n.json").exists() == (not made.disturbed() and made.spread() < 0.1)


def test_throughput_compares_the_time_per_sample(candidates: list[Candidate]) -> None:
    protocol = Protocol(percentile=90, min_runs=1, mode="throughput", streams=2, warmup_max_seconds=0.1)
    made = Sessions(candidates, protocol, ONCE, "here")
    sample(local.start, made, INPUTS, seed=0, decided=lambda: True)
    rate = {m.metric: m for m in made.measurements("small")}["throughput_per_s"]
    assert rate.better == "higher"
    median_ns = float(np.median(made.pace_ns("small")))
    if rate.value is not None:
        assert rate.value == pytest.approx(1e9 / median_ns, rel=0.5)
    assert made.outcome(made.ratio("small", "large")) in ("faster", "undecided")
    assert made.call_overhead("onnxruntime") is None


def test_a_candidate_that_does_not_open_is_a_stage_error(candidates: list[Candidate], tmp_path: Path) -> None:
    broken = Candidate("broken", "openvino", str(tmp_path / "nothing.xml"))
    with pytest.raises(StageError, match=r"nothing\.xml"):
        sample(local.start, Sessions([*candidates, broken], PROTOCOL, ONCE, "here"), INPUTS, seed=0, decided=bool)
    with pytest.raises(ValueError, match="unlike"):
        Sessions(candidates + candidates, PROTOCOL, ONCE, "here")


def test_an_agent_that_dies_in_a_session_leaves_its_last_words(candidates: list[Candidate]) -> None:
    pids: list[int] = []

    def connect() -> Agent:
        agent = local.start()
        pids.append(agent.probe().pid)
        return agent

    made = Sessions(candidates, PROTOCOL, Schedule.of(4, 4), "here")
    with pytest.raises(StageError, match=r"died during 'time'(.|\n)*SIGKILL"):
        sample(
            connect,
            made,
            INPUTS,
            seed=0,
            decided=lambda: True,
            progress=lambda *_: os.kill(pids[-1], signal.SIGKILL),
        )
    assert made.done == []


def test_the_digest_of_inputs_has_shape_dtype_and_values() -> None:
    arrays = [np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32), np.zeros((2, 3), np.int32)]
    digests = {inputs_digest([array]) for array in (*arrays, np.ones((2, 3), np.float32))}
    assert len(digests) == 4
    assert inputs_digest([arrays[0]]) == inputs_digest([arrays[0].copy()])


def test_zero_variance_is_a_number_like_any_other() -> None:
    made = planted([1.0, 1.0, 1.0, 1.0])
    for session in made.done:
        for name in session.latency_ns:
            session.latency_ns[name][:] = 1_000_000  # type: ignore[index]
    p50 = {m.metric: m for m in made.measurements("a")}["latency_p50_ms"]
    assert (p50.value, p50.interval) == (1.0, (1.0, 1.0))
    assert made.ratio("b", "a").interval == (1.0, 1.0)
    assert made.spread() == 0.0
    assert math.isfinite(made.smallest_effect)


def test_a_machine_that_is_too_noisy_shows_nothing_to_be_the_same() -> None:
    alike = Measurement("latency_ratio", 1.1, "1", "lower", (1.08, 1.12), 9, "measured", "", "")
    assert outcome(alike, 0.25) == "undecided"
    assert outcome(replace(alike, interval=(0.99, 1.02)), 0.25) == "same"
    assert outcome(replace(alike, interval=(1.3, 1.4)), 0.25) == "slower"
