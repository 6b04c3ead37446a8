"""Score: take the metrics of outputs, with intervals, and how far they dropped from the float baseline.

Thresholds are fixed on the ``select`` split and applied to the split that is scored. With several evaluation sets every
metric is taken on each: ``apcer[indoor]``, and ``apcer[worst]`` is the worst of them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeopt import data, metrics
from edgeopt.artifact import Artifact
from edgeopt.data import Split
from edgeopt.errors import ConfigError
from edgeopt.measure import Measurement
from edgeopt.metrics import Metric
from edgeopt.recipe import MetricSpec
from edgeopt.stage import Params, StageContext, StageOutput
from edgeopt.target import Target

#: Confidence of every accuracy interval.
CONFIDENCE = 0.95

Array = npt.NDArray[Any]


class ScoreParams(Params):
    """What to take.

    Attributes:
        metrics: Of the recipe.
        split: ``select`` or ``evaluate``.
        sources: Digests of the user's own metrics, by factory.
        drops: Whether the drops from the baseline are taken as well.
    """

    metrics: tuple[MetricSpec, ...]
    split: Literal["select", "evaluate"]
    sources: Mapping[str, str] = {}
    drops: bool = True


class Score:
    """See the module.

    The roles: ``outputs`` on the split; ``select`` of the same model, for thresholds; ``baseline`` and
    ``baseline_select`` of the float baseline, without which there are no drops. Only the first has to be there.
    """

    name = "score"
    version = 1
    Params = ScoreParams
    accepts: Mapping[str, frozenset[str]] = dict.fromkeys(
        ("outputs", "select", "baseline", "baseline_select"), frozenset({"outputs"})
    )
    produces = frozenset({"scores"})
    tools = ("numpy", "scipy")
    in_recipe = False
    on_device = False

    def bind(self, params: ScoreParams, target: Target) -> ScoreParams:
        """Nothing of the target matters here."""
        return params

    def data(self, params: ScoreParams) -> tuple[str, ...]:
        """What is scored, and where thresholds come from."""
        return tuple(dict.fromkeys((params.split, "select")))

    def run(self, inputs: Mapping[str, Artifact], params: ScoreParams, ctx: StageContext) -> StageOutput:
        """Put every metric, and its drop, into ``meta["metrics"]``.

        The first metric that decides on single samples leaves ``decisions.npy`` (N,) and ``right.npy`` (N,) int8: 1 is
        right, 0 wrong, -1 not known.

        Raises:
            ConfigError: The labels or columns do not fit a metric, or the user's own metric raised.
        """
        taken: dict[str, Measurement] = {}
        for spec in params.metrics:
            metric = metrics.load(spec, ctx.root)
            for name in self.data(params):
                metrics.check_columns(metric, ctx.data[name])
            one = _One(metric, inputs, ctx.data[params.split], ctx.data["select"], params.drops, ctx.seed)
            taken |= {m.metric: m for m in one.measure()}
            if not list(ctx.out.iterdir()):
                one.write_decisions(ctx.out)
        plain = [m for m in taken.values() if not m.metric.endswith(" drop")]
        summary = ", ".join(f"{m.metric} {'not measured' if m.value is None else f'{m.value:.4f}'}" for m in plain)
        meta = {"split": params.split, "metrics": {name: asdict(m) for name, m in taken.items()}}
        return StageOutput("scores", meta, summary)


@dataclass(frozen=True)
class _One:
    """One metric of one model on one split."""

    metric: Metric
    inputs: Mapping[str, Artifact]
    split: Split
    select: Split
    drops: bool
    seed: int

    def measure(self) -> list[Measurement]:
        """The metric on every set, the worst of them, and the drops."""
        try:
            own, reference = self._fitted()
            values, drops = [], []
            for name, rows in self.split.sets().items():
                value, drop = self._on(own, reference, rows)
                values.append(_of_set(value, name))
                drops += [_of_set(drop, name)] if drop else []
        except metrics.NotMeasurable as error:
            return [self._missing(str(error))]
        except ValueError as error:
            raise ConfigError(f"{self.metric.label}: {error}", where="metrics") from error
        if data.SET in self.split.columns:
            values.append(_worst(values, self.metric.label, self.metric.better))
            if drops:
                drops.append(_worst(drops, self.metric.label, "lower"))
        return [*values, *drops]

    def write_decisions(self, out: Path) -> None:
        """What the product would decide on each sample, if the metric says so."""
        outputs = self._outputs("outputs")
        try:
            own, _ = self._fitted()
            truth = own.truth(self._known(self.split, "baseline", None))
            decisions, hits = own.decisions(outputs), own.hits(outputs, truth)
        except metrics.NotMeasurable:
            return
        if decisions is not None:
            right = np.full(len(outputs), -1, np.int8) if hits is None else hits.astype(np.int8)
            for name, values in (("decisions.npy", decisions), ("right.npy", right)):
                memory = io.BytesIO()
                np.save(memory, values, allow_pickle=False)
                (out / name).write_bytes(memory.getbuffer())

    def _fitted(self) -> tuple[Metric, Metric | None]:
        """The metric for this model, and for the baseline if there is one."""
        own = reference = self.metric
        if self.metric.fitted_on:
            truth = self.metric.truth(self._known(self.select, "baseline_select", None))
            roles = {"own": "select", "baseline": "baseline_select"}
            role = roles[self.metric.fitted_on]
            own = self.metric.fit(self._outputs(role if role in self.inputs else "select"), truth)
            if "baseline_select" in self.inputs:
                reference = self.metric.fit(self._outputs("baseline_select"), truth)
        drops = self.drops and "baseline" in self.inputs and self.metric.labels != metrics.BASELINE
        return own, reference if drops else None

    def _on(self, own: Metric, reference: Metric | None, rows: Array) -> tuple[Measurement, Measurement | None]:
        truth = own.truth(self._known(self.split, "baseline", rows))
        broken = self.inputs["outputs"].meta["broken"]
        if broken:
            value = replace(self._missing(broken), broken=True)
            return value, replace(value, metric=f"{value.metric} drop", better="lower") if reference else None
        outputs = self._outputs("outputs")[rows]
        value = metrics.score(own, outputs, truth, confidence=CONFIDENCE, seed=self.seed)
        if reference is None:
            return value, None
        baseline_broken = self.inputs["baseline"].meta["broken"]
        if baseline_broken:
            why = f"the float baseline is broken: {baseline_broken}"
            return value, replace(self._missing(why), metric=f"{value.metric} drop", better="lower")
        drop = metrics.drop(
            own,
            reference,
            outputs,
            self._outputs("baseline")[rows],
            truth,
            confidence=CONFIDENCE,
            seed=self.seed,
        )
        return value, drop

    def _known(self, split: Split, role: str, rows: Array | None) -> dict[str, Array]:
        """The columns of a split, with the baseline's outputs as one of them if there are any."""
        known = split.truth(rows)
        if role in self.inputs:
            outputs = self._outputs(role)
            known[metrics.BASELINE] = outputs if rows is None else outputs[rows]
        elif self.metric.labels == metrics.BASELINE:
            raise metrics.NotMeasurable("it compares with the float baseline")
        return known

    def _outputs(self, role: str) -> Array:
        outputs: Array = np.load(self.inputs[role].path("outputs.npy"), allow_pickle=False, mmap_mode="r")
        return outputs

    def _missing(self, why: str) -> Measurement:
        return metrics.measurement(self.metric, self.metric.label, None, None, len(self.split), CONFIDENCE, why=why)


