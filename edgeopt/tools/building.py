"""Building and removing tool environments: the part that runs pip and writes.

An environment is built in its final folder, because virtual environments cannot be moved, and counts from the moment
that its marker is renamed into place. The lock on it is inherited by pip: if we are killed, a second install waits
until the pip that was left behind has ended, and only then begins anew.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeopt.errors import MissingBackend, StageError
from edgeopt.tools import MARKER, Status, Tool, find, folder, folders, lock_file, root, status, versions

#: Called with a line on what is being done.
Say = Callable[[str], None]

#: Settings of pip and Python that would look for files elsewhere than in the environment, or add some.
_ASIDE = ("PYTHONPATH", "PYTHONHOME", "PIP_CONSTRAINT", "PIP_REQUIREMENT")
#: What a variable overrides of the user's configuration of pip.
_SETTINGS = {"PIP_USER": "0", "PIP_DRY_RUN": "0", "PIP_QUIET": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
#: ``--python=``: in the Python that runs it, whatever ``PIP_PYTHON`` or the user's configuration say.
_PIP = ("-m", "pip", "--python=")
#: ``--target=`` and ``--report=`` undo what the user's configuration says, and so does ``--root=/``.
_INSTALL = (
    "install", "--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-input", "--target=", "--report=",
    "--root=/",
)  # fmt: skip
#: Prints the distributions that lie in the environment itself, a name on each line.
_LIST = (
    "import importlib.metadata as m, sysconfig as s; "
    "print(*(d.metadata['Name'] for d in m.distributions(path=[s.get_path('purelib'), s.get_path('platlib')])))"
)
#: Something in pip's output -> what that means, and what to do.
_MEANINGS = (
    (
        "DO NOT MATCH THE HASHES",
        "a download is not the file that was locked",
        "do not use that file; find out why your package index serves another one",
    ),
    ("No space left on device", "the disk is full", "make room, and run the same command again"),
    (
        "No matching distribution found",
        "pip does not find a locked file",
        "see docs/targets/tools.md: your pip configuration must know a place that has it",
    ),
    ("ensurepip", "this Python cannot make virtual environments", "install its venv package, such as python3.11-venv"),
)
_UNMET = re.compile(r"^(\S+) \S+ (?:requires|has requirement) ([A-Za-z0-9._-]*[A-Za-z0-9])")
_LAST_LINES = 8


def install(name: str, say: Say = lambda line: None) -> Status:
    """Build the environment, unless it is there. What an interrupted install left is removed first.

    Raises:
        ConfigError: There is none of that name.
        MissingBackend: The Python that it needs is not there.
        StageError: pip fails, a download is not the locked file, the disk is full, or the result does not work.
    """
    tool, place = find(name), folder(name)
    with _locked(name, say) as held, _told(f"cannot install {name}"):
        if status(name).state == "installed":
            return status(name)
        _clear(place)
        origin = interpreter(tool)
        _check_space(tool)
        try:
            _build(tool, origin, place, held, say)
        except BaseException:
            try:
                _clear(place)
            except OSError as error:  # the error that led here says more
                say(f"what is left of it cannot be removed: {error}")
            raise
        for earlier in folders(name):
            if earlier != place:
                _clear(earlier)
    return status(name)


def remove(name: str, say: Say = lambda line: None) -> bool:
    """Remove the environment, earlier ones and unfinished ones. Whether there was any.

    Raises:
        ConfigError: There is none of that name.
        StageError: A folder cannot be removed.
    """
    find(name)
    with _locked(name, say), _told(f"cannot remove {name}"):
        found = folders(name)
        for place in found:
            _clear(place)
        _log(name).unlink(missing_ok=True)
    return bool(found)


def interpreter(tool: Tool) -> Path:
    """A Python of the version that the environment is for.

    Raises:
        MissingBackend: There is none.
    """
    for candidate in filter(None, (sys.executable, shutil.which(f"python{tool.python}"))):
        asked = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip() == tool.python:
            return Path(candidate)
    raise MissingBackend(
        f"{tool.name} needs Python {tool.python}, which its locked files are for; there is no `python{tool.python}` "
        f"here, and this is Python {sys.version_info.major}.{sys.version_info.minor}",
        fix=f"install Python {tool.python} beside this one, so that `python{tool.python}` starts it",
    )


@dataclass(frozen=True)
class _Workshop:
    """Runs the commands of one install.

    Attributes:
        tool: What is built.
        log: File that their output goes to.
        held: Descriptor of the lock, which they inherit.
    """

    tool: Tool
    log: Path
    held: int

    def run(self, command: list[str], what: str) -> None:
        """Run a command.

        Raises:
            StageError: It fails; with the meaning of its output, its last lines, and where the rest is.
        """
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_environment(),
            check=False, pass_fds=(self.held,),
        )  # fmt: skip
        with contextlib.suppress(OSError), self.log.open("ab") as log:  # the disk may be what is full
            log.write(done.stdout)
        if done.returncode:
            output = done.stdout.decode(errors="replace")
            meanings = ((meaning, fix) for mark, meaning, fix in _MEANINGS if mark in output)
            meaning, fix = next(meanings, (f"exit status {done.returncode}", ""))
            last = "\n".join(f"  | {line}" for line in output.splitlines()[-_LAST_LINES:])
            raise StageError(f"{what}: {meaning}\n{last}\n  log: {self.log}", where=self.tool.name, fix=fix)

    def require(self, python: str, locked: Iterable[str]) -> None:
        """Look whether the locked distributions lie in the environment.

        Raises:
            StageError: Some do not.
        """
        done = subprocess.run([python, "-c", _LIST], capture_output=True, text=True, env=_environment(), check=True)
        there = {_plain(name) for name in done.stdout.split()}
        absent = [name for name in locked if _plain(name) not in there]
        if absent:
            raise StageError(
                f"pip did not fail, but {', '.join(absent)} did not get into the environment\n  log: {self.log}",
                where=self.tool.name,
                fix="look for settings that send files elsewhere: `pip config list`, and variables PIP_...",
            )

    def check(self, python: str) -> None:
        """Ask pip whether all requirements are met, but for those that the declaration tolerates.

        Raises:
            StageError: Some are not.
        """
        command = [python, *_PIP, "check"]
        done = subprocess.run(command, capture_output=True, text=True, env=_environment(), check=False)
        unmet = [line for line in done.stdout.splitlines() if done.returncode and not self._tolerated(line)]
        if unmet or (done.returncode and not done.stdout):
            raise StageError(f"`pip check` finds: {'; '.join(unmet) or done.stderr.strip()}", where=self.tool.name)

    def _tolerated(self, line: str) -> bool:
        found = _UNMET.match(line)
        return found is not None and f"{_plain(found[1])}: {_plain(found[2])}" in self.tool.tolerates


def _build(tool: Tool, origin: Path, place: Path, held: int, say: Say) -> None:
    workshop, python = _Workshop(tool, _log(tool.name), held), str(place / "bin" / "python")
    workshop.log.write_bytes(b"")
    say(f"creating {place}")
    workshop.run([str(origin), "-m", "venv", str(place)], "no virtual environment could be made")
    say(f"installing {len(versions(tool.name))} packages, {tool.size_mib:.0f} MiB")
    workshop.run([python, *_PIP, *_INSTALL, f"--prefix={place}", "-r", str(lock_file(tool.name))], "pip failed")
    say("checking")
    workshop.require(python, versions(tool.name))
    workshop.check(python)
    workshop.run([python, "-c", f"import {', '.join(tool.imports)}"], "it was installed, but does not import")
    asked = [python, "-c", "import platform; print(platform.python_version())"]
    exact = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    draft = place / f"{MARKER}.draft"
    with draft.open("w", encoding="utf-8") as file:
        json.dump({"name": tool.name, "python": exact, "size_mib": _size_mib(place)}, file)
    os.sync()  # all that pip wrote is on the disk before the marker says so
    draft.rename(place / MARKER)


def _clear(place: Path) -> None:
    """Remove an environment. The marker goes first, so that half of one never counts."""
    if place.is_dir():
        (place / MARKER).unlink(missing_ok=True)
        shutil.rmtree(place)


def _plain(distribution: str) -> str:
    """A distribution's name in its normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _ASIDE}
    return {**kept, **_SETTINGS, "PYTHONNOUSERSITE": "1"}


