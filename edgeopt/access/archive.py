"""The agent as one file, for a Python that has no edgeopt: a board, or another environment on this machine."""

from __future__ import annotations

import shutil
import tempfile
import zipapp
from pathlib import Path

import edgeopt.agent

_PACKAGE = "edgeopt_agent"


def build(path: Path) -> Path:
    """Writes the agent to ``path`` as a zipapp: ``python PATH`` runs it. Needs numpy and a runtime there."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(
            Path(edgeopt.agent.__file__).parent, Path(folder) / _PACKAGE, ignore=shutil.ignore_patterns("__pycache__")
        )
        zipapp.create_archive(folder, path, main=f"{_PACKAGE}.__main__:main")
    return path
