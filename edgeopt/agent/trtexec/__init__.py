"""Drives ``trtexec``, the tool that comes with every TensorRT: finds it, asks its version, runs it.

flags      which version has which flag
exports    reads the files that it writes
building   builds an engine
model      runs an engine, for the agent
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from .. import AgentError  # noqa: TID252  relative, so that a zipapp works
from ..child import Child  # noqa: TID252
from .flags import Version, checked, parsed, written

#: where JetPack and NVIDIA's containers put it
_USUAL = "/usr/src/tensorrt/bin/trtexec"
_BANNER = re.compile(r"TensorRT\.trtexec \[TensorRT v(\d{4,6})\]")
_ERROR = re.compile(r"\[E\]|&&&& FAILED|[Ee]rror while loading")
_LAST_LINES = 12
_PROBE_LIMIT_S = 120.0


class Failed(AgentError):
    """``trtexec`` failed; the message has its last lines."""


class Tool(NamedTuple):
    """Where it is, and its version by its own banner."""

    path: str
    version: Version

    def __str__(self) -> str:
        return f"trtexec {written(self.version)}"


def find() -> Tool:
    """The ``trtexec`` of this device: on the PATH, or where JetPack puts it.

    Raises:
        ImportError: There is none, or it does not start, or does not say its version.
    """
    path = shutil.which("trtexec") or shutil.which(_USUAL)
    if not path:
        raise ImportError(f"there is no trtexec on the PATH, nor at {_USUAL}")
    return _probed(path)


@cache
def _probed(path: str) -> Tool:
    try:
        _, text = Child([path, "--help"]).said(_PROBE_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImportError(f"{path} does not start: {error}") from error
    banner = _BANNER.search(text)
    if not banner:
        raise ImportError(f"{path} does not say its version; it says: {text.strip()[-300:] or 'nothing'}")
    return Tool(path, parsed(banner[1]))


def run(
    tool: Tool,
    arguments: Sequence[str],
    log: Path,
    limit_s: float,
    told: Callable[[str], None] | None = None,
) -> str:
    """Runs the tool to its end and returns what it said.

    Args:
        tool: The tool.
        arguments: Flags, each of which this version must have.
        log: Everything that it says is written there, also if it fails.
        limit_s: After which it is killed, and what it started.
        told: Called with every line, as soon as it is said.

    Raises:
        AgentError: This version does not have a flag.
        Failed: It failed, or took too long.
    """
    command = [tool.path, *checked(tool.version, list(arguments))]
    late = threading.Event()
    with tempfile.TemporaryDirectory() as folder, log.open("wb") as kept:
        process = Child(command, folder)

        def kill() -> None:
            late.set()
            process.end()

        timer = threading.Timer(limit_s, kill)
        timer.daemon = True
        timer.start()
        try:
            for line in process.output:
                kept.write(line)
                if told:
                    told(line.decode(errors="replace").rstrip())
            status = process.wait()
        finally:
            timer.cancel()
            process.end()
            process.output.close()
    said = log.read_text(encoding="utf-8", errors="replace")
    if late.is_set():
        raise Failed(f"{tool} did not end within {limit_s:g} s; it last said:\n{last_lines(said)}")
    if status:
        raise Failed(f"{tool} failed with status {status}; it last said:\n{last_lines(said)}")
    return said


def last_lines(said: str) -> str:
    """The last lines, and the errors that were said before them."""
    lines = [line for line in said.splitlines() if line.strip()]
    last = lines[-_LAST_LINES:]
    earlier = [line for line in lines[:-_LAST_LINES] if _ERROR.search(line)]
    return "\n".join([*earlier[-_LAST_LINES:], *last]) or "nothing"
