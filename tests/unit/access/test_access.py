from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt.access import Agent, Limits
from edgeopt.access.channel import Channel, End
from edgeopt.agent import PROTOCOL
from edgeopt.errors import StageError


def agent(replies: bytes, stopped: list[bool] | None = None) -> Agent:
    def stop(at_once: bool) -> End:
        (stopped if stopped is not None else []).append(at_once)
        return End(1, "out of memory")

    return Agent(Channel(io.BytesIO(), io.BytesIO(replies), name="board", stop=stop))


HELLO = b'{"hello": "edgeopt-agent", "protocol": %d, "tensors": []}\n' % PROTOCOL
MEMORY = b'{"ok": true, "peak_mib": 2.0, "current_mib": 1.0, "tensors": []}\n'


def test_a_banner_before_the_hello_is_skipped() -> None:
    assert agent(b"Welcome to board!\n{}\nno end of line:" + HELLO + MEMORY).memory().peak_mib == 2.0


def test_another_protocol_is_refused() -> None:
    with pytest.raises(StageError, match=r"board: .*it speaks version 99"):
        agent(HELLO.replace(b": %d" % PROTOCOL, b": 99")).memory()


def test_who_never_says_hello_is_refused() -> None:
    with pytest.raises(StageError, match="never said hello"):
        agent(b"spam\n" * 2000).memory()


def test_a_refusal_names_the_agent_the_verb_and_the_kind() -> None:
    stopped: list[bool] = []
    refusing = agent(HELLO + b'{"ok": false, "error": {"type": "Oops", "what": "too hot"}, "tensors": []}\n', stopped)
    with pytest.raises(StageError, match=r"board: memory: too hot \(Oops\)"):
        refusing.memory()
    assert stopped == []  # an agent that refuses is still good
    own = agent(HELLO + b'{"ok": false, "error": {"type": "AgentError", "what": "hot", "fix": "fan"}, "tensors": []}\n')
    with pytest.raises(StageError, match=r"^board: memory: hot\n  fix: fan$"):
        own.memory()


@pytest.mark.parametrize("replies", [b"", HELLO, HELLO + MEMORY[:20]])
def test_the_end_of_the_stream_is_the_end_of_the_agent(replies: bytes) -> None:
    stopped: list[bool] = []
    with pytest.raises(StageError, match="died during 'memory'; it last wrote:\nout of memory"):
        agent(replies, stopped).memory()
    assert stopped == [False]  # it may still have to say why


def test_nonsense_in_the_stream_stops_the_agent() -> None:
    stopped: list[bool] = []
    with pytest.raises(StageError, match="not a message"):
        agent(HELLO + b"segfault incoming\n", stopped).memory()
    assert stopped == [True]


def test_progress_is_passed_on_and_its_errors_are_not_swallowed() -> None:
    told = b'{"progress": {"done": 1, "total": 2}, "tensors": []}\n'
    seen: list[object] = []
    done = b'{"ok": true, "tensors": []}\n'
    agent(HELLO + told + told + done).infer("m", [np.zeros(2)], progress=seen.append)
    assert seen == [{"done": 1, "total": 2}] * 2

    def broken(_: object) -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        agent(HELLO + told + done).infer("m", [np.zeros(2)], progress=broken)


def answering(*replies: Any) -> Agent:
    return agent(
        HELLO + b"".join(json.dumps({"ok": True, "tensors": [], **reply}).encode() + b"\n" for reply in replies)
    )


MACHINE = {"cpu": "c", "flags": [], "cores": 1, "memory_mib": 1, "system": "Linux", "cpus": [], "rails": []}
FACTS = {"version": "1", "python": "3", "pid": 1, "machine": MACHINE, "runtimes": {}, "missing": {}}
LIMITS = Limits(warmup_runs=1, warmup_seconds=0, min_runs=1, min_seconds=0, max_seconds=1)
X = [np.zeros(2)]
SERIES = {"tensors": [{"dtype": "<i8", "shape": [0]}]}
PACED = {
    "names": ["m"],
    "call_overhead": [],
    "first_inference_ns": {"m": 1},
    "seconds": 1.0,
    "warmup": {"steady": True, "rounds": 1, "seconds": 0.1, "unsteady": []},
    "clock": {"name": "c", "resolution_ns": 1, "step_ns": 1, "overhead_ns": 1},
    "before": {"at_s": 0.0},
    "after": {"at_s": 1.0},
}


def timed(one: Agent) -> object:
    return one.time(["m"], X, LIMITS, seed=0)


