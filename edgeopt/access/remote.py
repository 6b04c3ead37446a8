"""A device behind another program's connection, such as ssh or adb.

All that is asked of that program is to run a command there and to carry its standard streams. The first command brings
the agent's archive and becomes the keeper: it owns a private work folder and the device's lock, and removes both when
it loses this end. Every agent is one more command.
"""

from __future__ import annotations

import glob
import hashlib
import json
import shlex
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.access import archive, process
from edgeopt.access.channel import Arrays, Channel, End, died
from edgeopt.access.client import Agent
from edgeopt.access.connection import Connection, lock_lost
from edgeopt.agent import bootstrap
from edgeopt.errors import StageError

_CONNECT_LIMIT_S = 60.0
#: a keeper has nothing to compute
_ANSWER_LIMIT_S = 60.0
#: for how long a device that does not answer is waited for in order to leave it
_LEAVING_LIMIT_S = 3.0
_PIECE_BYTES = 2**18
#: for how long a device that was reached before may be away, to start again
_AWAY_S = 120.0
_SECONDS_BETWEEN_TRIES = 2.0
#: well below the keeper's patience
_HEARTBEAT_S = 20.0
#: reads the program that the host sends first, and runs it
_READ_PROGRAM = "import sys;exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"


@dataclass(frozen=True)
class Trouble:
    """Why a connection failed.

    Attributes:
        what: What is wrong.
        fix: How to mend it.
        passing: Whether it may be over in a while.
    """

    what: str
    fix: str
    passing: bool = False


class _Away(StageError):
    """There is no connection, though there may be one in a while."""


