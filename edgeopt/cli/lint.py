"""``edgeopt lint``: what TensorRT does not accept of a quantized ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgeopt.cli._run import FORMAT, Format, command, print_json
from edgeopt.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from edgeopt.qdq import Finding


@command
def lint(
    model: Path = typer.Argument(..., help="ONNX file.", show_default=False),
    fix: Path | None = typer.Option(None, "--fix", metavar="OUT.onnx", help="Write a mended copy there."),
    format_: Format = FORMAT,
) -> None:
    """Find what TensorRT refuses of a quantized ONNX file, or computes otherwise than ONNX defines it.

    Exit codes: 0 TensorRT takes the file (with --fix: the mended one), 1 it does not.
    """
    from dataclasses import asdict

    from edgeopt import provenance, qdq

    provenance.require(["onnx"])
    if fix is not None:
        _check(model, fix)
    given = qdq.read(model)
    findings = qdq.lint(given)
    repaired = qdq.repair(given) if fix else qdq.Repaired(given, (), findings)
    changes, left = repaired.changes, repaired.left
    if fix is not None:
        fix.write_bytes(repaired.model.SerializeToString(deterministic=True))
    refused = qdq.refused(left)
    if format_ is Format.JSON:
        print_json(
            {
                "file": str(model),
                "findings": [asdict(finding) for finding in findings],
                "mended": str(fix) if fix else None,
                "changes": [asdict(change) for change in changes],
                "left": [asdict(finding) for finding in left],
                "accepted": not refused,
            }
        )
    else:
        for finding in findings:
            typer.echo(_text(finding))
        for change in changes:
            typer.echo(f"mended {change}")
        if fix is not None:
            typer.echo(f"{fix}: {_places(len(refused))}, of {len(qdq.refused(findings))} before")
            for finding in refused:
                typer.echo(f"left {finding}")
        else:
            typer.echo(f"{model}: {_places(len(refused))}; warnings: {len(findings) - len(refused)}")
    raise typer.Exit(ExitCode.GATE_FAILED if refused else ExitCode.OK)


def _check(model: Path, out: Path) -> None:
    if out.exists() and model.exists() and out.samefile(model):
        raise ConfigError("the mended copy would replace the model", where="--fix", fix="name another file")
    if not out.parent.is_dir():
        raise ConfigError(f"there is no folder {str(out.parent)!r}", where="--fix")


def _places(count: int) -> str:
    return f"{count} place{'' if count == 1 else 's'} that TensorRT refuses"


def _text(finding: Finding) -> str:
    mends = "; --fix mends it" if finding.repairable else ""
    return f"{finding.severity} {finding}\n  fix: {finding.advice}{mends}"
