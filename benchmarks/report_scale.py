"""How long a large report takes and how large it gets: 20 targets × 10 gates × 100,000 samples of every candidate."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.frame import ROOT, Claim, Options, Result, Row, main
from edgeopt.measure import Measurement
from edgeopt.record import (
    ArtifactRecord,
    CandidateRecord,
    FlipRecord,
    LedgerRecord,
    RecipeRecord,
    RunRecord,
    StageRecord,
    TargetRecord,
    VerdictRecord,
)

_TARGETS, _GATES, _SAMPLES, _FLIPS = 20, 10, 100_000, 48
_CANDIDATES = (2, 4)  # float and shipped; and what a recipe with pruning and INT8 has
_SHARED = ("trained", "pruned", "distilled", "exported")


def report_scale(options: Options) -> Result:
    """Renders each run in processes of their own, as `edgeopt report` does; the slowest counts."""
    rows: list[Row] = []
    for candidates in _CANDIDATES:
        for repetition in range(2 if options.quick else 5):
            command = [sys.executable, "-m", "benchmarks.report_scale", "--render", str(candidates)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            rows.append({"candidates": candidates, "repetition": repetition + 1, **json.loads(done.stdout)})
    claims = []
    for candidates in _CANDIDATES:
        mine = [row for row in rows if row["candidates"] == candidates]
        what = f"{_TARGETS} targets × {_GATES} gates × {candidates} candidates × {_SAMPLES} samples"
        claims += [
            Claim(f"seconds to render all reports of {what}", max(float(row["seconds"] or 0) for row in mine), 5.0),
            Claim(f"MB of report.html of {what}", max(float(row["html_mb"] or 0) for row in mine), 5.0),
        ]
    return Result(claims, rows)


def render(candidates: int) -> dict[str, float | int]:
    """Makes up a run, renders its reports and says what that took; making it up is not counted."""
    from time import perf_counter, process_time

    run, samples = _run(candidates), _samples(candidates)
    began, cpu_began = perf_counter(), process_time()
    from edgeopt import report  # loading the plotting library is part of the work

    texts = report.render_all(run, samples)
    return {
        "seconds": perf_counter() - began,
        "cpu_s": process_time() - cpu_began,
        "html_mb": len(texts["report.html"].encode()) / 1e6,
        "markdown_mb": len(texts["report.md"].encode()) / 1e6,
        "charts": texts["report.html"].count("<svg"),
    }


def _run(candidates: int) -> RunRecord:
    names = [f"board-{n:02}" for n in range(_TARGETS)]
    ledger = [_point(stage, metric, 0.99 - 0.001 * i) for metric in _metrics() for i, stage in enumerate(_SHARED)]
    ledger += [
        _point("compiled", metric, 0.985 - 0.0001 * n - 0.0002 * c, target=name, runtime="openvino", candidate=_id(c))
        for n, name in enumerate(names)
        for metric in _metrics()
        for c in range(candidates)
    ]
    return RunRecord(
        schema=1,
        outcome="fail",
        exit_code=1,
        started="2026-11-02T10:11:12+00:00",
        seconds=3600.0,
        recipe=RecipeRecord("scale", "scale/recipe.yaml", "cd" * 32),
        targets={name: _target(n, candidates) for n, name in enumerate(names)},
        ledger=tuple(ledger),
        stages=tuple(
            StageRecord(f"{stage}:{name}", stage, "ab" * 32, True, 12.3, "cd" * 32, "nothing has changed", "16 of 16")
            for name in names
            for stage in ("quantize", "compile", "evaluate", "measure")
        ),
        provenance={"edgeopt": "0", "tools": {f"tool{i}": "1.2.3" for i in range(12)}},
    )


def _target(number: int, candidates: int) -> TargetRecord:
    gates = [
        VerdictRecord(
            f"{metric} min", metric, 0.97, 0.985, (0.975, 0.992), "fail" if number % 7 == 3 and i == 0 else "pass",
            "the whole interval is at or above 0.97", "1", 0.95,
        )
        for i, metric in enumerate(_metrics())
    ]  # fmt: skip
    for metric, limit in (("latency_p99_ms", 3.0), ("latency_ratio", 0.8)):
        gates.append(VerdictRecord(f"{metric} max", metric, limit, 0.6, (0.58, 0.63), "pass", "all below", "ms", 0.98))
    image = f"data:image/png;base64,{'A' * 2000}"
    return TargetRecord(
        shipped=_id(candidates - 1),
        reason="fastest candidate whose accuracy holds; 0.385× the latency [0.374, 0.397] of its float baseline",
        candidates=tuple(_candidate(c, candidates) for c in range(candidates)),
        verdicts=tuple(gates),
        machine={"cpu": "board", "flags": [f"flag{i}" for i in range(120)], "cores": 4, "memory_mib": 8192},
        condition={when: {"load": 0.1, "frequency_mhz": [2400.0] * 8} for when in ("before", "after")},
        protocol={"threads": 1, "batch": 1, "min_seconds": 10.0, "looks": 3, "digest": "ef" * 32},
        family={"gates": _GATES, "level": 0.95, "looks": 3},
        flips=tuple(FlipRecord(i, "3", "3", "8", "before", image) for i in range(_FLIPS)),
        flip_count=_FLIPS,
    )


def _candidate(index: int, candidates: int) -> CandidateRecord:
    p50_ms = _median_ms(index)
    ships = index == candidates - 1
    return CandidateRecord(
        id=_id(index),
        runtime="openvino",
        precision="int8" if ships else "float",
        pruned=index > 0,
        baseline=index == 0,
        artifact=ArtifactRecord("openvino-ir", "ab" * 32, 0.5),
        measurements=(
            *(_measured(metric, 0.985 - 0.002 * index, "1", "higher") for metric in _metrics()),
            *(_measured(f"latency_p{p}_ms", p50_ms * (1 + p / 200), "ms", "lower") for p in (50, 90, 99)),
            _measured("latency_ratio", p50_ms, "1", "lower"),
            _measured("size_mib", 0.5, "MiB", "lower"),
            _measured("peak_memory_mib", 95.0, "MiB", "lower"),
        ),
        selection=tuple(_measured(metric, 0.99, "1", "higher") for metric in _metrics()),
        rejected="" if ships else "another candidate is faster: 0.663× the latency [0.650, 0.681]",
        placement={"i8": 14, "f32": 5},
    )


def _metrics() -> list[str]:
    return [f"metric{i}" for i in range(_GATES - 2)]


def _id(index: int) -> str:
    return f"openvino-variant-{index}"


def _median_ms(index: int) -> float:
    return 1.0 - 0.2 * index


def _measured(metric: str, value: float, unit: str, better: Any) -> Measurement:
    interval = (value * 0.98, value * 1.01)
    return Measurement(metric, value, unit, better, interval, _SAMPLES, "measured", "ef" * 32, "board")


def _point(stage: str, metric: str, value: float, **place: str) -> LedgerRecord:
    return LedgerRecord(stage, metric, value, (value - 0.005, value + 0.004), **place)


def _samples(candidates: int) -> dict[str, dict[str, npt.NDArray[np.int64]]]:
    """Latencies of every candidate of every target, (100000,) int64 ns, with a tail."""
    generator = np.random.default_rng(0)
    return {
        f"board-{n:02}": {
            _id(c): (_median_ms(c) * 1e6 * generator.lognormal(0, 0.1, _SAMPLES)).astype(np.int64)
            for c in range(candidates)
        }
        for n in range(_TARGETS)
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--render"]:
        print(json.dumps(render(int(sys.argv[2]))))
    else:
        main("report_scale", __doc__ or "", report_scale)
