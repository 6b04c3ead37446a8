"""What TensorRT does not accept of a quantized ONNX model, found without TensorRT, and mended where that is possible.

findings = lint(model)          # every pattern, with node, tensor, the user's module, and what to do
repaired = repair(model)        # a model without those that can be mended, and what the repair changed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgeopt.errors import StageError
from edgeopt.qdq import repairs
from edgeopt.qdq.graph import Graph, graphs, inlined
from edgeopt.qdq.reading import read
from edgeopt.qdq.rules import RULES, Hit, Rule

__all__ = ["Finding", "Repaired", "for_tensorrt", "lint", "modules", "read", "refused", "repair"]


@dataclass(frozen=True)
class Finding:
    """A place in a model that a rule names.

    Attributes:
        rule: Id of the rule.
        title: What is not accepted.
        severity: ``error``: TensorRT refuses the model. ``warning``: it accepts it and computes something else than
            ONNX defines, or what its documentation does not support.
        stage: ``import`` or ``build``, when it refuses; ``meaning`` for a warning.
        node: Name of the node; empty for a tensor of the graph itself, or if the node has no name.
        op: Operator of the node.
        tensor: Name of the tensor.
        module: The user's module behind it; empty if the model does not say.
        why: What is wrong there.
        advice: What to do where the model is made.
        repairable: Whether :func:`repair` mends it.
    """

    rule: str
    title: str
    severity: Literal["error", "warning"]
    stage: str
    node: str
    op: str
    tensor: str
    module: str
    why: str
    advice: str
    repairable: bool

    def __str__(self) -> str:
        place = f"{self.op} {self.node!r}" if self.op else "the graph"
        module = f" of module {self.module!r}" if self.module else ""
        return f"{self.rule}: {place}{module}, tensor {self.tensor!r}: {self.why}"


@dataclass(frozen=True)
class Repaired:
    """A mended model.

    Attributes:
        model: ``ModelProto``.
        changes: What was done, in order.
        left: What could not be mended.
    """

    model: Any
    changes: tuple[repairs.Change, ...]
    left: tuple[Finding, ...]


def lint(model: Any) -> tuple[Finding, ...]:
    """All findings in a ``ModelProto``, errors first, in the order of the rules."""
    views = list(graphs(inlined(model)))
    found = [_finding(rule, view, hit) for rule in RULES for view in views for hit in rule.check(view)]
    return tuple(sorted(found, key=lambda finding: finding.severity != "error"))


def refused(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Those for which TensorRT does not take the model."""
    return tuple(finding for finding in findings if finding.severity == "error")


def repair(model: Any) -> Repaired:
    """Mend what can be mended. ``model`` stays as it is; what a change does to the numbers is said with it."""
    mended, changes = repairs.apply(model, [rule.id for rule in RULES])
    return Repaired(mended, changes, lint(mended))


def for_tensorrt(model: Any, where: str) -> tuple[Any, tuple[str, ...]]:
    """A model as TensorRT takes it, and what TensorRT reads otherwise than ONNX.

    Nothing is mended but where the raw input is cast, which changes no number: what a user wrote stays as it is.

    Raises:
        StageError: It does not take the model; every place with its rule, and what to do.
    """
    ready, _ = repairs.apply(model, ["uint8-moved"])
    findings = lint(ready)
    if not (wrong := refused(findings)):
        return ready, tuple(dict.fromkeys(str(finding) for finding in findings))
    advice = dict.fromkeys(f"{finding.rule}: {finding.advice}" for finding in wrong)
    mendable = sum(finding.repairable for finding in wrong)
    if mendable:
        advice[f"`edgeopt lint MODEL.onnx --fix MENDED.onnx` mends {mendable} of {len(wrong)}"] = None
    raise StageError(
        f"TensorRT does not take this model, in {len(wrong)} places:\n  " + "\n  ".join(map(str, wrong)),
        where=where,
        fix="; ".join(advice),
    )


def modules(model: Any) -> dict[str, str]:
    """The user's module of every named node, where the model says it."""
    return {node.name: module for view in graphs(model) for node in view.nodes if (module := view.module(node))}


def _finding(rule: Rule, graph: Graph, hit: Hit) -> Finding:
    node, tensor, why = hit
    return Finding(
        rule=rule.id,
        title=rule.title,
        severity="warning" if rule.stage == "meaning" else "error",
        stage=rule.stage,
        node=node.name if node is not None else "",
        op=node.op_type if node is not None else "",
        tensor=tensor,
        module=graph.module(node) if node is not None else "",
        why=why,
        advice=rule.advice,
        repairable=repairs.can(rule.id, graph, hit),
    )
