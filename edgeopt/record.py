"""The run as one JSON record: everything that one ``edgeopt compile`` did. Every report is rendered from it.

The schema is version 1. Raw latency samples lie beside the record in ``samples/<target>.<candidate>.npy``, int64
nanoseconds, because they are too many for JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgeopt import __version__
from edgeopt.errors import ConfigError
from edgeopt.measure import Measurement
from edgeopt.placement import Placement
from edgeopt.registry import hint

SCHEMA = 1

#: ``[lower, upper]``; ``None`` where the data cannot bound that side.
Interval = tuple[float | None, float | None]
GateOutcome = Literal["pass", "fail", "inconclusive", "not_measured", "waived"]
RunOutcome = Literal["pass", "fail", "inconclusive", "error"]
WaiverStatus = Literal["used", "expired", "unused", "not_judged"]


@dataclass(frozen=True)
class RecipeRecord:
    """Which recipe ran.

    Attributes:
        digest: sha256 of its canonical content after overrides.
        values: What it says after overrides, defaults filled in; empty in records of before.
    """

    name: str
    path: str
    digest: str
    overrides: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ArtifactRecord:
    """A compiled artefact; ``path`` is relative to the run's folder and ``None`` if it was not shipped."""

    kind: str
    digest: str
    size_mib: float
    path: str | None = None


@dataclass(frozen=True)
class CandidateRecord:
    """One way to serve a target, with all that was measured on it.

    Attributes:
        id: Such as ``openvino-int8-pruned``.
        precision: ``float`` or ``int8``.
        pruned: Whether the model went through the recipe's compression steps (prune, distill).
        baseline: Whether this is the float baseline of its runtime.
        measurements: Accuracy on the evaluation split, latency, size, memory.
        selection: Accuracy on the selection split, the only numbers that the choice looked at.
        rejected: Why it did not ship; empty for the shipped one.
        placement: Number of compiled operators per precision, such as ``{"i8": 14, "f32": 5}``.
        placed: Where its operators and MACs run, in which precision, and what fell back; ``None`` if it is not known.
        facts: What the toolkit stamped on it.
        roc: Of a model that verifies: ``threshold``, ``far`` and ``frr`` at falling thresholds on the evaluation split,
            for charts; see :meth:`edgeopt.metrics.Metric.roc`.
    """

    id: str
    runtime: str
    precision: str
    pruned: bool
    baseline: bool
    artifact: ArtifactRecord
    measurements: tuple[Measurement, ...]
    selection: tuple[Measurement, ...] = ()
    rejected: str = ""
    placement: Mapping[str, int] = field(default_factory=dict)
    placed: Placement | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    roc: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def measurement(self, metric: str) -> Measurement | None:
        """The measurement of ``metric``, ``None`` if there is none."""
        return next((m for m in self.measurements if m.metric == metric), None)


@dataclass(frozen=True)
class WaiverRecord:
    """A person's decision to ship although a gate fails.

    Attributes:
        gate: Such as ``top1 max_drop``.
        target: On which target.
        reason, by: Why, and who decided.
        until: Last day on which it holds, ``YYYY-MM-DD``.
        where: ``file:line:col`` of the entry.
        status: ``used`` excused a fail; ``expired`` and ``unused`` (its gate passes) fail the run; ``not_judged`` if
            the target was not part of the run or not served, the gate could not be decided, or it failed in a way that
            the waiver does not cover.
    """

    gate: str
    target: str
    reason: str
    by: str
    until: str
    where: str
    status: WaiverStatus


@dataclass(frozen=True)
class VerdictRecord:
    """One judged gate.

    Attributes:
        gate: Such as ``top1 max_drop``.
        metric: What was gated, such as ``top1``.
        limit: The threshold, in the metric's unit.
        value: What was compared with the limit: the metric itself, or its drop or ratio against the float baseline.
        interval: Of ``value``.
        outcome: ``waived`` is a fail that ``waiver`` excuses.
        why: One sentence.
        confidence: Of ``interval``; ``None`` for a number without error bars.
        method: How the number was obtained.
        waiver: What excuses the fail.
    """

    gate: str
    metric: str
    limit: float
    value: float | None
    interval: Interval | None
    outcome: GateOutcome
    why: str
    unit: str = ""
    confidence: float | None = None
    method: Literal["measured", "simulated", "estimated"] = "measured"
    waiver: WaiverRecord | None = None


@dataclass(frozen=True)
class FlipRecord:
    """A sample of the evaluation split on which what ships decides otherwise than the float baseline.

    Attributes:
        sample: Index in the split.
        label: The truth, as text; empty if there is none for a single sample.
        before, after: Decision of the float baseline and of what ships, as text.
        right: Which of them is right: ``before`` is a sample that the optimisation lost; ``unknown`` also if both are.
        image: The sample as a ``data:image/png;base64,`` URL, at most 96 pixels wide; empty if it is no image or the
            data are private.
    """

    sample: int
    label: str
    before: str
    after: str
    right: Literal["before", "after", "neither", "unknown"]
    image: str = ""


