"""Events are frozen data, one JSON line each, and go to every sink in order."""

from __future__ import annotations

import dataclasses
import json

import pytest

from edgeopt import events
from edgeopt.events import Event, fan_out

EXAMPLES = [
    (
        events.RunStarted(
            time=1.5,
            recipe="digits",
            targets=("cpu", "gpu"),
            steps=(("load", "load"), ("a:b", "prune")),
            needs={"cpu": ("load",), "gpu": ("load", "a:b")},
        ),
        "digits: 2 steps for cpu, gpu",
    ),
    (events.StepStarted(time=1.0, step="prune", why="not done before"), "prune: started (not done before)"),
    (
        events.StepProgress(
            time=1.0, step="distill", done=3.0, total=12.0, unit="epochs", note="loss 0.1", seconds_left=71.6
        ),
        "distill: 3/12 epochs, 72 s left  loss 0.1",
    ),
    (events.StepProgress(time=1.0, step="x", done=0.5, total=2.0, unit="s"), "x: 0.5/2 s"),
    (events.StepCached(time=1.0, step="prune"), "prune: cached"),
    (events.StepFinished(time=1.0, step="prune", seconds=2.04, summary="half"), "prune: done in 2.0 s  half"),
    (events.StepFinished(time=1.0, step="prune", seconds=2.04), "prune: done in 2.0 s"),
    (events.StepFailed(time=1.0, step="prune", error="naïve"), "prune: FAILED: naïve"),
    (events.NoteTaken(time=1.0, step="prune", note="head is kept"), "prune: note: head is kept"),
    (
        events.Measured(
            time=1.0,
            step="measure:cpu",
            candidate="a",
            metric="latency_p99_ms",
            value=1.23456,
            interval=(1.0, None),
            unit="ms",
        ),
        "measure:cpu: a: latency_p99_ms 1.235 ms",
    ),
    (
        events.Measured(
            time=1.0, step="measure:cpu", candidate="a", metric="latency_p99_ms", value=None, interval=None, unit="ms"
        ),
        "measure:cpu: a: latency_p99_ms not measured",
    ),
    (events.Shipped(time=1.0, target="cpu", candidate="a", reason="fastest"), "cpu: ships a: fastest"),
    (
        events.GateDecided(time=1.0, target="cpu", gate="top1 min", outcome="not_measured", why="why"),
        "cpu: top1 min: NOT_MEASURED: why",
    ),
    (events.RunFinished(time=1.0, outcome="pass", exit_code=0, seconds=61.25), "finished in 61.2 s: pass (exit 0)"),
]


def kinds(base: type[Event] = Event) -> set[type[Event]]:
    found = {base} if "kind" in vars(base) and base is not Event else set()
    return found.union(*(kinds(child) for child in base.__subclasses__()))


def test_there_is_an_example_of_every_kind():
    assert {type(event) for event, _ in EXAMPLES} == kinds()
    assert len({kind.kind for kind in kinds()}) == len(kinds())


@pytest.mark.parametrize(("event", "line"), EXAMPLES, ids=lambda value: getattr(value, "kind", ""))
def test_an_event_is_one_line_of_text_and_one_of_json(event, line):
    assert event.describe() == line
    text = event.to_json()
    assert "\n" not in text
    fields = json.loads(text)
    assert fields.pop("event") == event.kind
    assert fields == json.loads(json.dumps(dataclasses.asdict(event)))


def test_a_line_break_in_a_message_does_not_break_the_json_line():
    event = events.StepFailed(time=1.0, step="prune", error="one\ntwo")
    assert "\n" not in event.to_json()
    assert json.loads(event.to_json())["error"] == "one\ntwo"


def test_events_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        EXAMPLES[0][0].time = 2.0  # type: ignore[misc]


def test_every_sink_hears_everything_in_order():
    heard: list[tuple[str, Event]] = []
    send = fan_out(lambda e: heard.append(("first", e)), lambda e: heard.append(("second", e)))
    a, b = EXAMPLES[1][0], EXAMPLES[2][0]
    send(a)
    send(b)
    assert heard == [("first", a), ("second", a), ("first", b), ("second", b)]
    fan_out()(a)
