"""``edgeopt report``: render a finished run again from its record."""

from __future__ import annotations

from pathlib import Path

import typer

from edgeopt.cli._run import AGAINST, FORMAT, TRACK, Format, command


@command
def report(
    run: Path = typer.Argument(..., help="Folder that `edgeopt compile` wrote, or its run.json.", show_default=False),
    against: Path | None = AGAINST,
    track: str | None = TRACK,
    format_: Format = FORMAT,
) -> None:
    """Write report.md, report.html and junit.xml anew from run.json, and print the summary."""
    import sys

    from edgeopt import console, publish, tracking
    from edgeopt.compare import compare

    server = tracking.parse(track) if track is not None else None
    release = publish.read_run(run)
    comparison = compare(publish.read_run(against), release) if against else None
    folder = run if run.is_dir() else run.parent
    written = publish.render_again(folder, release.record, release.samples, comparison)
    if format_ is Format.JSON:
        typer.echo(release.record.to_json(), nl=False)
    else:
        console.print_summary(release.record, sys.stdout)
        if comparison:
            typer.echo("")
            console.print_comparison(comparison, sys.stdout)
        for path in written:
            typer.echo(str(path))
    if server:
        place = tracking.send(server, release.record, folder, publish.files(folder, release.record))
        typer.echo(f"tracked: {place}", err=True)
