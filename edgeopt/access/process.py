"""A child process at the other end of a channel."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import BinaryIO, cast

from edgeopt.access.channel import Channel, End, Explain, died
from edgeopt.errors import StageError

_LAST_BYTES = 4000
_LAST_LINES = 12
_SECONDS_TO_LEAVE = 5.0
_SECONDS_TO_DIE = 0.2
_SECONDS_TO_HEAR = 1.0
_PIECE_BYTES = 2**16


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
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=env, start_new_session=True)
    except OSError as error:
        ended()
        raise StageError(f"cannot start {command[0]}: {error.strerror}", where=name) from error
    child = _Child(process, ended)
    return Channel(child.requests, child.replies, name=name, stop=child.stop, explain=explain, limit_s=limit_s)


class _Child:
    """The process and the last bytes of its standard error."""

    def __init__(self, process: subprocess.Popen[bytes], ended: Callable[[], None]) -> None:
        self._process = process
        self._log = cast(BinaryIO, process.stderr)
        self._last = b""
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
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
        status = self._process.returncode
        with suppress(ProcessLookupError):  # also what it left behind
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._listener.join(_SECONDS_TO_HEAR)
        for stream in (self.requests, self.replies):
            with suppress(OSError):
                stream.close()
        self._ended()
        return End(status, self._last_words(status))

    def _listen(self) -> None:
        """Until everybody who may write there is gone; what has left the session may outlive the process."""
        with self._log:
            while piece := os.read(self._log.fileno(), _PIECE_BYTES):
                self._last = (self._last + piece)[-_LAST_BYTES:]

    def _last_words(self, status: int | None) -> str:
        lines = self._last.decode(errors="replace").splitlines()[-_LAST_LINES:]
        if status is not None and status < 0:
            lines.append(f"killed by {signal.Signals(-status).name}")
        return "\n".join(lines)
