"""Repairs: the edits that mend what the rules name, applied until nothing more can be mended."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from edgeopt.qdq import edits
from edgeopt.qdq.graph import Graph, graphs, inlined
from edgeopt.qdq.rules import RULES, Hit, Rule

#: A repair may uncover another, such as weights behind a Q that was folded; more rounds than this find nothing new.
_ROUNDS = 4


@dataclass(frozen=True)
class Change:
    """One repair.

    Attributes:
        rule: Id of the rule.
        node: The node that the rule named, or the tensor.
        what: What was done.
        exact: Whether the model computes exactly what it computed, as ONNX defines it.
    """

    rule: str
    node: str
    what: str
    exact: bool

    def __str__(self) -> str:
        return f"{self.rule}: {self.node}: {self.what}" + ("" if self.exact else " (changes the numbers)")


def can(rule: str, graph: Graph, hit: Hit) -> bool:
    """Whether there is a repair for this place."""
    return rule in _PLANS and _PLANS[rule](graph, hit) is not None


def apply(model: Any, rules: Collection[str]) -> tuple[Any, tuple[Change, ...]]:
    """A mended copy of a ``ModelProto``, and the changes.

    Its local functions are written out, and inferred shapes left out: types have changed.

    Args:
        model: Stays as it is.
        rules: Ids of the rules whose findings are mended.
    """
    mended = type(model)()
    mended.CopyFrom(inlined(model))
    changes: list[Change] = []
    views = list(graphs(mended))
    for _ in range(_ROUNDS):
        found = [
            change
            for view in views
            for rule in RULES
            if rule.id in rules and rule.id in _PLANS
            for change in _mend(view, rule)
        ]
        changes += found
        if not found:
            break
    for view in views if changes else ():
        view.prune()
    return mended, tuple(changes)


def _mend(graph: Graph, rule: Rule) -> list[Change]:
    """Mend what the rule finds now. A node that an edit has changed is left for the next round."""
    changes = []
    hits = [(hit, _bytes(hit)) for hit in rule.check(graph)]
    for hit, before in hits:
        node = hit[0]
        gone = node is not None and not any(node is each for each in graph.proto.node)
        if gone or _bytes(hit) != before or (edit := _PLANS[rule.id](graph, hit)) is None:
            continue
        what, exact = edit()
        changes.append(Change(rule.id, hit[1] if node is None else node.name, what, exact))
    if changes:
        graph.index()
    return changes


def _bytes(hit: Hit) -> bytes:
    return b"" if hit[0] is None else bytes(hit[0].SerializeToString())


_PLANS: MappingProxyType[str, Callable[[Graph, Hit], edits.Edit | None]] = MappingProxyType(
    {
        "int32-bias": edits.plain,
        "uint8-weights": edits.signed_weights,
        "uint8-input": edits.plain,
        "uint8-moved": edits.cast_first,
        "zero-point": edits.symmetric,
        "zero-point-left-empty": edits.shorter,
        "unsupported-type": edits.without_unsupported,
        "scale-not-positive": edits.signed_weights,
        "scale-shape": edits.one_zero_point,
        "scalar-constant": edits.plain,
        "constant-not-dequantized": edits.evaluated,
        "output-without-type": edits.typed_output,
        "uint8-activations": edits.symmetric,
    }
)