def _check_space(tool: Tool) -> None:
    free_mib = shutil.disk_usage(root()).free / 2**20
    if free_mib < tool.size_mib:
        raise StageError(
            f"{tool.name} takes {tool.size_mib:.0f} MiB, and {free_mib:.0f} MiB are free in {root()}",
            fix="make room, or set EDGEOPT_TOOLS to a folder on another disk",
        )


def _size_mib(place: Path) -> float:
    sizes = (path.lstat().st_size for path in place.rglob("*") if path.is_symlink() or path.is_file())
    return round(sum(sizes) / 2**20, 1)


def _log(name: str) -> Path:
    return root() / f"{name}.log"


@contextlib.contextmanager
def _locked(name: str, say: Say) -> Iterator[int]:
    """Hold the lock on an environment; its descriptor. A child that inherits that holds it as long as it lives."""
    with _told(f"cannot use the folder of tool environments, {root()}"):
        root().mkdir(parents=True, exist_ok=True)
        held = os.open(root() / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process works on {name}; waiting for it")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield held
    finally:
        os.close(held)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """What the file system refuses, as an error for the user."""
    try:
        yield
    except OSError as error:
        fix = "make room, and run the same command again" if error.errno == errno.ENOSPC else ""
        raise StageError(f"{what}: {error.strerror}", where=str(error.filename or ""), fix=fix) from error
