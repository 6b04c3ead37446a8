"""Evaluate: run an artefact over a split and keep its outputs; :mod:`edgeopt.stages.score` takes the metrics.

A torch model runs in this process; what is not compiled yet in an agent on this machine, an ONNX file with all
optimisations off, which is what the file itself means. A compiled artefact runs in the agent of its device, through the
runtime that ships it. Where no device is at hand its stand-in runs here, if it has one, and the outputs are simulated.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from edgeopt import checkpoint, data, registry
from edgeopt.artifact import Artifact
from edgeopt.errors import StageError
from edgeopt.stage import Clock, Params, StageContext, StageOutput
from edgeopt.stages import _nan
from edgeopt.target import Target

if TYPE_CHECKING:
    from edgeopt.access import Agent

_TORCH_BATCH = 64
#: A board whose tool starts anew for every batch takes hours; one that is gone is noticed by its connection.
_INFER_LIMIT_S = 6 * 3600.0


class EvaluateParams(Params):
    """How to evaluate.

    Attributes:
        split: ``select`` or ``evaluate``.
        runtime: Runtime that executes the artefact; ``torch`` for a torch artefact.
        optimization: ``none`` runs the file as it is written, ``all`` as it ships.
        batch: Samples per inference.
        threads: Threads of the runtime.
        at_hand: Whether it runs on the target's device.
    """

    split: Literal["select", "evaluate"]
    runtime: str
    optimization: Literal["all", "none"] = "all"
    batch: int = Field(default=1, ge=1)
    threads: int = Field(default=1, ge=1)
    at_hand: bool = True


#: Artefact kinds that run as they are, before they are compiled.
_UNCOMPILED = frozenset({"torch", "onnx", "onnx-qdq", "onnx-fp16", "openvino-ir", "tflite", "tflite-int8"})


class Evaluate:
    """See the module."""

    name = "evaluate"
    version = 3
    Params = EvaluateParams
    produces = frozenset({"outputs"})
    tools: tuple[str, ...] = ()
    in_recipe = False
    on_device = True
    environment = ""

    @property
    def accepts(self) -> Mapping[str, frozenset[str]]:
        """What runs as it is, and what the built-in backends write."""
        compiled = {backend.produces for backend in registry.builtin("backends").values()}
        return {"model": _UNCOMPILED | compiled}

    def bind(self, params: EvaluateParams, target: Target) -> EvaluateParams:
        """Nothing to fold: the plan says which runtime, batch and threads."""
        return params

    def data(self, params: EvaluateParams) -> tuple[str, ...]:
        """Only the split that is asked for."""
        return (params.split,)

    def run(self, inputs: Mapping[str, Artifact], params: EvaluateParams, ctx: StageContext) -> StageOutput:
        """Write ``outputs.npy`` (N, ...) float32.

        ``meta["broken"]`` says what is wrong with them, if anything. ``meta["method"]`` and ``meta["how"]`` say how
        they were had; ``meta["not_run"]`` why there are none.

        Raises:
            StageError: The trained network gives NaN, the runtime fails, or what is said to be a device is simulated.
        """
        artifact, split = inputs["model"], ctx.data[params.split]
        meta = {"split": params.split, "n": len(split), "broken": "", "method": "measured", "how": "", "not_run": ""}
        if artifact.kind == "torch":
            outputs = _torch(artifact, split, ctx)
        else:
            way = _way(artifact, params, ctx)
            meta |= {"method": way.method, "how": way.how, "not_run": way.not_run}
            if way.not_run:
                return StageOutput("outputs", meta, "not run", (way.not_run,))
            outputs = _agent(way, split, params, ctx)
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
        summary = f"{len(split)} samples" + (f", {meta['method']}: {meta['how']}" if meta["how"] else "")
        return StageOutput("outputs", {**meta, "broken": broken}, summary, (broken,) if broken else ())


def _torch(artifact: Artifact, split: data.Split, ctx: StageContext) -> npt.NDArray[np.float32]:
    import torch

    model = checkpoint.load(artifact, ctx.root)
    preprocess = checkpoint.preprocess_of(artifact)
    parts = []
    with torch.inference_mode():
        for samples, _ in split.batches(_TORCH_BATCH):
            parts.append(model(torch.from_numpy(data.to_input(samples, preprocess))).float().numpy())
    return np.concatenate(parts)


@dataclass(frozen=True)
class _Way:
    """How an artefact is run; ``not_run`` says why it is not, and ``batch`` what the file is fixed to, if it is."""

    agent: Callable[[], Agent]
    runtime: str = ""
    file: str = ""
    optimization: str = "all"
    method: str = "measured"
    how: str = ""
    not_run: str = ""
    batch: int | None = None


def _way(artifact: Artifact, params: EvaluateParams, ctx: StageContext) -> _Way:
    if artifact.kind in _UNCOMPILED:
        name = "model.xml" if artifact.kind == "openvino-ir" else artifact.meta.get("file", "model.onnx")
        path, batch = str(artifact.path(name)), artifact.meta.get("batch")
        return _Way(lambda: ctx.host(""), params.runtime, path, params.optimization, batch=batch)
    if params.at_hand:
        return _Way(ctx.agent, params.runtime, str(artifact.path(artifact.meta["file"])), params.optimization)
    found = artifact.meta["stand_in"]
    if found is None:
        why = f"no device is at hand, and nothing on this machine runs what {artifact.meta['runtime']} compiled"
        return _Way(ctx.agent, not_run=why)
    return _Way(
        agent=lambda: ctx.host(found["environment"]),
        runtime=found["runtime"],
        file=str(artifact.path(found["file"])),
        optimization=found["optimization"],
        method="simulated",
        how=found["what"],
    )


def _agent(way: _Way, split: data.Split, params: EvaluateParams, ctx: StageContext) -> npt.NDArray[np.float32]:
    agent, clock = way.agent(), Clock()

    def progress(report: Mapping[str, float]) -> None:
        done, total = report["done"], report["total"]
        ctx.progress(done, total, "samples", "", clock.seconds_left(done, total))

    name = ctx.out.name
    opened = agent.open(name, way.runtime, way.file, threads=params.threads, optimization=way.optimization)
    try:
        if way.method == "measured" and opened.settings.get("simulated"):
            what = f"no device is at hand: where {way.runtime} was asked to run the model, it only simulates the device"
            fix = "write `access: none` into the target's `device`: the outputs are then labelled as simulated"
            raise StageError(what, where="evaluate", fix=fix)
        batch = way.batch or params.batch
        outputs = agent.infer(name, [split.samples], batch=batch, progress=progress, limit_s=_INFER_LIMIT_S)
    finally:
        agent.close(name)
    return np.asarray(outputs[0], dtype=np.float32)


PLUGINS = (Evaluate(),)
