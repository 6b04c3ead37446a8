"""Waivers: a person's decision to ship although a gate fails, with a reason, a name and a last day.

A waiver turns the verdict ``fail`` of one gate on one target into ``waived``, and nothing else: a gate that could not
be decided or measured stays so, and the choice of what ships never looks at waivers. A fail without a value, that of a
network which gives NaN, is never waived: nobody can have known how bad it is. One that has expired, or whose gate
passes, fails the run, so that none outlives its reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import StringConstraints

from edgeopt import config
from edgeopt.recipe import Frozen
from edgeopt.record import TargetRecord, VerdictRecord, WaiverRecord, WaiverStatus
from edgeopt.registry import hint

#: Looked up beside the recipe.
FILE_NAME = "waivers.yaml"

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Entry(Frozen):
    """One waiver as it is written.

    Attributes:
        gate: Metric and bound, such as ``latency_p99_ms max``.
        target: Name of the target.
        reason, by: Why, and who decided.
        until: Last day on which it holds.
        up_to: The worst value that is excused, in the unit of the gate; any if None.
    """

    gate: Text
    target: Text
    reason: Text
    by: Text
    until: date
    up_to: float | None = None

    def covers(self, value: float | None) -> bool:
        """Whether a fail with this value is one that was decided on."""
        if value is None or not math.isfinite(value):
            return False
        if self.up_to is None:
            return True
        return value >= self.up_to if self.gate.endswith(" min") else value <= self.up_to


class WaiversFile(Frozen):
    """``waivers.yaml``."""

    waivers: Literal[1]
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Waiver:
    """An entry and its ``file:line:col``."""

    entry: Entry
    where: str


def locate(recipe_root: Path, given: Path | None) -> Path | None:
    """The file that was given, else the one beside the recipe, else ``None``."""
    beside = recipe_root / FILE_NAME
    return given or (beside if beside.exists() else None)


def read(path: Path, gates: Mapping[str, Sequence[str]]) -> tuple[Waiver, ...]:
    """Read a waivers file.

    Args:
        path: The file.
        gates: Names of the gates of every target of the recipe.

    Raises:
        ConfigError: With every problem of the file, an unknown gate or target included.
    """
    document = config.parse(path)
    parsed = document.read(WaiversFile)
    seen: dict[tuple[str, str], int] = {}
    for number, entry in enumerate(parsed.entries if parsed else ()):
        at: config.Loc = ("entries", number)
        if entry.target not in gates:
            document.problem(
                (*at, "target"), f"the recipe has no target {entry.target!r}{hint(entry.target, list(gates))}"
            )
        elif entry.gate not in gates[entry.target]:
            known = hint(entry.gate, list(gates[entry.target]))
            document.problem((*at, "gate"), f"target {entry.target!r} has no gate {entry.gate!r}{known}")
        first = seen.setdefault((entry.gate, entry.target), number)
        if first != number:
            document.problem(at, f"{entry.gate!r} on {entry.target!r} is waived twice")
    document.check()
    entries = parsed.entries if parsed else ()
    return tuple(Waiver(entry, document.where(("entries", number))) for number, entry in enumerate(entries))


def apply(waivers: Sequence[Waiver], name: str, target: TargetRecord, today: date) -> TargetRecord:
    """The target with those of its failed gates waived that a waiver covers; ``why`` stays the reason of the fail."""
    known = {waiver.entry.gate: waiver for waiver in waivers if waiver.entry.target == name}

    def judged(verdict: VerdictRecord) -> VerdictRecord:
        waiver = known.get(verdict.gate)
        if verdict.outcome != "fail" or waiver is None or waiver.entry.until < today:
            return verdict
        if not waiver.entry.covers(verdict.value):
            return verdict
        return replace(verdict, outcome="waived", waiver=_record(waiver, "used"))

    return replace(target, verdicts=tuple(map(judged, target.verdicts)))


def settle(waivers: Sequence[Waiver], targets: Mapping[str, TargetRecord], today: date) -> tuple[WaiverRecord, ...]:
    """What became of every waiver, once :func:`apply` has gone over the targets of the run.

    Returns:
        In the order of the file. ``expired`` and ``unused`` fail the run; ``not_judged`` is one whose target was not
        part of the run or could not be served, or whose gate could not be decided, or failed in a way that the
        waiver does not cover.
    """

    def status(waiver: Waiver) -> WaiverStatus:
        target = targets.get(waiver.entry.target)
        if target is None:
            return "not_judged"
        if waiver.entry.until < today:
            return "expired"
        outcome = next((v.outcome for v in target.verdicts if v.gate == waiver.entry.gate), None)
        return "used" if outcome == "waived" else "unused" if outcome == "pass" else "not_judged"

    return tuple(_record(waiver, status(waiver)) for waiver in waivers)


def _record(waiver: Waiver, status: WaiverStatus) -> WaiverRecord:
    entry = waiver.entry
    return WaiverRecord(entry.gate, entry.target, entry.reason, entry.by, entry.until.isoformat(), waiver.where, status)
