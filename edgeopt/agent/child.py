"""A tool of the device, which may be a script that starts others: all of them end together."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

_MARK = "EDGEOPT_CHILD"
_ROUNDS = 10  # a process may start another one while it is looked for


class Child:
    """A running tool, without input; it says everything, errors too, in English.

    What it starts inherits a mark in its environment, by which :meth:`end` finds it: killing the tool alone would leave
    it running, with the stream still open. All stay in this process's group, so that whoever ends that ends them too.

    Args:
        command: Program and arguments; no shell is between.
        folder: Where it works; None for this process's own folder.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, command: Sequence[str], folder: str | None = None) -> None:
        mark = uuid.uuid4().hex
        self._mark = os.fsencode(f"{_MARK}={mark}")
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C", _MARK: mark},
        )
        self.output = cast(IO[bytes], self._process.stdout)

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        return self._process.wait()

    def said(self, limit_s: float) -> tuple[int, str]:
        """Lets it come to its end: exit status and all that it said.

        Raises:
            subprocess.TimeoutExpired: It does not end in time, and was killed.
        """
        try:
            said, _ = self._process.communicate(timeout=limit_s)
        finally:
            self.end()
            self.output.close()
        return self._process.returncode, said.decode(errors="replace")

    def end(self) -> None:
        """Kills it and what it started. What is not on Linux is killed alone."""
        for _ in range(_ROUNDS):
            pids = self._running()
            for pid in pids:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if not pids:
                break
        self._process.kill()
        self._process.wait()

    def _running(self) -> list[int]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it ended, or is somebody else's
                if self._mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append(int(process.name))
        return found
