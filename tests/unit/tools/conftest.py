"""A shelf of tiny wheels, and a Python that makes virtual environments by copying one."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeopt import tools
from edgeopt.tools import building
from tests.tool_locks import Shelf

DRIVER = """
import sys
from pathlib import Path
from edgeopt import cli, tools
from edgeopt.tools import building
tools.LOCKS = Path(sys.argv.pop(1))
origin = Path(sys.argv.pop(1))
building.interpreter = lambda tool: origin
cli.main()
"""


@pytest.fixture(scope="session")
def quick_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python whose ``-m venv`` is quick: it copies a virtual environment with pip, as hard links."""
    folder = tmp_path_factory.mktemp("python")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "pattern")], check=True)
    subprocess.run([folder / "pattern/bin/python", "-m", "pip", "uninstall", "-y", "-q", "setuptools"], check=True)
    script = folder / "python"
    pattern, real = shlex.quote(str(folder / "pattern")), shlex.quote(sys.executable)
    copy = f'cp -rl {pattern} "$3" 2>/dev/null || {{ rm -rf "$3"; exec cp -r {pattern} "$3"; }}'
    script.write_text(f'#!/bin/sh\nif [ "$2" = venv ]; then {copy}; exit; fi\nexec {real} "$@"\n')
    script.chmod(0o755)
    return script


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_python: Path) -> Shelf:
    """Empty; edgeopt and pip look there and nowhere else."""
    made = Shelf(tmp_path)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tools, "LOCKS", made.locks)
    monkeypatch.setattr(building, "interpreter", lambda tool: quick_python)
    return made


@pytest.fixture
def start(shelf: Shelf, quick_python: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts ``edgeopt tools ...`` on the shelf in a process of its own."""

    def run(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", DRIVER, str(shelf.locks), str(quick_python), "tools", *arguments]
        home = str(Path(tools.__file__).parents[2])
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": home}
        )

    return run
