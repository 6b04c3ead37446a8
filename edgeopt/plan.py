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
from edgeopt.target import Device, Target
from edgeopt.waivers import Waiver

Split = Literal["evaluate", "select"]

#: This machine, as a device.
_HERE = Device()
_SCORED: tuple[Split, ...] = ("evaluate", "select")
#: What runs an artefact before it is compiled.
_RUNS = {
    "onnx": "onnxruntime",
    "onnx-qdq": "onnxruntime",
    "onnx-fp16": "onnxruntime",
    "openvino-ir": "openvino",
    "tflite": "litert",
    "tflite-int8": "litert",
}
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
        device: What its output depends on; ``None`` if any machine gives the same.
    """

    id: str
    stage: str
    params: Params
    inputs: Mapping[str, str]
    data: tuple[str, ...]
    target: str | None
    device: Device | None = None


@dataclass(frozen=True)
class Candidate:
    """One way to serve a target, as step ids.

    Attributes:
        rank: 0 float baseline, 1 float after the recipe's compression steps, then ``fp16`` and ``int8``.
        select, evaluate: Score it on these splits.
        parity: Compares its outputs with those of the float network that it was made from; empty for the float ONNX.
        ships: Whether the device can run it. Where the toolkit compiles no float network, the float ONNX on this
            machine is what the others are compared with, and never ships.
    """

    id: str
    runtime: str
    precision: str
    rank: int
    pruned: bool
    compiled: str
    select: str
    evaluate: str
    parity: str = ""
    ships: bool = True


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

    @property
    def environments(self) -> tuple[str, ...]:
        """Isolated tool environments that the plan's steps use."""
        return tuple(sorted({name for step in self.steps for name in environments_of(step)}))

    def steps_of(self, target: str) -> tuple[str, ...]:
        """Ids of the steps that a target needs, shared ones included, in order."""
        inputs = {step.id: step.inputs.values() for step in self.steps}
        todo = [point.step for point in self.ledger if point.target in (None, target)]
        todo += [
            step
            for candidate in self.targets[target].candidates
            for step in (candidate.compiled, candidate.select, candidate.evaluate, candidate.parity)
            if step
        ]
        needed: set[str] = set()
        while todo:
            step = todo.pop()
            if step not in needed:
                needed.add(step)
                todo += inputs[step]
        return tuple(step for step in inputs if step in needed)


def environments_of(step: Step) -> tuple[str, ...]:
    """Isolated tool environments that the step works in."""
    stage: Stage[Any] = registry.find("stages", step.stage)
    runtime = getattr(step.params, "runtime", "")
    own = registry.find("backends", runtime).environment if step.stage == "compile" else ""
    return tuple(filter(None, (stage.environment, own)))


def tools_of(step: Step) -> tuple[str, ...]:
    """Distributions whose versions can change what the step gives."""
    stage: Stage[Any] = registry.find("stages", step.stage)
    plugin_tools: list[str] = ["torch"] if getattr(step.params, "runtime", None) == "torch" else []
    for kind, attribute in (("backends", "runtime"), ("quantizers", "quantizer")):
        name = getattr(step.params, attribute, None)
        if name and name != "torch":
            plugin_tools += registry.find(kind, name).tools
    return tuple(sorted({*stage.tools, *plugin_tools}))


