"""A child process at the other end of a channel."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import BinaryIO, cast

from edgeopt.access.channel import Channel, End, Explain, died
from edgeopt.errors import StageError

_LAST_BYTES = 4000
_LAST_LINES = 12
_SECONDS_TO_LEAVE = 5.0
_SECONDS_TO_DIE = 0.2


def spawn(
    command: Sequence[str],
    *,
    name: str,
    env: Mapping[str, str],
    limit_s: float = 600.0,
    explain: Explain = died,
    ended: Callable[[], None] = lambda: None,
) -> Channel:
    """Starts a process and speaks with it on its standard streams.

    It runs in a session of its own: Ctrl-C reaches only the host, which then stops it, and it has no terminal to ask
    anything on.

    Args:
        command: Program and arguments; no shell is between.
        name: How error messages call it.
        env: Its whole environment.
        limit_s: Time limit of a call that gives none.
        explain: Puts an end that was not asked for into words.
        ended: Called once it has ended.

    Raises:
        StageError: It cannot be started.
    """
    log = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env, start_new_session=True
        )
    except OSError as error:
        log.close()
        ended()
        raise StageError(f"cannot start {command[0]}: {error.strerror}", where=name) from error
    child = _Child(process, log, ended)
    return Channel(child.requests, child.replies, name=name, stop=child.stop, explain=explain, limit_s=limit_s)


class _Child:
    """The process and its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: BinaryIO, ended: Callable[[], None]) -> None:
        self._process = process
        self._log = log
        self._ended = ended
        self.requests = cast(BinaryIO, process.stdin)
        self.replies = cast(BinaryIO, process.stdout)

    def stop(self, at_once: bool) -> End:
        """Lets it leave by itself at the end of its input, or not; then kills it and what it started."""
        if not at_once:
            with suppress(OSError):
                self.requests.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_SECONDS_TO_DIE if at_once else _SECONDS_TO_LEAVE)
        end = End(self._process.returncode, self._read_log())
        with suppress(ProcessLookupError):  # also what it left behind
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self.requests, self.replies, self._log):
            with suppress(OSError):
                stream.close()
        self._ended()
        return end

    def _read_log(self) -> str:
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - _LAST_BYTES))
        lines = self._log.read().decode(errors="replace").splitlines()[-_LAST_LINES:]
        if self._process.returncode is not None and self._process.returncode < 0:
            lines.append(f"killed by {signal.Signals(-self._process.returncode).name}")
        return "\n".join(lines)
