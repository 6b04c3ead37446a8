"""What all commands share: output format, and errors as messages with the right exit code."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, ParamSpec

import typer

from edgeopt.errors import EdgeoptError, ExitCode

P = ParamSpec("P")


class Format(StrEnum):
    """How a command prints its result on stdout."""

    TEXT = "text"
    JSON = "json"


FORMAT = typer.Option(Format.TEXT, "--format", help="How to print the result on stdout.")
CACHE = typer.Option(None, "--cache", help="Folder of the store. [default: $EDGEOPT_CACHE, or the user's cache folder]")
SET = typer.Option([], "--set", metavar="KEY=VALUE", help="Override a value of the recipe; may be repeated.")
TARGET = typer.Option([], "--target", metavar="NAME", help="Only this target of the recipe; may be repeated.")
WAIVERS = typer.Option(
    None, "--waivers", metavar="FILE", help="Waived gates. [default: waivers.yaml beside the recipe, if it is there]"
)
AGAINST = typer.Option(None, "--against", metavar="RUN", help="An earlier run to compare with.")
TRACK = typer.Option(
    None, "--track", metavar="URI", help="Send the run to an MLflow server, https://..., or to a file, sqlite:///FILE."
)
RECIPE = typer.Argument(..., help="The recipe file, or the folder that holds recipe.yaml.", show_default=False)


#: What an URI may hold before its host, such as ``user:password@``.
_CREDENTIALS = re.compile(r"(?<=://)\S*@")


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Run a command so that every error becomes a message on stderr and its exit code, never a traceback."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except EdgeoptError as error:
            typer.echo(f"edgeopt: {_listed(error)}", err=True)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            typer.echo("edgeopt: interrupted; finished steps are kept, the same command goes on from there", err=True)
            raise typer.Exit(ExitCode.INTERRUPTED) from error
        except BrokenPipeError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(ExitCode.TOOL_FAILED) from error
        except (typer.Exit, typer.Abort):
            raise
        except SystemExit as error:  # typer ends outside of this function
            typer.echo("edgeopt: the model's or the loader's code called sys.exit()", err=True)
            raise typer.Exit(ExitCode.TOOL_FAILED) from error
        except Exception as error:
            typer.echo(f"edgeopt: {_bug(error)}", err=True)
            raise typer.Exit(ExitCode.TOOL_FAILED) from error

    return run


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    import json

    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))


def open_store(cache: Path | None) -> Any:
    """The store that the command works with."""
    from edgeopt.artifact import Store, default_root

    return Store(cache or default_root())


def _listed(error: EdgeoptError) -> str:
    """The error as text; a user file's problems, one to a line and each with its own place, are counted."""
    problems = error.what.splitlines()
    return str(error) if error.where or len(problems) < 2 else f"{len(problems)} problems\n{error}"


def _bug(error: Exception) -> str:
    """An exception that nobody foresaw is a bug of ours: keep the traceback in a file, and say so in two lines."""
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    handle, name = tempfile.mkstemp(prefix="edgeopt-bug-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(_CREDENTIALS.sub("***@", f"{' '.join(sys.argv)}\n\n{text}"))
    what = _CREDENTIALS.sub("***@", str(error).partition("\n")[0])
    return (
        f"internal error: {type(error).__name__}: {what}\n"
        f"  this is a bug in edgeopt; please report it with the log {name}"
    )
