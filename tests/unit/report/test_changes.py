"""A comparison as Markdown for a pull request and as SARIF for code scanning."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from edgeopt import compare
from edgeopt.compare import Comparison
from edgeopt.record import TargetRecord
from edgeopt.report import changes, compare_markdown, sarif
from tests.releases import GATE, latency, measured, pair, release, run, size, target, top1

NASTY = "a|b <script>alert(1)</script> `c` [l](u) \x1b[31m\nnext"


@pytest.fixture
def comparison() -> Comparison:
    """A regression, a tolerated loss, a gain, an unchanged and an unknown number; a lost, a gone and a new target."""
    before = target(latency(1.0), top1(0.99), size(1.0), latency(2.0, "latency_p99_ms"), latency(1.5, "latency_p90_ms"))
    after = target(latency(1.5), top1(0.989), size(1.02), latency(1.8, "latency_p99_ms"), digest="s2")
    after = replace(after, verdicts=(replace(GATE, limit=5.0),))
    broken = TargetRecord("", "", (), (), error="no driver\n  fix: install one")
    served = target(size(1.0))
    return compare.compare(
        release(run(cpu=before, npu=served, old=served)), release(run(cpu=after, npu=broken, new=served))
    )


def rows(text: str) -> list[list[str]]:
    """Cells of the first table, without its head."""
    lines = [line for line in text.partition("<details>")[0].splitlines() if line.startswith("|")]
    return [line.strip("| ").split(" | ") for line in lines[2:]]


def test_the_comment_says_what_changed_and_folds_the_rest(comparison: Comparison) -> None:
    text = compare_markdown.render(comparison)
    assert text.startswith("<!-- edgeopt compare -->\n### digits: REGRESSION\n")
    assert rows(text) == [
        ["**✗ REGRESSION**", "cpu", "latency_p50_ms", "1.00 ms", "1.50 ms", r"+50.0 % \[+47.9, +52.1\]"],
        ["✗ worse, tolerated", "cpu", "size_mib", "1.00 MiB", "1.02 MiB", "+2.0 %"],
        ["✓ better", "cpu", "latency_p99_ms", "2.00 ms", "1.80 ms", r"-10.0 % \[-11.3, -8.7\]"],
    ]
    shown = text.partition("<details>")[0]
    assert "- **cpu**: ? not comparable: latency_p90_ms: the later run does not have it" in shown
    assert "- **npu**: LOST: it cannot be served any more (no driver; fix: install one)" in shown
    assert "- **old**: not in the later run; it shipped int8" in shown
    assert "- **new**: not in the earlier run; it ships int8" in shown
    folded = text.partition("<details>")[2]
    assert "= no difference shown" in folded
    assert "limit 3 → 5, LOOSENED" in folded
    assert text.count("<details>") == text.count("</details>")


def test_two_equal_runs_give_a_short_comment() -> None:
    text = compare_markdown.render(compare.compare(*pair(target(size(1.0)), target(size(1.0)))))
    assert "### digits: NO REGRESSION SHOWN" in text
    assert "1 number: 1 no difference shown." in text.replace("One", "1")
    assert rows(text) == []


def test_a_comment_never_exceeds_what_github_takes() -> None:
    metrics = [size(1.0)] + [latency(1.0, f"latency_{'x' * 300}{i}_ms") for i in range(400)]
    text = compare_markdown.render(compare.compare(*pair(target(*metrics), target(*metrics))))
    assert len(text) < 65_536
    assert "Left out because the comment would be too long: All numbers." in text


def test_a_comment_with_endless_changes_is_cut_as_well() -> None:
    before = [latency(1.0, f"latency_{'x' * 300}{i}_ms") for i in range(400)]
    after = [latency(2.0, f"latency_{'x' * 300}{i}_ms") for i in range(400)]
    text = compare_markdown.render(compare.compare(*pair(target(*before), target(*after))))
    assert len(text) < 65_536
    assert "400 regressions" in text
    shown = len(rows(text.partition("… and ")[0]))
    assert f"… and {400 - shown} more" in text


def test_hostile_names_are_text_in_every_rendering(comparison: Comparison) -> None:
    parts = [replace(t, name=NASTY, shipped_before=NASTY, error=t.error and NASTY) for t in comparison.targets]
    parts[0] = replace(parts[0], changes=tuple(replace(c, metric=NASTY, why=NASTY) for c in parts[0].changes))
    nasty = replace(comparison, targets=tuple(parts), after=replace(comparison.after, recipe=NASTY))
    text = compare_markdown.render(nasty)
    assert "<script>" not in text
    assert "\x1b" not in text
    widths = {
        len(re.findall(r"(?<!\\)\|", line)) for line in text.partition("<details>")[0].splitlines() if line[:1] == "|"
    }
    assert widths == {7}
    assert "\x1b" not in sarif.render(nasty, Path())


def results(comparison: Comparison, root: Path = Path()) -> list[dict]:
    log = json.loads(sarif.render(comparison, root))
    assert (log["version"], log["$schema"]) == ("2.1.0", "https://json.schemastore.org/sarif-2.1.0.json")
    (one,) = log["runs"]
    rules = one["tool"]["driver"]["rules"]
    for found in one["results"]:
        assert rules[found["ruleIndex"]]["id"] == found["ruleId"]
        assert rules[found["ruleIndex"]]["defaultConfiguration"]["level"] == found["level"]
        assert found["message"]["text"]
    return one["results"]


def test_sarif_has_a_result_for_everything_that_needs_a_look(comparison: Comparison) -> None:
    found = results(comparison)
    assert sorted((r["ruleId"], r["level"], r["message"]["text"].split(":")[0]) for r in found) == [
        ("gate-loosened", "warning", "cpu"),
        ("not-comparable", "note", "cpu"),
        ("regression", "error", "cpu"),
        ("target-lost", "error", "npu"),
        ("target-vanished", "warning", "old"),
        ("worse", "warning", "cpu"),
    ]
    (regression,) = (r for r in found if r["ruleId"] == "regression")
    assert (
        "latency_p50_ms: 1.00 ms [0.990, 1.01] before, 1.50 ms [1.48, 1.52] now (+50.0 %"
        in regression["message"]["text"]
    )


def test_findings_are_told_apart_and_keep_their_fingerprint(comparison: Comparison) -> None:
    def prints(which: Comparison) -> dict[str, str]:
        return {r["partialFingerprints"]["primaryLocationLineHash"]: r["ruleId"] for r in results(which)}

    assert len(prints(comparison)) == 6
    later = compare.compare(*pair(target(latency(1.0)), target(latency(1.7))))
    (key,) = prints(later)
    assert prints(comparison)[key] == "regression"


def test_the_recipe_is_named_relative_to_the_checkout(comparison: Comparison, tmp_path: Path) -> None:
    def place(path: str) -> dict:
        moved = replace(comparison, after=replace(comparison.after, recipe_path=path))
        return results(moved, tmp_path)[0]["locations"][0]["physicalLocation"]

    inside = place(str(tmp_path / "my recipes" / "recipe.yaml"))
    assert inside["artifactLocation"] == {"uri": "my%20recipes/recipe.yaml", "uriBaseId": "%SRCROOT%"}
    assert inside["region"]["startLine"] == 1
    assert place("/elsewhere/recipe.yaml")["artifactLocation"] == {"uri": "file:///elsewhere/recipe.yaml"}


def test_an_unchanged_release_has_no_alerts() -> None:
    parts = (size(1.0), measured("energy_mj", None, unit="mJ", why="no RAPL here"))
    assert results(compare.compare(*pair(target(*parts), target(*parts)))) == []


@pytest.mark.parametrize(
    ("ratio", "text"), [(1.083, "+8.3 %"), (0.5, "-50.0 %"), (1.0, "0 %"), (1.0001, "0 %"), (3.5, "+250 %")]
)
def test_a_ratio_is_written_as_a_percentage(ratio: float, text: str) -> None:
    ((_, change),) = compare.compare(*pair(target(size(1.0)), target(size(ratio)))).changes()
    assert changes.effect(change) == text