@dataclass(frozen=True)
class TargetRecord:
    """What happened on one target. ``error`` is set, and ``shipped`` empty, if it could not be served.

    Attributes:
        machine: Facts about the device.
        condition: State of the device before and after timing: load, frequency, throttling, temperature.
        disturbed: Why the timings of this run cannot be trusted; each one sentence. A latency gate that fails is then
            inconclusive.
        protocol: How it was measured, its ``digest``, the ``looks`` that were taken, and the rounds of each of the
            ``sessions``, in whose order the raw samples lie.
        family: How many gates were judged, at which level over all looks, and how many looks there could have been:
            ``{"gates", "level", "looks"}``.
        flips: Samples whose decision flipped, at most the first 48; ``flip_count`` has all.
    """

    shipped: str
    reason: str
    candidates: tuple[CandidateRecord, ...]
    verdicts: tuple[VerdictRecord, ...]
    machine: Mapping[str, Any] = field(default_factory=dict)
    condition: Mapping[str, Any] = field(default_factory=dict)
    disturbed: tuple[str, ...] = ()
    protocol: Mapping[str, Any] = field(default_factory=dict)
    family: Mapping[str, Any] = field(default_factory=dict)
    flips: tuple[FlipRecord, ...] = ()
    flip_count: int = 0
    error: str = ""

    def candidate(self, name: str) -> CandidateRecord:
        """The candidate called ``name``.

        Raises:
            KeyError: There is none.
        """
        for candidate in self.candidates:
            if candidate.id == name:
                return candidate
        raise KeyError(name)

    def baseline_of(self, candidate: CandidateRecord) -> CandidateRecord:
        """The float baseline in the same runtime as ``candidate``."""
        return next(c for c in self.candidates if c.baseline and c.runtime == candidate.runtime)


@dataclass(frozen=True)
class LedgerRecord:
    """One metric at one point of the chain, on the evaluation split: ``trained``, ``pruned``, …, ``compiled``."""

    stage: str
    metric: str
    value: float
    interval: Interval | None
    target: str | None = None
    runtime: str | None = None
    candidate: str | None = None
    unit: str = ""
    better: Literal["lower", "higher"] = "higher"
    method: Literal["measured", "simulated", "estimated"] = "measured"


@dataclass(frozen=True)
class StageRecord:
    """One executed or reused step of the plan."""

    id: str
    stage: str
    key: str
    cached: bool
    seconds: float
    output: str
    why: str
    summary: str = ""
    notes: tuple[str, ...] = ()
    target: str | None = None


@dataclass(frozen=True)
class RunRecord:
    """Everything that one ``edgeopt compile`` did; ``waivers`` are all of its waivers file, used or not."""

    schema: int
    outcome: RunOutcome
    exit_code: int
    started: str
    seconds: float
    recipe: RecipeRecord
    targets: Mapping[str, TargetRecord]
    ledger: tuple[LedgerRecord, ...]
    stages: tuple[StageRecord, ...]
    provenance: Mapping[str, Any]
    waivers: tuple[WaiverRecord, ...] = ()

    def to_json(self) -> str:
        """The record as indented JSON that :func:`load` reads back to an equal record."""
        import pydantic

        text: bytes = pydantic.TypeAdapter(RunRecord).dump_json(self, indent=1)
        return text.decode() + "\n"


def load(path: Path) -> RunRecord:
    """Read a ``run.json``, given as the file or as the folder that holds it.

    Raises:
        ConfigError: The file is missing, is not a run record, is damaged, or has another schema version.
    """
    import json

    import pydantic

    file = path / "run.json" if path.is_dir() else path
    fix = "give the folder that `edgeopt compile` wrote, such as build/digits"
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        near = [run.parent.name for run in path.parent.glob("*/run.json")]
        what = "no run here" if path.is_dir() else f"no such run{hint(path.name, near, listed=False)}"
        raise ConfigError(what, where=str(path), fix=fix) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot read the run record: {reason}", where=str(file), fix=fix) from error
    try:
        written = json.loads(text)
        schema = written["schema"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConfigError("this is not a run record", where=str(file), fix=fix) from error
    if type(schema) is not int or schema != SCHEMA:
        raise _other_schema(schema, written.get("provenance"), file)
    try:
        record = pydantic.TypeAdapter(RunRecord).validate_json(text)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"the run record is damaged at {place}: {first['msg']}", where=str(file), fix=fix) from error
    for name, target in record.targets.items():
        if not target.error and target.shipped not in [candidate.id for candidate in target.candidates]:
            what = f"the run record is damaged at targets.{name}.shipped: there is no candidate {target.shipped!r}"
            raise ConfigError(what, where=str(file), fix=fix)
    return record


def _other_schema(schema: object, provenance: object, file: Path) -> ConfigError:
    """What to say of a record that this version cannot read; a newer one names who wrote it."""
    writer = provenance.get("edgeopt") if isinstance(provenance, Mapping) else None
    by = f"edgeopt {writer}" if isinstance(writer, str) and writer else "another edgeopt"
    reads = f"this is edgeopt {__version__}, which reads schema {SCHEMA}"
    if type(schema) is int and schema > SCHEMA:
        what = f"a newer edgeopt wrote this record: schema {schema}, {by}; {reads}"
        return ConfigError(what, where=str(file), fix="update edgeopt here, or run the recipe again")
    what = f"the record has the unknown schema {schema!r}, written by {by}; {reads}"
    return ConfigError(what, where=str(file), fix="run the recipe again")
