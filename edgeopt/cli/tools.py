"""``edgeopt tools``: toolkits that need an environment of their own."""

from __future__ import annotations

import typer

from edgeopt.cli._run import FORMAT, Format, command, print_json

app = typer.Typer(
    help="Install, list and remove toolkits that need an environment of their own.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_NAME = typer.Argument(..., help="As `edgeopt tools list` shows it.", show_default=False)


def _say(line: str) -> None:
    typer.echo(line, err=True)


@app.command("install", epilog="Example: edgeopt tools install rknn")
@command
def install(name: str = _NAME) -> None:
    """Make the environment from its lock file, with the package index of your pip configuration. Again is harmless."""
    from edgeopt import tools
    from edgeopt.tools import building

    _say(f"{name}: licence of the toolkit: {tools.find(name).licence}")
    done = building.install(name, _say)
    typer.echo(f"{name} is installed: {done.size_mib:.0f} MiB in {done.folder}")


@app.command("list", epilog="Example: edgeopt tools list --format json")
@command
def list_(format_: Format = FORMAT) -> None:
    """All environments, and how they stand here."""
    from edgeopt import tools

    found = [tools.status(name) for name in tools.names()]
    if format_ is Format.JSON:
        print_json(
            [
                {
                    "name": one.tool.name,
                    "what": one.tool.what,
                    "toolkit": one.tool.toolkit,
                    "state": one.state,
                    "licence": one.tool.licence,
                    "python": one.python or one.tool.python,
                    "size_mib": one.size_mib or one.tool.size_mib,
                    "folder": str(one.folder),
                    "versions": dict(tools.versions(one.tool.name)),
                }
                for one in found
            ]
        )
        return
    for one in found:
        tool, size_mib = one.tool, one.size_mib or one.tool.size_mib
        version = tools.versions(tool.name)[tool.toolkit]
        typer.echo(f"{tool.name:<14} {one.state:<14} {tool.what}, {tool.toolkit} {version}")
        typer.echo(f"{'':<14} Python {one.python or tool.python}, {size_mib:.0f} MiB, licence: {tool.licence}")
        if one.state in ("outdated", "interrupted"):
            typer.echo(f"{'':<14} mend it with: edgeopt tools install {tool.name}")


@app.command("remove", epilog="Example: edgeopt tools remove rknn")
@command
def remove(name: str = _NAME) -> None:
    """Remove the environment from the disk."""
    from edgeopt.tools import building

    removed = building.remove(name, _say)
    typer.echo(f"{name} is removed" if removed else f"{name} was not installed")
