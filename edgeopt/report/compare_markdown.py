"""A comparison of two runs as Markdown for a pull-request comment: the answer, what changed, and the rest folded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from edgeopt.report import changes, wording
from edgeopt.report.markdown import escape

if TYPE_CHECKING:
    from edgeopt.compare import Comparison

#: By which a workflow finds its own comment, to replace it.
MARKER = "<!-- edgeopt compare -->"
#: GitHub refuses a comment above 65,536 characters; the margin is for what a workflow adds itself.
MAX_CHARACTERS = 60_000


def render(comparison: Comparison) -> str:
    """The comment. Folded sections that would make it too long are named as left out."""
    answer = changes.decision(comparison)
    names = " → ".join(escape(run.started) for run in (comparison.before, comparison.after))
    text = f"{MARKER}\n### {escape(comparison.after.recipe)}: {answer.word}\n\n{escape(answer.sentence)}\n\n"
    text += "\n".join(_within(_changed(comparison), MAX_CHARACTERS // 2)) + "\n\n"
    left_out = []
    for title, lines in (
        ("All numbers", _numbers(comparison)),
        ("Gates", _gates(comparison)),
        ("What may explain a change", _differences(comparison)),
    ):
        if body := "\n".join(lines):
            section = f"<details><summary>{title}</summary>\n{body}\n</details>\n\n"
            if len(text) + len(section) > MAX_CHARACTERS:
                left_out.append(title)
            else:
                text += section
    if left_out:
        text += f"Left out because the comment would be too long: {', '.join(left_out)}.\n\n"
    return f"{text}<sub>{names}. {changes.NOTE}</sub>\n"


def _changed(comparison: Comparison) -> Iterator[str]:
    """Targets that changed, what could not be compared, and every number that is worse or better."""
    for target in comparison.targets:
        if target.presence != "both" or target.error or target.shipped_before != target.shipped_after:
            yield f"- **{escape(target.name)}**: {escape(changes.target(target))}"
        for change, metrics, why in changes.reasons(target):
            if change.result == "not_comparable":
                yield f"- **{escape(target.name)}**: {changes.result(change)}: {escape(metrics)}: {escape(why)}"
    rows = [(name, c) for name, c in changes.ordered(comparison) if c.result in ("worse", "better")]
    if rows:
        yield from _table(
            ["", "target", "metric", "before", "after", "change"],
            (
                [
                    f"**{changes.result(c)}**" if c.regression else changes.result(c),
                    escape(name),
                    escape(c.metric),
                    escape(changes.brief(c.before)),
                    escape(changes.brief(c.after)),
                    escape(changes.effect(c)),
                ]
                for name, c in rows
            ),
        )


def _within(lines: Iterable[str], characters: int) -> Iterator[str]:
    """The first lines, and how many more there are."""
    left_out = 0
    for line in lines:
        characters -= len(line) + 1
        if characters >= 0:
            yield line
        else:
            left_out += bool(line)
    if left_out:
        yield f"\n… and {left_out} more"


def _numbers(comparison: Comparison) -> Iterator[str]:
    rows = (
        [
            escape(name),
            escape(c.metric),
            escape(changes.value(c.before)),
            escape(changes.value(c.after)),
            escape(changes.effect(c)),
            changes.result(c),
            escape("" if c.result == "not_comparable" else c.why),
        ]
        for name, c in comparison.changes()
        if c.measured
    )
    yield from _table(["target", "metric", "before", "after", "change", "", "why"], rows)


def _gates(comparison: Comparison) -> Iterator[str]:
    rows = [
        [escape(target.name), escape(gate.gate), escape(changes.gate(gate))]
        for target in comparison.targets
        for gate in target.gates
    ]
    if rows:
        yield from _table(["target", "gate", ""], rows)


def _differences(comparison: Comparison) -> Iterator[str]:
    found = [("", difference) for difference in comparison.differences]
    found += [(target.name, difference) for target in comparison.targets for difference in target.differences]
    rows = [
        [
            escape(wording.clean(f"{name} {d.name}")),
            escape(changes.fact(d.before)),
            escape(changes.fact(d.after)),
        ]
        for name, d in found
    ]
    if rows:
        yield from _table(["", "before", "after"], rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table of cells that are Markdown already."""
    return ["", *(f"| {' | '.join(row)} |" for row in (header, [":--"] * len(header), *rows)), ""]
