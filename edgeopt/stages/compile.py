"""Compile: the file that a device opens, for one runtime and a fixed batch, with its layer map.

The layer map says of every operation that the runtime really executes which nodes of the ONNX model it computes, in
which precision, on which device and with which kernel. It is taken in the agent, because kernels depend on the
processor.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

import numpy as np
from pydantic import Field

from edgeopt import registry
from edgeopt.artifact import Artifact
from edgeopt.backends import Backend
from edgeopt.errors import MissingBackend, PlanError
from edgeopt.stage import Params, StageContext, StageOutput
from edgeopt.target import Target


class CompileParams(Params):
    """How to compile.

    Attributes:
        runtime: Name of the backend.
        batch: Samples per inference; the target's ``measure.batch`` if it is not given.
        threads: Threads of the runtime; the target's ``measure.threads`` if it is not given.
    """

    runtime: str
    batch: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)


class Compile:
    """See the module."""

    name = "compile"
    version = 1
    Params = CompileParams
    accepts: Mapping[str, frozenset[str]] = {"model": frozenset({"onnx", "onnx-qdq", "openvino-ir"})}
    produces = frozenset({"ort-model", "openvino-model"})
    tools: tuple[str, ...] = ()
    in_recipe = False
    on_device = True

    def bind(self, params: CompileParams, target: Target) -> CompileParams:
        """Take batch and threads from the measuring protocol."""
        protocol = {"batch": target.measure.batch, "threads": target.measure.threads}
        unset = {name: value for name, value in protocol.items() if getattr(params, name) is None}
        return params.model_copy(update=unset)

    def data(self, params: CompileParams) -> tuple[str, ...]:
        """None."""
        return ()

    def run(self, inputs: Mapping[str, Artifact], params: CompileParams, ctx: StageContext) -> StageOutput:
        """Write the runtime's file and ``layer_map.json``.

        Raises:
            MissingBackend: The toolkit is not installed.
            PlanError: The runtime does not read this kind of artefact.
            StageError: The toolkit refuses the model, or the device cannot open it.
        """
        artifact = inputs["model"]
        backend: Backend = registry.find("backends", params.runtime)
        available = backend.probe()
        if not available.installed:
            raise MissingBackend(f"{backend.name} needs {', '.join(available.missing)}", fix=available.fix)
        if artifact.kind not in backend.consumes:
            raise PlanError(f"{backend.name} does not read {artifact.kind}", where="compile")
        batch, threads = params.batch or 1, params.threads or 1
        compiled = backend.compile(artifact, batch, ctx.out)

        raw = artifact.meta["input"]
        sample = np.zeros((batch, *raw["shape"]), dtype=raw["dtype"])
        agent, name = ctx.agent(), f"compile {ctx.out.name}"
        agent.open(name, backend.name, str(ctx.out / compiled.file), threads=threads)
        try:
            layers = backend.layer_map(agent.layers(name, [sample]), compiled)
        finally:
            agent.close(name)
        (ctx.out / "layer_map.json").write_text(json.dumps(layers, indent=1) + "\n", encoding="utf-8")
        placement = Counter(f"{layer['device']} {layer['precision']}" for layer in layers)
        meta = {
            "runtime": backend.name,
            "file": compiled.file,
            "input": raw,
            "outputs": artifact.meta["outputs"],
            "batch": batch,
            "placement": dict(sorted(Counter(layer["precision"] for layer in layers).items())),
        }
        placed = ", ".join(f"{count} on {where}" for where, count in placement.most_common())
        return StageOutput(backend.produces, meta, f"{len(layers)} layers: {placed}", compiled.notes)


PLUGINS = (Compile(),)
