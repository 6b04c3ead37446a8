"""``edgeopt targets``: the hardware profiles."""

from __future__ import annotations

from pathlib import Path

import typer

from edgeopt.cli._run import FORMAT, Format, command, print_json

app = typer.Typer(help="List, show and describe hardware profiles.", no_args_is_help=True, rich_markup_mode=None)

_BESIDE = typer.Option(Path(), "--beside", help="Folder of the recipe that would name the target.")


@app.command("list", epilog="Example: edgeopt targets list --format json")
@command
def list_(beside: Path = _BESIDE, format_: Format = FORMAT) -> None:
    """The targets that a recipe can name, and whether their runtimes are installed."""
    from edgeopt import config, registry, target

    rows = []
    for name, file in target.available(beside).items():
        profile = config.load(file, target.Target)
        probes = {runtime: registry.find("backends", runtime).probe() for runtime in profile.runtime}
        rows.append(
            {
                "name": name,
                "file": str(file),
                "description": profile.description,
                "runtimes": {
                    runtime: {"installed": probe.installed, "version": probe.version, "fix": probe.fix}
                    for runtime, probe in probes.items()
                },
            }
        )
    if format_ is Format.JSON:
        print_json(rows)
        return
    for row in rows:
        runtimes = row["runtimes"]
        states = [
            f"{runtime} {state['version']}" if state["installed"] else f"{runtime} not installed: {state['fix']}"
            for runtime, state in (runtimes.items() if isinstance(runtimes, dict) else ())
        ]
        typer.echo(f"{row['name']:<20} {row['description']}  [{'; '.join(states)}]")
    if not rows:
        typer.echo("no targets found; put one into targets/NAME.yaml (`edgeopt targets schema` describes it)")


@app.command("show", epilog="Example: edgeopt targets show cpu-openvino")
@command
def show(name: str = typer.Argument(..., show_default=False), beside: Path = _BESIDE, format_: Format = FORMAT) -> None:
    """A target with all its values, given and by default."""
    from edgeopt import config, target

    profile = config.load(target.locate(name, beside), target.Target).model_dump(mode="json")
    if format_ is Format.JSON:
        print_json(profile)
        return
    import yaml

    typer.echo(yaml.safe_dump(profile, sort_keys=False), nl=False)


@app.command("schema", epilog="Example: edgeopt targets schema > target.schema.json")
@command
def schema() -> None:
    """JSON Schema of a target file, for editors."""
    from edgeopt.target import Target

    print_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **Target.model_json_schema()})
