"""Score: take the metrics of outputs, with intervals, and how far they dropped from the float baseline.

Thresholds are fixed on the ``select`` split and applied to the split that is scored. With several evaluation sets every
metric is taken on each: ``apcer[indoor]``, and ``apcer[worst]`` is the worst of them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeopt import data, metrics
from edgeopt.artifact import Artifact
from edgeopt.data import Split
from edgeopt.measure import Measurement
from edgeopt.metrics import Metric, sharing
from edgeopt.recipe import MetricSpec
from edgeopt.stage import Params, StageContext, StageOutput
from edgeopt.target import Target

#: Confidence of every accuracy interval.
CONFIDENCE = 0.95

Array = npt.NDArray[Any]

#: Roles whose outputs are equal where the model is the float baseline, or might as well be.
_SAME = (("outputs", "baseline"), ("select", "baseline_select"))


class ScoreParams(Params):
    """What to take.

    Attributes:
        metrics: Of the recipe.
        split: ``select`` or ``evaluate``.
        sources: Digests of the code behind the numbers, by what the metrics are called; the plan fills them in.
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
    version = 3
    Params = ScoreParams
    accepts: Mapping[str, frozenset[str]] = dict.fromkeys(
        ("outputs", "select", "baseline", "baseline_select"), frozenset({"outputs"})
    )
    produces = frozenset({"scores"})
    tools = ("numpy", "scipy")
    in_recipe = False
    on_device = False
    environment = ""

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
        roc: Mapping[str, list[float]] = {}
        with sharing.sharing():
            for spec in params.metrics:
                metric = metrics.load(spec, ctx.root)
                one = _One(metric, inputs, ctx.data[params.split], ctx.data["select"], params.drops, ctx.seed)
                with metrics.blamed(metric, ctx.root):
                    taken |= {m.metric: m for m in one.measure()}
                    if not list(ctx.out.iterdir()):
                        one.write_decisions(ctx.out)
                    roc = roc or one.roc()
        taken = _had(inputs["outputs"].meta, taken)
        plain = [m for m in taken.values() if not m.metric.endswith(" drop")]
        summary = ", ".join(f"{m.metric} {'not measured' if m.value is None else f'{m.value:.4f}'}" for m in plain)
        meta = {"split": params.split, "metrics": {name: asdict(m) for name, m in taken.items()}, "roc": roc}
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
        own = reference = self.metric
        missing = self._broken()
        if missing is None:
            try:
                own, reference = self._fitted()
            except metrics.NotMeasurable as error:
                missing = self._missing(str(error))
        found = self._worst_last(lambda rows, confidence: missing or self._value(own, rows, confidence))
        if self.drops and "baseline" in self.inputs and self.metric.labels != metrics.BASELINE:
            lost = self._baseline_broken()
            if missing or lost:
                missing = replace(missing or self._missing(lost), metric=f"{self.metric.label} drop", better="lower")
            found += self._worst_last(lambda rows, confidence: missing or self._drop(own, reference, rows, confidence))
        return found

    def write_decisions(self, out: Path) -> None:
        """What the product would decide on each sample, if the metric says so and the network works."""
        if self._broken():
            return
        outputs = self._outputs("outputs")
        try:
            own, _ = self._fitted()
            decisions = own.decisions(outputs)
            right = own.right(outputs, own.truth(self._known(self.split, "baseline", None)))
        except metrics.NotMeasurable:
            return
        if decisions is not None:
            known = np.full(len(outputs), -1, np.int8) if right is None else right.astype(np.int8)
            for name, values in (("decisions.npy", decisions), ("right.npy", known)):
                memory = io.BytesIO()
                np.save(memory, values, allow_pickle=False)
                (out / name).write_bytes(memory.getbuffer())

    def roc(self) -> Mapping[str, list[float]]:
        """Of the whole split; empty if the metric has none, the network does not work, or there are several sets."""
        if self._broken() or data.SET in self.split.columns or self.metric.fitted_on:
            return {}
        try:
            return self.metric.roc(
                self._outputs("outputs"), self.metric.truth(self._known(self.split, "baseline", None))
            )
        except metrics.NotMeasurable:
            return {}

    def _broken(self) -> Measurement | None:
        """What stands for every number if the network, or that which the number is relative to, does not work."""
        for role in ("outputs", "select") if self.metric.fitted_on == "own" else ("outputs",):
            if why := self._why_broken(role):
                return replace(self._missing(why), broken=True)
            if why := self._not_run(role):
                return self._missing(why)
        if self.metric.labels == metrics.BASELINE and "baseline" not in self.inputs:
            return self._missing("it compares with the float baseline")
        if self.metric.needs_baseline and (why := self._baseline_broken()):
            return self._missing(why)
        return None

    def _baseline_broken(self) -> str:
        for role in ("baseline", "baseline_select") if self.metric.fitted_on else ("baseline",):
            if why := self._why_broken(role):
                return f"the float baseline is broken: {why}"
            if why := self._not_run(role):
                return f"the float baseline did not run: {why}"
        return ""

    def _why_broken(self, role: str) -> str:
        return str(self.inputs[role].meta["broken"]) if role in self.inputs else ""

    def _not_run(self, role: str) -> str:
        return str(self.inputs[role].meta["not_run"]) if role in self.inputs else ""

    def _fitted(self) -> tuple[Metric, Metric]:
        """The metric for this model, and for the baseline."""
        if not self.metric.fitted_on:
            return self.metric, self.metric
        truth = self.metric.truth(self._known(self.select, "baseline_select", None))
        reference = self.metric
        if "baseline_select" in self.inputs and not self._baseline_broken():
            reference = self.metric.fit(self._outputs("baseline_select"), truth)
        if self.metric.fitted_on == "own":
            return self.metric.fit(self._outputs("select"), truth), reference
        if "baseline_select" not in self.inputs:
            raise metrics.NotMeasurable("its threshold is that of the float baseline")
        return reference, reference

    def _worst_last(self, measure: Callable[[Array, float], Measurement]) -> list[Measurement]:
        """``measure`` on every set and, if there are sets, the worst of them."""
        sets = self.split.sets()
        found = [_of_set(measure(rows, CONFIDENCE), name) for name, rows in sets.items()]
        if data.SET in self.split.columns:
            strict = [measure(rows, 1 - (1 - CONFIDENCE) / len(sets)) for rows in sets.values()]
            found.append(_worst(found, strict, self.metric.label))
        return found

    def _value(self, own: Metric, rows: Array, confidence: float) -> Measurement:
        truth = own.truth(self._known(self.split, "baseline", rows))
        return metrics.score(own, self._outputs("outputs")[rows], truth, confidence=confidence, seed=self.seed)

    def _drop(self, own: Metric, reference: Metric, rows: Array, confidence: float) -> Measurement:
        truth = own.truth(self._known(self.split, "baseline", rows))
        outputs, baseline = self._outputs("outputs")[rows], self._outputs("baseline")[rows]
        if all(self.inputs[role].digest == self.inputs[same].digest for role, same in _SAME if role in self.inputs):
            why = "it answers bit for bit as the float baseline"
            name = f"{own.label} drop"
            return metrics.measurement(own, name, 0.0, (0.0, 0.0), len(rows), confidence, better="lower", why=why)
        return metrics.drop(own, reference, outputs, baseline, truth, confidence=confidence, seed=self.seed)

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


