"""The contest of a target's candidates: measure them together, choose what ships, judge its gates.

A latency gate, or a comparison that decides the choice, may straddle its limit. Then more rounds are timed, at most
:data:`LOOKS` times within the target's budget. Every look uses the confidence ``1 - 0.05 / LOOKS``, so that by the
union bound (Bonferroni) the chance that any look misleads stays at 5 %.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt import flip, measure, verdict
from edgeopt.access import Agent, Facts
from edgeopt.artifact import Artifact
from edgeopt.data import Split
from edgeopt.errors import StageError
from edgeopt.measure import Measurement
from edgeopt.plan import Candidate, TargetPlan
from edgeopt.protocol import Protocol
from edgeopt.record import ArtifactRecord, CandidateRecord, FlipRecord, TargetRecord, VerdictRecord
from edgeopt.verdict import Contender, Gate

LOOKS = 3
_LATENCY_CONFIDENCE = 1 - 0.05 / LOOKS
_INPUT_SAMPLES = 64
_VNNI_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})

Nanoseconds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Evaluated:
    """The artefacts of a candidate: compiled, and its scores on both splits."""

    compiled: Artifact
    select: Artifact
    evaluate: Artifact


@dataclass
class Contest:
    """One target's candidates.

    Attributes:
        plan: Target, gates and candidates.
        private: No sample may appear in the record.
        splits: The opened data; inputs for timing come from ``evaluate``.
        evaluated: Candidate -> its artefacts.
        connect: Starts a fresh agent on the device.
        progress: ``(seconds done, seconds in all, note)``.
    """

    plan: TargetPlan
    private: bool
    seed: int
    splits: Mapping[str, Split]
    evaluated: Mapping[str, Evaluated]
    connect: Callable[[], Agent]
    progress: Callable[[float, float, str], None]
    _samples: dict[str, Nanoseconds] = field(default_factory=dict)
    _latency: dict[str, list[Measurement]] = field(default_factory=dict)
    _ratios: dict[tuple[str, str], Measurement] = field(default_factory=dict)
    _machine: str = ""

    def run(self) -> tuple[TargetRecord, dict[str, Nanoseconds]]:
        """Measure, choose and judge.

        Returns:
            The record of the target, and the raw samples of every candidate: (rounds,) int64 ns, interleaved.

        Raises:
            StageError: A candidate does not run, or the device is not what the target says.
        """
        facts = self._check_device()
        self._machine = str(facts.machine)
        memory = {candidate.id: self._memory(candidate) for candidate in self.plan.candidates}
        spec = self.plan.target.measure
        spent = 0.0
        for look in range(1, LOOKS + 1):
            self._time(look)
            spent += spec.min_seconds
            choice = verdict.select([self._contender(c) for c in self.plan.candidates], self._ratio)
            judged = self._judge(choice.shipped, memory)
            waiting = choice.open or any(
                v.outcome in ("inconclusive", "not_measured") and v.metric.startswith("latency") for v in judged
            )
            if not waiting or spent >= spec.max_seconds:
                break
        candidates = tuple(
            self._record(candidate, memory[candidate.id], choice.rejected.get(candidate.id, ""), choice.shipped)
            for candidate in self.plan.candidates
        )
        flips = self._flips(choice.shipped)
        record = TargetRecord(
            shipped=choice.shipped,
            reason=choice.reason,
            candidates=candidates,
            verdicts=judged,
            flips=flips[: flip.LISTED],
            flip_count=len(flips),
            machine={**asdict(facts.machine), "python": facts.python, "runtimes": dict(facts.runtimes)},
            protocol={**asdict(self._protocol()), "digest": self._protocol().digest(), "looks": look},
        )
        return record, self._samples

    # Measuring

    def _protocol(self) -> Protocol:
        target, count = self.plan.target, len(self.plan.candidates) + 1
        return Protocol(
            runtimes=target.runtime,
            threads=target.measure.threads,
            batch=target.measure.batch,
            percentile=target.measure.percentile,
            confidence=_LATENCY_CONFIDENCE,
            min_seconds=target.measure.min_seconds * count,
            min_runs=target.measure.min_runs,
            max_seconds=max(target.measure.max_seconds, target.measure.min_seconds) * count,
        )

    def _check_device(self) -> Facts:
        """Facts of the device; the features that the target claims must be there, for INT8 files were made for them."""
        with self.connect() as agent:
            facts = agent.probe()
        flags = set(facts.machine.flags)
        if "vnni" in self.plan.target.device.features and not flags & _VNNI_FLAGS:
            raise StageError(
                "the target says that the device has VNNI, but the device does not report it",
                where=str(self.plan.path),
                fix="remove `vnni` from device.features: full-range INT8 weights saturate without it",
            )
        return facts

    def _inputs(self) -> list[npt.NDArray[Any]]:
        return [self.splits["evaluate"].samples[: max(_INPUT_SAMPLES, self.plan.target.measure.batch)]]

    def _on_device(self, candidate: Candidate) -> measure.Candidate:
        artifact = self.evaluated[candidate.id].compiled
        return measure.Candidate(candidate.id, candidate.runtime, str(artifact.path(artifact.meta["file"])))

    def _memory(self, candidate: Candidate) -> Measurement:
        self.progress(0, 0, f"memory of {candidate.id}")
        inputs = [array[: self.plan.target.measure.batch] for array in self._inputs()]
        return measure.peak_memory_mib(
            self.connect, self._on_device(candidate), inputs, self._protocol(), self._machine
        )

    def _time(self, look: int) -> None:
        """Time all candidates once more, in a fresh agent, and take the latencies over all rounds so far."""
        protocol = self._protocol()
        note = f"look {look} of at most {LOOKS}"
        with self.connect() as agent:
            timed = measure.measure(
                agent,
                [self._on_device(candidate) for candidate in self.plan.candidates],
                self._inputs(),
                protocol,
                self._baselines(),
                machine=self._machine,
                seed=self.seed + look,
                earlier=self._samples,
                progress=lambda report: self.progress(report["seconds"], protocol.min_seconds, note),
            )
        self._ratios.clear()
        for name, result in timed.items():
            self._samples[name], self._latency[name] = result.samples_ns, result.measurements

    def _baselines(self) -> dict[str, str]:
        """Candidate -> the float baseline in its runtime."""
        of_runtime = {c.runtime: c.id for c in self.plan.candidates if c.rank == 0}
        return {c.id: of_runtime[c.runtime] for c in self.plan.candidates}

    def _ratio(self, first: str, second: str) -> Measurement:
        """The more cautious of the ratios by median and by low quantile: the one with the higher upper bound."""
        if (first, second) not in self._ratios:
            protocol = self._protocol()
            ratios = measure.compare(self._samples[first], self._samples[second], protocol, self._machine, self.seed)
            self._ratios[first, second] = max(ratios, key=_upper_bound)
        return self._ratios[first, second]

    # Judging

    def _contender(self, candidate: Candidate) -> Contender:
        accuracy = self._accuracy(candidate, "select")
        budgets = self._size(candidate)
        return Contender(
            id=candidate.id,
            rank=candidate.rank,
            runtime=candidate.runtime,
            latency_ms=float(np.median(self._samples[candidate.id])) / 1e6,
            accuracy=[self._decide(gate, accuracy) for gate in self.plan.selection_gates],
            budgets=[self._decide(gate, budgets) for gate in self.plan.gates if gate.metric == "size_mib"],
        )

    def _judge(self, shipped: str, memory: Mapping[str, Measurement]) -> tuple[VerdictRecord, ...]:
        candidate = next(c for c in self.plan.candidates if c.id == shipped)
        known = {
            **self._accuracy(candidate, "evaluate"),
            **self._size(candidate),
            **self._memory_numbers(candidate, memory),
            **{m.metric: m for m in self._latency[shipped]},
        }
        return tuple(self._decide(gate, known) for gate in self.plan.gates)

    def _decide(self, gate: Gate, known: Mapping[str, Measurement]) -> VerdictRecord:
        return verdict.decide(gate, known.get(gate.measurement), self.plan.target.accept)

    def _accuracy(self, candidate: Candidate, split: str) -> dict[str, Measurement]:
        """Every metric on the split, and how far it dropped from the float baseline in the same runtime."""
        evaluated = self.evaluated[candidate.id]
        scores = evaluated.select if split == "select" else evaluated.evaluate
        return {name: Measurement.from_json(raw) for name, raw in scores.meta["metrics"].items()}

    def _size(self, candidate: Candidate) -> dict[str, Measurement]:
        size = self._size_mib(candidate.id)
        base = self._size_mib(self._baselines()[candidate.id])
        return {
            "size_mib": _exact("size_mib", size, "MiB"),
            "size_mib ratio": _exact("size_mib ratio", size / base, "1"),
        }

    def _size_mib(self, candidate: str) -> float:
        """Size of the files that the device needs, in MiB."""
        artifact = self.evaluated[candidate].compiled
        return sum(artifact.path(n).stat().st_size for n in artifact.files if n != "layer_map.json") / 2**20

    def _memory_numbers(self, candidate: Candidate, memory: Mapping[str, Measurement]) -> dict[str, Measurement]:
        peak, base = memory[candidate.id], memory[self._baselines()[candidate.id]]
        known = {peak.metric: peak}
        if peak.value is not None and base.value:
            name = f"{peak.metric} ratio"
            known[name] = replace(peak, metric=name, value=peak.value / base.value, unit="1")
        return known

    def _flips(self, shipped: str) -> tuple[FlipRecord, ...]:
        """Samples that what ships decides otherwise than its float baseline."""
        before, after = self.evaluated[self._baselines()[shipped]], self.evaluated[shipped]
        return flip.flips(before.evaluate, after.evaluate, self.splits["evaluate"], private=self.private)

    def _record(self, candidate: Candidate, memory: Measurement, rejected: str, shipped: str) -> CandidateRecord:
        artifact = self.evaluated[candidate.id].compiled
        return CandidateRecord(
            id=candidate.id,
            runtime=candidate.runtime,
            precision=candidate.precision,
            pruned=candidate.pruned,
            baseline=candidate.rank == 0,
            artifact=ArtifactRecord(
                kind=artifact.kind,
                digest=artifact.digest,
                size_mib=self._size_mib(candidate.id),
                path=self.plan.target.name if candidate.id == shipped else None,
            ),
            measurements=(
                *self._accuracy(candidate, "evaluate").values(),
                *self._latency[candidate.id],
                memory,
                self._size(candidate)["size_mib"],
            ),
            selection=tuple(self._accuracy(candidate, "select").values()),
            rejected=rejected,
            placement=artifact.meta.get("placement", {}),
        )


def _upper_bound(ratio: Measurement) -> float:
    high = ratio.interval[1] if ratio.interval else None
    return np.inf if high is None else high


def _exact(name: str, value: float, unit: str) -> Measurement:
    return Measurement(
        metric=name,
        value=value,
        unit=unit,
        better="lower",
        interval=None,
        n=1,
        method="measured",
        protocol="",
        machine="",
    )
