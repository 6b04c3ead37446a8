"""``edgeopt targets``: the hardware profiles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgeopt.cli._run import FORMAT, Format, command, print_json
from edgeopt.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from edgeopt.doctor import Diagnosis
    from edgeopt.target import Device

app = typer.Typer(help="List, show, examine and make hardware profiles.", no_args_is_help=True, rich_markup_mode=None)

_BESIDE = typer.Option(Path(), "--beside", help="Folder of the recipe that would name the target.")
_NONE_FOUND = "no targets found; put one into targets/NAME.yaml, or let `edgeopt targets init NAME` write it"


@app.command("list", epilog="Example: edgeopt targets list --format json")
@command
def list_(beside: Path = _BESIDE, format_: Format = FORMAT) -> None:
    """The targets that a recipe can name, and how deep each goes here. No device is asked."""
    from edgeopt import doctor, target

    found = doctor.examine(target.available(beside), ask=False)
    _print(found, format_, asked=False)


@app.command("doctor", epilog="Example: edgeopt targets doctor jetson-orin-nano")
@command
def doctor_(
    names: list[str] = typer.Argument(None, metavar="[NAME]...", help="Targets; all if none is named."),
    beside: Path = _BESIDE,
    limit: float = typer.Option(20.0, "--limit", min=1, help="Seconds that devices may take to answer."),
    format_: Format = FORMAT,
) -> None:
    """What can be done for targets on this machine, what keeps them from more, and the line that mends it.

    Exit code 3 if one of them cannot do what it says.
    """
    from edgeopt import doctor, target

    files = {name: target.locate(name, beside) for name in names} if names else target.available(beside)
    found = doctor.examine(files, limit_s=limit)
    _print(found, format_, asked=True)
    if any(one.problems for one in found):
        raise typer.Exit(ExitCode.TOOL_FAILED)


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


@app.command("init", epilog="Example: edgeopt targets init lab-orin --ssh lab-orin-3")
@command
def init(
    name: str = typer.Argument(..., help="Of the target, and of its file.", show_default=False),
    ssh: str = typer.Option(None, "--ssh", metavar="HOST", help="The device is reached over ssh."),
    adb: str = typer.Option(None, "--adb", metavar="SERIAL", help="The device is reached by adb."),
    python: str = typer.Option(None, "--python", metavar="PATH", help="Interpreter with numpy and a runtime there."),
    folder: Path = typer.Option(Path("targets"), "--folder", help="Where the file is written."),
) -> None:
    """Write a target for a device, from what it says of itself. Without options, for this machine."""
    from edgeopt import doctor, draft

    given = {key: value for key, value in {"ssh": ssh, "adb": adb, "python": python}.items() if value}
    asked = _device(name, given)
    file = folder / f"{name}.yaml"
    if file.exists():
        raise ConfigError(f"{file} is there already", fix="choose another name, or remove the file")
    text = draft.draft(name, asked.access, doctor.facts(asked))
    folder.mkdir(parents=True, exist_ok=True)
    with file.open("x", encoding="utf-8") as stream:
        stream.write(text)
    typer.echo(text, nl=False)
    typer.echo(f"wrote {file}; look through it, then: edgeopt targets doctor {name}", err=True)


@app.command("schema", epilog="Example: edgeopt targets schema > target.schema.json")
@command
def schema() -> None:
    """JSON Schema of a target file, for editors."""
    from edgeopt.target import Target

    print_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **Target.model_json_schema()})


def _print(found: Sequence[Diagnosis], format_: Format, *, asked: bool) -> None:
    if format_ is Format.JSON:
        print_json([_as_json(one) for one in found])
    elif found:
        from edgeopt.console.targets import print_targets

        print_targets(found, typer.get_text_stream("stdout"), asked=asked)
    else:
        typer.echo(_NONE_FOUND)


def _device(name: str, access: dict[str, str]) -> Device:
    """The device of a target that is to be made.

    Raises:
        ConfigError: The name or an option cannot stand in a target.
    """
    from pydantic import ValidationError

    from edgeopt.target import Target

    sketch = {"target": 1, "name": name, "runtime": "onnxruntime", "device": {"access": access}}
    try:
        return Target.model_validate(sketch).device
    except ValidationError as error:
        options = [str(details["loc"][-1]) for details in error.errors()]
        wrong = [f"{option}: {details['msg']}" for option, details in zip(options, error.errors(), strict=True)]
        raise ConfigError("; ".join(wrong), where="targets init") from error


def _as_json(one: Diagnosis) -> dict[str, Any]:
    from dataclasses import asdict

    dumped = asdict(one)
    del dumped["device"]["facts"], dumped["problem"]
    return {**dumped, "depth": one.depth, "problems": [asdict(problem) for problem in one.problems]}
