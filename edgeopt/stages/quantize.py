"""Quantize: INT8 in the runtime's own scheme.

There is no INT8 file that is right for every runtime: the same Q/DQ model is fast and exact on one and slower than
float, or wrong, on another. So the scheme comes from the backend, and the recipe only asks for INT8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field

from edgeopt import provenance, registry
from edgeopt.artifact import Artifact
from edgeopt.backends import Backend
from edgeopt.data import Split
from edgeopt.errors import ConfigError, PlanError
from edgeopt.quantizers import Quantizer
from edgeopt.stage import Clock, Params, StageContext, StageOutput
from edgeopt.target import Target


class QuantizeParams(Params):
    """How to quantize.

    Attributes:
        scheme: Only ``int8``: weights and activations of 8 bits, ranges from the ``calibrate`` split.
        quantizer: The runtime's own, unless another one that writes a file for this runtime is named.
        options: Of the quantizer. A target's ``quantization`` overrides them, and they override the runtime's scheme.
        runtime: Set by the plan, not by a recipe.
    """

    scheme: Literal["int8"] = "int8"
    quantizer: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    runtime: str = ""


class Quantize:
    """See the module."""

    name = "quantize"
    version = 1
    Params = QuantizeParams
    accepts: Mapping[str, frozenset[str]] = {"model": frozenset({"onnx", "tflite", "torch-program"})}
    produces = frozenset({"onnx-qdq", "openvino-ir", "tflite-int8", "rknn-calibrated", "torch-program-int8"})
    tools: tuple[str, ...] = ()
    in_recipe = True
    on_device = False
    environment = ""

    def bind(self, params: QuantizeParams, target: Target) -> QuantizeParams:
        """Fold in the runtime's scheme and the target's overrides.

        A target's ``quantization`` holds options, or, under the name of one of its runtimes, options for that one
        alone.

        Raises:
            ConfigError: An option or the quantizer is unknown.
            PlanError: The quantizer's file does not suit the runtime.
        """
        where = f"target {target.name}: quantization"
        backend: Backend = registry.find("backends", params.runtime or target.runtime[0])
        scheme = backend.scheme(target)
        overrides = {key: value for key, value in target.quantization.items() if key not in target.runtime}
        own = target.quantization.get(backend.name, {})
        if not isinstance(own, Mapping):
            raise ConfigError(f"{backend.name}: expected options, got {own!r}", where=where)
        overrides |= own
        name = overrides.pop("quantizer", None) or params.quantizer or scheme.quantizer
        try:
            quantizer: Quantizer[Any] = registry.find("quantizers", name)
        except registry.UnknownPlugin as error:
            raise ConfigError(str(error), where=where) from error
        if quantizer.produces not in backend.consumes:
            raise PlanError(
                f"quantizer {name!r} writes {quantizer.produces}, which {backend.name} does not read",
                where=where,
                fix=f"leave the quantizer out: {backend.name} uses {scheme.quantizer!r}",
            )
        defaults = scheme.options if name == scheme.quantizer else {}
        options = quantizer.Params.parse({**defaults, **params.options, **overrides}, name, where)
        return params.model_copy(update={"quantizer": name, "options": options.model_dump(), "runtime": backend.name})

    def data(self, params: QuantizeParams) -> tuple[str, ...]:
        """Ranges come from ``calibrate`` and from nothing else."""
        return ("calibrate",)

    def run(self, inputs: Mapping[str, Artifact], params: QuantizeParams, ctx: StageContext) -> StageOutput:
        """Write the quantized model.

        Raises:
            ConfigError: The calibration samples cannot give ranges.
            MissingBackend: The quantizer's library is not installed.
            StageError: The library fails, or its file is not what the options ask for.
        """
        artifact, split = inputs["model"], ctx.data["calibrate"]
        if params.quantizer is None:
            raise PlanError("the parameters were not bound to a target", where="quantize")
        quantizer: Quantizer[Any] = registry.find("quantizers", params.quantizer)
        provenance.require(quantizer.tools)
        if artifact.kind not in quantizer.consumes:
            raise PlanError(f"{quantizer.name} does not read {artifact.kind}", where="quantize")
        _check_samples(split)
        clock, total = Clock(), len(split)

        def progress(done: int) -> None:
            ctx.progress(done, total, "samples", "calibrating", clock.seconds_left(done, total))

        output = quantizer.quantize(
            artifact.path(artifact.meta.get("file", "model.onnx")),
            split.samples,
            quantizer.Params.parse(params.options, params.quantizer, "quantize"),
            ctx.out,
            seed=ctx.seed,
            keep_float=artifact.meta.get("preprocess_nodes", ()),
            progress=progress,
        )
        known = ("input", "outputs", "preprocess", "batch", "file")
        kept = {key: artifact.meta[key] for key in known if key in artifact.meta}
        meta = {**kept, "quantizer": params.quantizer, "options": params.options, **output.meta}
        return StageOutput(output.kind, meta, output.summary, output.notes)


def _check_samples(split: Split) -> None:
    samples = split.samples
    if (samples == samples.flat[0]).all():
        what = f"all values of all {len(samples)} calibration samples are {samples.flat[0]}"
    elif len(samples) > 1 and all(np.array_equal(sample, samples[0]) for sample in samples):
        what = f"all {len(samples)} calibration samples are the same"
    else:
        return
    fix = "calibrate with different samples, like those that the device will see"
    raise ConfigError(f"{what}: they say nothing about the ranges of activations", where="data.calibrate", fix=fix)


PLUGINS = (Quantize(),)
