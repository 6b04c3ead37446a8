"""``edgeopt cache``: look after the store."""

from __future__ import annotations

from pathlib import Path

import typer

from edgeopt.cli._run import CACHE, FORMAT, Format, command, open_store, print_json
from edgeopt.errors import StoreError

app = typer.Typer(help="Look after the store of artefacts.", no_args_is_help=True, rich_markup_mode=None)


@app.command("info", epilog="Example: edgeopt cache info --format json")
@command
def info(cache: Path | None = CACHE, format_: Format = FORMAT) -> None:
    """Where the store is and how much it holds."""
    facts = open_store(cache).info()
    if format_ is Format.JSON:
        print_json(facts)
    else:
        typer.echo(
            f"{facts['path']}: {facts['objects']} objects, {facts['actions']} actions, {facts['size_mib']:.1f} MiB"
        )


@app.command("gc", epilog="Example: edgeopt cache gc --older-than 7")
@command
def gc(
    older_than: float = typer.Option(30.0, "--older-than", min=0, help="Days since an action was last used."),
    cache: Path | None = CACHE,
    format_: Format = FORMAT,
) -> None:
    """Remove what was not used for a while, and what dead processes left."""
    done = open_store(cache).gc(older_than * 86400)
    if format_ is Format.JSON:
        print_json(done)
    else:
        typer.echo(f"removed {done['actions']} actions and {done['objects']} objects, {done['freed_mib']:.1f} MiB")


@app.command("verify", epilog="Example: edgeopt cache verify")
@command
def verify(cache: Path | None = CACHE, format_: Format = FORMAT) -> None:
    """Read every object and compare it with its digest. A damaged one is made anew by the next run."""
    store = open_store(cache)
    damaged = store.verify()
    if format_ is Format.JSON:
        print_json({"damaged": damaged})
    if damaged:
        raise StoreError(
            f"{len(damaged)} damaged objects: {', '.join(digest[:12] for digest in damaged)}",
            where=str(store.root),
            fix="run the recipe again: it makes them anew",
        )
    if format_ is Format.TEXT:
        typer.echo("all objects are as they were written")


@app.command("clear", epilog="Example: edgeopt cache clear --yes")
@command
def clear(
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
    cache: Path | None = CACHE,
) -> None:
    """Remove everything that the store holds."""
    store = open_store(cache)
    if not yes:
        typer.confirm(f"Remove everything in {store.root}?", abort=True)
    store.clear()
    typer.echo(f"{store.root} is empty")
