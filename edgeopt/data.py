"""The user's data: opened splits, their digests, and the checks that keep a wrong split out of a verdict."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt import reference
from edgeopt.errors import ConfigError
from edgeopt.recipe import DataSpec, InputSpec, Preprocess, RawSpec, SplitSpec

Array = npt.NDArray[Any]
SPLITS = ("train", "calibrate", "select", "evaluate")
_LABELLED = ("train", "select", "evaluate")


@dataclass(frozen=True)
class Split:
    """One split of the data, opened.

    Attributes:
        name: ``train``, ``calibrate``, ``select`` or ``evaluate``.
        samples: Raw samples as the device feeds them, (N, *raw shape), such as (N, H, W, C) uint8.
        labels: (N,) int64 class numbers, or float targets (N,) or (N, K); ``None`` for unlabelled calibration data.
        digest: sha256 over the content, dtypes and shapes.
    """

    name: str
    samples: Array
    labels: Array | None
    digest: str

    def __len__(self) -> int:
        return len(self.samples)

    def batches(self, size: int) -> Iterator[tuple[Array, Array | None]]:
        """``(samples, labels)`` in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            stop = start + size
            yield self.samples[start:stop], None if self.labels is None else self.labels[start:stop]


def raw_spec(input_spec: InputSpec, preprocess: Preprocess | None) -> RawSpec:
    """Shape and dtype of a raw sample, as the device feeds it."""
    return preprocess.raw if preprocess else RawSpec(shape=input_spec.shape, dtype=input_spec.dtype)


def to_input(samples: Array, preprocess: Preprocess | None) -> npt.NDArray[np.float32]:
    """Raw samples to what the network takes: what export folds in, up to float rounding.

    Args:
        samples: (N, *raw shape).
        preprocess: Of the recipe; ``None`` if the network takes raw samples.

    Returns:
        (N, C, H, W) float32 for images, else (N, *raw shape).
    """
    values = np.asarray(samples, dtype=np.float32)
    if preprocess is None:
        return values
    if values.ndim == 4:
        values = values.transpose(0, 3, 1, 2)
    along_channels = (1, -1, *(1,) * (values.ndim - 2))
    mean = np.asarray(preprocess.mean, np.float32).reshape(along_channels)
    std = np.asarray(preprocess.std, np.float32).reshape(along_channels)
    return np.ascontiguousarray((values / np.float32(preprocess.scale) - mean) / std)


def open_splits(spec: DataSpec, raw: RawSpec, root: Path) -> Mapping[str, Split]:
    """Open all four splits and check them.

    Args:
        spec: The recipe's ``data``.
        raw: What a sample must look like.
        root: Folder of the recipe.

    Raises:
        ConfigError: A split is missing, empty, of the wrong shape or dtype, unlabelled or wrongly labelled, or shares a
            sample with another split.
    """
    splits = {name: _open(name, getattr(spec, name), raw, root) for name in SPLITS}
    _check_disjoint(splits)
    return splits


def _open(name: str, spec: SplitSpec, raw: RawSpec, root: Path) -> Split:
    where = f"data.{name}"
    samples, labels = _from_loader(spec.loader, root, where) if spec.loader else _from_file(spec, root, where)
    if samples.ndim == 0:
        raise ConfigError("samples should be an array (N, ...), they are a single number", where=where)
    if labels is not None or name in _LABELLED:
        _check_labels(labels, len(samples), where)
    if spec.samples is not None and spec.samples < len(samples):
        chosen = np.linspace(0, len(samples) - 1, spec.samples).round().astype(np.int64)
        samples, labels = samples[chosen], None if labels is None else labels[chosen]
    elif spec.samples is not None and spec.samples > len(samples):
        raise ConfigError(f"asks for {spec.samples} samples, there are {len(samples)}", where=where)
    if len(samples) == 0:
        raise ConfigError("the split is empty", where=where)
    if samples.shape[1:] != raw.shape or samples.dtype != np.dtype(raw.dtype):
        raise ConfigError(
            f"samples are {list(samples.shape[1:])} {samples.dtype}, the recipe says {list(raw.shape)} {raw.dtype}",
            where=where,
            fix="correct preprocess.raw (or input, without preprocess), or what the loader returns",
        )
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():
        raise ConfigError("samples hold NaN or infinity", where=where)
    digest = hashlib.sha256(f"{samples.dtype.str}{samples.shape}".encode())
    digest.update(np.ascontiguousarray(samples).data)
    if labels is not None:
        digest.update(f"{labels.dtype.str}{labels.shape}".encode())
        digest.update(np.ascontiguousarray(labels).data)
    return Split(name, samples, labels, digest.hexdigest())


