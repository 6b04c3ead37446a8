"""Which events deserve a line, and what it says."""

from __future__ import annotations

import math
from typing import TextIO

from edgeopt.events import Event, Measured, StepProgress, StepStarted
from edgeopt.report import wording

PROGRESS_SECONDS = 5.0  # between two lines about the progress of one step
_ASCII = str.maketrans({"×": "x", "≤": "<=", "≥": ">=", "→": "->", "…": "...", "·": "-", "–": "-",
                        "✓": "+", "✗": "x", "○": "o"})  # fmt: skip


class Lines:
    """Turns events into lines, one object per run.

    Progress is thinned to one line per step and :data:`PROGRESS_SECONDS`, by the time in the events; the measurements
    of one candidate, which arrive one after the other, are gathered into one line.
    """

    def __init__(self) -> None:
        self._spoken: dict[str, float] = {}
        self._measured: list[Measured] = []

    def of(self, event: Event) -> list[str]:
        """The lines to write now; often none."""
        if isinstance(event, Measured):
            others = [m for m in self._measured if (m.step, m.candidate) != (event.step, event.candidate)]
            lines = self._gathered() if others else []
            self._measured.append(event)
            return lines
        lines = self._gathered()
        if self._deserves(event) and (text := wording.one_line(event.describe())):
            lines.append(text)
        return lines

    def _deserves(self, event: Event) -> bool:
        if isinstance(event, StepStarted):
            self._spoken[event.step] = event.time
        if isinstance(event, StepProgress):
            if event.time - self._spoken.get(event.step, -math.inf) < PROGRESS_SECONDS:
                return False
            self._spoken[event.step] = event.time
        return True

    def _gathered(self) -> list[str]:
        """One line for the measurements so far, which are then forgotten."""
        measured, self._measured = self._measured, []
        if not measured:
            return []
        return [wording.clean(f"{measured[0].step}: {measured[0].candidate}: {', '.join(map(_number, measured))}")]


def _number(m: Measured) -> str:
    value = wording.number(m.value, wording.unit_of(m.metric, m.unit))
    label = "" if m.value is None else wording.METHOD_WORDS[m.method]
    return f"{m.metric} {wording.Quantity(value, method=label)}"


def writable(text: str, stream: TextIO) -> str:
    """``text`` with the characters that the stream's encoding lacks spelt in ASCII."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, "replace").decode(encoding)
    return text
