"""Keeps a private folder and the lock of a device for one client: ``python agent.pyz keep FOLDER``.

It takes files, each content once, and lays them out for the agents. When its client is gone or silent, it ends the
agents that run from the folder, removes the folder, and with it goes the lock.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from . import AgentError
from .exclusive import DeviceLock
from .machine import text
from .service import Arrays, Reply, Verb, serve
from .toolchains import checked

#: A client that says nothing for so long is gone: a network that is cut does not say so.
SILENCE_S = 120

_ARCHIVE = "agent.pyz"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Keeper:
    """Answers one client; ``folder`` is removed at the end."""

    def __init__(self, folder: Path, requests: BinaryIO, replies: BinaryIO) -> None:
        self._folder = folder
        self._requests = requests
        self._replies = replies
        self._lock = DeviceLock()
        self._agent = folder / "agent"
        self._contents = folder / "contents"  # by digest
        self._temporary = folder / "tmp"  # one folder for each agent
        self._begun = 0
        self._verbs: dict[str, Verb] = {
            "alive": lambda header, tensors: ({}, ()),
            "missing": self._missing,
            "put": self._put,
            "place": self._place,
            "begin": self._begin,
            "end": self._end,
            "lock": lambda header, tensors: ({"holder": self._lock.take(header["who"])}, ()),
            "holds": lambda header, tensors: ({"holds": self._lock.held()}, ()),
            "unlock": self._unlock,
        }

    def serve(self) -> None:
        """Keeps until the client closes the stream, is silent for too long, or a signal ends the process."""
        for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, _leave)
        try:
            with self._room(), zipfile.ZipFile(self._folder / _ARCHIVE) as archive:
                archive.extractall(self._agent)  # so that Python need not compile it for every agent
            self._contents.mkdir()
            self._temporary.mkdir()
            boot = text(Path("/proc/sys/kernel/random/boot_id")) or ""
            verbs = {name: _heard(verb) for name, verb in self._verbs.items()}
            signal.alarm(SILENCE_S)
            serve(self._requests, self._replies, verbs, agent=str(self._agent), boot=boot)
        finally:
            for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            _end_processes_of(self._folder)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _missing(self, header: dict[str, Any], tensors: Arrays) -> Reply:
        """Those of the digests whose contents are not here."""
        return {"missing": [digest for digest in header["digests"] if not self._content(digest).exists()]}, ()

    def _put(self, header: dict[str, Any], tensors: Arrays) -> Reply:
        """The next piece of a content; ``last`` closes it, and then its digest has to be right."""
        content = self._content(header["digest"])
        part = content.with_suffix(".part")
        with self._room(), part.open("ab") as file:
            file.write(tensors[0].tobytes())
        if header["last"]:
            if _sha256(part) != header["digest"]:
                part.unlink()
                raise AgentError("a file did not arrive as it was sent")
            part.rename(content)
        return {}, ()

    def _place(self, header: dict[str, Any], tensors: Arrays) -> Reply:
        """Lays contents out under their relative names in a new folder, and tells its path."""
        folder = self._folder / "files" / checked(header["name"])
        for name, digest in header["files"].items():
            path = folder / checked(name)
            with self._room():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                try:
                    path.hardlink_to(self._content(digest))
                except OSError:  # a file system without links
                    shutil.copyfile(self._content(digest), path)
        return {"folder": str(folder)}, ()

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Says plainly that the disk is full, and makes room for those who want to go on."""
        try:
            yield
        except OSError as error:
            if error.errno not in _FULL:
                raise
            for part in self._contents.glob("*.part"):
                part.unlink()
            free_mib = shutil.disk_usage(self._folder).free / 2**20
            place = self._folder.parent
            raise AgentError(
                f"the disk of the device is full ({error.strerror}; {free_mib:.1f} MiB are free in {place})",
                fix="free some space there, or name another place as device.access.folder",
            ) from error

    def _begin(self, header: dict[str, Any], tensors: Arrays) -> Reply:
        """A temporary folder for one agent and all that it starts, which are known by it."""
        self._begun += 1
        folder = self._temporary / str(self._begun)
        with self._room():
            folder.mkdir()
        return {"temporary": str(folder)}, ()

    def _end(self, header: dict[str, Any], tensors: Arrays) -> Reply:
        """Ends what is left of an agent, by its temporary folder, and removes that."""
        folder = self._temporary / checked(Path(header["temporary"]).name)
        _end_processes_of(folder)
        shutil.rmtree(folder, ignore_errors=True)
        return {}, ()

    def _unlock(self, header: dict[str, Any], tensors: Arrays) -> Reply:
        self._lock.release()
        return {}, ()

    def _content(self, digest: str) -> Path:
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise AgentError(f"{digest!r} is no sha256")
        return self._contents / digest


def _heard(verb: Verb) -> Verb:
    """The verb, which also shows that the client is there."""

    def answer(header: dict[str, Any], tensors: Arrays) -> Reply:
        signal.alarm(SILENCE_S)
        return verb(header, tensors)

    return answer


def _leave(number: int, frame: object) -> None:
    raise SystemExit(0)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def _end_processes_of(folder: Path) -> None:
    """Kills the processes that run from the folder, in it, or with their temporary files in it; Linux only.

    An agent that was killed cannot end the tools that it started: they are found by the environment they got of it.
    """
    own = os.getpgrp()
    found = {int(process.name) for process in Path("/proc").glob("[0-9]*") if _belongs(process, os.fsencode(folder))}
    for pid in found - {os.getpid()}:
        with suppress(OSError):
            group = os.getpgid(pid)
            # A group is ours to kill only if its leader is: one whose leader is gone may hold anybody's processes.
            leads = group != own and group in found
            (os.killpg if leads else os.kill)(group if leads else pid, signal.SIGKILL)


def _belongs(process: Path, folder: bytes) -> bool:
    """Whether the process below ``/proc`` does so; False for another user's, which may not be looked into."""
    try:
        places = (process / "cmdline").read_bytes().split(b"\0")
        places.append(os.fsencode((process / "cwd").readlink()))
        for variable in (process / "environ").read_bytes().split(b"\0"):
            name, _, value = variable.partition(b"=")
            places += [value] if name == b"TMPDIR" else []
    except OSError:
        return False
    return any(place == folder or place.startswith(folder + b"/") for place in places)
