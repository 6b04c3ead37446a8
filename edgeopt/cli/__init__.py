"""The command line: one thin file per command.

Nothing heavy is imported here or at the top of a command's file, so that ``edgeopt --help`` is as fast as Typer itself.
"""

from __future__ import annotations

import os

import typer

from edgeopt import __version__
from edgeopt.cli import bench, cache, check, compare, compile_, inspect_, lint, recipe, report, targets, tools

app = typer.Typer(
    name="edgeopt",
    help="From a trained PyTorch model to gated edge artefacts: prune, distil, quantize, compile, measure, judge.",
    epilog="Exit codes: 0 all gates passed, 1 a gate failed, 2 wrong usage or files, 3 a tool failed, "
    "4 undecided or not measured, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("compile", epilog="Example: edgeopt compile recipes/digits --target cpu-openvino")(compile_.compile_command)
app.command("check", epilog="Example: edgeopt check recipes/digits --set steps.prune.macs_ratio=0.4")(check.check)
app.command("bench", epilog="Example: edgeopt bench a.onnx b.onnx --target cpu-onnxruntime")(bench.bench)
app.command("compare", epilog="Example: edgeopt compare releases/1.2 build/digits --format markdown")(compare.compare)
app.command("report", epilog="Example: edgeopt report build/digits")(report.report)
app.command("inspect", epilog="Example: edgeopt inspect build/digits/cpu-openvino")(inspect_.inspect_command)
app.command("lint", epilog="Example: edgeopt lint model.onnx --fix mended.onnx")(lint.lint)
app.add_typer(targets.app, name="targets")
app.add_typer(targets.app, name="target", hidden=True)
app.add_typer(recipe.app, name="recipe")
app.add_typer(cache.app, name="cache")
app.add_typer(tools.app, name="tools")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"edgeopt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    """Entry point of ``edgeopt``."""
    from edgeopt.agent import telemetry

    telemetry.silence()
    # Threads that spin while they wait make a busy machine a hundred times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    app()
