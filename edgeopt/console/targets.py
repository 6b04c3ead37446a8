"""Targets on the screen: what each is, how far it goes on this machine, and what would mend it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from edgeopt.console import page
from edgeopt.report.wording import clean

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from edgeopt.doctor import Diagnosis, Reached

_STYLES = {"measure": "green", "estimate": "cyan", "simulate": "cyan", "compile": "cyan"}
#: What a depth means, for the line under the table.
_MEANS = "measure: on the device. estimate: by the toolkit. simulate: outputs only. compile: a file only."
_NO_DEVICE = "Where no device is at hand, say in the target how one is reached: device: {access: {ssh: HOST}}."
_ACCESS = {"local": "this machine"}


def print_targets(found: Sequence[Diagnosis], stream: TextIO, *, asked: bool) -> None:
    """Write a table of the targets, and one line on each thing that is wrong.

    Args:
        found: In the order of the table.
        stream: To write to.
        asked: Whether the devices were asked.
    """
    page.write(lambda console: _parts(found, console, asked), stream)


def _parts(found: Sequence[Diagnosis], console: Console, asked: bool) -> Iterator[RenderableType]:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(box=page.table_box(console), pad_edge=False, show_edge=False)
    table.add_column("target", no_wrap=True)
    table.add_column("runtime", overflow="fold")
    table.add_column("device" if asked else "reached by", overflow="fold")
    table.add_column("here" if asked else "as deep as", no_wrap=True)
    for one in found:
        runtimes = "\n".join(clean(f"{tool.runtime} {tool.version or '-'}") for tool in one.toolkits)
        depth = one.depth or "nothing"
        table.add_row(clean(one.name), runtimes, _device(one.device), Text(depth, _STYLES.get(depth, "bold red")))
    yield table
    yield Text("")
    for access, machine in {one.device.access: one.device.machine for one in found if one.device.machine}.items():
        yield Text(f"{_ACCESS.get(access, clean(access))}: {clean(machine)}", "dim")
    yield Text(_MEANS, "dim")
    if any(one.device.access == "none" for one in found):
        yield Text(_NO_DEVICE, "dim")
    for one in found:
        for problem in one.problems if asked else one.problems[:1]:
            yield Text("")
            yield Text.assemble((clean(one.name), "bold"), ": ", clean(problem.what))
            if problem.fix:
                yield Padding(Text(f"fix: {clean(problem.fix)}", "dim"), (0, 0, 0, 2))


def _device(device: Reached) -> str:
    access = _ACCESS.get(device.access, clean(device.access))
    return f"{access}: not reached" if device.asked and not device.machine else access
