"""What a benchmark found, as data, and its folder: ``bench.json`` and the raw samples."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeopt.errors import ConfigError, StoreError
from edgeopt.measure import Measurement

SCHEMA = 1
_RECORD = "bench.json"

Samples = Mapping[str, npt.NDArray[np.int64]]


@dataclass(frozen=True)
class FileRecord:
    """A file that was timed; ``digest`` is the sha256 over all that the device needs of it.

    ``problem`` says why its speed means nothing, such as outputs that are not finite; empty if nothing is known.
    """

    name: str
    path: str
    runtime: str
    digest: str
    measurements: tuple[Measurement, ...]
    problem: str = ""

    def measurement(self, metric: str) -> Measurement | None:
        """The measurement of ``metric``, ``None`` if there is none."""
        return next((m for m in self.measurements if m.metric == metric), None)


@dataclass(frozen=True)
class OutputsRecord:
    """How far the outputs of two files lie apart on the same inputs.

    Attributes:
        max_difference: The largest absolute difference; None if they cannot be compared, ``why`` then says why.
        max_value: The largest absolute value of the second file's outputs.
    """

    max_difference: float | None
    max_value: float | None
    why: str = ""


@dataclass(frozen=True)
class ComparisonRecord:
    """One file against another.

    Attributes:
        first, second: Names; ``second`` is the reference.
        stored: Whether the reference was timed earlier, and not together with the first.
        outcome: Of the first: ``faster``, ``slower``, ``same`` (no difference beyond the smallest effect) or
            ``undecided``.
        ratio, ratio_p10: Latency of the first over that of the second: of medians and of 10 % quantiles.
        smallest_effect: The relative difference below which none is called one.
        outputs: None for a stored reference.
        why: One sentence.
    """

    first: str
    second: str
    stored: bool
    outcome: Literal["faster", "slower", "same", "undecided"]
    ratio: Measurement
    ratio_p10: Measurement | None
    smallest_effect: float
    outputs: OutputsRecord | None
    why: str


@dataclass(frozen=True)
class BenchRecord:
    """Everything that one ``edgeopt bench`` did; ``answer`` is the result in a sentence.

    Machine, condition, disturbed and protocol are as in a run's record.
    """

    schema: int
    edgeopt: str
    started: str
    seconds: float
    target: str
    answer: str
    files: tuple[FileRecord, ...]
    comparisons: tuple[ComparisonRecord, ...]
    noise: Measurement
    machine: Mapping[str, Any] = field(default_factory=dict)
    condition: Mapping[str, Any] = field(default_factory=dict)
    disturbed: tuple[str, ...] = ()
    protocol: Mapping[str, Any] = field(default_factory=dict)

    @property
    def undecided(self) -> bool:
        """Whether a comparison is open, or a file does not work, so that its speed means nothing."""
        return any(c.outcome == "undecided" for c in self.comparisons) or any(file.problem for file in self.files)

    def to_json(self) -> str:
        """Indented JSON."""
        import pydantic

        text: bytes = pydantic.TypeAdapter(BenchRecord).dump_json(self, indent=1)
        return text.decode() + "\n"


def is_bench(path: Path) -> bool:
    """Whether it is the folder, or the ``bench.json``, of a benchmark."""
    return path.name == _RECORD or (path / _RECORD).is_file()


def load(path: Path) -> tuple[BenchRecord, dict[str, npt.NDArray[np.int64]]]:
    """A saved benchmark and its samples by the name of the file.

    Raises:
        ConfigError: It is missing, damaged, or of another schema version.
    """
    import pydantic

    file = path / _RECORD if path.is_dir() else path
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if raw["schema"] != SCHEMA:
            what = f"the benchmark has schema {raw['schema']!r}, written by edgeopt {raw.get('edgeopt', '?')}"
            raise ConfigError(what, where=str(file), fix=f"this edgeopt reads schema {SCHEMA}; measure again")
        record = pydantic.TypeAdapter(BenchRecord).validate_python(raw)
        samples = {
            entry.name: np.load(_samples(file.parent, index), allow_pickle=False)
            for index, entry in enumerate(record.files)
        }
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"no readable benchmark: {first}", where=str(file)) from error
    return record, samples


def check_folder(folder: Path) -> None:
    """See before the work begins that a benchmark can be saved there.

    Raises:
        ConfigError: The folder holds something that is no benchmark, or cannot be written.
    """
    if folder.exists() and not is_bench(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError("the folder holds something that is no earlier benchmark", where=str(folder))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}."):
            pass
    except OSError as error:
        raise ConfigError(f"the folder cannot be written: {error.strerror}", where=str(folder)) from error


def save(folder: Path, record: BenchRecord, samples: Samples) -> None:
    """Write the folder as a whole; an earlier benchmark in it is replaced.

    Raises:
        StoreError: The disk is full, or the folder cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
            fresh = Path(scratch) / "fresh"
            (fresh / "samples").mkdir(parents=True)
            for index, entry in enumerate(record.files):
                np.save(_samples(fresh, index), samples[entry.name], allow_pickle=False)
            (fresh / _RECORD).write_text(record.to_json(), encoding="utf-8")
            if folder.exists():
                folder.rename(Path(scratch) / "earlier")
            fresh.rename(folder)
            shutil.rmtree(Path(scratch) / "earlier", ignore_errors=True)
    except OSError as error:
        raise StoreError(f"cannot save the benchmark: {error.strerror or error}", where=str(folder)) from error


def _samples(folder: Path, index: int) -> Path:
    return folder / "samples" / f"{index}.npy"