def asks_device(step: Step) -> bool:
    """Whether the device's own toolkit does the work, so that its version there can change what the step gives."""
    name = getattr(step.params, "runtime", None)
    return bool(name and name != "torch" and registry.find("backends", name).own_toolkit)


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
    kinds: dict[str, frozenset[str]] = field(default_factory=dict)
    _ids: dict[bytes, str] = field(default_factory=dict)

    def add_target(
        self,
        name: str,
        target: Target,
        path: Path,
        gates: tuple[verdict.Gate, ...],
        steps: Sequence[tuple[str, Params]],
    ) -> None:
        trained = self._trained = self.add("load", self._load_params(), {}, target)
        self.point("trained", trained, target, shared=True)
        model, changed = trained, []
        for stage, params in steps:
            if stage == "quantize":
                continue
            roles = registry.find("stages", stage).accepts
            model = self.add(stage, params, {role: trained if role == "teacher" else model for role in roles}, target)
            changed.append(stage)
            self.point(LEDGER_NAMES.get(stage, stage), model, target, shared=True)
        exported = {trained: self._export(trained, target, "export" if model == trained else "export:trained")}
        if model != trained:
            exported[model] = self._export(model, target, "export")
        self.point("exported", exported[model], target, shared=True, runtime="onnxruntime")
        suffix = "" if not changed else "-pruned" if "prune" in changed else "-distilled"
        quantize = next((params for stage, params in steps if stage == "quantize"), None)
        candidates: list[Candidate] = []
        for runtime in target.runtime:
            make = _Candidates(self, target, runtime, exported)
            candidates.append(make.baseline(trained))
            if model != trained and "float" in make.backend.precisions:
                candidates.append(make.candidate("float", 1, suffix, make.source(model), model))
            if "fp16" in target.precision and "fp16" in make.backend.precisions:
                candidates.append(make.candidate("fp16", 2, suffix, make.halved(model), model))
            if quantize and "int8" in target.precision and "int8" in make.backend.precisions:
                candidates.append(make.candidate("int8", 3, suffix, make.quantized(quantize, model), model))
        accuracy = (gate for gate in gates if gate.metric not in verdict.OF_THE_ARTIFACT)
        looked_at = dict.fromkeys(replace(gate, metric=gate.metric.partition("[")[0]) for gate in accuracy)
        self.targets[name] = TargetPlan(target, path, gates, tuple(looked_at), tuple(candidates))

    def _export(self, model: str, target: Target, step_id: str) -> str:
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
        splits = _SCORED if self._fits else _SCORED[:1]
        outputs, trained = (
            {split: self.evaluate(source, split, engine, target) for split in splits}
            for source, engine in ((step, runtime), (self._trained, "torch"))
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
            unique = wanted_id if wanted_id not in self.steps else f"{wanted_id}@{target.name}"
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


@dataclass
class _Candidates:
    """Lays out the candidates of one runtime of a target.

    Attributes:
        exported: Torch step -> the step that exports it to ONNX.
    """

    builder: _Builder
    target: Target
    runtime: str
    exported: Mapping[str, str]
    _baseline: dict[Split, str] = field(default_factory=dict)

    @property
    def backend(self) -> Any:
        return registry.find("backends", self.runtime)

    def baseline(self, trained: str) -> Candidate:
        """The float network as it was trained: compiled, or where the toolkit compiles none, the ONNX file itself."""
        if "float" in self.backend.precisions:
            return self.candidate("float", 0, "", self.source(trained), trained)
        onnx = self.exported[trained]
        outputs = {split: self.builder.evaluate(onnx, split, "onnxruntime", self.target) for split in _SCORED}
        self._baseline = outputs
        name = f"{self.runtime}-reference"
        evaluate, select = (self.builder.score(name, split, self.target, outputs, outputs) for split in _SCORED)
        return Candidate(name, self.runtime, "float", 0, False, onnx, select, evaluate, ships=False)

    def source(self, torch_step: str) -> str:
        """The float file that the runtime's toolkit starts from."""
        if self.backend.consumes & {"onnx", "onnx-qdq"}:
            return self.exported[torch_step]
        maker = "trace" if "torch-program" in self.backend.consumes else "convert"
        params = registry.find("stages", maker).Params()
        return self.builder.add(maker, params, {"model": torch_step}, self.target, f"{maker}:{torch_step}")

    def halved(self, torch_step: str) -> str:
        """The float16 one."""
        params = registry.find("stages", "cast").Params()
        return self.builder.add("cast", params, {"model": self.exported[torch_step]}, self.target, "cast:fp16")

    def quantized(self, params: Params, torch_step: str) -> str:
        """The INT8 one, which is a point of the ledger if something runs it before it is compiled."""
        bound = params.model_copy(update={"runtime": self.runtime})
        step_id = f"quantize:{self.runtime}"
        quantized = self.builder.add("quantize", bound, {"model": self.source(torch_step)}, self.target, step_id)
        (kind,) = self.builder.kinds[quantized]
        if kind in _RUNS:
            self.builder.point("quantized", quantized, self.target, runtime=_RUNS[kind])
        return quantized

    def candidate(self, precision: str, rank: int, suffix: str, source: str, torch_step: str) -> Candidate:
        name, add = f"{self.runtime}-{precision}{suffix}", self.builder.add
        params = registry.find("stages", "compile").Params(runtime=self.runtime, precision=precision)
        inputs = {"model": source, "float": self.exported[torch_step]}
        compiled = add("compile", params, inputs, self.target, f"compile:{name}")
        outputs = {
            split: self.builder.evaluate(compiled, split, self.runtime, self.target, compiled=True) for split in _SCORED
        }
        self._baseline = self._baseline or outputs
        evaluate, select = (self.builder.score(name, split, self.target, outputs, self._baseline) for split in _SCORED)
        parity = self.builder.parity(outputs["evaluate"], self.exported[torch_step], self.target, name)
        self.builder.ledger.append(LedgerPoint("compiled", evaluate, self.target.name, self.runtime, name))
        return Candidate(
            name, self.runtime, precision, rank, bool(suffix), compiled, select, evaluate, parity, ships=True
        )
