"""What a tracking server is told of a run, under names that it takes. Nothing here talks to anybody.

    cpu.latency_p50_ms, .low, .high         of what ships on the target ``cpu``
    cpu.baseline.latency_p50_ms, ...        of the float network in the same runtime
    cpu.power_w.estimated                   of a number that was not measured, but estimated or simulated
    cpu.gate.top1_max_drop, .limit          what a gate compared with its limit
    cpu.ledger.top1                         along the chain from the trained model to what ships, a step each

What was not measured has no metric, but a tag that says why.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edgeopt.errors import ConfigError
from edgeopt.record import CandidateRecord, Interval, RunRecord, TargetRecord
from edgeopt.report import ledger
from edgeopt.report.ledger import LedgerRow

#: Parts of a name.
Key = tuple[str, ...]

# What MLflow 2.0 takes; later versions take more (mlflow/utils/validation.py).
_LONGEST_NAME = 250
_LONGEST_PARAM = 500
_LONGEST_TAG = 5000


@dataclass(frozen=True)
class Point:
    """One number of one metric; ``step`` is its place in a series."""

    name: str
    value: float
    step: int = 0


@dataclass(frozen=True)
class Entry:
    """A run as a tracking server sees it.

    Attributes:
        experiment: The recipe's name.
        name: When the run began.
        digest: sha256 of the record; the same run is known by it.
        start_ms, end_ms: Milliseconds since 1970.
    """

    experiment: str
    name: str
    digest: str
    start_ms: int
    end_ms: int
    params: Mapping[str, str]
    metrics: tuple[Point, ...]
    tags: Mapping[str, str]


def entry_of(record: RunRecord) -> Entry:
    """The entry of a run.

    Raises:
        ConfigError: The record does not say when the run began.
    """
    try:
        start_ms = round(datetime.fromisoformat(record.started).timestamp() * 1000)
    except ValueError as error:
        raise ConfigError("the run record is damaged at started: not a time", where="run.json") from error
    digest = hashlib.sha256(record.to_json().encode()).hexdigest()
    numbers = [(key, value, step) for key, value, step in _numbers(record) if math.isfinite(value)]
    metric = named(key for key, _, _ in numbers)
    return Entry(
        experiment=record.recipe.name,
        name=record.started,
        digest=digest,
        start_ms=start_ms,
        end_ms=start_ms + round(record.seconds * 1000),
        params=_texts(_params(record), _LONGEST_PARAM),
        metrics=tuple(Point(metric[key], value, step) for key, value, step in numbers),
        tags=_texts([(("run_digest",), digest), *_tags(record)], _LONGEST_TAG),
    )


def named(keys: Iterable[Key]) -> dict[Key, str]:
    """A name that MLflow takes for every key, and no name for two: letters, digits, ``_``, ``-`` and ``.``."""
    plain = {key: ".".join(re.sub(r"[^A-Za-z0-9_.-]+", "_", part) for part in key) for key in keys}
    uses = Counter(plain.values())
    own = {key for key, name in plain.items() if uses[name] == 1 and len(name) <= _LONGEST_NAME}
    return {key: name if key in own else f"{name[: _LONGEST_NAME - 13]}-{_digest(key)}" for key, name in plain.items()}


def _digest(key: Key) -> str:
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]


def flat(value: Any, at: Key = ()) -> Iterator[tuple[Key, str]]:
    """The values of a recipe under the names that ``--set`` knows them by.

    A list of mappings gives the names of its items, and then what each of them says.
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from flat(inner, (*at, str(name)))
    elif isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
        items = [_labelled(number, item) for number, item in enumerate(value)]
        yield at, ", ".join(label for label, _ in items)
        uses = Counter(label for label, _ in items)
        for number, (label, inner) in enumerate(items):
            yield from flat(inner, (*at, label if uses[label] == 1 else str(number)))
    else:
        yield at, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _labelled(number: int, item: Mapping[str, Any]) -> tuple[str, Any]:
    """What an item of a list is called, and what else it says."""
    if "name" in item:
        return str(item["name"]), {name: value for name, value in item.items() if name != "name"}
    if len(item) == 1:
        return next((str(name), value) for name, value in item.items())
    return str(number), item


