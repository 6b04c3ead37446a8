"""What the tests of the compression stages share: artefacts of small networks, contexts and made-up data."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from edgeopt.artifact import Artifact, digest_of, file_digest
from edgeopt.data import Split
from edgeopt.recipe import InputSpec
from edgeopt.reference import source_digest
from edgeopt.stage import StageContext, StageOutput
from edgeopt.stages.load import Load, LoadParams

#: ``nets.py`` lies here.
ROOT = Path(__file__).parent

#: Name of the network -> shape of its input.
SHAPES = {
    "Plain": (3, 8, 8),
    "HardView": (3, 8, 8),
    "ResNet20": (3, 8, 8),
    "MobileFaceNet": (3, 16, 16),
    "DenseNet": (3, 8, 8),
    "ShuffleNet": (3, 8, 8),
    "Grouped": (3, 8, 8),
    "Scaled": (3, 8, 8),
    "Norms": (3, 8, 8),
    "ChannelMean": (3, 8, 8),
}

_folders = itertools.count()


def no_agent(environment: str = "") -> Any:
    raise AssertionError("this stage has no business with the device")


def context(folder: Path, *, root: Path = ROOT, data: Mapping[str, Split] | None = None, seed: int = 7) -> StageContext:
    """A context with a fresh output folder below ``folder``."""
    out = folder / f"out{next(_folders)}"
    out.mkdir(parents=True)
    return StageContext(out, root, seed, data or {}, lambda *progress: None, no_agent, no_agent)


def artifact(output: StageOutput, ctx: StageContext) -> Artifact:
    """What the store would make of a stage's output."""
    files = {path.name: file_digest(path) for path in sorted(ctx.out.iterdir())}
    meta = json.loads(json.dumps(output.meta))
    return Artifact(output.kind, digest_of([output.kind, files, meta]), ctx.out, files, meta)


def load_params(weights: Path, factory: str, shape: tuple[int, ...], root: Path = ROOT, **args: Any) -> LoadParams:
    """Parameters of ``load`` as a plan would bind them."""
    return LoadParams(
        factory=factory,
        args=args,
        weights=str(weights),
        weights_digest=file_digest(weights) if weights.is_file() else "",
        source_digest=source_digest(factory, root),
        input=InputSpec(shape=shape),
    )


def network(name: str, folder: Path, *, seed: int = 0, **args: Any) -> Artifact:
    """The torch artefact of one of the networks in ``nets.py``, with random weights and lively statistics."""
    from tests import nets

    torch.manual_seed(seed)
    model = getattr(nets, name)(**args)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f"{name}.safetensors"
    save_file(model.state_dict(), weights)
    ctx = context(folder)
    return artifact(Load().run({}, load_params(weights, f"nets:{name}", SHAPES[name], **args), ctx), ctx)


def split(name: str, samples: Any, labels: Any) -> Split:
    """A split without the checks of opening one."""
    return Split(name, np.asarray(samples), None if labels is None else np.asarray(labels), name)
