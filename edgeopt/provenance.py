"""Where a result comes from: versions of the tools, revision of the sources, and the machine."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from edgeopt import __version__
from edgeopt.errors import MissingBackend

#: Distribution -> the extra of edgeopt that brings it.
EXTRAS = {
    "torch": "torch",
    "torch-pruning": "torch",
    "safetensors": "torch",
    "onnx": "torch",
    "onnxscript": "torch",
    "onnxruntime": "onnxruntime",
    "onnxruntime-qnn": "qnn",
    "openvino": "openvino",
    "nncf": "openvino",
    "ai-edge-litert": "litert",
    "ai-edge-quantizer": "litert",
    "tflite-micro": "tflm",
    "ethos-u-vela": "ethos-u",
    "tensorrt-rtx": "tensorrt-rtx",
}


def require(distributions: Iterable[str]) -> None:
    """Stop before any work is done if a tool is missing.

    Raises:
        MissingBackend: With the line that installs what is missing.
    """
    missing = sorted({name for name in distributions if not tool_version(name)})
    if missing:
        extras = ",".join(sorted({EXTRAS.get(name, name) for name in missing}))
        what = f"not installed: {', '.join(missing)}"
        raise MissingBackend(what, fix=f"pip install 'edgeopt[{extras}]', or drop the targets that need it")


def installed(name: str) -> bool:
    """Whether a distribution is installed; quicker than its version, for which its whole metadata are read."""
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


@cache
def tool_version(name: str) -> str:
    """Version of an installed distribution, empty if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def tool_versions(distributions: Iterable[str]) -> dict[str, str]:
    """Distribution -> version, of those that are installed."""
    return {name: found for name in sorted(set(distributions)) if (found := tool_version(name))}


def git_revision(folder: Path) -> dict[str, Any] | None:
    """Commit that ``folder`` stands at and whether it has uncommitted changes; ``None`` outside a checkout."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def collect(root: Path, distributions: Iterable[str], machine: dict[str, Any]) -> dict[str, Any]:
    """The ``provenance`` of a run record."""
    return {
        "edgeopt": __version__,
        "python": platform.python_version(),
        "git": git_revision(root),
        "tools": tool_versions(distributions),
        "machine": machine,
    }
