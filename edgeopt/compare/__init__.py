"""Release against release: how the numbers of what ships changed from one run to another, and how sure that is.

Two runs are not interleaved: the machine may have drifted from one day to the other, which no interval within a run
can see. So a change of latency, memory or energy counts only beyond a tolerance and beyond the noise floors of both
runs, and, where the float baseline is the same in both, also against it. What a toolkit estimates has no noise, but is
compared only if both runs estimated alike: with the same version, for the same device. Accuracies are compared as if
their samples were independent. Both runs saw the same samples, but their outputs are not in the record: the interval is
then wider than a paired one, so that no change is claimed which is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from edgeopt.compare.metric import Pair
from edgeopt.compare.model import (
    Change,
    Comparison,
    Difference,
    GateChange,
    Release,
    Result,
    RunId,
    Samples,
    TargetComparison,
)
from edgeopt.compare.side import Side
from edgeopt.errors import ConfigError
from edgeopt.measure import Measurement
from edgeopt.protocol import Protocol
from edgeopt.record import RunRecord, TargetRecord
from edgeopt.registry import hint

__all__ = [
    "SCHEMA",
    "TOLERANCE",
    "Change",
    "Comparison",
    "Difference",
    "GateChange",
    "Release",
    "Result",
    "RunId",
    "Samples",
    "TargetComparison",
    "compare",
    "load",
]

SCHEMA = 1
TOLERANCE = 0.05

_LEFT_OUT = (" drop", " ratio", "latency_ratio", "latency_ratio_p10", "latency_ratio_noise", "call_overhead_ms")


def load(file: Path) -> Comparison:
    """Read a ``comparison.json``.

    Raises:
        ConfigError: It cannot be read, is damaged, or of another schema version.
    """
    import pydantic

    fix = "remove the file, or compare again with --against"
    try:
        found: Comparison = pydantic.TypeAdapter(Comparison).validate_json(file.read_bytes())
    except (OSError, pydantic.ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"no readable comparison: {reason}", where=str(file), fix=fix) from error
    if found.schema != SCHEMA:
        raise ConfigError(f"the comparison has schema {found.schema}, not {SCHEMA}", where=str(file), fix=fix)
    return found


def compare(
    before: Release, after: Release, tolerance: float = TOLERANCE, tolerances: Mapping[str, float] | None = None
) -> Comparison:
    """Compare what two runs ship, target by target and metric by metric.

    Args:
        before, after: The earlier and the later release.
        tolerance: How much worse latency, memory, size and energy may get, as a part of what they were.
        tolerances: Of single metrics; of an accuracy in its own unit, where 0 is the default.

    Raises:
        ConfigError: There is no metric of a name in ``tolerances``.
    """
    limits = dict(tolerances or {})
    names = dict.fromkeys((*before.record.targets, *after.record.targets))
    general = _differences(_facts(before.record), _facts(after.record))
    targets = tuple(_target(name, before, after, tolerance, limits, general) for name in names)
    known = {change.metric for target in targets for change in target.changes}
    for name in limits:
        if name not in known:
            raise ConfigError(f"no metric {name!r} is compared{hint(name, known)}", where="--tolerance")
    return Comparison(SCHEMA, _id(before), _id(after), targets, general)


def _id(release: Release) -> RunId:
    record = release.record
    version = str(record.provenance.get("edgeopt", ""))
    return RunId(release.path, record.recipe.name, record.recipe.path, record.started, record.outcome, version)


def _target(
    name: str,
    before: Release,
    after: Release,
    tolerance: float,
    tolerances: Mapping[str, float],
    general: tuple[Difference, ...],
) -> TargetComparison:
    old, new = before.record.targets.get(name), after.record.targets.get(name)
    if old is None or new is None:
        if new is not None:
            return TargetComparison(name, "new", shipped_after=new.shipped, error=new.error)
        return TargetComparison(name, "vanished", shipped_before=old.shipped if old else "")
    if old.error or new.error:
        lost = bool(new.error) and not old.error
        return TargetComparison(name, "both", old.shipped, new.shipped, new.error or old.error, lost)
    sides = (Side(name, before, old), Side(name, after, new))
    metrics = dict.fromkeys(m.metric for side in sides for m in side.shipped.measurements if _is_compared(m))
    return TargetComparison(
        name,
        "both",
        old.shipped,
        new.shipped,
        changes=tuple(Pair(*sides, metric, tolerance, tolerances).change() for metric in metrics),
        gates=tuple(_gates(old, new)),
        differences=tuple(d for d in _differences(*map(_device, (old, new))) if d not in general),
    )


def _device(target: TargetRecord) -> dict[str, Any]:
    rules = {field.name for field in fields(Protocol)}
    facts = target.candidate(target.shipped).facts
    return {
        "machine": target.machine,
        "toolkit": facts,
        "protocol": {k: v for k, v in target.protocol.items() if k in rules},
    }


def _is_compared(measurement: Measurement) -> bool:
    """Not what is relative to the run's own baseline or is neither good nor bad, and no time that was read once."""
    single = measurement.method == "measured" and measurement.interval is None and measurement.value is not None
    return (
        not measurement.metric.endswith(_LEFT_OUT)
        and not measurement.metric.startswith("threshold@")
        and not (single and measurement.unit == "ms")
    )


def _gates(old: TargetRecord, new: TargetRecord) -> Iterator[GateChange]:
    before, after = ({v.gate: v for v in target.verdicts} for target in (old, new))
    for name in dict.fromkeys((*before, *after)):
        was, now = before.get(name), after.get(name)
        there = now or was
        change = GateChange(
            gate=name,
            unit=there.unit if there else "",
            limit_before=was.limit if was else None,
            limit_after=now.limit if now else None,
            before=was.outcome if was else None,
            after=now.outcome if now else None,
        )
        if (change.limit_before, change.before) != (change.limit_after, change.after):
            yield change


def _facts(record: RunRecord) -> dict[str, Any]:
    recipe = {"name": record.recipe.name, "digest": record.recipe.digest, "overrides": record.recipe.overrides}
    return {**record.provenance, "recipe": recipe}


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Difference, ...]:
    old, new = _flat(before), _flat(after)
    names = dict.fromkeys((*old, *new))
    return tuple(Difference(n, old.get(n, ""), new.get(n, "")) for n in names if old.get(n, "") != new.get(n, ""))


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested facts under dotted names, as text."""
    flat: dict[str, str] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            flat[f"{prefix}{key}"] = ", ".join(map(str, value))
        else:
            flat[f"{prefix}{key}"] = "" if value is None else str(value)
    return flat
