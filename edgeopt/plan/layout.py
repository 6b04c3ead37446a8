"""Laying out the steps of a plan: equal steps of several targets become one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, count
from pathlib import Path
from typing import Any

from edgeopt import metrics, reference, registry
from edgeopt.artifact import canonical, file_digest
from edgeopt.errors import PlanError
from edgeopt.plan.model import SCORED, LedgerPoint, Split, Step
from edgeopt.recipe import Recipe
from edgeopt.stage import Params, Stage
from edgeopt.target import Device, Target

#: This machine, as a device.
_HERE = Device()


@dataclass
class Layout:
    """Lays out the steps; equal steps of several targets become one."""

    recipe: Recipe
    root: Path
    steps: dict[str, Step] = field(default_factory=dict)
    ledger: list[LedgerPoint] = field(default_factory=list)
    kinds: dict[str, frozenset[str]] = field(default_factory=dict)
    _ids: dict[bytes, str] = field(default_factory=dict)

    def load(self, target: Target) -> str:
        """The trained network, which every point of the ledger is compared with."""
        return self.add("load", self._load_params, {}, target)

    @cached_property
    def _load_params(self) -> Params:
        model = self.recipe.model
        params: Params = registry.find("stages", "load").Params(
            factory=model.factory,
            args=model.args,
            weights=model.weights,
            weights_digest=file_digest(self.root / model.weights),
            source_digest=reference.source_digest(model.factory, self.root),
            input=self.recipe.input,
            preprocess=self.recipe.preprocess,
        )
        return params

    def export(self, model: str, target: Target, step_id: str) -> str:
        return self.add("export", registry.find("stages", "export").Params(), {"model": model}, target, step_id)

    def score(
        self,
        of: str,
        split: Split,
        target: Target,
        outputs: Mapping[Split, str],
        baseline: Mapping[Split, str],
        *,
        drops: bool = True,
    ) -> str:
        """Scores outputs, given by split; nothing that no metric needs becomes an input."""
        inputs = {"outputs": outputs[split]}
        if drops or any(metric is None or metric.needs_baseline for metric in self._metrics):
            inputs["baseline"] = baseline[split]
        if self._fits:
            inputs["select"] = outputs["select"]
            if "baseline" in inputs:
                inputs["baseline_select"] = baseline["select"]
        params = registry.find("stages", "score").Params(
            metrics=self.recipe.metrics,
            split=split,
            sources=self._sources,
            drops=drops,
        )
        return self.add("score", params, inputs, target, f"score:{of}:{split}")

    def parity(self, outputs: str, exported: str, target: Target, of: str) -> str:
        """Compares a candidate's outputs with those of the float network."""
        compared = {"outputs": outputs, "reference": self.evaluate(exported, "evaluate", "onnxruntime", target)}
        if self._fits:
            compared["reference_select"] = self.evaluate(exported, "select", "onnxruntime", target)
        params = registry.find("stages", "parity").Params(
            metrics=self.recipe.metrics, split="evaluate", sources=self._sources
        )
        return self.add("parity", params, compared, target, f"parity:{of}")

    @property
    def _sources(self) -> dict[str, str]:
        return {metrics.label(spec): metrics.source(spec, self.root) for spec in self.recipe.metrics}

    @property
    def _fits(self) -> bool:
        """Whether a metric fixes a threshold on ``select``."""
        return any(metric is None or metric.fitted_on for metric in self._metrics)

    @property
    def _metrics(self) -> list[metrics.Metric | None]:
        return [metrics.build(spec) for spec in self.recipe.metrics]

    def point(self, stage: str, step: str, target: Target, *, shared: bool = False, runtime: str = "torch") -> None:
        """A point of the ledger that is not compiled: it runs on this machine, as the file itself means."""
        splits = SCORED if self._fits else SCORED[:1]
        outputs, trained = (
            {split: self.evaluate(source, split, engine, target) for split in splits}
            for source, engine in ((step, runtime), (self.load(target), "torch"))
        )
        evaluation = self.score(step, "evaluate", target, outputs, trained, drops=False)
        if not shared:
            self.ledger.append(LedgerPoint(stage, evaluation, target.name, runtime))
        elif all((point.stage, point.step) != (stage, evaluation) for point in self.ledger):
            forked = any(point.stage == stage for point in self.ledger)
            self.ledger.append(LedgerPoint(stage, evaluation, target.name if forked else None))

    def evaluate(self, step: str, split: str, runtime: str, target: Target, *, compiled: bool = False) -> str:
        """A compiled artefact is evaluated as it ships; everything before it on this machine, as the file itself means.

        OpenVINO has no way to run a file without its optimisations.
        """
        params = registry.find("stages", "evaluate").Params(
            split=split,
            runtime=runtime,
            optimization="all" if compiled or runtime == "openvino" else "none",
            batch=target.measure.batch if compiled else 1,
            threads=target.measure.threads if compiled else 1,
            at_hand=compiled and not target.device.access.none,
        )
        return self.add("evaluate", params, {"model": step}, target, f"evaluate:{step}:{split}")

    def add(
        self, stage_name: str, params: Params, inputs: Mapping[str, str], target: Target, step_id: str | None = None
    ) -> str:
        """The id of the step, added unless an equal one is there."""
        stage: Stage[Any] = registry.find("stages", stage_name)
        for role, source in inputs.items():
            if not self.kinds[source] & stage.accepts[role]:
                wanted = " or ".join(sorted(stage.accepts[role]))
                given = " or ".join(sorted(self.kinds[source]))
                raise PlanError(f"{stage_name} needs {wanted}, {source} gives {given}", where=f"target {target.name}")
        if "metric" in stage.Params.model_fields:
            metric = getattr(params, "metric", None) or self.recipe.metrics[0]
            params = params.model_copy(update={"metric": metric, "metric_source": metrics.source(metric, self.root)})
        bound = stage.bind(params, target)
        device = (target.device if getattr(bound, "at_hand", True) else _HERE) if stage.on_device else None
        dumped = device.model_dump(mode="json") if device else None
        content = canonical([stage_name, bound.model_dump(mode="json"), dict(inputs), dumped])
        if content not in self._ids:
            wanted_id = step_id or stage_name
            names = chain(
                (wanted_id, f"{wanted_id}@{target.name}"), (f"{wanted_id}@{target.name}.{n}" for n in count(2))
            )
            unique = next(name for name in names if name not in self.steps)
            self._ids[content] = unique
            self.steps[unique] = Step(unique, stage_name, bound, dict(inputs), stage.data(bound), target.name, device)
            self.kinds[unique] = self._produces(stage, bound)
        return self._ids[content]

    def _produces(self, stage: Stage[Any], params: Params) -> frozenset[str]:
        """The kind that comes out, narrowed by the plug-in that the parameters name."""
        for kind, attribute in (("quantizers", "quantizer"), ("backends", "runtime")):
            name = getattr(params, attribute, None)
            if stage.name in ("quantize", "compile") and name:
                return frozenset({registry.find(kind, name).produces})
        return stage.produces
