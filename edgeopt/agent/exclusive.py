"""One lock per device, so that two runs never time each other.

It is a file in a place that does not depend on who asks, locked with flock(2): the system releases it with the process
that holds it, however that ends. Containers on one machine see each other if they share a folder and name it in
``EDGEOPT_LOCK_FOLDER``.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from . import AgentError

#: the first one that there is holds the file; not $TMPDIR, which differs from process to process
_FOLDERS = (Path("/tmp"), Path("/data/local/tmp"))
_NAME = "edgeopt-device.lock"
_LONGEST = 200


class DeviceLock:
    """The lock of the device that this process runs on."""

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._path = Path()

    def take(self, who: str) -> str | None:
        """Takes the lock if it is free; does not wait.

        Args:
            who: What others are told while it is held.

        Returns:
            None if it is taken, otherwise who holds it.

        Raises:
            AgentError: The file cannot be opened or locked.
        """
        if self._descriptor is not None:
            raise AgentError("this process holds the device's lock already")
        path = _path()
        while True:
            descriptor = _open(path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, _LONGEST, 0).decode(errors="replace")
                os.close(descriptor)
                return "".join(filter(str.isprintable, holder)) or "unknown"  # anyone may write there
            except OSError as error:
                os.close(descriptor)
                raise _unusable(path, error) from error
            if _is(descriptor, path):
                break
            os.close(descriptor)  # it was removed between our two looks: nobody else meets that file
        self._path, self._descriptor = path, descriptor
        since = time.strftime("%H:%M:%S UTC", time.gmtime())
        _write(descriptor, f"{who}, since {since}")
        return None

    def held(self) -> bool:
        """Whether this holds the lock, and its file is still the one that others meet."""
        return self._descriptor is not None and _is(self._descriptor, self._path)

    def release(self) -> None:
        """Gives the lock back. Again is harmless."""
        if self._descriptor is not None:
            _write(self._descriptor, "")
            os.close(self._descriptor)
            self._descriptor = None


def _path() -> Path:
    named = os.environ.get("EDGEOPT_LOCK_FOLDER")
    usual = next((one for one in _FOLDERS if os.access(one, os.W_OK)), Path(tempfile.gettempdir()))
    return (Path(named) if named else usual) / _NAME


def _open(path: Path) -> int:
    """The file, made for everyone if it is not there. Links are not followed: the folder is everyone's."""
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    for _ in range(3):  # another process may make it, between our two looks
        try:
            # reading is enough for the lock, and all that another user's file may permit
            return os.open(path, (os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY) | flags)
        except FileNotFoundError:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o666)
            except FileExistsError:
                continue
            except OSError as error:
                raise _unusable(path, error) from error
            os.fchmod(descriptor, 0o666)
            return descriptor
        except OSError as error:
            raise _unusable(path, error) from error
    raise AgentError(f"cannot open the device's lock {path}: it comes and goes")


def _is(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one of that name; a cleaner of temporary folders may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    except OSError:
        return False


def _unusable(path: Path, error: OSError) -> AgentError:
    fix = "it has to be in a folder that is there and that you may write to; EDGEOPT_LOCK_FOLDER on the device names it"
    return AgentError(f"cannot open the device's lock {path}: {error.strerror}", fix=fix)


def _write(descriptor: int, text: str) -> None:
    """As far as the file and the disk permit: it only tells the others who holds the lock."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode()[:_LONGEST], 0)