def _had(outputs: Mapping[str, Any], taken: Mapping[str, Measurement]) -> dict[str, Measurement]:
    """The numbers with how the outputs were had that they are of."""
    if outputs["method"] == "measured":
        return dict(taken)
    how = outputs["how"]
    return {
        name: replace(m, method=outputs["method"], why=f"{m.why}; {how}" if m.why else how) for name, m in taken.items()
    }


def _of_set(m: Measurement, name: str) -> Measurement:
    """``acer`` of the set ``indoor`` is ``acer[indoor]``, its drop ``acer[indoor] drop``."""
    if not name:
        return m
    metric, is_drop = m.metric.removesuffix(" drop"), m.metric.endswith(" drop")
    return replace(m, metric=f"{metric}[{name}]" + (" drop" if is_drop else ""))


def _worst(values: Sequence[Measurement], strict: Sequence[Measurement], label: str) -> Measurement:
    """The worst of several sets.

    Its far bound is the worst of their far bounds, for one of them belongs to the worst set. Its near bound is the
    worst of their near bounds in ``strict``, at the level α/K each, for any of them may err (Bonferroni).
    """
    name = f"{label}[worst]" + (" drop" if values[0].metric.endswith(" drop") else "")
    missing = next((m for m in values if m.value is None), None)
    if missing is not None:
        return replace(missing, metric=name, why=f"{_set_of(missing)}: {missing.why}")
    pick, near, far = (max, 0, 1) if values[0].better == "lower" else (min, 1, 0)
    chosen = pick(values, key=lambda m: m.value if m.value is not None else 0.0)
    bounds: list[float | None] = [None, None]
    known = [m.interval[near] for m in strict if m.interval and m.interval[near] is not None]
    bounds[near] = pick((bound for bound in known if bound is not None), default=None)
    distant = [m.interval[far] if m.interval else None for m in values]
    bounds[far] = None if None in distant else pick(bound for bound in distant if bound is not None)
    why = f"on {_set_of(chosen)}"
    return replace(
        chosen, metric=name, interval=(bounds[0], bounds[1]), why=f"{why}; {chosen.why}" if chosen.why else why
    )


def _set_of(m: Measurement) -> str:
    """``indoor`` of ``acer[indoor]``."""
    return m.metric.removesuffix(" drop").rpartition("[")[2].rstrip("]")


PLUGINS = (Score(),)