class Remote(Connection):
    """See the module.

    Args:
        name: How messages call the device.
        python: Interpreter there, with numpy and a runtime.
        folder: Where the work folder is made there; None for the system's place.
    """

    def __init__(self, name: str, python: str, folder: str | None) -> None:
        super().__init__()
        self.name = name
        self._python = python
        self._folder = folder
        self._keeper: _Keeper | None = None
        self._boot = ""
        self._exclusive = ""  # who holds the lock, if this does
        self._digests: dict[tuple[str, int, int], str] = {}

    def start(
        self, *, env: Mapping[str, str] | None = None, cpus: Sequence[int] | None = None, limit_s: float = 600.0
    ) -> Agent:
        """See the base class."""
        keeper = self._kept()
        temporary = keeper.begin()
        settings = [f"{name}={value}" for name, value in {"TMPDIR": temporary, **(env or {})}.items()]
        pinned = [",".join(map(str, cpus))] if cpus is not None else []
        command = ["env", *settings, self._python, keeper.agent, *pinned]
        argv = self._argv(shell_line(command), first=False)

        def explain(end: End, verb: str) -> tuple[str, str]:
            keeper.sweep()
            return self._explain(end, verb)

        channel = process.spawn(
            argv,
            name=self.name,
            env=self._environment(),
            limit_s=limit_s,
            explain=explain,
            ended=lambda: keeper.over(temporary),
        )

        def bring(path: str) -> str:
            return keeper.bring(Path(path).name, self._contents(Path(path)))

        if not self._exclusive:
            return Agent(channel, bring)

        def witness() -> None:
            if self._exclusive and not keeper.holds():
                raise lock_lost(self.name)

        return _Witnessed(channel, bring, witness)

    def close(self) -> None:
        """See the base class."""
        if self._keeper:
            self._keeper.close()
            self._keeper = None

    @abstractmethod
    def _argv(self, line: str, *, first: bool) -> list[str]:
        """The command on the host that runs ``line`` in the device's shell; ``first`` opens the connection."""

    @abstractmethod
    def _environment(self) -> dict[str, str]:
        """That of the commands on the host."""

    @abstractmethod
    def _trouble(self, end: End) -> Trouble | None:
        """Why the connection failed; None if it is the command on the device that did."""

    # The lock

    def _lock(self, who: str) -> str | None:
        holder = self._kept().lock(who)
        self._exclusive = who if holder is None else ""
        return holder

    def _holds(self) -> bool:
        return self._keeper is not None and self._keeper.holds()

    def _unlock(self, *, at_once: bool = False) -> None:
        self._exclusive = ""
        if at_once:
            self.close()
        elif self._keeper:
            self._keeper.unlock()

    # The connection

    def _kept(self) -> _Keeper:
        """The keeper; a new one if there is none, or it was lost since it was used last.

        Raises:
            StageError: There is no connection. Or it is new, while the device is being measured, and the device is not
                as it was left.
        """
        if self._keeper and self._keeper.alive():
            return self._keeper
        lost = self._keeper is not None
        self.close()
        keeper = self._connect(_AWAY_S if lost else 0.0)
        try:
            self._go_on_with(keeper)
        except BaseException:
            keeper.close()
            raise
        self._keeper, self._boot = keeper, keeper.boot
        return keeper

    def _go_on_with(self, keeper: _Keeper) -> None:
        """If the lock was held, it must be again, and the device must not have been restarted meanwhile."""
        if not self._exclusive:
            return
        fix = "run again: finished steps are kept"
        if self._boot != keeper.boot:
            raise StageError("the device was restarted while it was measured", where=self.name, fix=fix)
        if holder := keeper.lock(self._exclusive):
            what = f"the connection was lost, and another run has the device now: {holder}"
            raise StageError(what, where=self.name, fix=fix)

    def _connect(self, patience_s: float) -> _Keeper:
        """The first command; tries again for some time if the device is away."""
        began = time.monotonic()
        while True:
            try:
                return self._open()
            except _Away:
                if time.monotonic() - began >= patience_s:
                    raise
                time.sleep(_SECONDS_BETWEEN_TRIES)

    def _open(self) -> _Keeper:
        met: list[Trouble] = []

        def explain(end: End, verb: str) -> tuple[str, str]:
            if not (trouble := self._trouble(end)):
                return _not_started(end, self._python)
            met.append(trouble)
            return trouble.what, trouble.fix

        argv = self._argv(shell_line([self._python, "-c", _READ_PROGRAM]), first=True)
        channel = process.spawn(argv, name=self.name, env=self._environment(), explain=explain)
        try:
            return _Keeper(channel, self._folder)
        except StageError as error:
            if any(trouble.passing for trouble in met):
                raise _Away(error.what, where=error.where, fix=error.fix) from error
            raise

    def _explain(self, end: End, verb: str) -> tuple[str, str]:
        """Of an agent. How it ended may look like a lost connection, or the other way round: the keeper knows."""
        trouble = self._trouble(end)
        if self._keeper and self._keeper.alive():
            if trouble:
                return f"the agent was killed on the device during '{verb}'", "is its memory enough for the model?"
            return died(end, verb)
        what, fix = (trouble.what, trouble.fix) if trouble else ("the device was lost", "finished steps are kept")
        return f"{what} during '{verb}'", fix

    # Files

    def _contents(self, path: Path) -> dict[str, tuple[Path, str]]:
        """What the device needs of an artefact: relative name -> file and digest."""
        if path.is_dir():
            names = {file.relative_to(path.parent).as_posix(): file for file in path.rglob("*")}
        else:
            names = {file.name: file for file in (path, *path.parent.glob(f"{glob.escape(path.stem)}.*"))}
        files = {name: file for name, file in sorted(names.items()) if file.is_file()}
        if not path.exists():
            raise StageError("there is no such file", where=str(path))
        return {name: (file, self._sha256(file)) for name, file in files.items()}

    def _sha256(self, path: Path) -> str:
        """Taken once, as long as the file is not touched."""
        stat = path.stat()
        key = (str(path), stat.st_size, stat.st_mtime_ns)
        if key not in self._digests:
            with path.open("rb") as file:
                self._digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._digests[key]


class _Witnessed(Agent):
    """An agent that times: the keeper may be lost without it, and the lock with the keeper."""

    def __init__(self, channel: Channel, bring: Callable[[str], str], witness: Callable[[], None]) -> None:
        super().__init__(channel, bring)
        self._witness = witness

    def stop(self, *, at_once: bool = False) -> None:
        """Ends it; raises StageError if it ends well and the lock was not held until then."""
        ends_well = not (at_once or self.stopped)
        super().stop(at_once=at_once)
        if ends_well:
            self._witness()


