"""Made-up runs of two releases, for the tests of comparisons: one target with a float baseline and what ships."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt.compare import Release
from edgeopt.measure import Measurement
from edgeopt.protocol import Protocol
from edgeopt.record import ArtifactRecord, CandidateRecord, RecipeRecord, RunRecord, TargetRecord, VerdictRecord

PROTOCOL = Protocol(runtimes=("openvino 2026.4",))
MACHINE: Mapping[str, Any] = {"cpu": "EPYC", "flags": ["avx2"], "cores": 2, "system": "Linux 6.1"}
GATE = VerdictRecord("latency_p50_ms max", "latency_p50_ms", 3.0, 1.0, (0.9, 1.1), "pass", "why", "ms")


def measured(metric: str, value: float | None, interval: tuple[float | None, float | None] | None = None, **more: Any):
    fields: dict[str, Any] = {"unit": "1", "better": "lower", "n": 500, "method": "measured", "protocol": ""}
    return Measurement(metric=metric, value=value, interval=interval, machine="EPYC", **{**fields, **more})


def latency(value: float, metric: str = "latency_p50_ms", width: float = 0.01, protocol: Protocol = PROTOCOL):
    bounds = (value * (1 - width), value * (1 + width))
    return measured(metric, value, bounds, unit="ms", protocol=protocol.digest())


def top1(value: float, half: float = 0.005):
    return measured("top1", value, (value - half, value + half), better="higher")


def size(value: float):
    return measured("size_mib", value, unit="MiB", n=1)


def candidate(name: str, digest: str, *measurements: Measurement, baseline: bool = False) -> CandidateRecord:
    return CandidateRecord(
        id=name,
        runtime="openvino",
        precision="float" if baseline else "int8",
        pruned=not baseline,
        baseline=baseline,
        artifact=ArtifactRecord("openvino-model", digest, 0.8 if baseline else 0.2),
        measurements=measurements,
        selection=tuple(m for m in measurements if m.metric == "top1"),
    )


def target(*shipped: Measurement, digest: str = "s1", base: str = "b1", base_ms: float = 2.0) -> TargetRecord:
    """It ships ``int8``, and its float baseline ``float`` needs ``base_ms``."""
    noise = measured("latency_ratio_noise", 1.0, (0.99, 1.01), protocol=PROTOCOL.digest())
    return TargetRecord(
        shipped="int8",
        reason="fastest",
        candidates=(
            candidate("float", base, latency(base_ms), noise, baseline=True),
            candidate("int8", digest, *shipped),
        ),
        verdicts=(GATE,),
        machine=MACHINE,
        protocol={**PROTOCOL.identity(), "digest": PROTOCOL.digest()},
    )


def run(**targets: TargetRecord) -> RunRecord:
    return RunRecord(
        schema=1,
        outcome="pass",
        exit_code=0,
        started="2026-01-02T03:04:05+00:00",
        seconds=1.0,
        recipe=RecipeRecord("digits", "recipes/digits/recipe.yaml", "d" * 64),
        targets=targets,
        ledger=(),
        stages=(),
        provenance={"edgeopt": "0.1", "tools": {"openvino": "2026.4"}, "data": {"evaluate": "e1", "train": "t1"}},
    )


def release(record: RunRecord, samples: Mapping[str, Mapping[str, npt.NDArray[np.int64]]] | None = None) -> Release:
    return Release("build/digits", record, samples or {})


def pair(before: TargetRecord, after: TargetRecord) -> tuple[Release, Release]:
    """The same target in two runs; what ships has other bytes, as after a new training."""
    shipped = replace(after.candidates[1], artifact=replace(after.candidates[1].artifact, digest="s2"))
    return release(run(cpu=before)), release(run(cpu=replace(after, candidates=(after.candidates[0], shipped))))
