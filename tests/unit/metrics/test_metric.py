"""Metrics of a recipe: which are refused, what they bring along, and what tells one version from another."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from edgeopt import metrics, registry
from edgeopt.errors import ConfigError
from edgeopt.metrics import Metric
from edgeopt.recipe import MetricSpec

SOURCE = """\
from edgeopt.metrics import Metric


class Mine(Metric):
    name = "mine"
    ATTRIBUTES

    def compute(self, outputs, labels):
        return 0.5
"""


def own(folder: Path, attributes: str, name: str = "mine") -> MetricSpec:
    (folder / "mymetrics.py").write_text(SOURCE.replace("ATTRIBUTES", attributes))
    return MetricSpec(name=name, factory="mymetrics:Mine")


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ("better = 'greater'", "`better` is 'greater', not one of 'lower', 'higher'"),
        ("fitted_on = 'Own'", "`fitted_on` is 'Own', not one of '', 'own', 'baseline'"),
        ("label = 'mine [a]'", "'mine [a]': '[' and ']' are for the evaluation set"),
        ("label = 'mine drop'", "end in ' drop' are for changes from the baseline"),
        ("label = 'mine ratio'", "end in ' ratio' are"),
        ("label = 7", "it is called 7, which is no name"),
    ],
)
def test_a_metric_that_would_be_misread_is_refused(tmp_path: Path, attributes: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        metrics.load(own(tmp_path, attributes), tmp_path)
    assert caught.value.what.startswith("mymetrics:Mine: ")
    assert why in caught.value.what


@pytest.mark.parametrize("name", ["mine[a]", "mine drop"])
def test_the_name_that_the_recipe_gives_is_looked_at_before_the_code_runs(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="would be called"):
        metrics.build(own(tmp_path, "raise SystemExit", name))


class Installed(Metric):
    """What an entry point may give."""

    name = "installed"
    better = "greater"  # type: ignore[assignment]

    def compute(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        return 0.5


@pytest.mark.parametrize(("found", "why"), [(Installed(), "`better` is 'greater'"), (Installed, "not an edgeopt")])
def test_an_installed_metric_is_held_to_the_same(monkeypatch: pytest.MonkeyPatch, found: object, why: str) -> None:
    monkeypatch.setattr(registry, "find", lambda kind, name: found)
    with pytest.raises(ValueError, match=f"installed: .*{why}"):
        metrics.build(MetricSpec(name="installed"))


@pytest.mark.parametrize("attack", ["print [A4]", "water drop"])
def test_an_attack_type_whose_label_would_be_misread(attack: str) -> None:
    with pytest.raises(ValueError, match="apcer: it would be called 'apcer:"):
        metrics.build(MetricSpec(name="apcer", args={"attack": attack}))


def test_a_new_release_of_an_installed_metric_is_another_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed, folder = MetricSpec(name="third"), tmp_path / "third.dist-info"
    folder.mkdir()
    (folder / "entry_points.txt").write_text("[edgeopt.metrics]\nthird = third:METRIC\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for version in ("1.0", "1.0", "1.1"):
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: third\nVersion: {version}\n")
        importlib.invalidate_caches()
        assert registry.release("metrics", "third") == f"third {version}"
        found.append(metrics.source(installed, tmp_path))
    assert found[0] == found[1] != found[2]


def test_the_source_of_a_users_own_metric_and_of_what_computes_the_interval_count(tmp_path: Path) -> None:
    top1 = metrics.source(MetricSpec(name="top1"), tmp_path)
    first, second = (metrics.source(own(tmp_path, text), tmp_path) for text in ("better = 'lower'", "unit = 'm'"))
    assert len({top1, first, second}) == 3
    assert registry.release("metrics", "top1") == ""


def spec(name: str, **args: object) -> MetricSpec:
    return MetricSpec(name=name, args=args)


@pytest.mark.parametrize(
    ("first", "second", "unlike"),
    [
        (spec("tar", template="person", probe="new"), spec("far_at", far=0.001), "another template and probe"),
        (spec("frr", similarity="l2"), spec("tar"), "another similarity"),
        (spec("frr_at", probe="new"), spec("far_at"), "another probe"),
        (spec("tar"), MetricSpec(name="far@float=0.001", factory="mymetrics:Mine"), "a metric of your own"),
    ],
)
def test_what_a_metric_brings_along_compares_as_it_does(first: MetricSpec, second: MetricSpec, unlike: str) -> None:
    every = metrics.with_companions([second, first])
    assert unlike in metrics.clash(first, every)
    assert metrics.clash(second, every) == ""


def test_the_same_comparison_spelt_out_is_no_clash() -> None:
    listed = [spec("tar", template="person"), spec("far_at", far=0.001, template="person", similarity="cosine")]
    every = metrics.with_companions(listed)
    assert [metrics.clash(one, every) for one in every] == [""] * 4


@pytest.mark.parametrize(
    ("listed", "guards"),
    [
        ([spec("top1")], ()),
        ([spec("eer"), spec("tar", far=0.01)], ("far@float=eer", "far@float=0.01")),
        ([spec("tar", far=0.0001), spec("far_at", far=0.1)], ("far@float=0.0001",)),
        ([spec("tar"), spec("far_at", far=0.001, threshold_of="own")], ("far@own=0.001", "far@float=0.001")),
        ([spec("tar"), spec("far_at", threshold=0.42)], ("far@threshold=0.42", "far@float=0.001")),
        ([spec("frr_at", far=0.01)], ("far@float=0.01",)),
        ([spec("frr_at", threshold=0.42)], ("far@threshold=0.42",)),
        ([spec("far_at", threshold=0.42), spec("top1")], ("far@threshold=0.42",)),
        ([spec("tar", fra=1), spec("tra")], ()),
    ],
)
def test_what_has_to_be_gated(listed: list[MetricSpec], guards: tuple[str, ...]) -> None:
    assert metrics.guards(metrics.with_companions(listed)) == guards
