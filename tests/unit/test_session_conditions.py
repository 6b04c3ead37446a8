"""How a session was timed, as runtimes and devices tell it: mixed stamps are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeopt.access import Condition
from edgeopt.errors import StageError
from edgeopt.measure import Candidate
from edgeopt.protocol import Protocol
from edgeopt.session import Session, _conditions
from edgeopt.sessions import Schedule, Sessions

GRAPH: dict[str, Any] = {"transfers": False, "cuda_graph": True, "others": ["spin wait", "weakly typed"]}
BOARD = Condition(0.0, power_mode="15W", clocks_locked=True)


def stamps(**conditions: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {"conditions": said} if said else {} for name, said in conditions.items()}


def test_runtimes_that_say_nothing_have_no_conditions() -> None:
    assert _conditions(stamps(a={}, b={}), Condition(0.0)) == {
        "transfers": False,
        "cuda_graph": False,
        "power_mode": "",
        "conditions": (),
    }


def test_a_board_and_its_runtime_are_stamped() -> None:
    assert _conditions(stamps(a=GRAPH, b=GRAPH), BOARD) == {
        "transfers": False,
        "cuda_graph": True,
        "power_mode": "15W",
        "conditions": ("clocks locked", "spin wait", "weakly typed"),
    }
    free = _conditions(stamps(a=GRAPH), replace(BOARD, clocks_locked=False))
    assert "clocks not locked" in free["conditions"]


@pytest.mark.parametrize(
    "other", [{**GRAPH, "cuda_graph": False}, {**GRAPH, "others": ["spin wait", "strongly typed"]}, {}]
)
def test_candidates_of_one_session_share_them(other: dict[str, Any]) -> None:
    with pytest.raises(StageError, match="float and int8 would be timed under different conditions"):
        _conditions(stamps(float=GRAPH, int8=other), BOARD)


class _Agent:
    """Gives planned sessions: nothing runs."""

    def __init__(self, session: Session) -> None:
        self.session = session


def test_a_device_that_changes_between_sessions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeopt.sessions.time_session", lambda agent, *rest: agent.session)
    schedule = Schedule(1.0, 4.0, (4,))
    timed = Sessions([Candidate("a", "tensorrt", "a.engine")], Protocol(), schedule, "board")
    series = {name: np.full(30, 1000, np.int64) for name in ("a", "a (again)")}
    one = dict.fromkeys(series, None)
    session = Session(series, series, one, one, {}, BOARD, BOARD, (), "clock", 1.0, _conditions(stamps(a=GRAPH), BOARD))
    timed.add(_Agent(session), [], 0)  # type: ignore[arg-type]
    assert (timed.protocol.power_mode, timed.protocol.cuda_graph) == ("15W", True)
    assert timed.protocol.conditions == ("clocks locked", "spin wait", "weakly typed")
    timed.add(_Agent(session), [], 0)  # type: ignore[arg-type]
    found = {m.metric: m for m in timed.measurements("a")}
    assert found["load_ms"].value is None
    assert found["load_ms"].why == "the device's tool does not tell"
    hot = replace(session, conditions={**session.conditions, "power_mode": "7W"})
    with pytest.raises(StageError, match=r"the device changed between two sessions: .*15W.*7W"):
        timed.add(_Agent(hot), [], 0)  # type: ignore[arg-type]
