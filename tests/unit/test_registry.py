"""Plug-ins are found by file and name, built in or installed."""

from __future__ import annotations

import importlib.metadata
import sys
from dataclasses import dataclass

import pytest

from edgeopt import registry
from edgeopt.registry import PACKAGES, UnknownPlugin, builtin, find, hint


@dataclass(frozen=True)
class Thing:
    name: str


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write the files of a package of plug-ins and let it be the one of ``metrics``."""

    def make(**files: str) -> None:
        folder = tmp_path / "plugins_under_test"
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        for name, content in files.items():
            (folder / f"{name}.py").write_text(f"from test_registry import Thing\n{content}")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(sys.modules, "test_registry", sys.modules[__name__])
        monkeypatch.setattr(registry, "PACKAGES", {"metrics": "plugins_under_test"})
        builtin.cache_clear()

    yield make
    builtin.cache_clear()
    for name in [name for name in sys.modules if name.startswith("plugins_under_test")]:
        del sys.modules[name]


@pytest.mark.parametrize("kind", PACKAGES)
def test_every_kind_has_built_in_plugins_under_their_names(kind):
    plugins = builtin(kind)
    assert plugins
    assert all(find(kind, name) is plugin and plugin.name == name for name, plugin in plugins.items())


def test_every_file_of_the_package_counts(package):
    package(a="PLUGINS = (Thing('one'), Thing('two'))", b="PLUGINS = (Thing('three'),)", no_plugins="X = 1")
    assert dict(builtin("metrics")) == {"one": Thing("one"), "two": Thing("two"), "three": Thing("three")}


def test_the_found_plugins_cannot_be_changed():
    with pytest.raises(TypeError):
        builtin("metrics")["mine"] = 3  # type: ignore[index]


def test_two_of_one_name_are_an_error(package):
    package(a="PLUGINS = (Thing('one'),)", b="PLUGINS = (Thing('one'),)")
    with pytest.raises(ValueError, match="two metrics are called 'one'"):
        builtin("metrics")


class Point:
    """An installed entry point that records that it was loaded."""

    def __init__(self, name: str, group: str) -> None:
        self.name, self.group, self.loads = name, group, 0

    def load(self) -> Thing:
        self.loads += 1
        return Thing(f"installed {self.name}")


@pytest.fixture
def points(monkeypatch):
    installed = [Point("mine", "edgeopt.metrics"), Point("top1", "edgeopt.metrics"), Point("else", "edgeopt.stages")]
    scans: list[str] = []

    def entry_points(group: str) -> list[Point]:
        scans.append(group)
        return [point for point in installed if point.group == group]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return installed, scans


def test_an_installed_plugin_is_found(points):
    assert find("metrics", "mine") == Thing("installed mine")


def test_an_installed_plugin_that_cannot_be_loaded_says_why(points, monkeypatch):
    def load(self: Point) -> Thing:
        raise ImportError("no module named tensorrt")

    monkeypatch.setattr(Point, "load", load)
    with pytest.raises(UnknownPlugin, match="the plug-in 'mine' of metrics cannot be loaded: no module named tensorrt"):
        find("metrics", "mine")


def test_a_built_in_name_needs_no_scan_and_cannot_be_taken(points):
    installed, scans = points
    assert find("metrics", "top1") is builtin("metrics")["top1"]
    assert scans == []
    assert all(point.loads == 0 for point in installed)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("metrics", "top_1", r"unknown metric 'top_1' \(did you mean 'top1'\?\)"),
        ("metrics", "mini", r"unknown metric 'mini' \(did you mean 'mine'\?\)"),
        ("metrics", "else", r"unknown metric 'else' \(there are: .*mine.*top1"),
        ("criteria", "taylr", r"unknown criterion 'taylr' \(did you mean 'taylor'\?\)"),
        ("stages", "prunee", r"unknown stage 'prunee' \(did you mean 'prune'\?\)"),
        ("backends", "zzz", r"unknown backend 'zzz' \(there are: .*, onnxruntime, openvino, .*\)"),
    ],
)
def test_an_unknown_name_says_what_there_is(points, kind, name, message):
    with pytest.raises(UnknownPlugin, match=message):
        find(kind, name)


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("ratoi", ["ratio", "rate"], " (did you mean 'ratio'?)"),
        ("xyz", ["b", "a", "b"], " (there are: a, b)"),
        ("xyz", [], ""),
        ("", ["a"], " (there are: a)"),
    ],
)
def test_hint(word, known, expected):
    assert hint(word, known) == expected
    assert hint(word, iter(known)) == expected
