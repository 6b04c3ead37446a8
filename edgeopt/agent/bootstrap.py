"""Brings the agent to a device that has nothing but Python: sent there as text, followed by the agent's archive.

It stands alone, and runs from Python 3.7, so that it can tell an older one what is wrong.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import shutil
import sys
import tempfile

_OLDEST = (3, 10)


def main(size: int, sha256: str, folder: str | None) -> None:
    """Reads the archive from standard input and becomes the keeper of a new private folder that holds it.

    Args:
        size: Of the archive in bytes.
        sha256: Of the archive.
        folder: Where to make the private folder; None for the system's place.
    """
    archive = sys.stdin.buffer.read(size)
    if sys.version_info < _OLDEST:
        have, want = (".".join(map(str, version[:2])) for version in (sys.version_info, _OLDEST))
        sys.exit(f"the device's Python is {have}; the agent needs {want} or newer")
    if importlib.util.find_spec("numpy") is None:
        sys.exit(f"the device's Python, {sys.executable}, has no numpy")
    try:
        importlib.import_module("numpy")
    except Exception as error:  # noqa: BLE001  a broken one may raise anything
        cause: BaseException = error
        while cause.__cause__:  # numpy puts pages of advice around it
            cause = cause.__cause__
        sys.exit(f"the numpy of the device's Python, {sys.executable}, cannot be imported: {cause}")
    if hashlib.sha256(archive).hexdigest() != sha256:
        sys.exit(f"the agent did not arrive whole: {len(archive)} of {size} bytes, or damaged ones")
    try:
        work = tempfile.mkdtemp(prefix="edgeopt-", dir=folder)  # for this user only
    except OSError as error:
        sys.exit(f"cannot make a folder in {folder or 'the temporary folder'} on the device: {error.strerror}")
    file = os.path.join(work, "agent.pyz")  # noqa: PTH118  (as small as can be)
    try:
        with open(file, "wb") as out:  # noqa: PTH123
            out.write(archive)
    except OSError as error:
        shutil.rmtree(work, ignore_errors=True)
        sys.exit(f"cannot write to {work} on the device: {error.strerror}")
    os.execv(sys.executable, [sys.executable, file, "keep", work])
