"""The user's data: opened splits, their digests, and the checks that keep a wrong split out of a verdict."""

from __future__ import annotations

import hashlib
import itertools
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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
#: The column of an evaluation split that says which set a sample is of.
SET = "set"
#: The column of sample numbers that are to be compared, (P, 2): the only one that has not a row for each sample.
PAIRS = "pairs"
#: No value of this column may be in two of the splits that prove something.
IDENTITY = "identity"
_PROVING = ("calibrate", "select", "evaluate")


@dataclass(frozen=True)
class Split:
    """One split of the data, opened.

    Attributes:
        name: ``train``, ``calibrate``, ``select`` or ``evaluate``.
        samples: Raw samples as the device feeds them, (N, *raw shape), such as (N, H, W, C) uint8.
        labels: (N,) int64 class numbers, or float targets (N,) or (N, K); ``None`` for unlabelled calibration data, and
            where columns say what there is to know.
        digest: sha256 over the content, dtypes and shapes.
        columns: What else is known of every sample, (N, ...) each, such as ``identity`` or ``attack``; and ``pairs``.
    """

    name: str
    samples: Array
    labels: Array | None
    digest: str
    columns: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.samples)

    def batches(self, size: int) -> Iterator[tuple[Array, Array | None]]:
        """``(samples, labels)`` in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            stop = start + size
            yield self.samples[start:stop], None if self.labels is None else self.labels[start:stop]

    def sets(self) -> Mapping[str, Array]:
        """Name -> sample numbers of each evaluation set; one without a name if there are no sets."""
        if SET not in self.columns:
            return {"": np.arange(len(self))}
        names = self.columns[SET]
        return {str(name): np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())}

    def truth(self, rows: Array | None = None) -> dict[str, Array]:
        """All that is known of the samples by column, ``labels`` among them; of ``rows`` (M,) only, if given.

        Pairs are kept if both samples are among the rows, and are renumbered.
        """
        known = {**self.columns} if self.labels is None else {"labels": self.labels, **self.columns}
        if rows is None:
            return known
        place = np.full(len(self), -1)
        place[rows] = np.arange(len(rows))
        truth = {name: values[rows] for name, values in known.items() if name != PAIRS}
        if PAIRS in known:
            pairs = place[known[PAIRS]]
            truth[PAIRS] = pairs[(pairs >= 0).all(axis=1)]
        return truth


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
            sample with another split, or a person.
    """
    splits = {name: _open_split(name, getattr(spec, name), raw, root) for name in SPLITS}
    _check_disjoint(splits)
    _check_identities(splits)
    return splits


def _open_split(name: str, spec: SplitSpec, raw: RawSpec, root: Path) -> Split:
    if spec.sets is None:
        return _split(name, _open(name, spec, raw, root, f"data.{name}"))
    where = f"data.{name}.sets"
    parts = {key: _open(name, part, raw, root, f"{where}.{key}") for key, part in spec.sets.items()}
    first = next(iter(parts))
    for key, part in parts.items():
        if part.layout != parts[first].layout:
            raise ConfigError(
                f"{key!r} and {first!r} have not the same labels and columns: {part.layout} and {parts[first].layout}",
                where=where,
            )
    starts = np.cumsum([0, *(len(part.samples) for part in parts.values())])
    opened = list(parts.values())
    columns = {
        column: np.concatenate(
            [part.columns[column].astype(np.int64) + start for part, start in zip(opened, starts, strict=False)]
            if column == PAIRS
            else [part.columns[column] for part in opened]
        )
        for column in opened[0].columns
    }
    columns[SET] = np.repeat(list(parts), [len(part.samples) for part in opened])
    labels = (
        None
        if opened[0].labels is None
        else np.concatenate([part.labels for part in opened if part.labels is not None])
    )
    return _split(name, _Opened(np.concatenate([part.samples for part in opened]), labels, columns))


@dataclass(frozen=True)
class _Opened:
    """What a loader or a file holds."""

    samples: Array
    labels: Array | None
    columns: Mapping[str, Array]

    @property
    def layout(self) -> Mapping[str, str]:
        """Column -> what it holds of each sample, such as ``text`` or ``number (4,)``."""
        named = {} if self.labels is None else {"labels": self.labels}
        return {
            name: f"{'text' if values.dtype.kind == 'U' else 'number'} {values.shape[1:] or ''}".rstrip()
            for name, values in sorted({**named, **self.columns}.items())
        }


def _split(name: str, opened: _Opened) -> Split:
    digest = hashlib.sha256()
    named = [("", opened.samples), ("", opened.labels), *sorted(opened.columns.items())]
    for column, values in named:
        if values is not None:
            digest.update(f"{column}{values.dtype.str}{values.shape}".encode())
            digest.update(np.ascontiguousarray(values).data)
    return Split(name, opened.samples, opened.labels, digest.hexdigest(), opened.columns)


