from __future__ import annotations

import io

from edgeopt.console import plain_sink
from edgeopt.console.lines import writable
from edgeopt.events import (
    Event,
    Measured,
    NoteTaken,
    RunFinished,
    Shipped,
    StepCached,
    StepFailed,
    StepFinished,
    StepProgress,
    StepStarted,
)


def _written(*events: Event) -> list[str]:
    stream = io.StringIO()
    sink = plain_sink(stream)
    for event in events:
        sink(event)
    return stream.getvalue().splitlines()


def _progress(step: str, time: float) -> StepProgress:
    return StepProgress(time=time, step=step, done=time, total=60, unit="s")


def _measured(candidate: str, metric: str, value: float | None, unit: str = "ms") -> Measured:
    return Measured(
        time=1, step="measure:cpu", candidate=candidate, metric=metric, value=value, interval=None, unit=unit
    )


def test_each_event_that_deserves_one_has_a_line():
    assert _written(
        StepCached(time=0, step="load"),
        StepStarted(time=0, step="prune", why="not done before"),
        NoteTaken(time=1, step="prune", note="the head is protected"),
        StepFinished(time=2, step="prune", seconds=2),
        RunFinished(time=3, outcome="pass", exit_code=0, seconds=3),
        Event(time=4),
    ) == [
        "load: cached",
        "prune: started (not done before)",
        "prune: note: the head is protected",
        "prune: done in 2.0 s",
        "finished in 3.0 s: pass (exit 0)",
    ]


def test_progress_is_thinned_per_step_by_the_time_of_the_events():
    started = [StepStarted(time=0, step=step, why="x") for step in ("a", "b")]
    events = [_progress(step, tenth / 10) for tenth in range(200) for step in ("a", "b")]
    lines = _written(*started, *events)[2:]
    assert lines == [f"{step}: {second}/60 s" for second in (5, 10, 15) for step in ("a", "b")]


def test_a_step_that_is_done_soon_says_nothing_in_between():
    lines = _written(StepStarted(time=0, step="a", why="x"), *(_progress("a", t / 10) for t in range(49)))
    assert len(lines) == 1


def test_the_measurements_of_one_candidate_are_one_line():
    assert _written(
        _measured("a", "latency_p50_ms", 0.4123),
        _measured("a", "latency_ratio", 0.618, "1"),
        _measured("b", "latency_p50_ms", None),
        Shipped(time=2, target="cpu", candidate="a", reason="it is faster"),
    ) == [
        "measure:cpu: a: latency_p50_ms 0.412 ms, latency_ratio 0.62×",
        "measure:cpu: b: latency_p50_ms not measured",
        "cpu: ships a: it is faster",
    ]


def test_one_event_is_never_two_lines_nor_an_escape_sequence():
    (line,) = _written(StepFailed(time=0, step="a", error="no\x1b[2J such file\n  fix: make it"))
    assert line == "a: FAILED: no\ufffd[2J such file; fix: make it"


def test_a_stream_that_cannot_write_a_sign_gets_it_in_ascii():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    plain_sink(stream)(NoteTaken(time=0, step="a", note="0.62× ≤ 0.8, naïve"))
    assert raw.getvalue() == b"a: note: 0.62x <= 0.8, na?ve\n"
    assert writable("0.62×", io.StringIO()) == "0.62×"
