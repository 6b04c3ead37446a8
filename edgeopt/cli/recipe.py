"""``edgeopt recipe``: start a recipe, and its schema."""

from __future__ import annotations

from pathlib import Path

import typer

from edgeopt.cli._run import command, print_json
from edgeopt.errors import ConfigError

app = typer.Typer(help="Start a recipe, and describe the format.", no_args_is_help=True, rich_markup_mode=None)

_TEMPLATE = """\
# What to make of one trained model. `edgeopt check {folder}` checks it; `edgeopt compile {folder}` runs it.
# yaml-language-server: $schema=recipe.schema.json   (made by `edgeopt recipe schema > recipe.schema.json`)
recipe: 1                                    # version of this format
name: {name}
model:
  factory: {factory:<30}   # a module beside this file, or "package.module:callable"
  args: {{}}                                   # keyword arguments of the factory
  weights: {weights:<30}   # .safetensors, or .pt/.pth/.ckpt, read with weights_only=True
input: {{name: image, shape: [3, 224, 224]}}   # what the network takes, without the batch: (C, H, W)
preprocess:                                  # folded into every artefact, so that the device feeds raw data
  raw: {{shape: [224, 224, 3], dtype: uint8}}  # (H, W, C)
  scale: 255                                 # (raw / scale - mean) / std
  mean: [0.485, 0.456, 0.406]
  std: [0.229, 0.224, 0.225]
data:                                        # four disjoint splits; overlaps are refused
  train:     {{loader: data:train}}            # returns (samples, labels); raw samples, as the device feeds them
  calibrate: {{loader: data:calibrate}}        # INT8 ranges come from here; or {{path: calibration.npz}}
  select:    {{loader: data:select}}           # every decision inside the tool looks only here
  evaluate:  {{loader: data:evaluate}}         # the gates and the report look only here
metrics: [top1]
seed: 7
steps:                                       # export, compile and evaluate follow by themselves
  - prune:    {{criterion: l2_group, macs_ratio: 0.5}}
  - distill:  {{epochs: 10, temperature: 4.0}}
  - quantize: {{scheme: int8}}
gates:                                       # product thresholds, judged on intervals
  top1: {{max_drop: 0.01}}                     # at most one point below the float baseline
targets:                                     # `edgeopt targets list` shows what there is
  - cpu-openvino
  - name: cpu-onnxruntime
    gates: {{latency_ratio: {{max: 0.9}}}}       # thresholds for this target only
"""


_DATA = """\
\"\"\"The data of this recipe. Each function returns (samples, labels) of one split; no sample may be in two.

samples: (N, *raw shape), exactly as the device feeds them; labels: (N,) class numbers.
\"\"\"

from pathlib import Path

import numpy as np


def _read(split):
    with np.load(Path(__file__).parent / "data" / f"{split}.npz") as archive:
        return archive["samples"], archive["labels"]


def train():
    return _read("train")


def calibrate():
    return _read("calibrate")


def select():
    return _read("select")


def evaluate():
    return _read("evaluate")
"""
_WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt")


@app.command("init", epilog="Example: edgeopt recipe init recipes/face --factory net:face_embedder")
@command
def init(
    folder: Path = typer.Argument(..., help="Folder for the new recipe.", show_default=False),
    factory: str = typer.Option("model:build", "--factory", help="module:callable that returns the torch Module."),
) -> None:
    """Write a commented recipe to start from, and a data.py that reads data/SPLIT.npz. Nothing is overwritten."""
    import re

    path, data = folder / "recipe.yaml", folder / "data.py"
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._") or "model"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        weights = sorted(file.name for file in folder.iterdir() if file.suffix in _WEIGHTS)
        text = _TEMPLATE.format(
            name=name, folder=folder, factory=factory, weights=weights[0] if weights else "weights.safetensors"
        )
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        if not data.exists():
            data.write_text(_DATA, encoding="utf-8")
    except FileExistsError as error:
        raise ConfigError("there is a recipe already", where=str(path), fix="choose another folder") from error
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(path)) from error
    needed = [f"{factory.partition(':')[0]}.py", *([] if weights else ["the weights"]), "the data"]
    typer.echo(f"{path} written. Next: {', '.join(needed)}; then `edgeopt check {folder}`.")


@app.command("schema", epilog="Example: edgeopt recipe schema > recipe.schema.json")
@command
def schema() -> None:
    """JSON Schema of a recipe, with the parameters of every step, for editors."""
    from edgeopt import registry
    from edgeopt.recipe import Recipe

    document = Recipe.model_json_schema()
    steps = []
    for name, stage in registry.builtin("stages").items():
        if stage.in_recipe:
            parameters = stage.Params.model_json_schema(ref_template="#/$defs/{model}")
            document.setdefault("$defs", {}).update(parameters.pop("$defs", {}))
            steps.append({"type": "object", "properties": {name: parameters}, "required": [name], "maxProperties": 1})
    document["properties"]["steps"]["items"] = {"anyOf": steps}
    print_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **document})
