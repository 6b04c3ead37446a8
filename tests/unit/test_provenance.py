"""Where a result comes from: tools, sources, machine."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import numpy as np
import pytest

import edgeopt
from edgeopt import provenance
from edgeopt.errors import MissingBackend

GIT = ["git", "-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run([*GIT, "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "recipe.yaml").write_text("a: 1\n")
    git(tmp_path, "add", "recipe.yaml")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_versions_are_of_the_installed_distributions():
    assert provenance.tool_version("numpy") == np.__version__
    assert provenance.tool_version("no-such-distribution") == ""
    assert provenance.installed("numpy")
    assert not provenance.installed("no-such-distribution")
    assert provenance.tool_versions(["numpy", "no-such-distribution", "numpy"]) == {"numpy": np.__version__}


def test_what_is_missing_is_told_with_the_line_that_installs_it(monkeypatch):
    provenance.require(["numpy"])
    provenance.require([])
    monkeypatch.setattr(provenance, "tool_version", lambda name: "" if name in ("nncf", "openvino", "torch") else "1")
    with pytest.raises(MissingBackend) as caught:
        provenance.require(["torch", "openvino", "nncf", "numpy", "openvino"])
    assert caught.value.what == "not installed: nncf, openvino, torch"
    assert "pip install 'edgeopt[openvino,torch]'" in caught.value.fix


def test_extras_are_those_of_the_package():
    import tomllib

    project = tomllib.loads((Path(edgeopt.__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for distribution, extra in provenance.EXTRAS.items():
        assert any(line.startswith(distribution) for line in project["optional-dependencies"][extra])


def test_revision_of_a_clean_checkout(checkout):
    revision = provenance.git_revision(checkout)
    assert revision == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}
    assert len(revision["commit"]) == 40


def test_a_changed_file_makes_it_dirty_and_a_new_one_does_not(checkout):
    (checkout / "new.txt").write_text("x")
    assert provenance.git_revision(checkout)["dirty"] is False
    (checkout / "recipe.yaml").write_text("a: 2\n")
    assert provenance.git_revision(checkout)["dirty"] is True


def test_outside_a_checkout_there_is_no_revision(tmp_path, monkeypatch, checkout):
    assert provenance.git_revision(Path("/")) is None
    assert provenance.git_revision(tmp_path / "nowhere") is None
    monkeypatch.setenv("PATH", str(tmp_path))  # no git at all
    assert provenance.git_revision(checkout) is None


def test_collect(checkout):
    found = provenance.collect(checkout, ["numpy", "no-such-distribution"], {"cpu": "x"})
    assert found == {
        "edgeopt": edgeopt.__version__,
        "python": platform.python_version(),
        "git": provenance.git_revision(checkout),
        "tools": {"numpy": np.__version__},
        "machine": {"cpu": "x"},
    }
