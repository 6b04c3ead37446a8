"""``edgeopt report``: render a finished run again from its record."""

from __future__ import annotations

from pathlib import Path

import typer

from edgeopt.cli._run import AGAINST, FORMAT, Format, command


@command
def report(
    run: Path = typer.Argument(..., help="Folder that `edgeopt compile` wrote, or its run.json.", show_default=False),
    against: Path | None = AGAINST,
    format_: Format = FORMAT,
) -> None:
    """Write report.md, report.html and junit.xml anew from run.json, and print the summary."""
    import sys

    from edgeopt import console, publish
    from edgeopt.compare import compare

    release = publish.read_run(run)
    comparison = compare(publish.read_run(against), release) if against else None
    folder = run if run.is_dir() else run.parent
    written = publish.render_again(folder, release.record, release.samples, comparison)
    if format_ is Format.JSON:
        typer.echo(release.record.to_json(), nl=False)
        return
    console.print_summary(release.record, sys.stdout)
    if comparison:
        typer.echo("")
        console.print_comparison(comparison, sys.stdout)
    for path in written:
        typer.echo(str(path))
