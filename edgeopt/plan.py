"""The plan: recipe and targets with every parameter bound, every kind checked and the shared prefix found.

``plan()`` lays out the steps of what :mod:`edgeopt.reading` has read. It runs none of the user's code and loads no
heavy library, so ``edgeopt check`` is fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from edgeopt import metrics, reading, reference, registry, verdict
from edgeopt.artifact import canonical, file_digest
from edgeopt.errors import ConfigError, PlanError
from edgeopt.recipe import Recipe
from edgeopt.stage import Params, Stage
from edgeopt.target import Target
from edgeopt.waivers import Waiver

#: What a step leaves behind, as the ledger calls it.
LEDGER_NAMES = {"prune": "pruned", "distill": "distilled"}


@dataclass(frozen=True)
class Step:
    """One action: a stage with bound parameters.

    Attributes:
        id: Unique in the plan, such as ``compile:openvino:int8-pruned``.
        inputs: Input role -> id of the step whose output it is.
        data: Splits that it reads.
        target: The target it was first planned for; ``None`` if it is for all.
    """

    id: str
    stage: str
    params: Params
    inputs: Mapping[str, str]
    data: tuple[str, ...]
    target: str | None


@dataclass(frozen=True)
class Candidate:
    """One way to serve a target, as step ids.

    Attributes:
        rank: 0 float baseline, 1 float after the recipe's compression steps, 2 quantized.
        select, evaluate: Score it on these splits.
    """

    id: str
    runtime: str
    precision: str
    rank: int
    pruned: bool
    compiled: str
    select: str
    evaluate: str


@dataclass(frozen=True)
class TargetPlan:
    """A target of the recipe with its gates and candidates.

    Attributes:
        gates: Judged on what ships.
        selection_gates: Those on accuracy, as the choice between the candidates looks at them: on ``select``.
    """

    target: Target
    path: Path
    gates: tuple[verdict.Gate, ...]
    selection_gates: tuple[verdict.Gate, ...]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class LedgerPoint:
    """A point of the chain whose evaluation goes into the ledger."""

    stage: str
    step: str
    target: str | None = None
    runtime: str | None = None
    candidate: str | None = None


@dataclass(frozen=True)
class Plan:
    """Everything that a run will do, in order.

    Attributes:
        path: The recipe file.
        digest: sha256 of the recipe's canonical content, after overrides.
        steps: In an order in which inputs come first.
        waivers: Of the waivers file; no part of any cache key.
    """

    recipe: Recipe
    path: Path
    overrides: tuple[str, ...]
    digest: str
    steps: tuple[Step, ...]
    targets: Mapping[str, TargetPlan]
    ledger: tuple[LedgerPoint, ...]
    waivers: tuple[Waiver, ...] = ()

    @property
    def root(self) -> Path:
        """Folder of the recipe."""
        return self.path.parent

    @property
    def tools(self) -> tuple[str, ...]:
        """Distributions that the plan's steps use."""
        return tuple(sorted({tool for step in self.steps for tool in tools_of(step)}))

    def steps_of(self, target: str) -> tuple[str, ...]:
        """Ids of the steps that a target needs, shared ones included, in order."""
        inputs = {step.id: step.inputs.values() for step in self.steps}
        todo = [point.step for point in self.ledger if point.target in (None, target)]
        todo += [
            step for candidate in self.targets[target].candidates for step in (candidate.select, candidate.evaluate)
        ]
        needed: set[str] = set()
        while todo:
            step = todo.pop()
            if step not in needed:
                needed.add(step)
                todo += inputs[step]
        return tuple(step for step in inputs if step in needed)


def tools_of(step: Step) -> tuple[str, ...]:
    """Distributions whose versions can change what the step gives."""
    stage: Stage[Any] = registry.find("stages", step.stage)
    plugin_tools: list[str] = ["torch"] if getattr(step.params, "runtime", None) == "torch" else []
    for kind, attribute in (("backends", "runtime"), ("quantizers", "quantizer")):
        name = getattr(step.params, attribute, None)
        if name and name != "torch":
            plugin_tools += registry.find(kind, name).tools
    return tuple(sorted({*stage.tools, *plugin_tools}))


