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
_LAYOUTS = ((True, False), (False, False), (False, True))  # detailed, stacked; the widest first


def print_comparison(comparison: Comparison, stream: TextIO) -> None:
    """Write the comparison to ``stream``. Results are words, so nothing is lost without colours."""
    page.write(lambda console: _parts(comparison, console), stream)


def _parts(comparison: Comparison, console: Console) -> Iterator[RenderableType]:
    from rich.text import Text

    for target in comparison.targets:
        style = "bold red" if target.lost or target.presence == "vanished" else ""
        yield Text.assemble((clean(target.name), "bold"), " ", (changes.target(target), style))
        if any(change.measured for change in target.changes):
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
    """The first layout that fits: with the intervals of both sides, without, and with sides and result stacked."""
    unlimited = console.options.update(max_width=10_000)
    layouts = [_laid_out(target, console, detailed, stacked) for detailed, stacked in _LAYOUTS]
    fitting = (t for t in layouts if console.measure(t, options=unlimited).maximum <= console.width)
    return next(fitting, layouts[-1])


def _laid_out(target: TargetComparison, console: Console, detailed: bool, stacked: bool) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=page.table_box(console), pad_edge=False, collapse_padding=True)
    table.add_column("metric", overflow="fold")
    for title in ("before, after", "change") if stacked else ("before", "after", "change"):
        table.add_column(title, justify="right", no_wrap=True)
    if not stacked:
        table.add_column("result", no_wrap=True)
    for change in target.changes:
        if not change.measured:
            continue
        sides = [Text(changes.value(m) if detailed else changes.brief(m)) for m in (change.before, change.after)]
        effect, word = Text(changes.effect(change)), Text(changes.result(change), _style(change))
        if stacked:
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
