"""What happens during a run, as frozen data.

The engine emits events and formats no text; everything that a person sees while a run is going on is drawn by a
sink that listens (``edgeopt/console``). Events carry seconds and units, and each can be written as one JSON line.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events.

    Attributes:
        time: Seconds since the epoch, UTC.
    """

    kind: ClassVar[str] = "event"
    time: float

    def to_json(self) -> str:
        """One line of JSON; ``event`` names the kind."""
        return json.dumps({"event": self.kind, **dataclasses.asdict(self)}, ensure_ascii=False)

    def describe(self) -> str:
        """The event as one plain line, empty if it deserves none."""
        return ""


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """The plan is made and work begins.

    Attributes:
        recipe: Name of the recipe.
        targets: Names of the targets, in the recipe's order.
        steps: ``(step id, stage)`` of all that will run or be reused.
        needs: Target -> ids of the steps that it needs, shared ones included.
    """

    kind: ClassVar[str] = "run_started"
    recipe: str
    targets: tuple[str, ...]
    steps: tuple[tuple[str, str], ...]
    needs: Mapping[str, tuple[str, ...]]

    def describe(self) -> str:
        return f"{self.recipe}: {len(self.steps)} steps for {', '.join(self.targets)}"


@dataclass(frozen=True, kw_only=True)
class StepEvent(Event):
    """Something about one step of the plan; ``step`` is its id, such as ``quantize:openvino``."""

    step: str


@dataclass(frozen=True, kw_only=True)
class StepStarted(StepEvent):
    """A stage begins to work; ``why`` says why it could not be reused."""

    kind: ClassVar[str] = "step_started"
    why: str

    def describe(self) -> str:
        return f"{self.step}: started ({self.why})"


@dataclass(frozen=True, kw_only=True)
class StepProgress(StepEvent):
    """``done`` of ``total`` ``unit`` are finished; ``note`` is a short text such as ``loss 0.12, top1 0.981``."""

    kind: ClassVar[str] = "step_progress"
    done: float
    total: float
    unit: str
    note: str = ""
    seconds_left: float | None = None

    def describe(self) -> str:
        left = "" if self.seconds_left is None else f", {self.seconds_left:.0f} s left"
        return f"{self.step}: {self.done:g}/{self.total:g} {self.unit}{left}{'  ' + self.note if self.note else ''}"


@dataclass(frozen=True, kw_only=True)
class StepCached(StepEvent):
    """The store already holds the output."""

    kind: ClassVar[str] = "step_cached"

    def describe(self) -> str:
        return f"{self.step}: cached"


@dataclass(frozen=True, kw_only=True)
class StepFinished(StepEvent):
    """A stage finished; ``summary`` is what it did in a few words."""

    kind: ClassVar[str] = "step_finished"
    seconds: float
    summary: str = ""

    def describe(self) -> str:
        return f"{self.step}: done in {self.seconds:.1f} s{'  ' + self.summary if self.summary else ''}"


@dataclass(frozen=True, kw_only=True)
class StepFailed(StepEvent):
    """A stage failed, or could not run because one before it did."""

    kind: ClassVar[str] = "step_failed"
    error: str

    def describe(self) -> str:
        return f"{self.step}: FAILED: {self.error}"


@dataclass(frozen=True, kw_only=True)
class NoteTaken(StepEvent):
    """Something that the user must know: a fallback, a protected layer, a target missed."""

    kind: ClassVar[str] = "note"
    note: str

    def describe(self) -> str:
        return f"{self.step}: note: {self.note}"


@dataclass(frozen=True, kw_only=True)
class Measured(StepEvent):
    """One candidate of a target was measured; ``step`` is ``measure:<target>``."""

    kind: ClassVar[str] = "measured"
    candidate: str
    metric: str
    value: float | None
    interval: tuple[float | None, float | None] | None
    unit: str
    method: Literal["measured", "simulated", "estimated"] = "measured"

    def describe(self) -> str:
        if self.value is None:
            return f"{self.step}: {self.candidate}: {self.metric} not measured"
        label = "" if self.method == "measured" else f" ({self.method.upper()})"
        return f"{self.step}: {self.candidate}: {self.metric} {self.value:.4g} {self.unit}".rstrip() + label


@dataclass(frozen=True, kw_only=True)
class Shipped(Event):
    """The candidate of a target that ships, and why."""

    kind: ClassVar[str] = "shipped"
    target: str
    candidate: str
    reason: str

    def describe(self) -> str:
        return f"{self.target}: ships {self.candidate}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class GateDecided(Event):
    """One gate of one target was judged."""

    kind: ClassVar[str] = "gate_decided"
    target: str
    gate: str
    outcome: str
    why: str

    def describe(self) -> str:
        return f"{self.target}: {self.gate}: {self.outcome.upper()}: {self.why}"


@dataclass(frozen=True, kw_only=True)
class RunFinished(Event):
    """Everything is done."""

    kind: ClassVar[str] = "run_finished"
    outcome: str
    exit_code: int
    seconds: float

    def describe(self) -> str:
        return f"finished in {self.seconds:.1f} s: {self.outcome} (exit {self.exit_code})"


Sink = Callable[[Event], None]


def fan_out(*sinks: Sink) -> Sink:
    """One sink that hands every event to all of ``sinks``, in order."""

    def send(event: Event) -> None:
        for sink in sinks:
            sink(event)

    return send
