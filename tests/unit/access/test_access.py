from __future__ import annotations

import io

import numpy as np
import pytest

from edgeopt.access import Agent
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
