"""``edgeopt inspect``: what an artefact is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from edgeopt.cli._run import CACHE, FORMAT, Format, command, open_store, print_json


@command
def inspect_command(
    what: str = typer.Argument(
        ..., help="Folder of a shipped artefact, or the digest (or its beginning) of a stored one.", show_default=False
    ),
    cache: Path | None = CACHE,
    format_: Format = FORMAT,
) -> None:
    """Verify an artefact and show its kind, inputs, outputs, files and compiled layers."""
    import json

    from edgeopt import publish

    folder = Path(what)
    if folder.is_dir():
        manifest = publish.read_manifest(folder)
    else:
        artifact = open_store(cache).find(what)
        folder = artifact.root
        manifest = {"kind": artifact.kind, "digest": artifact.digest, "files": artifact.files, "meta": artifact.meta}
    layers: list[dict[str, Any]] = []
    if (folder / "layer_map.json").is_file():
        layers = json.loads((folder / "layer_map.json").read_text(encoding="utf-8"))
    if format_ is Format.JSON:
        print_json({**manifest, "layers": layers})
        return
    typer.echo(f"{manifest['kind']}  {manifest['digest']}")
    for name in ("target", "candidate"):
        if name in manifest:
            typer.echo(f"{name}: {manifest[name]}")
    for name, digest in sorted(manifest["files"].items()):
        typer.echo(f"file: {name}  {(folder / name).stat().st_size / 2**20:.3f} MiB  sha256 {digest[:12]}")
    for name, value in sorted(manifest["meta"].items()):
        if name not in ("plan", "placed"):
            typer.echo(f"{name}: {json.dumps(value)}")
    if placed := manifest["meta"].get("placed"):
        _print_placement(placed)
    for layer in layers:
        typer.echo(_line(layer))


def _print_placement(placed: dict[str, Any]) -> None:
    """Shares by processor and precision, and everything that runs elsewhere than it should."""
    from edgeopt.placement import Placement

    found = Placement.from_json(placed)
    for what, shares, whole in (("operators", found.operators, found.layers), ("MACs", found.macs, found.total_macs)):
        for device, by_precision in shares.items():
            for precision, part in by_precision.items():
                share = f"{100 * part / whole:5.1f} %" if whole else ""
                typer.echo(f"{what}: {device} {precision:<8} {part:>12} {share}".rstrip())
    for measurement in found.measurements():
        value = "not measured" if measurement.value is None else f"{measurement.value:.4g}"
        typer.echo(f"{measurement.metric}: {value}" + (f" ({measurement.why})" if measurement.why else ""))
    for note in found.notes():
        typer.echo(f"note: {note}")


def _line(layer: dict[str, Any]) -> str:
    """One compiled layer: its type, processor and precision, kernel, name, sources, and why it runs there."""
    what = f"{layer.get('op', ''):<24} {layer.get('device', ''):<4} {layer.get('precision', ''):<5}"
    line = f"layer: {what} {layer.get('exec', ''):<28} {layer.get('name', '')}  <- {', '.join(layer.get('source', []))}"
    return line + (f"  ({layer['why']})" if layer.get("why") else "")
