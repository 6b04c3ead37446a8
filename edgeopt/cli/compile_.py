"""``edgeopt compile``: run a recipe and judge the result."""

from __future__ import annotations

from pathlib import Path

import typer

from edgeopt.cli._run import AGAINST, CACHE, FORMAT, RECIPE, SET, TARGET, TRACK, WAIVERS, Format, command, open_store


@command
def compile_command(
    recipe: Path = RECIPE,
    target: list[str] = TARGET,
    out: Path | None = typer.Option(None, "--out", help="Folder of the results. [default: build/RECIPE-NAME]"),
    set_: list[str] = SET,
    waivers: Path | None = WAIVERS,
    against: Path | None = AGAINST,
    track: str | None = TRACK,
    explain: bool = typer.Option(False, "--explain", help="Say for every step why it ran or was reused."),
    no_cache: bool = typer.Option(False, "--no-cache", help="Do every step again, whatever the store holds."),
    keep_going: bool = typer.Option(False, "--keep-going", help="After a failure, go on with the other targets."),
    cache: Path | None = CACHE,
    format_: Format = FORMAT,
) -> None:
    """Take a trained model to gated artefacts for every target, with the evidence."""
    import os
    import sys
    import tempfile

    from edgeopt import console, engine, events, publish, tracking
    from edgeopt.compare import Release, compare
    from edgeopt.errors import TrackingError
    from edgeopt.plan import plan as make_plan

    server = tracking.parse(track) if track is not None else None
    plan = make_plan(recipe, set_, target, waivers)
    folder = out or Path("build") / plan.recipe.name
    publish.check_folder(folder)
    earlier = publish.read_run(against) if against else None  # it may be what the new run replaces
    store = open_store(cache)
    handle, log = tempfile.mkstemp(dir=store.root / "tmp", prefix="events-", suffix=".jsonl")
    os.close(handle)
    try:
        with console.open_sink(sys.stderr) as screen, console.jsonl_sink(Path(log)) as lines:
            execution = engine.execute(
                plan, store, events.fan_out(lines, screen), reuse=not no_cache, keep_going=keep_going
            )
        release = Release(str(folder), execution.record, execution.samples)
        comparison = compare(earlier, release) if earlier else None
        publish.publish(folder, execution.record, execution.shipped, execution.samples, Path(log), comparison)
    finally:
        Path(log).unlink(missing_ok=True)
    record = execution.record
    if format_ is Format.JSON:
        typer.echo(record.to_json(), nl=False)
    else:
        if explain:
            for stage in record.stages:
                typer.echo(f"{stage.id}: {'reused' if stage.cached else 'ran'}: {stage.why}")
            typer.echo("")
        console.print_summary(record, sys.stdout)
        if comparison:
            typer.echo("")
            console.print_comparison(comparison, sys.stdout)
        typer.echo(f"report: {folder / 'report.html'}")
    if server:
        try:
            place = tracking.send(server, record, folder, publish.files(folder, record))
            typer.echo(f"tracked: {place}", err=True)
        except TrackingError as error:
            if record.exit_code == 0:
                raise
            typer.echo(f"edgeopt: {error}", err=True)  # the verdict matters more
    raise typer.Exit(record.exit_code)