def _from_loader(loader: str, root: Path, where: str) -> tuple[Array, Array | None]:
    load = reference.resolve(loader, root)
    kind = ""
    try:
        loaded = load()
        kind = type(loaded).__name__
        return _arrays(loaded)
    except (Exception, SystemExit) as error:
        place = reference.user_frame(error, root)
        if kind and not place:
            what = f"{loader} should return (samples, labels) arrays or a sequence of (sample, label) pairs, got {kind}"
            raise ConfigError(f"{what}: {error}", where=where) from error
        raise ConfigError(f"{loader} raised {type(error).__name__}: {error}", where=place or where) from error


def _arrays(loaded: Any) -> tuple[Array, Array]:
    if isinstance(loaded, tuple) and len(loaded) == 2 and all(hasattr(part, "__array__") for part in loaded):
        return np.asarray(loaded[0]), np.asarray(loaded[1])
    pairs = [loaded[index] for index in range(len(loaded))]
    if not pairs:
        raise ValueError("it is empty")
    return np.stack([np.asarray(sample) for sample, _ in pairs]), np.asarray([label for _, label in pairs])


def _from_file(spec: SplitSpec, root: Path, where: str) -> tuple[Array, Array | None]:
    path = root / str(spec.path)
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("it is no zip archive, or not all of one")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                if "samples" not in archive:
                    raise ConfigError(
                        f"{path} has no array 'samples' (it has: {', '.join(archive.files)})", where=where
                    )
                samples, labels = archive["samples"], archive.get("labels")
        if not isinstance(samples, np.ndarray) or not isinstance(labels, np.ndarray | None):
            raise ValueError("an entry is no array")
        return samples, labels
    except FileNotFoundError as error:
        raise ConfigError(f"no such file: {path}", where=where) from error
    except ConfigError:
        raise
    except Exception as error:  # numpy, zipfile, zlib and tokenize each have their own for a damaged file
        raise ConfigError(f"{path} is not a readable .npz: {error}", where=where) from error


def _check_labels(labels: Array | None, count: int, where: str) -> None:
    if labels is None:
        raise ConfigError("the split has no labels", where=where)
    if labels.ndim == 0 or len(labels) != count:
        raise ConfigError(f"{count} samples but {len(labels) if labels.ndim else 1} labels", where=where)
    if labels.ndim > 2 or (count and not labels.size):
        raise ConfigError(f"labels should be (N,) or (N, K), they are {labels.shape}", where=where)
    if labels.dtype.kind not in "iuf":
        raise ConfigError(f"labels should be numbers, they are {labels.dtype}", where=where)
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ConfigError("labels hold NaN or infinity", where=where)
    if labels.dtype.kind in "iu" and labels.size and labels.min() < 0:
        raise ConfigError(f"label {labels.min()} is negative", where=where)


def check_classes(split: Split, classes: int) -> None:
    """Check that class numbers fit a network with ``classes`` outputs.

    Raises:
        ConfigError: A label is out of range.
    """
    if split.labels is None or split.labels.dtype.kind not in "iu" or split.labels.ndim != 1:
        return
    highest = int(split.labels.max())
    if highest >= classes:
        index = int(split.labels.argmax())
        raise ConfigError(
            f"label {highest} of sample {index} is outside the network's {classes} outputs",
            where=f"data.{split.name}",
            fix="number the classes from 0, or correct the factory's arguments",
        )


def _check_disjoint(splits: Mapping[str, Split]) -> None:
    """No sample, byte for byte, may be in two splits."""
    owner: dict[bytes, str] = {}
    shared: dict[tuple[str, str], int] = {}
    for name, split in splits.items():
        contiguous = np.ascontiguousarray(split.samples)
        digests = {hashlib.blake2b(sample, digest_size=16).digest() for sample in contiguous}
        for digest in digests:
            first = owner.setdefault(digest, name)
            if first != name:
                shared[(first, name)] = shared.get((first, name), 0) + 1
    if shared:
        lines = [f"{count} samples are in both {first!r} and {second!r}" for (first, second), count in shared.items()]
        raise ConfigError(
            "the splits overlap: " + "; ".join(lines),
            where="data",
            fix="give every sample to one split; a number taken on seen samples proves nothing",
        )