def _open(name: str, spec: SplitSpec, raw: RawSpec, root: Path, where: str) -> _Opened:
    opened = _from_loader(spec.loader, root, where) if spec.loader else _from_file(spec, root, where)
    samples, labels, columns = opened.samples, opened.labels, opened.columns
    if samples.ndim == 0:
        raise ConfigError("samples should be an array (N, ...), they are a single number", where=where)
    if labels is not None or (name in _LABELLED and not columns):
        _check_labels(labels, len(samples), where)
    _check_columns(columns, len(samples), where)
    if spec.samples is not None and spec.samples < len(samples):
        if PAIRS in columns:
            raise ConfigError("`samples` would tear pairs apart; shorten the pair list instead", where=where)
        chosen = np.linspace(0, len(samples) - 1, spec.samples).round().astype(np.int64)
        samples, labels = samples[chosen], None if labels is None else labels[chosen]
        columns = {column: values[chosen] for column, values in columns.items()}
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
    return _Opened(samples, labels, columns)


def _from_loader(loader: str, root: Path, where: str) -> _Opened:
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


def _arrays(loaded: Any) -> _Opened:
    if isinstance(loaded, tuple) and len(loaded) == 3 and isinstance(loaded[2], Mapping):
        columns = {str(name): _column(values) for name, values in loaded[2].items()}
        return _Opened(np.asarray(loaded[0]), None if loaded[1] is None else np.asarray(loaded[1]), columns)
    if isinstance(loaded, tuple) and len(loaded) == 2 and all(hasattr(part, "__array__") for part in loaded):
        return _Opened(np.asarray(loaded[0]), np.asarray(loaded[1]), {})
    pairs = [loaded[index] for index in range(len(loaded))]
    if not pairs:
        raise ValueError("it is empty")
    return _Opened(np.stack([np.asarray(sample) for sample, _ in pairs]), np.asarray([label for _, label in pairs]), {})


def _column(values: Any) -> Array:
    array = np.asarray(values)
    return array.astype(str) if array.dtype.kind == "O" and all(isinstance(value, str) for value in array) else array


def _from_file(spec: SplitSpec, root: Path, where: str) -> _Opened:
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
                arrays = {name: archive[name] for name in archive.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("an entry is no array")
        samples, labels = arrays.pop("samples"), arrays.pop("labels", None)
        columns = {
            name: array
            for name, array in arrays.items()
            if name in (PAIRS, IDENTITY) or array.shape[:1] == samples.shape[:1]
        }
        return _Opened(samples, labels, columns)
    except FileNotFoundError as error:
        raise ConfigError(f"no such file: {path}", where=where) from error
    except ConfigError:
        raise
    except Exception as error:  # numpy, zipfile, zlib and tokenize each have their own for a damaged file
        raise ConfigError(f"{path} is not a readable .npz: {error}", where=where) from error


def _check_columns(columns: Mapping[str, Array], count: int, where: str) -> None:
    for name, values in columns.items():
        if name in ("labels", SET):
            raise ConfigError(f"a column cannot be called {name!r}", where=where)
        if name == PAIRS:
            whole = values.ndim == 2 and values.shape[1] == 2 and values.dtype.kind in "iu"
            if not whole or (values.size and not 0 <= values.min() <= values.max() < count):
                raise ConfigError(f"'pairs' should be (P, 2) sample numbers below {count}", where=where)
        elif values.dtype.kind not in "iufUb" or values.ndim == 0 or len(values) != count:
            what = f"column {name!r} should have a number or text for each of {count} samples"
            raise ConfigError(f"{what}; it is {values.dtype} {list(values.shape)}", where=where)
        elif name == IDENTITY and values.ndim != 1:
            raise ConfigError(f"column {name!r} should be (N,), it is {list(values.shape)}", where=where)
        elif values.dtype.kind == "f" and not np.isfinite(values).all():
            first = int(np.flatnonzero(~np.isfinite(values.reshape(count, -1)).all(axis=1))[0])
            raise ConfigError(f"column {name!r} holds NaN or infinity, first at sample {first}", where=where)


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


def _check_identities(splits: Mapping[str, Split]) -> None:
    """No person may be in two of the splits that prove something: recognising a known face is no test.

    The messages name nobody: who is in the data is nobody's business.
    """
    people = {name: _people(splits[name].columns[IDENTITY]) for name in _PROVING if IDENTITY in splits[name].columns}
    without = [name for name in _PROVING if name not in people]
    if people and without:
        raise ConfigError(
            f"{' and '.join(people)} say who every sample is of, {' and '.join(without)} does not, so that nobody can "
            "see whether a person is in two of them",
            where=f"data.{without[0]}",
            fix=f"give it the column {IDENTITY!r} too",
        )
    lines = [
        f"{len(people[one] & people[other])} identities are in both {one!r} and {other!r}"
        for one, other in itertools.combinations(people, 2)
        if people[one] & people[other]
    ]
    if lines:
        raise ConfigError(
            "identities leak between the splits: " + "; ".join(lines),
            where="data",
            fix="give all samples of a person to one split",
        )


def _people(identities: Array) -> set[str]:
    """Who is there, whether numbered by integers, floats or text."""
    whole = identities.dtype.kind == "f" and (identities == np.floor(identities)).all()
    return set((identities.astype(np.int64) if whole else identities).astype(str).tolist())


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
