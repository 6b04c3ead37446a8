"""What the digits recipe reaches: the shipped artefact of each target against its own float baseline.

One `edgeopt compile`, then unchanged re-runs, which make every measurement anew in fresh processes. Speed is the ratio
of medians of the interleaved rounds, float baseline over candidate. Accuracy is that of the 599 images of ``evaluate``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.commands import FINISHED, compile_command, record, say, spend
from benchmarks.frame import Claim, Options, Result, Row, main

_TARGETS = ("cpu-openvino", "cpu-onnxruntime")


def digits(options: Options) -> Result:
    """Claims on what ships, rows on every candidate."""
    only = [argument for target in _TARGETS for argument in ("--target", target)]
    records = []
    with TemporaryDirectory(prefix="edgeopt-digits-") as temporary:
        folder = Path(temporary)
        for number in range(3 if options.quick else 10):
            say(f"digits: run {number + 1}")
            spend(compile_command(options.data, folder, *only), allowed=FINISHED)
            records.append(record(folder))
    rows: list[Row] = []
    claims: list[Claim] = []
    for name in _TARGETS:
        runs = [run["targets"][name] for run in records]
        rows += [_row(name, candidate["id"], runs) for candidate in runs[0]["candidates"]]
        shipped = [_candidate(run, run["shipped"]) for run in runs]
        claims += [
            Claim(f"{name}: shipped artefact faster than its float baseline, times", _speed(shipped), 1.5, "at least"),
            Claim(f"{name}: top-1 lost on evaluate, as a share of all images", _drop(shipped), 0.01),
        ]
    return Result(claims, rows)


def _row(target: str, candidate: str, runs: Sequence[Mapping[str, Any]]) -> Row:
    """One candidate over all runs. Its interval of speed reaches from the lowest lower to the highest upper bound."""
    seen = [_candidate(run, candidate) for run in runs]
    ratios = [_measurement(one, "latency_ratio") for one in seen]
    drop = _measurement(seen[0], "top1 drop")
    p99_ms = (_measurement(one, "latency_p99_ms")["value"] for one in seen)
    known = [value for value in p99_ms if value is not None]  # some runs have too few samples for it
    return {
        "target": target,
        "candidate": candidate,
        "shipped": f"{sum(run['shipped'] == candidate for run in runs)} of {len(runs)}",
        "speed": median(1 / ratio["value"] for ratio in ratios),
        "speed_slowest_run": min(1 / ratio["value"] for ratio in ratios),
        "speed_fastest_run": max(1 / ratio["value"] for ratio in ratios),
        "speed_low": min(1 / ratio["interval"][1] for ratio in ratios),
        "speed_high": max(1 / ratio["interval"][0] for ratio in ratios),
        "p50_ms": median(_measurement(one, "latency_p50_ms")["value"] for one in seen),
        "p99_ms": median(known) if known else None,
        "top1": _measurement(seen[0], "top1")["value"],
        "top1_drop": drop["value"],
        "top1_drop_low": drop["interval"][0],
        "top1_drop_high": drop["interval"][1],
        "size_mib": _measurement(seen[0], "size_mib")["value"],
    }


def _speed(shipped: Sequence[Mapping[str, Any]]) -> float:
    return median(1 / _measurement(candidate, "latency_ratio")["value"] for candidate in shipped)


def _drop(shipped: Sequence[Mapping[str, Any]]) -> float:
    """The largest, in case not all runs shipped the same candidate."""
    return max(_measurement(candidate, "top1 drop")["value"] for candidate in shipped)


def _candidate(run: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(one for one in run["candidates"] if one["id"] == name)
    return found


def _measurement(candidate: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(one for one in candidate["measurements"] if one["metric"] == metric)
    return found


if __name__ == "__main__":
    main("digits", __doc__ or "", digits)