class _Keeper:
    """The other side of :mod:`edgeopt.agent.keeper`; it is kept alive by a sign of life now and then."""

    def __init__(self, channel: Channel, folder: str | None) -> None:
        self._channel = channel
        hello = channel.hello(_program(archive.content(), folder), limit_s=_CONNECT_LIMIT_S)
        self.agent, self.boot = str(hello["agent"]), str(hello["boot"])
        self._over: list[str] = []
        self._placed: dict[str, str] = {}
        self._calling = threading.Lock()
        self._done = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def alive(self) -> bool:
        """Whether it still answers."""
        try:
            self._call("alive")
        except StageError:
            return False
        return True

    def bring(self, name: str, contents: Mapping[str, tuple[Path, str]]) -> str:
        """Lays files out there, and sends those that are not there yet.

        Args:
            name: Of the file or folder that is wanted.
            contents: Files and their digests, by their relative names.

        Returns:
            The path of ``name`` there.
        """
        wanted = {relative: digest for relative, (_, digest) in contents.items()}
        key = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()
        if key not in self._placed:
            reply = self._call("missing", digests=list(wanted.values()))
            with self._channel.parsing("missing"):
                missing = set(reply["missing"])
            for path, digest in contents.values():
                if digest in missing:
                    self._send(path, digest)
                    missing.discard(digest)
            reply = self._call("place", name=key, files=wanted)
            with self._channel.parsing("place"):
                self._placed[key] = str(reply["folder"])
        return f"{self._placed[key]}/{name}"

    def begin(self) -> str:
        """The temporary folder of a new agent. Nothing of those that are over runs beside it."""
        self.sweep()
        return str(self._call("begin")["temporary"])

    def over(self, temporary: str) -> None:
        """Notes that the agent with that temporary folder has ended, as seen from here."""
        self._over.append(temporary)

    def sweep(self) -> None:
        """Ends what agents that are over have left running there, such as a tool of one that was killed."""
        with suppress(StageError):  # a keeper that is lost has ended them
            while self._over:
                self._call("end", temporary=self._over[-1])
                self._over.pop()

    def lock(self, who: str) -> str | None:
        """Takes the device's lock if it is free; otherwise says who holds it."""
        reply = self._call("lock", who=who)
        with self._channel.parsing("lock"):
            return None if reply["holder"] is None else str(reply["holder"])

    def holds(self) -> bool:
        """Whether it is there, and has not lost the lock."""
        try:
            return bool(self._call("holds")["holds"])
        except StageError:
            return False

    def unlock(self) -> None:
        """Gives it back, or ends the keeper, and the lock with it, if that does not answer soon."""
        with self._leaving() as free, suppress(StageError):
            if free:
                self._channel.call("unlock", limit_s=_LEAVING_LIMIT_S)
            else:
                self._channel.stop(at_once=True)

    def close(self) -> None:
        """Ends it, which removes its folder."""
        self._done.set()
        with self._leaving() as free:
            self._channel.stop(at_once=not free)

    @contextmanager
    def _leaving(self) -> Iterator[bool]:
        """Waits for the call of another thread, though not for long; tells whether there is none any more."""
        free = self._calling.acquire(timeout=_LEAVING_LIMIT_S)
        try:
            yield free
        finally:
            if free:
                self._calling.release()

    def _send(self, path: Path, digest: str) -> None:
        with path.open("rb") as file:
            size, sent = path.stat().st_size, 0
            while sent == 0 or sent < size:
                piece = np.frombuffer(file.read(_PIECE_BYTES), np.uint8)
                sent += max(1, len(piece))
                self._call("put", [piece], digest=digest, last=sent >= size)

    def _call(self, verb: str, tensors: Arrays = (), **arguments: Any) -> dict[str, Any]:
        with self._calling:
            return self._channel.call(verb, tensors, limit_s=_ANSWER_LIMIT_S, **arguments).header

    def _beat(self) -> None:
        while not self._done.wait(_HEARTBEAT_S) and self.alive():
            pass


def shell_line(command: Sequence[str]) -> str:
    """A command for a POSIX shell on the device, which becomes it."""
    return f"exec {shlex.join(command)}"


def _program(agent: bytes, folder: str | None) -> bytes:
    """What is sent to ``_READ_PROGRAM``: the bootstrap behind its length, and the archive for it to read."""
    call = f"\nmain({len(agent)}, {hashlib.sha256(agent).hexdigest()!r}, {folder!r})\n"
    code = Path(bootstrap.__file__).read_bytes() + call.encode()
    return b"%d\n%s%s" % (len(code), code, agent)


def _not_started(end: End, python: str) -> tuple[str, str]:
    """Of the first command there, where the connection is good."""
    if end.status in (126, 127):
        return f"there is no {python} on the device", "name its Python as device.access.python"
    if "has no numpy" in end.words:
        return "the agent cannot be started on the device", f"install numpy for {python} there"
    fix = f"install numpy for {python} there anew" if "cannot be imported" in end.words else ""
    return "the agent cannot be started on the device", fix
