"""The summary at the end of a run: what ships where, and every gate."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, TextIO

from edgeopt.console.lines import writable
from edgeopt.report import facts, wording
from edgeopt.report.wording import Quantity, clean

if TYPE_CHECKING:
    from rich.box import Box
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from edgeopt.record import RunRecord, TargetRecord

_WIDTH_OF_A_FILE = 116
_ROOMY = 108  # from this width on, a value and its interval stand on one line
_STYLES = {
    "pass": "green",
    "fail": "bold red",
    "inconclusive": "bold yellow",
    "not_measured": "bold magenta",
    "waived": "bold red",
}


def print_summary(record: RunRecord, stream: TextIO) -> None:
    """Write the summary to ``stream``.

    A terminal gets its own width and colours, unless ``NO_COLOR`` is set; a file gets plain text of a fixed width.
    Verdicts are words, so nothing is lost without colours.
    """
    from rich.console import Console

    tty = stream.isatty()
    width = Console(file=stream).width if tty else _WIDTH_OF_A_FILE
    text = io.StringIO()
    console = Console(
        file=text,
        width=width,
        force_terminal=tty,
        color_system="auto" if tty else None,
        legacy_windows=False,
        highlight=False,
        emoji=False,
    )
    for part in _parts(record, console, ruled=tty):
        console.print(part, soft_wrap=False)
    lines = (line.rstrip() for line in text.getvalue().splitlines())
    stream.write(writable("\n".join(lines) + "\n", stream))


def _parts(record: RunRecord, console: Console, ruled: bool) -> list[RenderableType]:
    from rich.text import Text

    parts: list[RenderableType] = []
    for name, target in record.targets.items():
        parts += [_heading(name, target), *_table(target, console, ruled), *_complaints(target)]
    answer = wording.decision(record)
    outcome = {wording.SHIP: "pass", wording.DONT_SHIP: "fail"}.get(answer.word, "inconclusive")
    parts += [Text.assemble((answer.word, _STYLES[outcome]), f"  {answer.sentence}")]
    return parts


def _heading(name: str, target: TargetRecord) -> Text:
    from rich.text import Text

    if target.error:
        return Text.assemble(
            (clean(name), "bold"), " ", (wording.NOT_SERVED, "bold red"), f": {wording.one_line(target.error)}"
        )
    ships = Text.assemble(
        (clean(name), "bold"), " ships ", (clean(target.shipped), "bold"), f": {clean(target.reason)}"
    )
    contest = facts.runtime_winner(target)
    return ships.append(f"\n{clean(contest)}") if contest else ships


def _table(target: TargetRecord, console: Console, ruled: bool) -> list[Table]:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = facts.metric_rows(target)
    if not rows:
        return []
    table = Table(box=box.SIMPLE_HEAD if ruled else _plain_rule(), pad_edge=False)
    table.add_column("metric", overflow="fold")
    for title in ("float", "shipped", "threshold"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    between = " " if console.width >= _ROOMY else "\n"
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


def _plain_rule() -> Box:
    """Columns apart by spaces, and a line of ASCII under the header."""
    from rich.box import Box

    return Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


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
            (wording.verdict(gate.outcome), _STYLES[gate.outcome]), f"  {clean(gate.gate)}: {clean(gate.why)}"
        )
        for gate in target.verdicts
        if gate.outcome != "pass"
    ]
    return [*lines, Text("")] if lines or not target.candidates else []
