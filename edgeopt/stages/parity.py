"""Parity: compare the outputs of a compiled artefact with those of the float ONNX model that it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeopt import metrics, parity
from edgeopt.artifact import Artifact
from edgeopt.errors import StageError
from edgeopt.measure import Measurement
from edgeopt.metrics import Metric
from edgeopt.parity import MaxAbsError
from edgeopt.recipe import MetricSpec
from edgeopt.stage import Params, StageContext, StageOutput
from edgeopt.target import Target

#: Confidence of every interval.
CONFIDENCE = 0.95

Array = npt.NDArray[Any]


class ParityParams(Params):
    """What to compare.

    Attributes:
        metrics: Of the recipe; the first one that decides on single samples says what a decision is.
        split: ``select`` or ``evaluate``.
        sources: Digests of the code behind the metrics, by what they are called; the plan fills them in.
    """

    metrics: tuple[MetricSpec, ...]
    split: Literal["select", "evaluate"]
    sources: Mapping[str, str] = {}


class Parity:
    """See the module.

    The roles: ``outputs`` of the compiled artefact and ``reference`` of the float ONNX model, on the split;
    ``reference_select`` of the latter on ``select``, which fixes the threshold of a metric that needs one.
    """

    name = "parity"
    version = 2
    Params = ParityParams
    accepts: Mapping[str, frozenset[str]] = dict.fromkeys(
        ("outputs", "reference", "reference_select"), frozenset({"outputs"})
    )
    produces = frozenset({"parity"})
    tools = ("numpy", "scipy")
    in_recipe = False
    on_device = False
    environment = ""

    def bind(self, params: ParityParams, target: Target) -> ParityParams:
        """Nothing of the target matters here."""
        return params

    def data(self, params: ParityParams) -> tuple[str, ...]:
        """Labels of ``select``, where thresholds come from."""
        return ("select",)

    def run(self, inputs: Mapping[str, Artifact], params: ParityParams, ctx: StageContext) -> StageOutput:
        """Put every metric of :data:`edgeopt.parity.METRICS` into ``meta["metrics"]``.

        Raises:
            ConfigError: The outputs do not fit a metric of the recipe, or the user's own metric raised.
            StageError: The outputs of both differ in shape.
        """
        opened = [metrics.load(spec, ctx.root) for spec in params.metrics]
        nearest = any(metric.labels in ("identity", metrics.BASELINE) for metric in opened)
        why, broken = _unusable(inputs)
        if not why:
            _require_equal_shapes(inputs)
        decider = None if why else _decider(opened, inputs, ctx)
        taken = []
        for metric in parity.metrics(decider, nearest):
            if why:
                count = inputs["reference"].meta["n"]
                found = metrics.measurement(metric, metric.label, None, None, count, CONFIDENCE, why=why)
                taken.append(replace(found, broken=broken))
            else:
                outputs, reference = _outputs(inputs["outputs"]), _outputs(inputs["reference"])
                with metrics.blamed(decider or metric, ctx.root):
                    found = metrics.score(metric, outputs, reference, confidence=CONFIDENCE, seed=ctx.seed)
                # A maximum is a fact of these samples: resampling them says nothing of a larger one.
                taken.append(replace(found, interval=None) if isinstance(metric, MaxAbsError) else found)
        had = inputs["outputs"].meta
        meta = {"split": params.split, "metrics": {m.metric: _had(m, had).to_json() for m in taken}}
        summary = ", ".join(f"{m.metric} {m.value:.4g}" for m in taken if m.value is not None)
        return StageOutput("parity", meta, summary or "not measured")


def _unusable(inputs: Mapping[str, Artifact]) -> tuple[str, bool]:
    """Why nothing can be compared, if nothing can; and whether that is because the compiled network is broken."""
    own, reference = inputs["outputs"].meta, inputs["reference"].meta
    if own["broken"]:
        return own["broken"], True
    if own["not_run"]:
        return own["not_run"], False
    if why := reference["broken"] or reference["not_run"]:
        return f"the float network gives nothing to compare with: {why}", False
    return "", False


def _require_equal_shapes(inputs: Mapping[str, Artifact]) -> None:
    own, reference = (list(_outputs(inputs[role]).shape) for role in ("outputs", "reference"))
    if own != reference:
        raise StageError(f"the compiled network gives outputs {own}, the float network {reference}", where="parity")


def _decider(opened: list[Metric], inputs: Mapping[str, Artifact], ctx: StageContext) -> Metric | None:
    """The first metric that decides on single samples, with its threshold fixed on what the float network says."""
    reference = _outputs(inputs["reference"])
    for metric in opened:
        fitted: Metric = metric
        with metrics.blamed(metric, ctx.root):
            try:
                if metric.fitted_on:
                    fitted = _fitted(metric, inputs, ctx)
                if fitted.decisions(reference) is not None:
                    return fitted
            except metrics.NotMeasurable:
                continue
    return None


def _fitted(metric: Metric, inputs: Mapping[str, Artifact], ctx: StageContext) -> Metric:
    found = inputs.get("reference_select")
    if found is None or found.meta["broken"] or found.meta["not_run"]:
        raise metrics.NotMeasurable("the float network has no outputs on select to fix a threshold on")
    outputs = _outputs(found)
    return metric.fit(outputs, metric.truth({metrics.BASELINE: outputs, **ctx.data["select"].truth()}))


def _outputs(artifact: Artifact) -> Array:
    outputs: Array = np.load(artifact.path("outputs.npy"), allow_pickle=False, mmap_mode="r")
    return outputs


def _had(measurement: Measurement, outputs: Mapping[str, Any]) -> Measurement:
    """With how the outputs were had that it is of."""
    why = "; ".join(filter(None, (measurement.why, outputs["how"])))
    return replace(measurement, method=outputs["method"], why=why)


PLUGINS = (Parity(),)
