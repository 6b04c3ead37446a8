"""What a comparison of two runs says, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgeopt.errors import ExitCode
from edgeopt.measure import Measurement
from edgeopt.record import GateOutcome, Interval, RunRecord

Result = Literal["better", "worse", "no_difference", "not_comparable"]
Samples = Mapping[str, Mapping[str, npt.NDArray[np.int64]]]


@dataclass(frozen=True)
class Release:
    """One side: a run's record, its raw latency samples as far as they are there, and where it lies."""

    path: str
    record: RunRecord
    samples: Samples = field(default_factory=dict)


@dataclass(frozen=True)
class RunId:
    """Which run it was."""

    path: str
    recipe: str
    recipe_path: str
    started: str
    outcome: str
    edgeopt: str


@dataclass(frozen=True)
class Difference:
    """A fact that may explain a change; empty on the side that does not have it."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class Change:
    """One metric of what ships on one target.

    Attributes:
        before, after: ``None`` where the run does not have it.
        result: ``worse`` and ``better`` are sure: the whole interval says so.
        scale: Whether ``value`` is after / before, or after - before.
        value, interval, confidence: The change; ``None`` if not comparable.
        tolerance: How much worse is accepted, in ``scale``: 0.05 is 5 % of a ratio, or 0.05 of a difference.
        regression: Worse by more than the tolerance with the whole interval.
        why: One sentence.
        lost: It had a value and has none now, and is an accuracy or was gated: nobody can say that it still holds.
    """

    metric: str
    unit: str
    better: Literal["lower", "higher"]
    before: Measurement | None
    after: Measurement | None
    result: Result
    scale: Literal["ratio", "difference"]
    value: float | None
    interval: Interval | None
    confidence: float | None
    tolerance: float
    regression: bool
    why: str
    lost: bool = False

    @property
    def measured(self) -> bool:
        """Whether at least one of the runs measured it."""
        return any(side is not None and side.value is not None for side in (self.before, self.after))


@dataclass(frozen=True)
class GateChange:
    """A gate whose limit or outcome changed; ``None`` on the side that does not have it."""

    gate: str
    unit: str
    limit_before: float | None
    limit_after: float | None
    before: GateOutcome | None
    after: GateOutcome | None

    @property
    def loosened(self) -> bool:
        """Whether less is asked now than before."""
        if self.limit_before is None or self.limit_after is None:
            return self.limit_after is None
        lower = self.limit_after < self.limit_before
        return lower if self.gate.endswith(" min") else self.limit_after > self.limit_before


@dataclass(frozen=True)
class TargetComparison:
    """One target.

    Attributes:
        error: Why a run could not serve it; empty if both did.
        lost: Served before, and now tried in vain: a regression.
        differences: Of the device and the protocol.
    """

    name: str
    presence: Literal["both", "new", "vanished"]
    shipped_before: str = ""
    shipped_after: str = ""
    error: str = ""
    lost: bool = False
    changes: tuple[Change, ...] = ()
    gates: tuple[GateChange, ...] = ()
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Two runs.

    Attributes:
        differences: Of tools, sources, recipe, data and the machine that edgeopt ran on.
    """

    schema: int
    before: RunId
    after: RunId
    targets: tuple[TargetComparison, ...]
    differences: tuple[Difference, ...]

    def changes(self, result: Result | None = None) -> tuple[tuple[str, Change], ...]:
        """``(target, change)`` of all changes, or of those with ``result``."""
        found = ((target.name, change) for target in self.targets for change in target.changes)
        return tuple(pair for pair in found if result in (None, pair[1].result))

    @property
    def regressions(self) -> tuple[tuple[str, Change], ...]:
        """``(target, change)`` of everything that got worse by more than is tolerated."""
        return tuple(pair for pair in self.changes() if pair[1].regression)

    def exit_code(self, strict: bool = False) -> ExitCode:
        """1 if something got worse by more than is tolerated or a target is lost.

        4 if nothing at all could be compared, if an accuracy or a gated number has no value any more, or, if
        ``strict``, if anything could not be compared that at least one run measured; else 0.
        """
        if self.regressions or any(target.lost for target in self.targets):
            return ExitCode.GATE_FAILED
        unknown = [change for _, change in self.changes("not_comparable")]
        missing = any(target.presence == "vanished" or target.error for target in self.targets)
        lost = any(change.lost for change in unknown)
        if lost or len(unknown) == len(self.changes()) or (strict and (missing or any(c.measured for c in unknown))):
            return ExitCode.INCONCLUSIVE
        return ExitCode.OK

    def to_json(self) -> str:
        """Indented JSON that :func:`load` reads back to an equal comparison."""
        import pydantic

        return pydantic.TypeAdapter(Comparison).dump_json(self, indent=1).decode() + "\n"
