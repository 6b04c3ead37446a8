"""A comparison of two runs on the screen: what changed on every target, and what may explain it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from edgeopt.console import page
from edgeopt.report import changes
from edgeopt.report.wording import clean

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from edgeopt.compare import Change, Comparison, TargetComparison

_STYLES = {"worse": "bold red", "better": "green", "no_difference": "", "not_comparable": "bold yellow"}
_ANSWER_STYLES = {changes.REGRESSION: "bold red", changes.NO_REGRESSION: "green"}
_ONE_LINE = 92  # from this width on, a change and what it means stand on one line


def print_comparison(comparison: Comparison, stream: TextIO) -> None:
    """Write the comparison to ``stream``. Results are words, so nothing is lost without colours."""
    page.write(lambda console: _parts(comparison, console), stream)


def _parts(comparison: Comparison, console: Console) -> Iterator[RenderableType]:
    from rich.text import Text

    for target in comparison.targets:
        style = "bold red" if target.lost or target.presence == "vanished" else ""
        yield Text.assemble((clean(target.name), "bold"), " ", (changes.target(target), style))
        if target.changes:
            yield _table(target, console)
        yield from _remarks(target)
    if comparison.differences:
        yield Text("What may explain a change:")
        for d in comparison.differences:
            yield Text(f"  {clean(d.name)}: {changes.fact(d.before)} → {changes.fact(d.after)}")
        yield Text("")
    answer = changes.decision(comparison)
    style = _ANSWER_STYLES.get(answer.word, "bold yellow")
    yield Text.assemble((answer.word, style), f"  {answer.sentence}")


def _table(target: TargetComparison, console: Console) -> Table:
    """The narrower the window, the more stands below each other; the intervals of the two sides go first."""
    from rich.table import Table
    from rich.text import Text

    roomy, narrow = console.width >= page.ROOMY, console.width < _ONE_LINE
    table = Table(box=page.table_box(console), pad_edge=False, collapse_padding=True)
    table.add_column("metric", overflow="fold")
    for title in ("before, after", "change") if narrow else ("before", "after", "change"):
        table.add_column(title, justify="right", no_wrap=True)
    if not narrow:
        table.add_column("result", no_wrap=True)
    for change in target.changes:
        sides = [Text(changes.value(m) if roomy else changes.brief(m)) for m in (change.before, change.after)]
        effect, word = Text(changes.effect(change)), Text(changes.result(change), _style(change))
        if narrow:
            below = Text("\n")
            table.add_row(clean(change.metric), below.join(sides), below.join([effect, word] if effect else [word]))
        else:
            table.add_row(clean(change.metric), *sides, effect, word)
    return table


def _style(change: Change) -> str:
    return "yellow" if change.result == "worse" and not change.regression else _STYLES[change.result]


def _remarks(target: TargetComparison) -> list[Text]:
    """Why numbers got worse or could not be compared, which gates changed, and what else is different."""
    from rich.text import Text

    lines = [
        Text.assemble((changes.result(change), _style(change)), f"  {metrics}: {why}")
        for change, metrics, why in changes.reasons(target)
    ]
    lines += [
        Text.assemble(("gate", "bold red" if gate.loosened else ""), f"  {clean(gate.gate)}: {changes.gate(gate)}")
        for gate in target.gates
    ]
    lines += [Text(f"{clean(d.name)}: {changes.fact(d.before)} → {changes.fact(d.after)}") for d in target.differences]
    return [*lines, Text("")] if lines or not target.changes else []