def _texts(pairs: Iterable[tuple[Key, str]], longest: int) -> dict[str, str]:
    """Name -> text, those that are empty left out and those that are too long cut."""
    texts = {key: text if len(text) <= longest else f"{text[: longest - 1]}…" for key, text in pairs if text}
    names = named(texts)
    return {names[key]: text for key, text in texts.items()}


def _params(record: RunRecord) -> Iterator[tuple[Key, str]]:
    yield from flat(record.recipe.values)
    yield ("targets",), ", ".join(record.targets)
    yield ("overrides",), ", ".join(record.recipe.overrides)
    yield ("python",), str(record.provenance.get("python", ""))
    for tool, version in _mapping(record.provenance.get("tools")).items():
        yield ("tools", tool), str(version)


def _mapping(value: Any) -> Mapping[str, Any]:
    """Of provenance, which a record may lack: without a checkout there is no ``git``."""
    return value if isinstance(value, Mapping) else {}


def _tags(record: RunRecord) -> Iterator[tuple[Key, str]]:
    yield ("outcome",), record.outcome
    yield ("exit_code",), str(record.exit_code)
    yield ("edgeopt_version",), str(record.provenance.get("edgeopt", ""))
    yield ("recipe_digest",), record.recipe.digest
    git = _mapping(record.provenance.get("git"))
    yield ("git_commit",), str(git.get("commit", ""))
    yield ("mlflow.source.git.commit",), str(git.get("commit", ""))  # what MLflow's pages show as the version
    yield ("git_dirty",), str(git["dirty"]).lower() if "dirty" in git else ""
    for waiver in record.waivers:
        text = f"{waiver.status}: {waiver.reason} ({waiver.by}, until {waiver.until})"
        yield ("waiver", waiver.target, waiver.gate), text
    for name, target in record.targets.items():
        yield (name, "shipped"), target.shipped
        yield (name, "reason"), target.reason
        yield (name, "error"), target.error
        yield (name, "disturbed"), "; ".join(target.disturbed)
        yield (name, "machine"), str(target.machine.get("cpu", ""))
        for verdict in target.verdicts:
            yield (name, "gate", verdict.gate), verdict.outcome
        for key, candidate in _candidates(name, target):
            missing = [f"{m.metric}: {m.why}" for m in candidate.measurements if m.value is None]
            yield (*key, "not_measured"), "; ".join(missing)
    for name, metric, rows in _chains(record):
        yield (name, "ledger", metric), ", ".join(f"{step} {row.record.stage}" for step, row in enumerate(rows))


def _numbers(record: RunRecord) -> Iterator[tuple[Key, float, int]]:
    yield ("seconds",), record.seconds, 0
    for name, target in record.targets.items():
        for key, candidate in _candidates(name, target):
            for m in candidate.measurements:
                yield from _bounded((*key, m.metric, *_method(m.method)), m.value, m.interval)
        for verdict in target.verdicts:
            gate = (name, "gate", verdict.gate)
            yield (*gate, "limit"), verdict.limit, 0
            yield from _bounded((*gate, *_method(verdict.method)), verdict.value, verdict.interval)
    for name, metric, rows in _chains(record):
        for step, row in enumerate(rows):
            yield from _bounded((name, "ledger", metric), row.record.value, row.record.interval, step)


def _bounded(
    key: Key, value: float | None, interval: Interval | None, step: int = 0
) -> Iterator[tuple[Key, float, int]]:
    """A number and the bounds that are known; nothing at all if it was not measured."""
    if value is not None:
        yield key, value, step
        for name, bound in zip(("low", "high"), interval or (None, None), strict=True):
            if bound is not None:
                yield (*key, name), bound, step


def _method(method: str) -> Key:
    """Numbers that are not measured are called what they are."""
    return () if method == "measured" else (method,)


def _candidates(name: str, target: TargetRecord) -> Iterator[tuple[Key, CandidateRecord]]:
    """What ships on a target, and the float network in the same runtime if that is something else."""
    shipped = next((c for c in target.candidates if c.id == target.shipped), None)
    if shipped:
        yield (name,), shipped
        if not shipped.baseline:
            yield (name, "baseline"), target.baseline_of(shipped)


def _chains(record: RunRecord) -> Iterator[tuple[str, str, Sequence[LedgerRow]]]:
    """Target, metric, and the points on the way to what ships there."""
    for metric, rows in ledger.rows(record).items():
        for chain in ledger.chains(record, rows):
            if chain.shipped:
                yield chain.target, metric, chain.rows
