"""Evaluate: run an artefact over a split and take the metrics, with intervals.

A torch model runs in this process; everything else runs in the agent of the device, through the runtime that ships it.
An ONNX file that is not compiled yet runs with all optimisations off, which is what the file itself means.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from edgeopt import checkpoint, data, metrics, registry
from edgeopt.artifact import Artifact
from edgeopt.errors import ConfigError, StageError
from edgeopt.measure import Measurement
from edgeopt.stage import Clock, Params, StageContext, StageOutput
from edgeopt.target import Target

#: Confidence of every accuracy interval.
CONFIDENCE = 0.95
_TORCH_BATCH = 64


class EvaluateParams(Params):
    """How to evaluate.

    Attributes:
        metrics: Names of the metrics.
        split: ``select`` or ``evaluate``.
        runtime: Runtime that executes the artefact; ``torch`` for a torch artefact.
        optimization: ``none`` runs the file as it is written, ``all`` as it ships.
        batch: Samples per inference.
        threads: Threads of the runtime.
    """

    metrics: tuple[str, ...]
    split: Literal["select", "evaluate"]
    runtime: str
    optimization: Literal["all", "none"] = "all"
    batch: int = Field(default=1, ge=1)
    threads: int = Field(default=1, ge=1)


class Evaluate:
    """See the module."""

    name = "evaluate"
    version = 1
    Params = EvaluateParams
    accepts: Mapping[str, frozenset[str]] = {
        "model": frozenset({"torch", "onnx", "onnx-qdq", "openvino-ir", "ort-model", "openvino-model"})
    }
    produces = frozenset({"scores"})
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
        """Write ``outputs.npy`` (N, ...) float32 and put the metrics into ``meta``.

        Raises:
            ConfigError: The labels do not fit the network's outputs or the metric.
            StageError: The artefact gives NaN, or the runtime fails.
        """
        artifact, split = inputs["model"], ctx.data[params.split]
        outputs = _torch(artifact, split, ctx) if artifact.kind == "torch" else _agent(artifact, split, params, ctx)
        if not np.isfinite(outputs).all():
            count = int((~np.isfinite(outputs)).reshape(len(outputs), -1).any(axis=1).sum())
            raise StageError(f"the {artifact.kind} gives NaN or infinity on {count} of {len(outputs)} samples")
        measured = {name: asdict(_score(name, outputs, split, ctx.seed)) for name in params.metrics}
        memory = io.BytesIO()  # numpy hides the reason why a file cannot be written
        np.save(memory, outputs, allow_pickle=False)
        (ctx.out / "outputs.npy").write_bytes(memory.getbuffer())
        summary = ", ".join(f"{name} {m['value']:.4f}" for name, m in measured.items())
        return StageOutput("scores", {"split": params.split, "n": len(split), "metrics": measured}, summary)


def _score(name: str, outputs: npt.NDArray[Any], split: data.Split, seed: int) -> Measurement:
    metric: metrics.Metric = registry.find("metrics", name)
    if split.labels is None:
        raise ConfigError(f"{name} needs labels", where=f"data.{split.name}")
    if outputs.ndim == 2:
        data.check_classes(split, outputs.shape[1])
    try:
        return metrics.score(metric, outputs, split.labels, confidence=CONFIDENCE, seed=seed)
    except ValueError as error:
        raise ConfigError(f"{name} {error}", where="metrics") from error


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
