"""The run's folder, ``build/<recipe>/``: shipped artefacts, record, reports and samples, put in place at once.

Everything is written beside the old folder and swapped in at the end, so that an interrupted run leaves the earlier
results as they were.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt import report
from edgeopt.artifact import Artifact, digest_of, file_digest
from edgeopt.compare import Comparison, Release
from edgeopt.compare import load as load_comparison
from edgeopt.errors import ConfigError, StoreError
from edgeopt.record import CandidateRecord, RunRecord, TargetRecord, load

#: Target -> candidate -> (rounds,) int64 nanoseconds.
Samples = Mapping[str, Mapping[str, npt.NDArray[np.int64]]]

_RECORD = "run.json"
_COMPARISON = "comparison.json"
_FILES = ("events.jsonl", "samples", "report.md", "report.html", "junit.xml", _COMPARISON)
_MANIFEST = "manifest.json"
#: Swapping two folders takes far less.
_MOVING_SECONDS = 60.0
_NS_PER_MS = 1e6
#: A median that is read back differs by no more from the recorded one.
_ROUNDING = 1e-6


def check_folder(out: Path) -> None:
    """See before the work begins that the folder can be written and holds nothing but an earlier run.

    Raises:
        ConfigError: It cannot be created or written, or holds something else.
    """
    fix = "give another folder with --out"
    _restore(out)
    if out.exists() and (not out.is_dir() or (foreign := _foreign(out))):
        held = f": {', '.join(foreign[:5])}" if out.is_dir() else ""
        what = f"the output folder holds something that is not an earlier run{held}"
        raise ConfigError(what, where=str(out), fix=fix)
    if out.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise ConfigError("the output folder is replaced as a whole, and you are in it", where=str(out), fix=fix)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}."):
            pass
    except OSError as error:
        raise ConfigError(f"the output folder cannot be written: {error.strerror}", where=str(out), fix=fix) from error


def _restore(out: Path) -> None:
    """Put back an earlier run that a process had moved aside when it was killed, at least a minute ago."""
    with contextlib.suppress(OSError):  # then it stays where it is
        for aside in out.parent.glob(f".{out.name}.old.*"):
            if not out.exists() and time.time() - aside.stat().st_mtime > _MOVING_SECONDS:
                (aside / "run").rename(out)
                aside.rmdir()


def _foreign(out: Path) -> list[str]:
    """What in a folder is not of an earlier run, and would be lost if a new run replaced it."""
    known: set[str] = set()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # then it is no run of ours
        earlier = json.loads((out / _RECORD).read_bytes())
        known = {_RECORD, *_FILES, *earlier["targets"]} if "schema" in earlier else known
    return sorted(path.name for path in out.iterdir() if path.name not in known)


def publish(
    out: Path,
    record: RunRecord,
    artifacts: Mapping[str, Artifact],
    samples: Samples,
    events: Path | None = None,
    comparison: Comparison | None = None,
) -> None:
    """Write the folder of a run.

    Args:
        out: The folder; an earlier run in it is replaced.
        record: Whose shipped candidates carry the path of their folder, relative to ``out``.
        artifacts: Target -> the shipped artefact.
        samples: Raw latency samples.
        events: Event log to copy.
        comparison: With an earlier run.

    Raises:
        StoreError: The disk is full, or the folder cannot be written.
    """
    try:
        fresh = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        try:
            fresh.chmod(0o755)
            for target, artifact in artifacts.items():
                _copy_artifact(artifact, fresh / target, target, record)
            _write_samples(fresh / "samples", samples)
            if events:
                shutil.copyfile(events, fresh / "events.jsonl")
            for name, text in _reports(record, samples, comparison).items():
                _write(fresh / name, text)
            _write(fresh / _RECORD, record.to_json())
            _swap(fresh, out)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"cannot write the results: {error.strerror or error}", where=str(out)) from error


def render_again(run: Path, record: RunRecord, samples: Samples, comparison: Comparison | None = None) -> list[Path]:
    """Write the reports of a finished run anew, from its record; returns their paths.

    Args:
        run: The folder.
        record: Of the run.
        samples: Raw latency samples.
        comparison: With an earlier run. Without it, the one that the run has, if any.

    Raises:
        ConfigError: The run's own comparison is damaged.
        StoreError: The folder cannot be written.
    """
    if comparison is None and (run / _COMPARISON).exists():
        comparison = load_comparison(run / _COMPARISON)
    try:
        return [_write(run / name, text) for name, text in _reports(record, samples, comparison).items()]
    except OSError as error:
        raise StoreError(f"cannot write the reports: {error.strerror}", where=str(run)) from error


def read_run(path: Path) -> Release:
    """A finished run with its samples, given as its folder or its ``run.json``.

    Raises:
        ConfigError: It is not there, is no run, is damaged, or of another schema version.
    """
    loaded = load(path)
    folder = path if path.is_dir() else path.parent
    return Release(str(path), loaded, read_samples(folder, loaded))


def files(run: Path, record: RunRecord) -> list[Path]:
    """The files of a finished run, and nothing else that lies in its folder."""
    known = {_RECORD, *_FILES, *record.targets}
    parts = [part for part in run.iterdir() if part.name in known]
    return sorted(file for part in parts for file in (part, *part.rglob("*")) if file.is_file())


def read_samples(run: Path, record: RunRecord) -> dict[str, dict[str, npt.NDArray[np.int64]]]:
    """The raw latency samples of a run, of those candidates that have them.

    Raises:
        ConfigError: A file is damaged, or not of this run.
    """
    found: dict[str, dict[str, npt.NDArray[np.int64]]] = {}
    for target, entry in record.targets.items():
        for candidate in entry.candidates:
            file = run / "samples" / f"{target}.{candidate.id}.npy"
            if file.is_file():
                series = found.setdefault(target, {})[candidate.id] = _read_series(file)
                if why := _mismatch(series, entry, candidate):
                    raise ConfigError(f"the samples are damaged: {why}", where=str(file))
    return found


def _mismatch(series: npt.NDArray[np.int64], target: TargetRecord, candidate: CandidateRecord) -> str:
    """Why the samples cannot be those that the record was made of; empty if they can."""
    sessions, median = target.protocol.get("sessions"), candidate.measurement("latency_p50_ms")
    if sessions and len(series) != sum(sessions):
        return f"{len(series)} samples, and the record tells of {sum(sessions)}"
    if target.protocol.get("mode") != "latency" or median is None or median.value is None:
        return ""
    found_ms = float(np.quantile(series, 0.5, method="inverted_cdf")) / _NS_PER_MS
    if not math.isclose(found_ms, median.value, rel_tol=_ROUNDING):
        return f"their median is {found_ms:.6g} ms, and the record says {median.value:.6g} ms"
    return ""


def _read_series(file: Path) -> npt.NDArray[np.int64]:
    """Latencies, (n,) int64 ns."""
    try:
        series: npt.NDArray[np.int64] = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"the samples are damaged: {error}", where=str(file)) from error
    if (
        not isinstance(series, np.ndarray)
        or series.dtype != np.int64
        or series.ndim != 1
        or not len(series)
        or (series <= 0).any()
    ):
        raise ConfigError("the samples are damaged: not a series of positive int64 nanoseconds", where=str(file))
    return series


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a shipped artefact, every file verified.

    Raises:
        ConfigError: There is none, or a file is missing or differs.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_bytes())
        wrong = [name for name, digest in manifest["files"].items() if file_digest(folder / name) != digest]
        if digest_of({name: manifest[name] for name in ("kind", "files", "meta")}) != manifest["digest"]:
            wrong.append(_MANIFEST)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"no readable artefact: {error}", where=str(folder / _MANIFEST)) from error
    if wrong:
        what = f"changed since they were written: {', '.join(wrong)}"
        raise ConfigError(what, where=str(folder), fix="run `edgeopt compile` again")
    return manifest


def _copy_artifact(artifact: Artifact, folder: Path, target: str, record: RunRecord) -> None:
    folder.mkdir()
    for name in artifact.files:
        destination = folder / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(artifact.path(name), destination)
    entry = record.targets[target]
    manifest = {
        "manifest": 1,
        "target": target,
        "candidate": entry.shipped,
        "kind": artifact.kind,
        "digest": artifact.digest,
        "files": dict(artifact.files),
        "meta": dict(artifact.meta),
        "recipe": {name: value for name, value in asdict(record.recipe).items() if name != "values"},
        "verdicts": {verdict.gate: verdict.outcome for verdict in entry.verdicts},
        "waivers": [asdict(verdict.waiver) for verdict in entry.verdicts if verdict.waiver],
        "tools": record.provenance.get("tools", {}),
        "edgeopt": record.provenance.get("edgeopt", ""),
    }
    _write(folder / _MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def _write_samples(folder: Path, samples: Samples) -> None:
    folder.mkdir()
    for target, candidates in samples.items():
        for candidate, values in candidates.items():
            memory = io.BytesIO()  # numpy hides the reason why a file cannot be written
            np.save(memory, values, allow_pickle=False)
            (folder / f"{target}.{candidate}.npy").write_bytes(memory.getbuffer())


def _reports(record: RunRecord, samples: Samples, comparison: Comparison | None) -> dict[str, str]:
    """File name -> text."""
    texts = report.render_all(record, samples, comparison=comparison)
    return {**texts, _COMPARISON: comparison.to_json()} if comparison else texts


def _write(path: Path, text: str) -> Path:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        return Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _swap(fresh: Path, out: Path) -> None:
    if out.exists():
        old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.old."))
        out.rename(old / "run")
        try:
            fresh.rename(out)
        except OSError:
            (old / "run").rename(out)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        fresh.rename(out)