def plan(
    recipe: Path, overrides: Sequence[str] = (), only: Sequence[str] = (), waivers_file: Path | None = None
) -> Plan:
    """Make the plan of a recipe.

    Args:
        recipe: The recipe file, or the folder that holds ``recipe.yaml``.
        overrides: ``a.b=c`` assignments.
        only: Names of the targets to plan for; all if empty.
        waivers_file: Instead of the ``waivers.yaml`` beside the recipe.

    Raises:
        ConfigError: With every problem of the recipe, its target files and its waivers.
        PlanError: They are valid but do not fit together.
    """
    read = reading.read(recipe, overrides, only, waivers_file)
    builder = _Builder(read.recipe, read.path.parent)
    for name, found in read.targets.items():
        try:
            builder.add_target(name, found.target, found.source.path, found.gates, read.steps)
        except (ConfigError, PlanError) as error:  # binding found that the recipe's steps and this target do not fit
            error.where = found.source.where(("quantization",))
            raise
    return Plan(
        recipe=read.recipe,
        path=read.path,
        overrides=tuple(overrides),
        digest=read.digest,
        steps=tuple(builder.steps.values()),
        targets=builder.targets,
        ledger=tuple(builder.ledger),
        waivers=read.waivers,
    )


@dataclass
class _Builder:
    """Lays out the steps; equal steps of several targets become one."""

    recipe: Recipe
    root: Path
    steps: dict[str, Step] = field(default_factory=dict)
    targets: dict[str, TargetPlan] = field(default_factory=dict)
    ledger: list[LedgerPoint] = field(default_factory=list)
    _trained: str = ""
    _outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    _kinds: dict[str, frozenset[str]] = field(default_factory=dict)
    _ids: dict[bytes, str] = field(default_factory=dict)

    def add_target(
        self,
        name: str,
        target: Target,
        path: Path,
        gates: tuple[verdict.Gate, ...],
        steps: Sequence[tuple[str, Params]],
    ) -> None:
        trained = self._trained = self._add("load", self._load_params(), {}, target)
        self._point("trained", trained, target, shared=True)
        model, changed = trained, []
        for stage, params in steps:
            if stage == "quantize":
                continue
            roles = registry.find("stages", stage).accepts
            model = self._add(stage, params, {role: trained if role == "teacher" else model for role in roles}, target)
            changed.append(stage)
            self._point(LEDGER_NAMES.get(stage, stage), model, target, shared=True)
        exported = {trained: self._export(trained, target, "export" if model == trained else "export:trained")}
        if model != trained:
            exported[model] = self._export(model, target, "export")
        self._point("exported", exported[model], target, shared=True, runtime="onnxruntime", optimization="none")
        suffix = "" if not changed else "-pruned" if "prune" in changed else "-distilled"
        candidates: list[Candidate] = []
        for runtime in target.runtime:
            candidates.append(self._candidate(target, runtime, "float", 0, "", exported[trained]))
            if model != trained:
                candidates.append(self._candidate(target, runtime, "float", 1, suffix, exported[model]))
            for stage, params in steps:
                if stage == "quantize" and "int8" in target.precision:
                    bound = params.model_copy(update={"runtime": runtime})
                    quantized = self._add(stage, bound, {"model": exported[model]}, target, f"quantize:{runtime}")
                    self._point(
                        "quantized", quantized, target, runtime=_reference_runtime(self._kinds[quantized], runtime)
                    )
                    candidates.append(self._candidate(target, runtime, "int8", 2, suffix, quantized))
        accuracy = (gate for gate in gates if gate.metric not in verdict.DEVICE_METRICS)
        looked_at = dict.fromkeys(replace(gate, metric=gate.metric.partition("[")[0]) for gate in accuracy)
        self.targets[name] = TargetPlan(target, path, gates, tuple(looked_at), tuple(candidates))

    def _export(self, model: str, target: Target, step_id: str) -> str:
        return self._add("export", registry.find("stages", "export").Params(), {"model": model}, target, step_id)

    def _candidate(
        self, target: Target, runtime: str, precision: str, rank: int, suffix: str, source: str
    ) -> Candidate:
        name = f"{runtime}-{precision}{suffix}"
        params = registry.find("stages", "compile").Params(runtime=runtime)
        compiled = self._add("compile", params, {"model": source}, target, f"compile:{name}")
        outputs = {split: self._evaluate(compiled, split, target, runtime) for split in ("evaluate", "select")}
        baseline = outputs if rank == 0 else self._outputs[f"{target.name} {runtime}"]
        if rank == 0:
            self._outputs[f"{target.name} {runtime}"] = outputs
        evaluate, select = (self._score(name, split, target, outputs, baseline) for split in ("evaluate", "select"))
        self.ledger.append(LedgerPoint("compiled", evaluate, target.name, runtime, name))
        return Candidate(name, runtime, precision, rank, bool(suffix), compiled, select, evaluate)

    def _score(
        self,
        of: str,
        split: Literal["evaluate", "select"],
        target: Target,
        outputs: Mapping[str, str],
        baseline: Mapping[str, str],
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
            sources={metrics.label(spec): metrics.source(spec, self.root) for spec in self.recipe.metrics},
            drops=drops,
        )
        return self._add("score", params, inputs, target, f"score:{of}:{split}")

    @property
    def _fits(self) -> bool:
        """Whether a metric fixes a threshold on ``select``."""
        return any(metric is None or metric.fitted_on for metric in self._metrics)

    @property
    def _metrics(self) -> list[metrics.Metric | None]:
        return [metrics.build(spec) for spec in self.recipe.metrics]

    def _point(
        self,
        stage: str,
        step: str,
        target: Target,
        *,
        shared: bool = False,
        runtime: str = "torch",
        optimization: str = "none",
    ) -> None:
        outputs, trained = (
            {
                split: self._evaluate(source, split, target, engine, level)
                for split in (("evaluate", "select") if self._fits else ("evaluate",))
            }
            for source, engine, level in ((step, runtime, optimization), (self._trained, "torch", "none"))
        )
        evaluation = self._score(step, "evaluate", target, outputs, trained, drops=False)
        if not shared:
            self.ledger.append(LedgerPoint(stage, evaluation, target.name, runtime))
        elif all((point.stage, point.step) != (stage, evaluation) for point in self.ledger):
            forked = any(point.stage == stage for point in self.ledger)
            self.ledger.append(LedgerPoint(stage, evaluation, target.name if forked else None))

    def _evaluate(self, step: str, split: str, target: Target, runtime: str, optimization: str = "all") -> str:
        """The compiled artefact is evaluated as it ships; everything before it as the file itself means."""
        as_shipped = optimization == "all"
        params = registry.find("stages", "evaluate").Params(
            split=split,
            runtime=runtime,
            optimization="all" if runtime == "openvino" else optimization,
            batch=target.measure.batch if as_shipped else 1,
            threads=target.measure.threads if as_shipped else 1,
        )
        return self._add("evaluate", params, {"model": step}, target, f"evaluate:{step}:{split}")

    def _add(
        self, stage_name: str, params: Params, inputs: Mapping[str, str], target: Target, step_id: str | None = None
    ) -> str:
        """The id of the step, added unless an equal one is there."""
        stage: Stage[Any] = registry.find("stages", stage_name)
        for role, source in inputs.items():
            if not self._kinds[source] & stage.accepts[role]:
                wanted = " or ".join(sorted(stage.accepts[role]))
                given = " or ".join(sorted(self._kinds[source]))
                raise PlanError(f"{stage_name} needs {wanted}, {source} gives {given}", where=f"target {target.name}")
        if "metric" in stage.Params.model_fields:
            metric = getattr(params, "metric", None) or self.recipe.metrics[0]
            params = params.model_copy(update={"metric": metric, "metric_source": metrics.source(metric, self.root)})
        bound = stage.bind(params, target)
        device = target.device.model_dump(mode="json") if stage.on_device else None
        content = canonical([stage_name, bound.model_dump(mode="json"), dict(inputs), device])
        if content not in self._ids:
            wanted_id = step_id or stage_name
            unique = wanted_id if wanted_id not in self.steps else f"{wanted_id}@{target.name}"
            self._ids[content] = unique
            self.steps[unique] = Step(unique, stage_name, bound, dict(inputs), stage.data(bound), target.name)
            self._kinds[unique] = self._produces(stage, bound)
        return self._ids[content]

    def _produces(self, stage: Stage[Any], params: Params) -> frozenset[str]:
        """The kind that comes out, narrowed by the plug-in that the parameters name."""
        for kind, attribute in (("quantizers", "quantizer"), ("backends", "runtime")):
            name = getattr(params, attribute, None)
            if stage.name in ("quantize", "compile") and name:
                return frozenset({registry.find(kind, name).produces})
        return stage.produces

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


def _reference_runtime(kinds: frozenset[str], runtime: str) -> str:
    """What runs an artefact before it is compiled: OpenVINO its own IR, ONNX Runtime every ONNX file."""
    return runtime if "openvino-ir" in kinds else "onnxruntime"
