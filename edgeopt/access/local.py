"""An agent on this machine, in a fresh process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

import edgeopt
from edgeopt.access import Agent, archive
from edgeopt.errors import StageError

_LAST_BYTES = 4000
_LAST_LINES = 12
_SECONDS_TO_LEAVE = 5.0
_SECONDS_TO_DIE = 0.2


def start(
    *,
    python: str | None = None,
    env: Mapping[str, str] | None = None,
    limit_s: float = 600.0,
    cpus: Sequence[int] | None = None,
) -> Agent:
    """Starts an agent.

    It runs in its own process group, so that Ctrl-C reaches only the host, which then stops it. It ends by itself as
    soon as the host is gone, however that ended, because its input then hangs up.

    Args:
        python: Interpreter with numpy and a runtime, without edgeopt; None for the one that runs now.
        env: Environment variables to add.
        limit_s: Time limit of each call.
        cpus: Numbers of the CPUs that it may run on; None leaves that to the system. A CPU that this process may not
            use is an error of the first call.

    Raises:
        StageError: The process cannot be started.
    """
    environment = {**os.environ, **(env or {})}
    folder: tempfile.TemporaryDirectory[str] | None = None
    if python is None:
        command = [sys.executable, "-m", "edgeopt.agent"]
        home = str(Path(edgeopt.__file__).parents[1])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (home, environment.get("PYTHONPATH"))))
    else:
        folder = tempfile.TemporaryDirectory(prefix="edgeopt-agent-")
        command = [python, str(archive.build(Path(folder.name) / "agent.pyz"))]
    if cpus is not None:
        command.append(",".join(map(str, cpus)))
    log = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
    name = f"local agent ({command[0]})"
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, process_group=0
        )
    except OSError as error:
        log.close()
        if folder:
            folder.cleanup()
        raise StageError(f"cannot start {command[0]}: {error.strerror}", where=name) from error
    running = _Running(process, log, folder)
    return Agent(
        running.requests, running.replies, name=name, stop=running.stop, last_words=running.last_words, limit_s=limit_s
    )


class _Running:
    """The process of one agent, its log and the folder of its archive."""

    def __init__(
        self, process: subprocess.Popen[bytes], log: BinaryIO, folder: tempfile.TemporaryDirectory[str] | None
    ) -> None:
        self._process = process
        self._log = log
        self._folder = folder
        self._words = ""
        self.requests = cast(BinaryIO, process.stdin)
        self.replies = cast(BinaryIO, process.stdout)

    def stop(self, at_once: bool) -> None:
        """Lets it leave by itself at the end of its input, or not; then kills it and what it started."""
        if not at_once:
            with suppress(OSError):
                self.requests.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_SECONDS_TO_DIE if at_once else _SECONDS_TO_LEAVE)
        self._words = self._read_log()
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for stream in (self.requests, self.replies, self._log):
            with suppress(OSError):
                stream.close()
        if self._folder:
            self._folder.cleanup()

    def last_words(self) -> str:
        return self._words

    def _read_log(self) -> str:
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - _LAST_BYTES))
        lines = self._log.read().decode(errors="replace").splitlines()[-_LAST_LINES:]
        if self._process.returncode is not None and self._process.returncode < 0:
            lines.append(f"killed by {signal.Signals(-self._process.returncode).name}")
        return "\n".join(lines)
