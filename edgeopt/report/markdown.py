"""The report as GitHub-flavoured Markdown that fits a CI job summary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgeopt.report import alarms, changes, facts, gates, ledger, placements, wording

if TYPE_CHECKING:
    from edgeopt.compare import Comparison
    from edgeopt.record import RunRecord, TargetRecord

#: GitHub refuses a job summary above 1 MiB; the margin is for what a workflow adds itself.
MAX_BYTES = 1000 * 1024
_MAX_CELL = 600
_SPECIAL = re.compile(r"([\\`*\[\]{}|~#])|(?<!\w)_|_(?!\w)")


def render(
    record: RunRecord,
    samples: Mapping[str, Mapping[str, npt.NDArray[np.int64]]],
    comparison: Comparison | None = None,
) -> str:
    """The report, the decision first. Sections that would not fit into :data:`MAX_BYTES` are named as left out.

    Args:
        record: The run.
        samples: Not used; every renderer takes the same arguments.
        comparison: With the previous release.
    """
    sections = [
        ("Decision", _decision(record)),
        ("Gates", _matrix(record)),
        ("Previous release", _comparison(comparison)),
        *((f"Target {name}", _target(name, target)) for name, target in record.targets.items()),
        ("Ledger", _ledger(record)),
        ("Notes", _notes(record)),
        ("Stages", _stages(record)),
        ("Provenance", _provenance(record)),
    ]
    text, left_out = "", []
    for title, lines in sections:
        section = "\n".join(lines)
        if len((text + section).encode()) > MAX_BYTES:
            left_out.append(title)
        elif section:
            text += section + "\n\n"
    if left_out:
        text += f"Left out because the report would be too long: {escape(', '.join(left_out))}. See report.html.\n\n"
    return text.rstrip() + "\n"


def escape(text: str) -> str:
    """``text`` as it is, wherever Markdown or HTML would see markup, on one line and not endlessly long."""
    line = wording.clean(text)
    if len(line) > _MAX_CELL:
        line = line[: _MAX_CELL - 1] + "…"
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\g<0>", line)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> list[str]:
    """A table of cells that are Markdown already; columns in ``numbers`` are set flush right."""
    rule = ["--:" if column in numbers else ":--" for column in range(len(header))]
    return ["", *(f"| {' | '.join(row)} |" for row in (header, rule, *rows)), ""]


def _decision(record: RunRecord) -> Iterator[str]:
    answer = wording.decision(record)
    yield f"# {escape(record.recipe.name)}: {answer.word}"
    yield ""
    found = alarms.alarms(record)
    yield " ".join(filter(None, (escape(answer.sentence), alarms.reminder(found, "below"))))
    yield ""
    for alarm in found:
        yield f"> **{escape(alarm.title)}**"
        yield f"> {escape(alarm.text)}"
        yield ""
    yield from (f"- **{escape(name)}** {_shipping(target)}" for name, target in record.targets.items())


def _shipping(target: TargetRecord) -> str:
    if target.error:
        return f"could not be served: {escape(wording.one_line(target.error))}"
    return f"ships **{escape(target.shipped)}**: {escape(target.reason)}"


def _matrix(record: RunRecord) -> Iterator[str]:
    names = gates.names(record)
    if not names:
        return
    yield "## Gates"
    yield ""
    yield escape(f"{gates.tally(*record.targets.values())}. {gates.by_chance(record)}")
    rows = ([escape(name), *(_matrix_cell(target, gate) for gate in names)] for name, target in record.targets.items())
    yield from _table(["target", *map(escape, names)], rows)


def _matrix_cell(target: TargetRecord, gate: str) -> str:
    found = gates.verdict_of(target, gate)
    if found is None:
        return gates.no_verdict(target)
    bold = "" if found.outcome == "pass" else "**"
    word = f"{bold}{wording.verdict(found.outcome)}{bold}"
    return f"{word}<br>{escape(str(wording.judged(found)))}<br>limit {escape(wording.limit(found))}"


def _comparison(comparison: Comparison | None) -> Iterator[str]:
    """The answer and what got worse; the whole table is in report.html and in `edgeopt compare`."""
    if comparison is None:
        return
    answer = changes.decision(comparison)
    yield f"## Against the previous release: {answer.word}"
    yield ""
    yield escape(answer.sentence)
    worse = [pair for pair in changes.ordered(comparison) if pair[1].result == "worse"]
    if worse:
        yield from _table(
            ["target", "metric", "result", "change", "why"],
            (
                [escape(name), escape(c.metric), changes.result(c), escape(changes.labelled(c)), escape(c.why)]
                for name, c in worse
            ),
            numbers=(3,),
        )


def _target(name: str, target: TargetRecord) -> Iterator[str]:
    yield f"## {escape(name)}"
    yield ""
    yield f"{_shipping(target)[:1].upper()}{_shipping(target)[1:]}."
    yield from (f"\n{escape(sentence)}" for sentence in facts.sentences(target))
    rows = facts.metric_rows(target)
    if rows:
        yield from _table(
            ["metric", "float", "shipped", "threshold", "verdict", "why"],
            (
                [
                    escape(row.name),
                    escape(str(row.baseline or "")),
                    escape(str(row.shipped)),
                    escape(row.limit or "no gate"),
                    wording.verdict(row.outcome) if row.outcome else "",
                    escape(row.why),
                ]
                for row in rows
            ),
            numbers=(1, 2, 3),
        )
    if target.candidates:
        yield from _candidates(target)
        yield from _placement(target)
    yield from (f"- {escape(caveat)}" for caveat in facts.caveats(target))
    if target.flip_count:
        groups = ", ".join(f"{len(found)} {title.lower()}" for title, _, found in facts.flips(target))
        shown = (
            f", of the first {len(target.flips)}: {groups}" if len(target.flips) < target.flip_count else f": {groups}"
        )
        yield f"\n{wording.count(target.flip_count, 'decision')} flipped against the float baseline{shown}."
    for title, mapping in (("Protocol", target.protocol), ("Machine", target.machine)):
        if mapping:
            yield f"\n{title}: " + ", ".join(f"{escape(key)} {escape(value)}" for key, value in facts.flat(mapping))


def _candidates(target: TargetRecord) -> list[str]:
    metrics = facts.headline_metrics(target)
    rows = [
        [
            f"**{escape(row.record.id)}**" if row.shipped else escape(row.record.id),
            *(escape(str(row.quantities.get(metric, ""))) for metric in metrics),
            f"**{row.fate}**" if row.shipped else escape(row.fate),
        ]
        for row in facts.candidate_rows(target)
    ]
    return _table(["candidate", *map(escape, metrics), "outcome"], rows, numbers=range(1, len(metrics) + 1))


def _placement(target: TargetRecord) -> Iterator[str]:
    """Where every candidate runs, and all fallbacks by name; what did not fuse and reformats are in report.html."""
    yield from _table(
        ["placement", "operators", "MACs", "fallbacks", "float, not INT8", "Q/DQ not fused", "reformats"],
        (
            [
                f"**{escape(row.candidate)}**" if row.shipped else escape(row.candidate),
                escape(row.operators),
                escape(row.macs),
                *(row.fallbacks, row.in_float, row.unfused, row.reformats),
            ]
            for row in placements.rows(target)
        ),
        numbers=range(3, 7),
    )
    for row in placements.layer_rows(target):
        if row.what in placements.LOUD:
            parts = (row.layer, row.runs, row.macs and f"{row.macs} of the MACs", row.why)
            yield f"- {escape(row.candidate)}: {row.what}: {escape(', '.join(filter(None, parts)))}"


def _ledger(record: RunRecord) -> Iterator[str]:
    if not record.ledger:
        return
    yield "## Ledger"
    yield ""
    yield f"Each metric at every point of the chain, on the evaluation split. {escape(facts.interval_note(record))}"
    for metric, rows in ledger.rows(record).items():
        yield f"\n{escape(ledger.where(metric, ledger.chains(record, rows)))}"
        yield from _table(
            ["point", escape(metric), "change", "against"],
            ([escape(r.label), escape(str(r.quantity)), r.change, escape(r.against)] for r in rows),
            numbers=(1, 2),
        )


def _notes(record: RunRecord) -> Iterator[str]:
    found = facts.notes(record)
    if found:
        yield "## Notes and fallbacks"
        yield ""
        yield from (f"- {escape(step)}: {escape(note)}" for step, note in found)


def _stages(record: RunRecord) -> Iterator[str]:
    if not record.stages:
        return
    cached = sum(stage.cached for stage in record.stages)
    title = f"{wording.count(len(record.stages), 'step')}, {cached} reused, {wording.seconds(record.seconds)}"
    yield f"<details><summary>{title}</summary>"
    rows = (
        [
            escape(stage.id),
            facts.done(stage),
            wording.seconds(stage.seconds),
            escape(stage.why),
            escape(stage.summary),
        ]
        for stage in record.stages
    )
    yield from _table(["step", "", "time", "why", "what"], rows, numbers=(2,))
    yield "</details>"


def _provenance(record: RunRecord) -> Iterator[str]:
    yield "<details><summary>Provenance</summary>"
    facts_of_run = {
        "recipe": record.recipe.path,
        "recipe digest": record.recipe.digest,
        "overrides": record.recipe.overrides,
        "started": record.started,
        **record.provenance,
    }
    yield from _table(["", ""], ([escape(key), escape(value)] for key, value in facts.flat(facts_of_run)))
    yield "</details>"
