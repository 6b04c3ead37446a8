from __future__ import annotations

import io

import pytest
from rich.console import Console

from edgeopt.console.live import _Screen, live_sink
from edgeopt.events import (
    NoteTaken,
    RunStarted,
    StepCached,
    StepFailed,
    StepFinished,
    StepProgress,
    StepStarted,
)

STEPS = (("prune", "prune"), ("distill", "distill"), ("evaluate:a", "evaluate"), ("evaluate:b", "evaluate"))


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)


def _drawn(screen: _Screen) -> str:
    """What stands at the bottom of the terminal now."""
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(screen)
    return console.file.getvalue()


@pytest.fixture
def screen(console) -> _Screen:
    screen = _Screen(console)
    screen.show(
        RunStarted(
            time=0,
            recipe="digits [red]",
            targets=("cpu",),
            steps=STEPS,
            needs={"cpu": tuple(step for step, _ in STEPS)},
        )
    )
    return screen


def test_the_whole_is_counted_by_step_and_by_target_and_stage(screen):
    screen.show(StepCached(time=1, step="prune"))
    screen.show(StepStarted(time=1, step="evaluate:a", why="x"))
    screen.show(StepFinished(time=2, step="evaluate:a", seconds=1))
    screen.show(StepFailed(time=2, step="distill", error="no"))
    text = _drawn(screen)
    assert "digits [red]" in text
    assert "3/4 steps" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["prune", "distill", "evaluate"] in rows
    assert ["cpu", "1/1", "1/1", "1/2"] in rows
    assert " left" in text


def test_a_running_step_has_its_amount_note_and_time_left(screen):
    screen.show(StepStarted(time=1, step="distill", why="x"))
    screen.show(
        StepProgress(time=2, step="distill", done=3, total=12, unit="epochs", note="loss 0.1 [b]", seconds_left=75)
    )
    text = _drawn(screen)
    for part in ("distill", "3/12 epochs", "loss 0.1 [b]", "1 min 15 s left"):
        assert part in text
    screen.show(StepFinished(time=3, step="distill", seconds=2))
    assert "epochs" not in _drawn(screen)


def test_progress_without_a_total_or_a_start_is_shown_without_numbers(screen):
    screen.show(StepProgress(time=2, step="measure:cpu", done=0, total=0, unit="s", note="memory", seconds_left=0))
    text = _drawn(screen)
    assert "memory" in text
    assert "0/0" not in text
    assert "s left" not in text


def test_finished_steps_and_notes_leave_a_line_and_the_rest_vanishes(console):
    with live_sink(console) as sink:
        sink(
            RunStarted(
                time=0, recipe="digits", targets=("cpu",), steps=STEPS, needs={"cpu": tuple(step for step, _ in STEPS)}
            )
        )
        sink(StepStarted(time=0, step="prune", why="not done before"))
        sink(NoteTaken(time=1, step="prune", note="[bold] is protected"))
        sink(StepFinished(time=2, step="prune", seconds=2, summary="macs 0.50"))
    lines = [line.split("\r")[-1] for line in console.file.getvalue().splitlines()]
    kept = [line for line in lines if line.endswith(("macs 0.50", "is protected"))]
    assert len(kept) == 2
    assert not any("started (not done" in line for line in lines)
    assert console.file.getvalue().endswith("\x1b[?25h") or "\x1b[?25h" in console.file.getvalue()


def test_an_exception_inside_gives_the_terminal_back(console):
    with pytest.raises(KeyboardInterrupt), live_sink(console):
        raise KeyboardInterrupt
    assert "\x1b[?25h" in console.file.getvalue()  # the cursor is shown again