@pytest.mark.parametrize(
    ("ask", "good", "bad"),
    [
        (Agent.probe, FACTS, {"machine": []}),
        (Agent.probe, FACTS, {"machine": {**MACHINE, "cores": "many"}}),
        (Agent.probe, FACTS, {"machine": {**MACHINE, "rails": [1]}}),
        (Agent.probe, FACTS, {"machine": {**MACHINE, "cpu": None}}),
        (Agent.probe, FACTS, {"runtimes": {"onnxruntime": None}}),
        (Agent.probe, FACTS, {"missing": ["openvino"]}),
        (Agent.memory, {"peak_mib": None, "current_mib": 1}, {"peak_mib": "much"}),
        (lambda one: one.open("m", "r", "f"), {"inputs": [], "outputs": [], "load_ms": 1, "threads": 1, "settings": {}},
         {"inputs": [{"name": "x"}]}),
        (lambda one: one.layers("m", X), {"layers": []}, {"layers": [{"name": "x"}]}),
        (lambda one: one.layers("m", X), {"layers": []}, {"layers": None}),
        (lambda one: one.runtime_memory("m", X), {"peak_mib": 1.5, "what": "arena"}, {"what": 1}),
        (lambda one: one.energy(["m"], X, seed=0), {"why": "no counters"}, {"why": ""}),
        (lambda one: one.build("t", {}, {}, limit_s=9), {"facts": {}, "files": []}, {"facts": 1}),
        (lambda one: one.build("t", {}, {}, limit_s=9), {"facts": {}, "files": []}, {"files": ["a"]}),
        (timed, {**PACED, **SERIES}, {"warmup": 1}),
        (timed, {**PACED, **SERIES}, {"names": ["other"]}),
        (timed, {**PACED, **SERIES}, {"seconds": "long"}),
        (timed, {**PACED, **SERIES}, {"tensors": []}),
        (timed, {**PACED, **SERIES}, {"tensors": [{"dtype": "<f8", "shape": [0]}]}),
        (timed, {**PACED, **SERIES}, {"tensors": [{"dtype": "<i8", "shape": [0, 1]}]}),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_told_plainly(ask: Callable[[Agent], object], good: Any, bad: Any) -> None:
    ask(answering(good))
    for wrong in ({**good, **bad}, {}):
        with pytest.raises(StageError, match=r"board: .*the device answered what is not an answer"):
            ask(answering(wrong))


@pytest.mark.parametrize("reply", [{"ok": False}, {"ok": False, "error": 1}, {"ok": False, "error": {"what": "x"}}])
def test_a_refusal_that_is_none(reply: Any) -> None:
    with pytest.raises(StageError, match="not an answer"):
        answering(reply).memory()


@pytest.mark.parametrize("progress", [1, None, "x", []])
def test_progress_that_is_none(progress: Any) -> None:
    with pytest.raises(StageError, match="progress that is none"):
        answering({"progress": progress}).memory()


@pytest.mark.parametrize("depth", [300, 700, 100_000])
def test_an_answer_that_is_nested_deep(depth: int) -> None:
    with pytest.raises(StageError):
        agent(HELLO + b'{"a": ' + b"[" * depth + b"]" * depth + b', "tensors": []}\n').memory()


def test_more_bytes_than_anything_has_are_not_read() -> None:
    with pytest.raises(StageError, match=r"a message of 1862645\.1 GiB"):
        answering({"tensors": [{"dtype": "<i8", "shape": [10**5, 10**9 * 5 // 2]}]}).memory()


ESCAPES = "\x1b]0;pwned\x07\x1b[2J\x9b31m\rfake"


def clean(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


def test_no_text_of_a_device_drives_the_terminal(tmp_path: Path) -> None:
    with pytest.raises(StageError) as caught:
        answering({"ok": False, "error": {"type": ESCAPES, "what": ESCAPES, "fix": ESCAPES}}).memory()
    assert clean(str(caught.value))
    assert "pwned" in caught.value.what
    with pytest.raises(StageError) as caught:
        answering({"peak_mib": ESCAPES, "current_mib": 1}).memory()
    assert clean(str(caught.value))
    last = Agent(Channel(io.BytesIO(), io.BytesIO(), name="board", stop=lambda at_once: End(1, ESCAPES + "\nend")))
    with pytest.raises(StageError, match="end") as caught:
        last.memory()
    assert clean(str(caught.value))
    facts = answering({**FACTS, "machine": {**MACHINE, "cpu": ESCAPES}, "missing": {ESCAPES: ESCAPES}}).probe()
    assert clean(str(facts.machine) + "".join(facts.missing) + "".join(facts.missing.values()))
    notes: list[str] = []
    answering({"progress": {"note": ESCAPES}}, {"facts": {}, "files": []}).build(
        "t", {}, {}, limit_s=9, progress=notes.append
    )
    assert len(notes) == 1
    assert clean(notes[0])
