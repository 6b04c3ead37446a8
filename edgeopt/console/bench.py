"""A benchmark on the screen: the answer, every file's numbers, and each comparison in a sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

from edgeopt.console import page
from edgeopt.report import wording
from edgeopt.report.wording import clean

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from edgeopt.bench_record import BenchRecord, ComparisonRecord

_ROWS = {
    "latency_p50_ms": "p50",
    "latency_p90_ms": "p90",
    "latency_p99_ms": "p99",
    "throughput_per_s": "samples per second",
    "load_ms": "load",
    "first_inference_ms": "first inference",
    "call_overhead_ms": "of it the runtime's call",
    "peak_memory_mib": "peak memory",
    "energy_mj": "energy",
    "size_mib": "size",
    "size_compressed_mib": "size in a zip",
}
_STYLES = {"faster": "green", "slower": "bold red", "same": "", "undecided": "bold yellow"}
_WORDS = {"faster": "faster", "slower": "slower", "same": "no difference", "undecided": "undecided"}


@contextlib.contextmanager
def open_progress(stream: TextIO) -> Iterator[Callable[[float, float, str], None]]:
    """Told ``(seconds done, seconds in all, note)``, shows a bar on a terminal, and nothing anywhere else."""
    if not stream.isatty():
        yield lambda done, total, note: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("opening", total=None)
        yield lambda done, total, note: bar.update(task, completed=done, total=total or None, description=clean(note))


def print_bench(record: BenchRecord, stream: TextIO) -> None:
    """Write the benchmark to ``stream``. Outcomes are words, so nothing is lost without colours."""
    page.write(lambda console: _parts(record, console), stream)


def _parts(record: BenchRecord, console: Console) -> Iterator[RenderableType]:
    from rich.text import Text

    yield _table(record, console)
    yield from (_comparison(comparison) for comparison in record.comparisons)
    yield Text("")
    for file in record.files:
        if file.problem:
            yield Text.assemble(("broken", "bold red"), f"  {clean(file.name)}: {clean(file.problem)}")
    for why in record.disturbed:
        yield Text.assemble(("disturbed", "bold yellow"), f"  {clean(why)}")
    yield Text(f"two copies of one file, timed alike: {wording.quantity(record.noise)}", "dim")
    yield Text(clean(record.answer), "bold")


def _table(record: BenchRecord, console: Console) -> Table:
    """Metrics down, files across; in a narrow window an interval stands below its value."""
    from rich.table import Table

    between = " " if console.width >= 40 + 34 * len(record.files) else "\n"
    table = Table(box=page.table_box(console), pad_edge=False, collapse_padding=True)
    table.add_column("")
    for file in record.files:
        table.add_column(clean(file.name), justify="right", overflow="fold")
    for metric, title in _ROWS.items():
        found = [file.measurement(metric) for file in record.files]
        if any(found):
            table.add_row(title, *(_cell(wording.quantity(measured), between) for measured in found))
    return table


def _cell(quantity: wording.Quantity, between: str) -> Text:
    from rich.text import Text

    parts = ((quantity.value, ""), (quantity.interval, "dim"))
    return Text(between).join(Text(text, style) for text, style in parts if text)


def _comparison(comparison: ComparisonRecord) -> Text:
    from rich.text import Text

    text = Text.assemble((_WORDS[comparison.outcome], _STYLES[comparison.outcome]), f"  {clean(comparison.why)}.")
    if outputs := comparison.outputs:
        if outputs.max_difference is None:
            text.append(f"\n  Their outputs were not compared: {clean(outputs.why)}.")
        elif outputs.max_difference == 0:
            text.append("\n  Their outputs are equal, bit for bit.")
        else:
            most, value = outputs.max_difference, outputs.max_value
            text.append(f"\n  Their outputs differ by up to {most:.2g}; the largest is {value:.2g}.")
    return text
