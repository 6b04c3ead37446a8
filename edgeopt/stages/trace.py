"""Trace: the trained network, with its preprocessing in front, as a torch program for a toolkit that reads those.

The program has a fixed batch and takes the raw samples as float32, because there are toolkits whose models take
nothing smaller.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import Field

from edgeopt import checkpoint, data
from edgeopt.artifact import Artifact
from edgeopt.recipe import InputSpec
from edgeopt.stage import Params, StageContext, StageOutput
from edgeopt.stages._parity import random_samples, reference_outputs
from edgeopt.stages._program import deployable, quiet, trace
from edgeopt.target import Target

PROGRAM = "program.pt2"


class TraceParams(Params):
    """How to trace.

    Attributes:
        batch: Samples per inference; the target's ``measure.batch`` if it is not given.
    """

    batch: int | None = Field(default=None, ge=1)


class Trace:
    """See the module."""

    name = "trace"
    version = 1
    Params = TraceParams
    accepts: Mapping[str, frozenset[str]] = {"model": frozenset({"torch"})}
    produces = frozenset({"torch-program"})
    tools: tuple[str, ...] = ("torch",)
    environment = ""
    in_recipe = False
    on_device = False

    def bind(self, params: TraceParams, target: Target) -> TraceParams:
        """Take the batch from the measuring protocol."""
        return params if params.batch else params.model_copy(update={"batch": target.measure.batch})

    def data(self, params: TraceParams) -> tuple[str, ...]:
        """None."""
        return ()

    def run(self, inputs: Mapping[str, Artifact], params: TraceParams, ctx: StageContext) -> StageOutput:
        """Write ``program.pt2``.

        Raises:
            StageError: The network cannot be traced; at which line of the user's code.
        """
        import torch

        artifact = inputs["model"]
        spec = InputSpec.model_validate_json(json.dumps(artifact.meta["input"]))
        preprocess = checkpoint.preprocess_of(artifact)
        raw, network = data.raw_spec(spec, preprocess), checkpoint.load(artifact, ctx.root)
        samples = random_samples(raw, params.batch or 1, ctx.seed)
        expected = reference_outputs(network, preprocess, samples, ctx.root)
        program = trace(deployable(network, preprocess), samples.astype("float32"), ctx.root, fixed_batch=True)
        with quiet():
            torch.export.save(program, ctx.out / PROGRAM)
        stem = "output" if spec.name != "output" else "result"  # as in the ONNX file
        names = [stem] if len(expected) == 1 else [f"{stem}_{index}" for index in range(len(expected))]
        outputs = [
            {"name": name, "shape": list(array.shape[1:]), "dtype": array.dtype.name}
            for name, array in zip(names, expected, strict=True)
        ]
        meta = {
            "input": {"name": spec.name, "shape": list(raw.shape), "dtype": raw.dtype},
            "outputs": outputs,
            "preprocess": artifact.meta.get("preprocess"),
            "batch": params.batch or 1,
            "file": PROGRAM,
        }
        return StageOutput("torch-program", meta, f"batch {params.batch or 1}, float32 in")


PLUGINS = (Trace(),)
