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
        if name != "plan":
            typer.echo(f"{name}: {json.dumps(value)}")
    for layer in layers:
        source = layer.get("source") or []
        typer.echo(
            f"layer: {layer.get('op', ''):<24} {layer.get('precision', ''):<8} {layer.get('exec', ''):<28} "
            f"{layer.get('name', '')}  <- {', '.join(source) if isinstance(source, list) else source}"
        )
