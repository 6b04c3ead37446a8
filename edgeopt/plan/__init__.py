"""The plan: recipe and targets with every parameter bound, every kind checked and the shared prefix found.

``plan()`` lays out the steps of what :mod:`edgeopt.reading` has read. It runs none of the user's code and loads no
heavy library, so ``edgeopt check`` is fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgeopt import metrics, reading, registry, verdict
from edgeopt.errors import ConfigError, PlanError
from edgeopt.plan.candidates import Candidates
from edgeopt.plan.layout import Layout
from edgeopt.plan.model import (
    Candidate,
    LedgerPoint,
    Plan,
    Step,
    TargetPlan,
    asks_device,
    environments_of,
    tools_of,
)
from edgeopt.reading import FoundTarget
from edgeopt.stage import Params

__all__ = [
    "Candidate",
    "LedgerPoint",
    "Plan",
    "Step",
    "TargetPlan",
    "asks_device",
    "environments_of",
    "plan",
    "tools_of",
]

#: What a step leaves behind, as the ledger calls it.
_LEDGER_NAMES = {"prune": "pruned", "distill": "distilled"}


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
    layout = Layout(read.recipe, read.path.parent)
    targets = {}
    for name, found in read.targets.items():
        try:
            targets[name] = _lay_out(layout, found, read.steps)
        except (ConfigError, PlanError) as error:  # binding found that the recipe's steps and this target do not fit
            error.where = found.source.where(("quantization",))
            raise
    return Plan(
        recipe=read.recipe,
        path=read.path,
        overrides=tuple(overrides),
        digest=read.digest,
        steps=tuple(layout.steps.values()),
        targets=targets,
        ledger=tuple(layout.ledger),
        metric_sources={
            metrics.label(spec): foreign
            for spec in read.recipe.metrics
            if (foreign := metrics.foreign_source(spec, layout.root))
        },
        waivers=read.waivers,
    )


def _lay_out(layout: Layout, found: FoundTarget, steps: Sequence[tuple[str, Params]]) -> TargetPlan:
    """The steps of one target, and its candidates."""
    target = found.target
    trained = layout.load(target)
    layout.point("trained", trained, target, shared=True)
    model, changed = trained, []
    for stage, params in steps:
        if stage == "quantize":
            continue
        roles = registry.find("stages", stage).accepts
        model = layout.add(stage, params, {role: trained if role == "teacher" else model for role in roles}, target)
        changed.append(stage)
        layout.point(_LEDGER_NAMES.get(stage, stage), model, target, shared=True)
    exported = {trained: layout.export(trained, target, "export" if model == trained else "export:trained")}
    if model != trained:
        exported[model] = layout.export(model, target, "export")
    layout.point("exported", exported[model], target, shared=True, runtime="onnxruntime")
    suffix = "" if not changed else "-pruned" if "prune" in changed else "-distilled"
    quantize = next((params for stage, params in steps if stage == "quantize"), None)
    candidates: list[Candidate] = []
    for runtime in target.runtime:
        make = Candidates(layout, target, runtime, exported)
        candidates.append(make.baseline(trained))
        if model != trained and "float" in make.backend.precisions:
            candidates.append(make.candidate("float", 1, suffix, make.source(model), model))
        if "fp16" in target.precision and "fp16" in make.backend.precisions:
            candidates.append(make.candidate("fp16", 2, suffix, make.halved(model), model))
        if quantize and "int8" in target.precision and "int8" in make.backend.precisions:
            candidates.append(make.candidate("int8", 3, suffix, make.quantized(quantize, model), model))
    if not any(candidate.ships for candidate in candidates):
        able = sorted({name for runtime in target.runtime for name in registry.find("backends", runtime).precisions})
        what = f"{' and '.join(target.runtime)} compiles only {' and '.join(able)}, and nothing makes that here"
        fix = "add `- quantize: {scheme: int8}` to the recipe's steps, and int8 to the target's precision"
        raise PlanError(what, where=f"target {target.name}", fix=fix)
    accuracy = (gate for gate in found.gates if gate.metric not in verdict.OF_THE_ARTIFACT)
    looked_at = dict.fromkeys(replace(gate, metric=gate.metric.partition("[")[0]) for gate in accuracy)
    return TargetPlan(target, found.source.path, found.gates, tuple(looked_at), tuple(candidates))
