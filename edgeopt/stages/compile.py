"""Compile: the file that a device opens, for one runtime and a fixed batch, with its layer map.

The layer map says of every operation that the runtime really executes which nodes of the ONNX model it computes, in
which precision, on which device and with which kernel. It is taken in the agent where kernels depend on the processor,
and from the toolkit where no device is at hand.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from pydantic import Field

from edgeopt import macs, placement, registry
from edgeopt.agent.runtimes import Layer
from edgeopt.artifact import Artifact
from edgeopt.backends import Backend, Compiled, Request
from edgeopt.errors import MissingBackend, PlanError
from edgeopt.stage import Params, StageContext, StageOutput
from edgeopt.target import Target


class CompileParams(Params):
    """How to compile.

    Attributes:
        runtime: Name of the backend.
        batch: Samples per inference; the target's ``measure.batch`` if it is not given.
        threads: Threads of the runtime; the target's ``measure.threads`` if it is not given.
        precision: Of the candidate: ``float``, ``fp16`` or ``int8``.
        options: Of the backend, with the facts of the device folded in.
        at_hand: Whether the device is there to be asked.
    """

    runtime: str
    batch: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)
    precision: str = "float"
    options: dict[str, Any] = Field(default_factory=dict)
    at_hand: bool = True


class Compile:
    """See the module."""

    name = "compile"
    version = 3
    Params = CompileParams
    tools: tuple[str, ...] = ()
    in_recipe = False
    on_device = True
    environment = ""

    @property
    def accepts(self) -> Mapping[str, frozenset[str]]:
        """What the built-in backends read; ``float`` is the ONNX file that the model was made from."""
        read = frozenset[str]().union(*(backend.consumes for backend in registry.builtin("backends").values()))
        return {"model": read, "float": frozenset({"onnx"})}

    @property
    def produces(self) -> frozenset[str]:
        """What the built-in backends write."""
        return frozenset(backend.produces for backend in registry.builtin("backends").values())

    def bind(self, params: CompileParams, target: Target) -> CompileParams:
        """Take batch and threads from the measuring protocol, and the toolkit's options from the target.

        Raises:
            ConfigError: The target's options or its architecture are unknown to the toolkit.
        """
        backend: Backend = registry.find("backends", params.runtime)
        protocol = {"batch": target.measure.batch, "threads": target.measure.threads}
        unset = {name: value for name, value in protocol.items() if getattr(params, name) is None}
        options = backend.options(target).model_dump()
        return params.model_copy(update={**unset, "options": options, "at_hand": not target.device.access.none})

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
        options = backend.Options.parse(params.options, backend.name, "compile")
        compiled = backend.compile(artifact, Request(batch, threads, options, ctx.seed, ctx.agent, ctx.host), ctx.out)
        layers = backend.layer_map(self._layers(artifact, compiled, params, ctx), compiled)
        (ctx.out / "layer_map.json").write_text(json.dumps(layers, indent=1) + "\n", encoding="utf-8")
        meta = {
            "runtime": backend.name,
            "file": compiled.file,
            "input": artifact.meta["input"],
            "outputs": artifact.meta["outputs"],
            "batch": batch,
            "stand_in": asdict(compiled.stand_in) if compiled.stand_in else None,
            "figures": [asdict(figure) for figure in compiled.figures],
            "facts": dict(compiled.facts),
            "placement": dict(sorted(Counter(layer["precision"] for layer in layers).items())),
        }
        notes = compiled.notes
        if layers and "float" in inputs:
            counted = macs.per_node(inputs["float"].path("model.onnx").read_bytes(), batch)
            placed = placement.of(layers, counted, backend.runs_on(options), asked=params.precision)
            meta["placed"], notes = placed.to_json(), (*notes, *placed.notes())
        where = Counter(f"{layer['device']} {layer['precision']}" for layer in layers)
        listed = ", ".join(f"{count} on {place}" for place, count in where.most_common())
        return StageOutput(
            backend.produces, meta, f"{len(layers)} layers: {listed}" if layers else "layers not known", notes
        )

    def _layers(
        self, artifact: Artifact, compiled: Compiled, params: CompileParams, ctx: StageContext
    ) -> Sequence[Layer]:
        """Those that compiling told, or that the device tells."""
        if compiled.layers is not None or not params.at_hand:
            return compiled.layers or ()
        raw = artifact.meta["input"]
        sample = np.zeros((params.batch or 1, *raw["shape"]), dtype=raw["dtype"])
        agent, name = ctx.agent(), f"compile {ctx.out.name}"
        agent.open(name, params.runtime, str(ctx.out / compiled.file), threads=params.threads or 1)
        try:
            return agent.layers(name, [sample])
        finally:
            agent.close(name)


PLUGINS = (Compile(),)
