"""Live progress on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from edgeopt.console.lines import Lines
from edgeopt.events import (
    Event,
    RunFinished,
    RunStarted,
    Sink,
    StepCached,
    StepEvent,
    StepFailed,
    StepFinished,
    StepProgress,
    StepStarted,
)
from edgeopt.report.wording import clean, seconds

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID
    from rich.table import Table

_ENDS = (StepCached, StepFinished, StepFailed)
_REFRESHES_PER_SECOND = 8


@contextlib.contextmanager
def live_sink(console: Console) -> Iterator[Sink]:
    """A sink that keeps the state of the run at the bottom of the terminal and leaves one line per finished step above.

    At the bottom: for each running step a bar, its note and its time left; targets × stages with the steps done of all;
    and the whole, with the time passed and an estimate of what is left.
    """
    from rich.live import Live

    screen = _Screen(console)
    with Live(screen, console=console, refresh_per_second=_REFRESHES_PER_SECOND, transient=True):
        yield screen.show


class _Screen:
    """What the terminal shows now; Rich draws it through ``__rich__``."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.table import Column

        self._console = console
        self._lines = Lines()
        self._stage_of: dict[str, str] = {}
        self._needs: Mapping[str, tuple[str, ...]] = {}
        self._done: set[str] = set()
        self._worked: list[float] = []
        self._seconds_left: dict[str, float] = {}
        self._overall = Progress(
            TextColumn("{task.description}", markup=False, style="bold"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:g}/{task.total:g} steps"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            expand=True,
        )
        self._steps = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False, table_column=Column(ratio=2, no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            TextColumn("{task.fields[amount]}", markup=False, table_column=Column(no_wrap=True)),
            TextColumn(
                "{task.fields[note]}",
                markup=False,
                style="dim",
                table_column=Column(ratio=2, no_wrap=True, overflow="ellipsis"),
            ),
            TextColumn("{task.fields[left]}", markup=False, table_column=Column(no_wrap=True)),
            console=console,
            expand=True,
        )
        self._run: TaskID | None = None
        self._running: dict[str, TaskID] = {}

    def show(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case RunStarted():
                self._start(event)
            case StepStarted():
                self._step(event)
            case StepProgress():
                self._advance(event)
            case _:
                self._print(event)
        if isinstance(event, _ENDS):
            self._end(event)

    def __rich__(self) -> Any:
        from rich.console import Group

        if self._run is not None:
            self._overall.update(self._run, left=self._time_left())
        return Group(*(part for part in (self._steps, self._matrix(), self._overall) if part))

    def _start(self, event: RunStarted) -> None:
        self._print(event)
        self._stage_of = dict(event.steps)
        self._needs = event.needs
        self._run = self._overall.add_task(clean(event.recipe), total=len(event.steps), left="")

    def _step(self, event: StepStarted) -> TaskID:
        if event.step not in self._running:
            task = self._steps.add_task(clean(event.step), total=None, amount="", note="", left="")
            self._running[event.step] = task
        return self._running[event.step]

    def _advance(self, event: StepProgress) -> None:
        task = self._step(StepStarted(time=event.time, step=event.step, why=""))
        known = event.total > 0
        self._seconds_left[event.step] = max(0.0, event.seconds_left or 0.0)
        self._steps.update(
            task,
            completed=event.done if known else 0,
            total=event.total if known else None,
            amount=f"{event.done:.4g}/{event.total:.4g} {event.unit}" if known else "",
            note=clean(event.note),
            left=f"{seconds(event.seconds_left)} left" if event.seconds_left and event.seconds_left > 0 else "",
        )

    def _end(self, event: StepEvent) -> None:
        task = self._running.pop(event.step, None)
        if task is not None:
            self._steps.remove_task(task)
        self._done.add(event.step)
        self._seconds_left.pop(event.step, None)
        if isinstance(event, StepFinished):
            self._worked.append(event.seconds)
        if self._run is not None:
            self._overall.update(self._run, completed=len(self._done))

    def _time_left(self) -> str:
        """Of the whole run: what the running steps say, and for those to come the mean of those that had to work."""
        running = sum(list(self._seconds_left.values()))  # Rich draws in another thread
        waiting = len(self._stage_of) - len(self._done) - len(self._running)
        if not self._worked:
            return f"at least {seconds(running)} left" if running else ""
        return f"about {seconds(running + waiting * sum(self._worked) / len(self._worked))} left"

    def _matrix(self) -> Table | None:
        """Targets × stages: done and total of the steps that each target needs, shared ones included."""
        from rich.table import Table
        from rich.text import Text

        if not self._needs:
            return None
        stages = list(dict.fromkeys(self._stage_of.values()))
        running = set(self._running)  # Rich draws in another thread
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("", no_wrap=True)
        for stage in stages:
            table.add_column(stage, justify="right", no_wrap=True)
        for target, steps in self._needs.items():
            cells = []
            for stage in stages:
                own = [step for step in steps if self._stage_of.get(step) == stage]
                done = sum(step in self._done for step in own)
                style = "bold" if running.intersection(own) else "dim" if done == len(own) else ""
                cells.append(Text(f"{done}/{len(own)}" if own else "", style))
            table.add_row(Text(clean(target)), *cells)
        return table

    def _print(self, event: Event) -> None:
        from rich.text import Text

        for line in self._lines.of(event):
            self._console.print(Text(line, _style(event)), highlight=False)


def _style(event: Event) -> str:
    match event:
        case StepFailed():
            return "bold red"
        case StepCached():
            return "dim"
        case RunFinished():
            return "bold"
        case _:
            return {"note": "yellow"}.get(event.kind, "")
