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
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeopt.errors import StoreError

_MANIFEST = "artifact.json"
_STALE_SECONDS = 24 * 3600.0


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
