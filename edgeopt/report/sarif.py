"""A comparison of two runs as SARIF, which code scanning shows as alerts on the recipe.

Sources: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0; GitHub, SARIF support for code
scanning.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote

from edgeopt import __version__
from edgeopt.report import changes
from edgeopt.report.wording import clean

if TYPE_CHECKING:
    from edgeopt.compare import Comparison

Level = Literal["error", "warning", "note"]

#: Rule -> its level, and what it says of every result.
RULES: dict[str, tuple[Level, str]] = {
    "regression": ("error", "A number of what ships got worse by more than is tolerated."),
    "target-lost": ("error", "A target that was served cannot be served any more."),
    "worse": ("warning", "A number of what ships got worse, by no more than is tolerated."),
    "target-vanished": ("warning", "A target of the earlier run is not in the later one."),
    "gate-loosened": ("warning", "A gate asks less than before, or is gone."),
    "not-comparable": ("note", "A number of what ships cannot be compared with the earlier run."),
}


class _Finding(NamedTuple):
    rule: str
    target: str
    subject: str  # metric or gate; with rule and target it tells findings apart, from run to run
    message: str


def render(comparison: Comparison, root: Path) -> str:
    """One result for every finding that somebody should look at; what is better or unchanged is none.

    Args:
        comparison: The two runs.
        root: Folder that the recipe's path is made relative to: that of the checkout.
    """
    rules = list(RULES)
    place = _place(Path(comparison.after.recipe_path), root)
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "edgeopt",
                        "semanticVersion": __version__,
                        "rules": [_rule(name) for name in rules],
                    }
                },
                "automationDetails": {"id": f"edgeopt/compare/{clean(comparison.after.recipe)}/"},
                "columnKind": "unicodeCodePoints",
                "results": [
                    {
                        "ruleId": finding.rule,
                        "ruleIndex": rules.index(finding.rule),
                        "level": RULES[finding.rule][0],
                        "message": {"text": clean(finding.message)},
                        "locations": [place],
                        "partialFingerprints": _fingerprints(finding),
                    }
                    for finding in _findings(comparison)
                ],
            }
        ],
    }
    return json.dumps(log, indent=1, ensure_ascii=False) + "\n"


def _rule(name: str) -> dict[str, Any]:
    level, text = RULES[name]
    return {
        "id": name,
        "name": "".join(part.capitalize() for part in name.split("-")),
        "shortDescription": {"text": text},
        "fullDescription": {"text": text},
        "help": {"text": changes.NOTE},
        "defaultConfiguration": {"level": level},
        "properties": {"tags": ["edgeopt"]},
    }


def _findings(comparison: Comparison) -> Iterator[_Finding]:
    for target in comparison.targets:
        if target.lost or target.presence == "vanished":
            rule = "target-lost" if target.lost else "target-vanished"
            yield _Finding(rule, target.name, "", f"{target.name}: {changes.target(target)}")
        for gate in target.gates:
            if gate.loosened:
                text = f"{target.name}: gate {gate.gate}: {changes.gate(gate)}"
                yield _Finding("gate-loosened", target.name, gate.gate, text)
    for name, change in changes.ordered(comparison):
        if change.result in ("worse", "not_comparable") and change.measured:
            rule = "regression" if change.regression else change.result.replace("_", "-")
            sides = f"{changes.value(change.before)} before, {changes.value(change.after)} now"
            effect = f" ({text})" if (text := changes.effect(change)) else ""
            yield _Finding(rule, name, change.metric, f"{name}: {change.metric}: {sides}{effect}: {change.why}")


def _place(recipe: Path, root: Path) -> dict[str, Any]:
    """The first line of the recipe. Code scanning needs a path relative to the checkout, with forward slashes."""
    full = recipe.resolve()
    if full.is_relative_to(root.resolve()):
        file = {"uri": quote(full.relative_to(root.resolve()).as_posix()), "uriBaseId": "%SRCROOT%"}
    else:
        file = {"uri": full.as_uri()}
    return {"physicalLocation": {"artifactLocation": file, "region": {"startLine": 1}}}


def _fingerprints(finding: _Finding) -> dict[str, str]:
    """The same for the same finding in every run. Code scanning looks at the first; all findings share one line."""
    key = "\0".join((finding.rule, finding.target, finding.subject))
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return {"primaryLocationLineHash": f"{digest}:1", "edgeopt/v1": digest}
