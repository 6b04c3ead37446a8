"""Artefacts and the store that keeps them.

An artefact is an immutable folder named by its content. The store is content-addressed, an action cache over an object
folder::

    objects/<aa>/<digest>/     the files of one artefact and artifact.json (kind, file digests, meta)
    actions/<key>.json         one finished action: its full key fields and the digest of its output
    slots/<slot>.json          the last key of one step of one recipe, so that a re-run can be explained
    locks/<key>.lock           one process at a time works on one action
    tmp/                       where objects are built before they are renamed into place

Everything is written to ``tmp/`` and renamed; an action record is written last. An object is verified whenever it is
read, and putting an artefact over a damaged object repairs it. So a process that dies at any moment leaves a store
that is as good as before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeopt.errors import ConfigError, StoreError

#: Folder of a compiled artefact for what its device does not need: stand-ins, logs, reports of the toolkit.
ASIDE = "aside"

_MANIFEST = "artifact.json"
_GRACE_SECONDS = 3600.0
#: A stage may train for days; what is older was left by a dead process.
_STALE_SECONDS = 7 * 86400.0
_ABSENT = object()


def canonical(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces, no NaN. Equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(value: Any) -> str:
    """Full sha256 of the canonical JSON of ``value``, in hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def file_digest(path: Path) -> str:
    """Full sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Artifact:
    """An immutable folder named by its content.

    Attributes:
        kind: ``torch``, ``onnx``, ``onnx-qdq``, ``openvino-ir``, ``ort-model``, ``openvino-model``, ``scores``.
        digest: sha256 over kind, file digests and meta.
        root: Folder with the files.
        files: Relative POSIX path -> sha256.
        meta: Input and output names, shapes, dtypes, layer map and so on.
    """

    kind: str
    digest: str
    root: Path
    files: Mapping[str, str]
    meta: Mapping[str, Any]

    @property
    def size_mib(self) -> float:
        """Bytes of all files, in MiB."""
        return float(sum((self.root / name).stat().st_size for name in self.files)) / 2**20

    def path(self, name: str) -> Path:
        """Absolute path of one of the files."""
        return self.root / name


@dataclass(frozen=True)
class Action:
    """A finished action: what its key was made of, and what came out."""

    key: str
    fields: Mapping[str, Any]
    output: str
    seconds: float
    summary: str
    notes: tuple[str, ...]
    created: float


class Store:
    """Content-addressed artefacts and finished actions in one folder; safe for several processes at once."""

    def __init__(self, root: Path) -> None:
        """Open the store, creating it if needed.

        Raises:
            StoreError: The folder cannot be created or written.
        """
        self.root = root
        try:
            for name in ("objects", "actions", "slots", "locks", "tmp"):
                (root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fix = "set EDGEOPT_CACHE, or give --cache, to a folder that you can write"
            raise StoreError(f"cannot use the store: {error.strerror}", where=str(root), fix=fix) from error

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder on the store's file system, removed at the end unless :meth:`put` took it.

        Raises:
            StoreError: The disk is full, or the store cannot be written.
        """
        try:
            folder = Path(tempfile.mkdtemp(dir=self.root / "tmp"))
        except OSError as error:
            raise _store_error("cannot write", error, self.root) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self, key: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the action ``key``, so that two processes do not do the same work at once.

        Args:
            key: Of the action.
            on_wait: Called once if another process holds it, before waiting for that.

        Raises:
            StoreError: The lock cannot be made.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.root / "locks" / f"{key}.lock")
        try:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                on_wait()
                lock.acquire()
        except OSError as error:
            raise _store_error("cannot lock", error, self.root) from error
        try:
            yield
        finally:
            lock.release()

    def put(self, kind: str, folder: Path, meta: Mapping[str, Any]) -> Artifact:
        """Take the files of ``folder`` as a new immutable object. A damaged object is repaired.

        The folder disappears, unless the store has an equal object already.

        Raises:
            StoreError: The disk is full, or the folder cannot be moved.
        """
        try:
            files = {path.relative_to(folder).as_posix(): file_digest(path) for path in _files(folder)}
            manifest = {"kind": kind, "files": files, "meta": json.loads(canonical(meta))}
            digest = digest_of(manifest)
            (folder / _MANIFEST).write_bytes(canonical(manifest))
            for path in _files(folder):
                path.chmod(0o444)
            place = self._object(digest)
            place.parent.mkdir(exist_ok=True)
            with self.lock(f"object-{digest}"):
                if self._read(digest) is None:
                    if place.exists():
                        self._discard(place)
                    folder.rename(place)
                os.utime(place)  # young again, for gc()
        except OSError as error:
            raise _store_error("cannot store the artefact", error, self.root) from error
        return Artifact(kind, digest, place, files, manifest["meta"])

    def get(self, digest: str) -> Artifact:
        """The artefact, every byte verified.

        Raises:
            StoreError: It is missing or damaged.
        """
        artifact = self._read(digest)
        if artifact is None:
            raise StoreError(f"object {digest[:12]} is missing or damaged", where=str(self._object(digest)))
        return artifact

    def find(self, prefix: str) -> Artifact:
        """The one artefact whose digest begins with ``prefix``, verified.

        Raises:
            ConfigError: None or several begin so.
            StoreError: It is damaged.
        """
        is_hex = len(prefix) >= 4 and all(letter in "0123456789abcdef" for letter in prefix)
        found = [place.name for place in self._objects() if place.name.startswith(prefix)] if is_hex else []
        if len(found) != 1:
            what = f"{len(found)} stored artefacts begin with {prefix!r}" if found else f"no artefact {prefix!r}"
            raise ConfigError(what, fix="give the folder of a shipped artefact, or a longer digest from run.json")
        return self.get(found[0])

    def action(self, key: str) -> tuple[Action, Artifact] | None:
        """The finished action and its verified output, ``None`` if it has to be done (again)."""
        file = self.root / "actions" / f"{key}.json"
        action = _read_action(file)
        if action is None or digest_of(action.fields) != key:
            return None
        artifact = self._read(action.output)
        if artifact is None:
            return None
        with contextlib.suppress(OSError):  # another process may be cleaning up
            os.utime(file)
        return action, artifact

    def record(self, action: Action) -> None:
        """Publish a finished action. Its output must have been put before.

        Raises:
            StoreError: The disk is full.
        """
        self._write(self.root / "actions" / f"{action.key}.json", dataclasses.asdict(action))

    def last_fields(self, slot: str) -> Mapping[str, Any] | None:
        """Key fields of the last action that :meth:`remember` noted for ``slot``."""
        try:
            key = json.loads((self.root / "slots" / f"{digest_of(slot)}.json").read_bytes())["key"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        action = _read_action(self.root / "actions" / f"{key}.json")
        return action.fields if action else None

    def remember(self, slot: str, key: str) -> None:
        """Note the action that ``slot`` (one step of one recipe) used last, so that a re-run can be explained."""
        self._write(self.root / "slots" / f"{digest_of(slot)}.json", {"slot": slot, "key": key})

    def info(self) -> dict[str, Any]:
        """Where the store is and what is in it."""
        objects = list(self._objects())
        size = sum(path.stat().st_size for place in objects for path in _files(place))
        actions = sum(1 for _ in (self.root / "actions").glob("*.json"))
        return {"path": str(self.root), "objects": len(objects), "actions": actions, "size_mib": size / 2**20}

    def verify(self) -> list[str]:
        """Digests of the damaged objects."""
        return [place.name for place in self._objects() if self._read(place.name) is None]

    def gc(self, older_than_seconds: float) -> dict[str, Any]:
        """Forget actions that were not used for so long, objects that no action needs, and leftovers of dead processes.

        Objects younger than an hour stay: another process may be about to record their action.
        """
        now = time.time()
        removed_actions = 0
        needed: set[str] = set()
        for file in (self.root / "actions").glob("*.json"):
            action = _read_action(file)
            if action is None or now - _modified(file) > older_than_seconds:
                file.unlink(missing_ok=True)
                removed_actions += 1
            else:
                needed.add(action.output)
        freed, removed_objects = 0, 0
        for place in list(self._objects()):
            if place.name not in needed and now - _modified(place) > _GRACE_SECONDS:
                freed += sum(path.stat().st_size for path in _files(place))
                with contextlib.suppress(FileNotFoundError):  # another process removed it
                    self._discard(place)
                removed_objects += 1
        for leftover in [*(self.root / "tmp").iterdir(), *(self.root / "locks").iterdir()]:
            if now - _modified(leftover) > _STALE_SECONDS:
                _remove(leftover)
        return {"actions": removed_actions, "objects": removed_objects, "freed_mib": freed / 2**20}

    def clear(self) -> None:
        """Remove everything that the store holds; nothing else in its folder."""
        for name in ("actions", "slots", "objects", "tmp"):
            shutil.rmtree(self.root / name, ignore_errors=True)
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def _discard(self, place: Path) -> None:
        """Remove an object at once, so that a process that dies meanwhile leaves no half of it."""
        grave = Path(tempfile.mkdtemp(dir=self.root / "tmp"))
        place.rename(grave / place.name)
        shutil.rmtree(grave, ignore_errors=True)

    def _object(self, digest: str) -> Path:
        return self.root / "objects" / digest[:2] / digest

    def _objects(self) -> Iterator[Path]:
        return (self.root / "objects").glob("??/*")

    def _read(self, digest: str) -> Artifact | None:
        try:
            place = self._object(digest)
            manifest = json.loads((place / _MANIFEST).read_bytes())
            if digest_of(manifest) != digest:
                return None
            files: dict[str, str] = manifest["files"]
            if any(file_digest(place / name) != expected for name, expected in files.items()):
                return None
            return Artifact(manifest["kind"], digest, place, files, manifest["meta"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write(self, file: Path, value: Any) -> None:
        with self.scratch() as folder:
            try:
                (folder / file.name).write_bytes(canonical(value))
                (folder / file.name).replace(file)
            except OSError as error:
                raise _store_error("cannot write", error, file) from error


def default_root() -> Path:
    """``$EDGEOPT_CACHE``, or the user's cache folder."""
    import platformdirs

    chosen = os.environ.get("EDGEOPT_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("edgeopt", appauthor=False))


def first_difference(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> str:
    """The first key field, as a dotted path with both values, in which two actions differ; empty if they are equal."""
    for name in sorted({*before, *now}):
        old, new = before.get(name, _ABSENT), now.get(name, _ABSENT)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            if inner := first_difference(old, new, f"{prefix}{name}."):
                return inner
        elif _short(old, full=True) != _short(new, full=True):
            return f"{prefix}{name}: {_short(old)} -> {_short(new)}"
    return ""


def _short(value: Any, *, full: bool = False) -> str:
    if value is _ABSENT:
        return "nothing"
    text = value if isinstance(value, str) and not full else canonical(value).decode()
    is_digest = len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)
    return text[:12] if is_digest else text


def _store_error(what: str, error: OSError, where: Path) -> StoreError:
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    fix = "free some disk space (`edgeopt cache gc`)" if is_full else ""
    return StoreError(f"{what}: {error.strerror or error}", where=str(where), fix=fix)


def _modified(path: Path) -> float:
    """When it was last changed, in seconds since the epoch; now, if another process has just removed it."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / _MANIFEST)


def _read_action(file: Path) -> Action | None:
    try:
        data = json.loads(file.read_bytes())
        return Action(**{**data, "notes": tuple(data["notes"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None
