"""``edgeopt compare``: release against release."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgeopt.cli._run import command
from edgeopt.errors import ConfigError

if TYPE_CHECKING:
    from edgeopt.compare import Comparison


class Rendering(StrEnum):
    """How a comparison is printed."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"
    SARIF = "sarif"


@command
def compare(
    before: Path = typer.Argument(..., metavar="RUN_A", help="The earlier run: its folder, or its run.json."),
    after: Path = typer.Argument(..., metavar="RUN_B", help="The later run."),
    tolerance: list[str] = typer.Option(
        [],
        "--tolerance",
        metavar="[METRIC=]VALUE",
        help="How much worse is accepted; may be repeated. Alone: latency, memory, size and energy, as a part of what "
        "they were [default: 0.05]. For one metric: such as top1=0.002, in its own unit [default: 0].",
    ),
    strict: bool = typer.Option(False, "--strict", help="Exit with 4 if any number could not be compared."),
    format_: Rendering = typer.Option(Rendering.TEXT, "--format", help="How to print the comparison."),
    out: Path | None = typer.Option(None, "--out", help="Write it to this file; stdout gets the text."),
) -> None:
    """Compare what two runs ship: better, worse, no difference shown, or not comparable, with intervals.

    Exit codes: 1 if something got worse by more than is accepted or a target is lost; 4 if nothing could be compared.
    """
    import sys

    from edgeopt import console, publish
    from edgeopt.compare import TOLERANCE
    from edgeopt.compare import compare as compare_runs

    everywhere, single = _tolerances(tolerance, TOLERANCE)
    comparison = compare_runs(publish.read_run(before), publish.read_run(after), everywhere, single)
    if out is not None:
        try:
            out.write_text(_rendered(comparison, format_), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", where=str(out)) from error
    if out is None and format_ is not Rendering.TEXT:
        typer.echo(_rendered(comparison, format_), nl=False)
    else:
        console.print_comparison(comparison, sys.stdout)
    raise typer.Exit(comparison.exit_code(strict))


def _tolerances(given: list[str], default: float) -> tuple[float, dict[str, float]]:
    """That of all metrics that have none of their own, and those."""
    everywhere, single = default, {}
    for text in given:
        metric, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            fix = "such as --tolerance 0.05, or --tolerance top1=0.002"
            raise ConfigError(
                "expected [METRIC=]VALUE with a value of at least 0", where=f"--tolerance {text}", fix=fix
            )
        if metric:
            single[metric] = value
        else:
            everywhere = value
    return everywhere, single


def _rendered(comparison: Comparison, format_: Rendering) -> str:
    import io

    from edgeopt import console
    from edgeopt.report import compare_markdown, sarif

    if format_ is Rendering.JSON:
        return comparison.to_json()
    if format_ is Rendering.MARKDOWN:
        return compare_markdown.render(comparison)
    if format_ is Rendering.SARIF:
        return sarif.render(comparison, Path.cwd())
    text = io.StringIO()
    console.print_comparison(comparison, text)
    return text.getvalue()
