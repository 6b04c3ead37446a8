"""Isolated tool environments: toolkits whose requirements no other package could live with.

Each has a declaration, ``locks/NAME.toml``, and a lock, ``locks/NAME.txt``, that pins every file by its hash.
``edgeopt tools install NAME`` makes a virtual environment of it in the user's cache; stages work there through the
agent. Everything here but :mod:`edgeopt.tools.building` reads files only.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgeopt.errors import ConfigError, MissingBackend
from edgeopt.registry import hint

LOCKS = Path(__file__).parent / "locks"
#: Written last, by a rename: a folder without it is not an environment.
MARKER = "complete.json"

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s\\;]+)", re.MULTILINE)

State = Literal["installed", "not installed", "outdated", "interrupted"]


@dataclass(frozen=True)
class Tool:
    """Declaration of an environment: what a maintainer decided, of which the lock is made.

    Attributes:
        name: As ``edgeopt tools install`` takes it.
        toolkit: The distribution that it is made for.
        what: What that does.
        licence: Of the toolkit itself.
        python: Version that the locked files are for, such as ``3.11``.
        imports: Modules that must import for the environment to count as working.
        size_mib: Disk that it takes, to refuse before a download.
        wants: Requirements, resolved with all that they require.
        alone: Requirements that are taken without what they ask for.
        tolerates: ``"distribution: requirement"``, in lower case with dashes, that ``pip check`` may find unmet. Tested
            here in spite of it.
    """

    name: str
    toolkit: str
    what: str
    licence: str
    python: str
    imports: tuple[str, ...]
    size_mib: float
    wants: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    tolerates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Status:
    """An environment as it stands on this machine.

    Attributes:
        tool: Its declaration.
        state: ``outdated``: there is one, of an earlier lock. ``interrupted``: an install did not come to its end.
        folder: Where it is, or would be.
        python: Full version of its interpreter; empty if it is not installed.
        size_mib: Disk that it takes; 0 if it is not installed.
    """

    tool: Tool
    state: State
    folder: Path
    python: str = ""
    size_mib: float = 0.0


def root() -> Path:
    """Folder of all environments: ``$EDGEOPT_TOOLS``, or ``tools`` in the user's cache folder."""
    import platformdirs

    chosen = os.environ.get("EDGEOPT_TOOLS")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("edgeopt", appauthor=False)) / "tools"


def names() -> tuple[str, ...]:
    """All environments that can be installed."""
    return tuple(sorted(file.stem for file in LOCKS.glob("*.toml")))


def find(name: str) -> Tool:
    """The declaration of an environment.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in names():
        raise ConfigError(f"unknown tool environment {name!r}{hint(name, names())}")
    declared = tomllib.loads((LOCKS / f"{name}.toml").read_text(encoding="utf-8"))
    values: dict[str, Any] = {key: tuple(it) if isinstance(it, list) else it for key, it in declared.items()}
    return Tool(name=name, **values)


def lock_file(name: str) -> Path:
    """The requirements of an environment, each with a version and hashes, for ``pip install --require-hashes``."""
    return LOCKS / f"{find(name).name}.txt"


def digest(name: str) -> str:
    """Digest of the lock: two environments with the same digest hold the same files, for the same Python."""
    return hashlib.sha256(lock_file(name).read_bytes()).hexdigest()


def versions(name: str) -> Mapping[str, str]:
    """Distribution -> version of all that is locked; for the action key. Needs no installed environment."""
    return {pin["name"]: pin["version"] for pin in _PIN.finditer(lock_file(name).read_text(encoding="utf-8"))}


def folder(name: str) -> Path:
    """Where the environment of the present lock is, or would be."""
    return root() / f"{name}-{digest(name)[:16]}"


def folders(name: str) -> tuple[Path, ...]:
    """All folders of an environment: of the present lock and of earlier ones, complete or not."""
    pattern = re.compile(re.escape(name) + "-[0-9a-f]{16}")
    return tuple(sorted(found for found in root().glob(f"{name}-*") if pattern.fullmatch(found.name)))


def status(name: str) -> Status:
    """How the environment stands on this machine.

    Raises:
        ConfigError: There is none of that name.
    """
    tool, place = find(name), folder(name)
    if (facts := _facts(place)) is not None:
        return Status(tool, "installed", place, facts["python"], facts["size_mib"])
    if place.exists():
        return Status(tool, "interrupted", place)
    for earlier in folders(name):
        if (facts := _facts(earlier)) is not None:
            return Status(tool, "outdated", earlier, facts["python"], facts["size_mib"])
    return Status(tool, "not installed", place)


def python(name: str) -> Path:
    """The interpreter of an installed environment.

    Raises:
        ConfigError: There is none of that name.
        MissingBackend: It is not installed, or of an earlier lock; with the line that mends it.
    """
    now = status(name)
    if now.state == "installed":
        return now.folder / "bin" / "python"
    raise MissingBackend(f"the tool environment {name!r} is {now.state}", fix=f"edgeopt tools install {name}")


def _facts(place: Path) -> dict[str, Any] | None:
    """What the marker says, if there is one and the interpreter that the environment was made of is still there."""
    try:
        facts: dict[str, Any] = json.loads((place / MARKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return facts if (place / "bin" / "python").exists() else None
