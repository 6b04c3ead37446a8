"""One file, one toolchain: what turns a model into another file and has to run where the agent runs.

That is next to the device, with the device's own compiler, or in an isolated tool environment on the host. A
toolchain's name is its file's name, and a file here has one function:

    build(files: Mapping[str, Path], options: dict[str, Any], out: Path) -> Mapping[str, Any]

``files`` are the inputs by the client's names for them. Everything that it writes under ``out`` goes back to the
client. It returns facts, plain JSON; ``layers`` among them is a list of :class:`edgeopt.agent.runtimes.Layer` fields.
It may tell how far it is with :func:`report`, and raises :class:`AgentError` for what the user can mend. A file here
imports its toolkit only inside functions.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import tempfile
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

from .. import AgentError  # noqa: TID252  relative, so that a zipapp works

Contents = Mapping[str, npt.NDArray[np.uint8]]

_listener: ContextVar[Callable[[str], None]] = ContextVar("listener")


class Built(NamedTuple):
    """Files by name relative to ``out``, each (bytes,) uint8, and what the toolchain returned."""

    files: Contents
    facts: dict[str, Any]


class Toolchain(Protocol):
    """What a file here offers."""

    def build(self, files: Mapping[str, Path], options: dict[str, Any], out: Path) -> Mapping[str, Any]: ...


def report(line: str) -> None:
    """Tells the client what a running :func:`build` does, in one line."""
    if listener := _listener.get(None):
        listener(line)


def names() -> list[str]:
    """The toolchains that this agent knows, installed or not."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Toolchain:
    """The toolchain of that name.

    Raises:
        AgentError: There is no such toolchain.
    """
    if name not in names():
        raise AgentError(f"unknown toolchain {name!r}; known: {', '.join(names()) or 'none'}")
    return cast(Toolchain, importlib.import_module(f".{name}", __package__))


def build(name: str, contents: Contents, options: dict[str, Any], progress: Callable[[str], None]) -> Built:
    """Runs a toolchain in a private folder, which is removed.

    Args:
        name: Of the toolchain.
        contents: The inputs, (bytes,) uint8 by relative name.
        options: For the toolchain; plain JSON.
        progress: Called with every line that it reports.

    Raises:
        AgentError: A name points out of the folder, or the toolchain refuses.
    """
    toolchain = load(name)
    with tempfile.TemporaryDirectory(prefix="edgeopt-build-") as folder:
        given, out = Path(folder) / "in", Path(folder) / "out"
        out.mkdir()
        files = {one: given / checked(one) for one in contents}
        for one, file in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            contents[one].tofile(file)
        token = _listener.set(progress)
        try:
            facts = _plain(name, toolchain.build(files, options, out))
        finally:
            _listener.reset(token)
        written = (file for file in sorted(out.rglob("*")) if file.is_file() and not file.is_symlink())
        return Built({file.relative_to(out).as_posix(): np.fromfile(file, np.uint8) for file in written}, facts)


def checked(name: str) -> PurePosixPath:
    """A relative name that stays inside a folder.

    Raises:
        AgentError: It does not.
    """
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise AgentError(f"{name!r} is no name of a file inside a folder")
    return path


def _plain(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(facts), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise AgentError(f"toolchain {name!r} returned what is not plain JSON: {error}") from error
    return plain