def _of_set(m: Measurement, name: str) -> Measurement:
    """``acer`` of the set ``indoor`` is ``acer[indoor]``, its drop ``acer[indoor] drop``."""
    if not name:
        return m
    metric, is_drop = m.metric.removesuffix(" drop"), m.metric.endswith(" drop")
    return replace(m, metric=f"{metric}[{name}]" + (" drop" if is_drop else ""))


def _worst(values: Sequence[Measurement], label: str, better: Literal["lower", "higher"]) -> Measurement:
    """The worst of several sets. The bounds of a maximum of unknown numbers are the maxima of their bounds."""
    suffix = " drop" if values[0].metric.endswith(" drop") else ""
    name = f"{label}[worst]{suffix}"
    missing = next((m for m in values if m.value is None), None)
    if missing is not None:
        return replace(missing, metric=name)
    pick = max if better == "lower" else min
    chosen = pick(values, key=lambda m: m.value if m.value is not None else 0.0)
    near, far = (
        [m.interval[side] if m.interval else None for m in values] for side in ((0, 1) if pick is max else (1, 0))
    )
    one = pick((bound for bound in near if bound is not None), default=None)
    other = None if None in far else pick(bound for bound in far if bound is not None)
    interval = (one, other) if pick is max else (other, one)
    why = f"on {chosen.metric.removesuffix(' drop').removeprefix(label).strip('[]')}"
    return replace(chosen, metric=name, interval=interval, why=f"{why}; {chosen.why}" if chosen.why else why)


PLUGINS = (Score(),)
