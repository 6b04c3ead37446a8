"""The agent as one file, for a Python that has no edgeopt: a board, or another environment on this machine."""

from __future__ import annotations

import functools
import io
import shutil
import tempfile
import zipapp
from pathlib import Path

import edgeopt.agent

_PACKAGE = "edgeopt_agent"


@functools.cache
def content() -> bytes:
    """The agent as a zipapp: ``python agent.pyz`` runs it. Needs numpy and a runtime there."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(
            Path(edgeopt.agent.__file__).parent, Path(folder) / _PACKAGE, ignore=shutil.ignore_patterns("__pycache__")
        )
        memory = io.BytesIO()
        zipapp.create_archive(folder, memory, main=f"{_PACKAGE}.__main__:main", compressed=True)
    return memory.getvalue()
