"""Evaluate: run an artefact over a split and keep its outputs; :mod:`edgeopt.stages.score` takes the metrics.

A torch model runs in this process; everything else runs in the agent of the device, through the runtime that ships it.
An ONNX file that is not compiled yet runs with all optimisations off, which is what the file itself means.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from edgeopt import checkpoint, data
from edgeopt.artifact import Artifact
from edgeopt.errors import StageError
from edgeopt.stage import Clock, Params, StageContext, StageOutput
from edgeopt.stages import _nan
from edgeopt.target import Target

_TORCH_BATCH = 64


class EvaluateParams(Params):
    """How to evaluate.

    Attributes:
        split: ``select`` or ``evaluate``.
        runtime: Runtime that executes the artefact; ``torch`` for a torch artefact.
        optimization: ``none`` runs the file as it is written, ``all`` as it ships.
        batch: Samples per inference.
        threads: Threads of the runtime.
    """

    split: Literal["select", "evaluate"]
    runtime: str
    optimization: Literal["all", "none"] = "all"
    batch: int = Field(default=1, ge=1)
    threads: int = Field(default=1, ge=1)


class Evaluate:
    """See the module."""

    name = "evaluate"
    version = 2
    Params = EvaluateParams
    accepts: Mapping[str, frozenset[str]] = {
        "model": frozenset({"torch", "onnx", "onnx-qdq", "openvino-ir", "ort-model", "openvino-model"})
    }
    produces = frozenset({"outputs"})
    tools: tuple[str, ...] = ()
    in_recipe = False
    on_device = True

    def bind(self, params: EvaluateParams, target: Target) -> EvaluateParams:
        """Nothing to fold: the plan says which runtime, batch and threads."""
        return params

    def data(self, params: EvaluateParams) -> tuple[str, ...]:
        """Only the split that is asked for."""
        return (params.split,)

    def run(self, inputs: Mapping[str, Artifact], params: EvaluateParams, ctx: StageContext) -> StageOutput:
        """Write ``outputs.npy`` (N, ...) float32. ``meta["broken"]`` says what is wrong with them, if anything.

        Raises:
            StageError: The trained network gives NaN, or the runtime fails.
        """
        artifact, split = inputs["model"], ctx.data[params.split]
        outputs = _torch(artifact, split, ctx) if artifact.kind == "torch" else _agent(artifact, split, params, ctx)
        broken = ""
        wrong = np.flatnonzero(~np.isfinite(outputs).reshape(len(outputs), -1).all(axis=1))
        if len(wrong):
            layer = _nan.first_layer(artifact, split.samples[wrong[:1]], ctx.root)
            what = "network" if artifact.kind == "torch" else artifact.kind
            broken = f"the {what} gives NaN or infinity on {len(wrong)} of {len(outputs)} samples"
            broken += f", first in layer {layer}" if layer else ""
            if artifact.kind == "torch":
                raise StageError(broken)
        memory = io.BytesIO()  # numpy hides the reason why a file cannot be written
        np.save(memory, outputs, allow_pickle=False)
        (ctx.out / "outputs.npy").write_bytes(memory.getbuffer())
        meta = {"split": params.split, "n": len(split), "broken": broken}
        return StageOutput("outputs", meta, f"{len(split)} samples", (broken,) if broken else ())


def _torch(artifact: Artifact, split: data.Split, ctx: StageContext) -> npt.NDArray[np.float32]:
    import torch

    model = checkpoint.load(artifact, ctx.root)
    preprocess = checkpoint.preprocess_of(artifact)
    parts = []
    with torch.inference_mode():
        for samples, _ in split.batches(_TORCH_BATCH):
            parts.append(model(torch.from_numpy(data.to_input(samples, preprocess))).float().numpy())
    return np.concatenate(parts)


def _agent(artifact: Artifact, split: data.Split, params: EvaluateParams, ctx: StageContext) -> npt.NDArray[np.float32]:
    file = artifact.path(artifact.meta.get("file", "model.xml" if artifact.kind == "openvino-ir" else "model.onnx"))
    agent, clock = ctx.agent(), Clock()

    def progress(report: Mapping[str, float]) -> None:
        done, total = report["done"], report["total"]
        ctx.progress(done, total, "samples", "", clock.seconds_left(done, total))

    name = ctx.out.name
    agent.open(name, params.runtime, str(file), threads=params.threads, optimization=params.optimization)
    try:
        outputs = agent.infer(name, [split.samples], batch=params.batch, progress=progress)
    finally:
        agent.close(name)
    return np.asarray(outputs[0], dtype=np.float32)


PLUGINS = (Evaluate(),)
