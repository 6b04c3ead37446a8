"""Makes the locks anew: ``python -m edgeopt.tools.relock NAME ...``. For maintainers; writes into the sources.

pip resolves the declaration ``locks/NAME.toml`` with the wheels that its own configuration finds, and says of each
which file it took and that file's hash. So a lock holds for the platform and the Python that it was made on.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeopt.tools import LOCKS, Tool, find
from edgeopt.tools.building import interpreter

_RESOLVE = ("install", "--dry-run", "--ignore-installed", "--only-binary", ":all:", "--quiet")


def lock(tool: Tool) -> str:
    """Text of the lock file.

    Raises:
        MissingBackend: The Python that the environment is for is not there.
        subprocess.CalledProcessError: pip finds no solution.
    """
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([str(interpreter(tool)), "-m", "venv", folder], check=True)
        python = str(Path(folder) / "bin" / "python")
        found = _resolved(python, tool.wants) if tool.wants else []
        found += _resolved(python, tool.alone, "--no-deps") if tool.alone else []
    head = (
        f"# {tool.what}, for CPython {tool.python} on {platform.system()} {platform.machine()}.\n"
        f"# Made by `python -m edgeopt.tools.relock {tool.name}`. Do not edit.\n"
    )
    return head + "".join(_pin(item) for item in sorted(found, key=lambda item: item["metadata"]["name"].lower()))


def _resolved(python: str, wants: Sequence[str], *options: str) -> list[dict[str, Any]]:
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [python, "-m", "pip", *_RESOLVE, *options, "--report", report.name, *wants]
        subprocess.run(command, check=True)
        installs: list[dict[str, Any]] = json.loads(Path(report.name).read_bytes())["install"]
    return installs


def _pin(item: dict[str, Any]) -> str:
    sha256 = item["download_info"]["archive_info"]["hashes"]["sha256"]
    return f"{item['metadata']['name']}=={item['metadata']['version']} --hash=sha256:{sha256}\n"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        (LOCKS / f"{name}.txt").write_text(lock(find(name)), encoding="utf-8")
