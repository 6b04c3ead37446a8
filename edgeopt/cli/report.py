"""``edgeopt report``: render a finished run again from its record."""

from __future__ import annotations

from pathlib import Path

import typer

from edgeopt.cli._run import FORMAT, Format, command


@command
def report(
    run: Path = typer.Argument(..., help="Folder that `edgeopt compile` wrote, or its run.json.", show_default=False),
    format_: Format = FORMAT,
) -> None:
    """Write report.md, report.html and junit.xml anew from run.json, and print the summary."""
    import sys

    from edgeopt import console, publish, record

    loaded = record.load(run)
    folder = run if run.is_dir() else run.parent
    written = publish.render_again(folder, loaded, publish.read_samples(folder, loaded))
    if format_ is Format.JSON:
        typer.echo(loaded.to_json(), nl=False)
        return
    console.print_summary(loaded, sys.stdout)
    for path in written:
        typer.echo(str(path))
