"""What a plan is: its steps, the candidates of its targets, and the points of its ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgeopt import registry, verdict
from edgeopt.recipe import Recipe
from edgeopt.stage import Params, Stage
from edgeopt.target import Device, Target
from edgeopt.waivers import Waiver

#: A split that outputs are scored on.
Split = Literal["evaluate", "select"]
SCORED: tuple[Split, ...] = ("evaluate", "select")


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
        metric_sources: What :func:`edgeopt.metrics.foreign_source` told of the metrics that are not built in, by label.
        waivers: Of the waivers file; no part of any cache key.
    """

    recipe: Recipe
    path: Path
    overrides: tuple[str, ...]
    digest: str
    steps: tuple[Step, ...]
    targets: Mapping[str, TargetPlan]
    ledger: tuple[LedgerPoint, ...]
    metric_sources: Mapping[str, str] = field(default_factory=dict)
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
    runtime = getattr(step.params, "runtime", "torch")
    here = step.stage == "compile" or (step.stage == "evaluate" and not getattr(step.params, "at_hand", True))
    own = registry.find("backends", runtime).environment if here and runtime != "torch" else ""
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
    if not name or name == "torch" or not getattr(step.params, "at_hand", True):
        return False
    return bool(registry.find("backends", name).own_toolkit)
