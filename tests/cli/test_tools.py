"""``edgeopt tools`` as a user sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeopt import tools
from edgeopt.cli import app
from tests.tool_locks import Shelf


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    made = Shelf(tmp_path)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tools, "LOCKS", made.locks)
    return made


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["tools", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_install_list_remove(shelf: Shelf) -> None:
    shelf.tool("small", [shelf.wheel("tiny", "1.2")])
    assert "not installed" in run("list")
    said = run("install", "small")
    assert "licence of the toolkit: none" in said
    assert "small is installed: " in said
    (row,) = json.loads(run("list", "--format", "json"))
    assert (row["name"], row["state"], row["versions"]) == ("small", "installed", {"tiny": "1.2"})
    assert row["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert row["size_mib"] > 1
    done = subprocess.run([tools.python("small"), "-c", "import tiny"], check=False)
    assert done.returncode == 0
    shelf.tool("small", [shelf.wheel("tiny", "1.3")])
    listed = run("list")
    assert "outdated" in listed
    assert "edgeopt tools install small" in listed
    assert run("remove", "small") == "small is removed\n"
    assert run("remove", "small") == "small was not installed\n"


@pytest.mark.parametrize("command", ["install", "remove"])
def test_an_unknown_name_is_a_wrong_usage(shelf: Shelf, command: str) -> None:
    shelf.tool("small", [])
    output = run(command, "smal", code=2)
    assert "did you mean 'small'" in output
    assert "Traceback" not in output


def test_a_python_that_is_not_there_is_said_plainly(shelf: Shelf) -> None:
    shelf.tool("small", [], python="3.99")
    output = run("install", "small", code=3)
    assert "needs Python 3.99" in output
    assert "fix: install Python 3.99" in output


def test_the_environments_of_this_release_are_listed() -> None:
    rows = {row["name"]: row for row in json.loads(run("list", "--format", "json"))}
    assert {"coreml", "litert-torch", "rknn"} <= rows.keys()
    assert all(row["licence"] and row["what"] and row["toolkit"] in row["versions"] for row in rows.values())
