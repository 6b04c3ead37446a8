"""The summary at the end of a run: what ships where, and every gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from edgeopt.console import page
from edgeopt.report import alarms, facts, wording
from edgeopt.report.wording import Quantity, clean

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from edgeopt.record import RunRecord, TargetRecord

_STYLES = {
    "pass": "green",
    "fail": "bold red",
    "inconclusive": "bold yellow",
    "not_measured": "bold magenta",
    "waived": "bold red",
}

_ONLY_IN_THE_REPORT = frozenset({"output_cosine", "output_cosine_p1", "max_abs_error", "fallback_operators"})


def print_summary(record: RunRecord, stream: TextIO) -> None:
    """Write the summary to ``stream``. Verdicts are words, so nothing is lost without colours."""
    page.write(lambda console: _parts(record, console), stream)


def _parts(record: RunRecord, console: Console) -> list[RenderableType]:
    from rich.text import Text

    parts: list[RenderableType] = []
    for name, target in record.targets.items():
        parts += [_heading(name, target), *_table(target, console), *_complaints(target)]
    loud = _alarms(record)
    parts += [Text.assemble((f"! {alarm.title}", _STYLES[alarm.tone]), f"\n  {alarm.text}\n") for alarm in loud]
    answer = wording.decision(record)
    outcome = {wording.SHIP: "pass", wording.DONT_SHIP: "fail"}.get(answer.word, "inconclusive")
    sentence = f"{answer.sentence} {alarms.reminder(loud, 'above')}".rstrip()
    parts += [Text.assemble((answer.word, _STYLES[outcome]), f"  {sentence}")]
    return parts


def _alarms(record: RunRecord) -> list[alarms.Alarm]:
    """What must not be missed; waived gates stand among the complaints of their target already."""
    return [alarm for alarm in alarms.alarms(record) if alarm.tone != "waived"]


def _heading(name: str, target: TargetRecord) -> Text:
    from rich.text import Text

    if target.error:
        return Text.assemble(
            (clean(name), "bold"), " ", (wording.NOT_SERVED, "bold red"), f": {wording.one_line(target.error)}"
        )
    ships = Text.assemble(
        (clean(name), "bold"), " ships ", (clean(target.shipped), "bold"), f": {clean(target.reason)}"
    )
    for sentence in (facts.depth(target), facts.runtime_winner(target)):
        if sentence:
            ships.append(f"\n{clean(sentence)}")
    return ships


def _table(target: TargetRecord, console: Console) -> list[Table]:
    from rich.table import Table
    from rich.text import Text

    rows = [row for row in facts.metric_rows(target) if row.limit or row.name not in _ONLY_IN_THE_REPORT]
    if not rows:
        return []
    table = Table(box=page.table_box(console), pad_edge=False)
    table.add_column("metric", overflow="fold")
    for title in ("float", "shipped", "threshold"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    between = " " if console.width >= page.ROOMY else "\n"
    for row in rows:
        word = wording.verdict(row.outcome) if row.outcome else ""
        table.add_row(
            clean(row.name),
            _cell(row.baseline, between),
            _cell(row.shipped, between),
            row.limit or "no gate",
            Text(word, _STYLES.get(row.outcome, "")),
        )
    return [table]


def _cell(quantity: Quantity | None, between: str) -> Text:
    from rich.text import Text

    if quantity is None:
        return Text("")
    method = f"({quantity.method})" if quantity.method else ""
    parts = ((quantity.value, ""), (quantity.interval, "dim"), (method, "yellow"))
    return Text(between).join(Text(text, style) for text, style in parts if text)


def _complaints(target: TargetRecord) -> list[Text]:
    """Why gates did not pass, one line each, apart from what follows."""
    from rich.text import Text

    lines = [
        Text.assemble(
            (wording.verdict(gate.outcome), _STYLES[gate.outcome]),
            f"  {clean(gate.gate)}: {clean(gate.why)}",
            (f"; {wording.excuse(gate.waiver)}" if gate.waiver else "", "bold"),
        )
        for gate in target.verdicts
        if gate.outcome != "pass"
    ]
    return [*lines, Text("")] if lines or not target.candidates else []
