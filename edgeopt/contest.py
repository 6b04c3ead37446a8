"""The contest of a target's candidates: measure them together, choose what ships, judge its gates.

A latency gate, or a comparison that decides the choice, may straddle its limit. Then more sessions are timed, within
the target's budget and at an error rate that :mod:`edgeopt.sessions` keeps over all looks.

Where no device is at hand nothing is timed: the target's order of preference chooses, and a latency is what the
toolkit estimates, if it does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt import flip, footprint, measure, noise, placement, session, sessions, verdict
from edgeopt.access import Agent, Facts
from edgeopt.artifact import ASIDE, Artifact
from edgeopt.data import Split
from edgeopt.errors import StageError
from edgeopt.measure import Measurement, exact, missing
from edgeopt.placement import Placement
from edgeopt.plan import Candidate, TargetPlan
from edgeopt.protocol import Protocol
from edgeopt.record import ArtifactRecord, CandidateRecord, FlipRecord, TargetRecord, VerdictRecord
from edgeopt.sessions import Schedule, Sessions
from edgeopt.verdict import Choice, Contender, Gate

_INPUT_SAMPLES = 64
_VNNI_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})

Nanoseconds = npt.NDArray[np.int64]
#: All that is timed of a candidate.
Times = Callable[[Candidate], list[Measurement]]


@dataclass(frozen=True)
class Evaluated:
    """The artefacts of a candidate: compiled, its scores on both splits, and its parity with the float network."""

    compiled: Artifact
    select: Artifact
    evaluate: Artifact
    parity: Artifact | None = None


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
        noise: Folder where the noise floors are kept; None to keep none.
    """

    plan: TargetPlan
    private: bool
    seed: int
    splits: Mapping[str, Split]
    evaluated: Mapping[str, Evaluated]
    connect: Callable[[], Agent]
    progress: Callable[[float, float, str], None]
    noise: Path | None = None

    def run(self) -> tuple[TargetRecord, dict[str, Nanoseconds]]:
        """Measure, choose and judge.

        Returns:
            The record of the target, and the raw samples of every candidate: (rounds,) int64 ns, interleaved. There
            are none where no device is at hand.

        Raises:
            StageError: A candidate does not run, or the device is not what the target says.
        """
        return (self._untimed(), {}) if self.plan.target.device.access.none else self._timed()

    def _untimed(self) -> TargetRecord:
        """What is known without the device."""
        fixed = {candidate.id: self._unmeasured(candidate) for candidate in self.plan.candidates}
        contenders = [self._contender(candidate, 0.0) for candidate in self._by_preference()]
        choice = verdict.prefer(contenders, "nothing was timed")
        judged = self._judge(choice.shipped, fixed, _nothing)
        family = {"gates": len(judged), "level": 1 - sessions.LATENCY_LEVEL, "looks": 1}
        return self._target_record(choice, fixed, _nothing, judged, family=family)

    def _timed(self) -> tuple[TargetRecord, dict[str, Nanoseconds]]:
        facts = self._check_device()
        machine, inputs = str(facts.machine), self._inputs()
        protocol = self._protocol(facts, inputs)
        candidates = [self._on_device(candidate) for candidate in self.plan.candidates if candidate.ships]
        fixed = self._footprints(candidates, inputs, protocol, machine)
        schedule = Schedule.of(self.plan.target.measure.min_seconds, self.plan.target.measure.max_seconds)
        floor = noise.read(self.noise, machine, protocol.digest()) if self.noise else None
        timed = Sessions(candidates, protocol, schedule, machine, floor, self.plan.target.device.power_mode)

        def judge() -> tuple[Choice, tuple[VerdictRecord, ...]]:
            contenders = [self._contender(c, self._median_ms(c, timed)) for c in self.plan.candidates]
            if any(contender.ships and contender.rank == 0 for contender in contenders):
                choice = verdict.select(contenders, timed.ratio)
            else:
                fastest_first = sorted(contenders, key=lambda contender: contender.latency_ms)
                choice = verdict.prefer(fastest_first, "fastest first, and the device runs no float one")
            return choice, self._judge(choice.shipped, fixed, times)

        def times(candidate: Candidate) -> list[Measurement]:
            return self._times(candidate, timed)

        def decided() -> bool:
            choice, judged = judge()
            waiting = (v for v in judged if v.outcome in ("inconclusive", "not_measured"))
            return not choice.open and not any(v.metric.startswith("latency") for v in waiting)

        sessions.sample(self.connect, timed, inputs, seed=self.seed, decided=decided, progress=self.progress)
        choice, judged = judge()
        disturbed = timed.disturbed()
        record = self._target_record(
            choice,
            fixed,
            times,
            tuple(verdict.disturbed(v, disturbed) for v in judged),
            machine={**asdict(facts.machine), "python": facts.python, "runtimes": dict(facts.runtimes)},
            condition=timed.condition(),
            disturbed=disturbed,
            protocol=timed.described(),
            family={"gates": len(judged), "level": 1 - sessions.LATENCY_LEVEL, "looks": len(schedule.looks)},
        )
        return record, {candidate.name: timed.pace_ns(candidate.name) for candidate in candidates}

    def _target_record(
        self,
        choice: Choice,
        fixed: Mapping[str, list[Measurement]],
        times: Times,
        judged: tuple[VerdictRecord, ...],
        **more: Any,
    ) -> TargetRecord:
        flips = self._flips(choice.shipped)
        return TargetRecord(
            shipped=choice.shipped,
            reason=choice.reason,
            candidates=tuple(self._record(c, choice, fixed[c.id], times(c)) for c in self.plan.candidates),
            verdicts=judged,
            flips=flips[: flip.LISTED],
            flip_count=len(flips),
            **more,
        )

    # Without a device

    def _by_preference(self) -> list[Candidate]:
        """The candidates as the target prefers them, the float ones last."""
        order = self.plan.target.precision
        return sorted(
            self.plan.candidates,
            key=lambda c: (c.rank == 0, order.index(c.precision) if c.precision in order else len(order)),
        )

    def _unmeasured(self, candidate: Candidate) -> list[Measurement]:
        """What the toolkit says, and what nothing measures."""
        figures = {m.metric: m for m in self._figures(candidate.id)}
        base = {m.metric: m for m in self._figures(self._baselines()[candidate.id])}
        percentiles = sorted({50.0, 90.0, 99.0, float(self.plan.target.measure.percentile)})
        latency, why = figures.pop("latency_ms", None), "no device is at hand"
        found = [
            replace(latency, metric=name) if latency else missing(name, "ms", why)
            for name in (f"latency_p{percentile:g}_ms" for percentile in percentiles)
        ]
        ratio = missing("latency_ratio", "1", why)
        if latency and "latency_ms" in base:
            ratio = replace(_over(latency, base["latency_ms"]), metric="latency_ratio")
        unknown = [("peak_memory_mib", "MiB"), ("energy_mj", "mJ")]
        return [
            *found,
            ratio,
            *(missing(name, unit, why) for name, unit in unknown if name not in figures),
            *figures.values(),
            footprint.compressed_mib(self._files(candidate.id)),
        ]

    # Measuring

    def _protocol(self, facts: Facts, inputs: Sequence[npt.NDArray[Any]]) -> Protocol:
        target = self.plan.target
        return Protocol(
            runtimes=tuple(f"{name} {facts.runtimes.get(name, '')}".rstrip() for name in target.runtime),
            threads=target.measure.threads,
            batch=target.measure.batch,
            percentile=target.measure.percentile,
            min_runs=target.measure.min_runs,
            inputs=session.inputs_digest(inputs),
            **session.WARMUP,
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
        asked = self.plan.target.device.power_mode
        session.require_power_mode(asked, facts.machine.power_mode, where=str(self.plan.path))
        return facts

    def _inputs(self) -> list[npt.NDArray[Any]]:
        return [self.splits["evaluate"].samples[: max(_INPUT_SAMPLES, self.plan.target.measure.batch)]]

    def _on_device(self, candidate: Candidate) -> measure.Candidate:
        artifact = self.evaluated[candidate.id].compiled
        return measure.Candidate(candidate.id, candidate.runtime, str(artifact.path(artifact.meta["file"])))

    def _footprints(
        self,
        candidates: Sequence[measure.Candidate],
        inputs: Sequence[npt.NDArray[Any]],
        protocol: Protocol,
        machine: str,
    ) -> dict[str, list[Measurement]]:
        """Memory, energy and compressed size of every candidate."""
        batch = [array[: protocol.batch] for array in inputs]
        found: dict[str, list[Measurement]] = {}
        for candidate in candidates:
            self.progress(0, 0, f"memory of {candidate.name}")
            found[candidate.name] = footprint.memory(self.connect, candidate, batch, protocol, machine)
        self.progress(0, 0, "energy")
        rails = self.plan.target.device.rails
        for name, used in footprint.energy(
            self.connect, candidates, inputs, protocol, machine, self.seed, rails
        ).items():
            found[name] += [used, footprint.compressed_mib(self._files(name)), *self._figures(name)]
        for one in self.plan.candidates:
            if not one.ships:
                found[one.id] = [footprint.compressed_mib(self._files(one.id))]
        return found

    def _figures(self, candidate: str) -> list[Measurement]:
        """What the toolkit says of what it compiled."""
        return [_figure(one) for one in self.evaluated[candidate].compiled.meta.get("figures", ())]

    def _baselines(self) -> dict[str, str]:
        """Candidate -> the float baseline in its runtime."""
        of_runtime = {c.runtime: c.id for c in self.plan.candidates if c.rank == 0}
        return {c.id: of_runtime[c.runtime] for c in self.plan.candidates}

    # Judging

    def _median_ms(self, candidate: Candidate, timed: Sessions) -> float:
        return float(np.median(timed.pace_ns(candidate.id))) / 1e6 if candidate.ships else math.inf

    def _contender(self, candidate: Candidate, latency_ms: float) -> Contender:
        """It is chosen by what is known of it here, also if that is simulated: whether it may pass is for its gates."""
        accuracy = self._accuracy(candidate, "select")
        budgets = self._size(candidate)
        return Contender(
            id=candidate.id,
            rank=candidate.rank,
            runtime=candidate.runtime,
            latency_ms=latency_ms,
            accuracy=[
                verdict.decide(gate, accuracy.get(gate.measurement), ("simulated",))
                for gate in self.plan.selection_gates
            ],
            budgets=[self._decide(gate, budgets) for gate in self.plan.gates if gate.metric == "size_mib"],
            ships=candidate.ships,
        )

    def _judge(self, shipped: str, fixed: Mapping[str, list[Measurement]], times: Times) -> tuple[VerdictRecord, ...]:
        candidate = next(c for c in self.plan.candidates if c.id == shipped)
        base = {m.metric: m for m in fixed[self._baselines()[shipped]]}
        measured = [*fixed[shipped], *times(candidate)]
        accuracy = self._accuracy(candidate, "evaluate")
        broken = next((m for m in self._accuracy(candidate, "select").values() if m.broken), None)
        known = {
            **{name: broken or m for name, m in accuracy.items()},  # a network that gives NaN anywhere has no accuracy
            **self._size(candidate),
            **self._parity(candidate),
            **{m.metric: m for m in (*measured, *self._placements(shipped))},
            **{f"{m.metric} ratio": _over(m, base[m.metric]) for m in fixed[shipped] if m.metric in base},
        }
        judged = (self._decide(gate, known) for gate in self.plan.gates)
        on_select = self._contender(candidate, 0.0).accuracy if candidate.rank else ()
        return tuple(verdict.unselected(one, on_select) for one in judged)

    def _times(self, candidate: Candidate, timed: Sessions) -> list[Measurement]:
        """All that is measured in sessions."""
        if not candidate.ships:
            return []
        base, overhead = self._baselines()[candidate.id], timed.call_overhead(candidate.runtime)
        if base in {one.name for one in timed.candidates}:
            ratios = [timed.ratio(candidate.id, base), timed.ratio_p10(candidate.id, base)]
        else:
            why = "the device cannot run the float baseline"
            ratios = [missing(name, "1", why) for name in ("latency_ratio", "latency_ratio_p10")]
        return [
            *timed.measurements(candidate.id),
            *([overhead] if overhead else []),
            *ratios,
            *([timed.noise()] if candidate.id == timed.candidates[0].name else []),
        ]

    def _decide(self, gate: Gate, known: Mapping[str, Measurement]) -> VerdictRecord:
        return verdict.decide(gate, known.get(gate.measurement), self.plan.target.accept)

    def _accuracy(self, candidate: Candidate, split: str) -> dict[str, Measurement]:
        """Every metric on the split, and how far it dropped from the float baseline in the same runtime."""
        evaluated = self.evaluated[candidate.id]
        scores = evaluated.select if split == "select" else evaluated.evaluate
        return {name: Measurement.from_json(raw) for name, raw in scores.meta["metrics"].items()}

    def _parity(self, candidate: Candidate) -> dict[str, Measurement]:
        """How close its outputs are to those of the float network that it was made from."""
        artifact = self.evaluated[candidate.id].parity
        return {name: Measurement.from_json(raw) for name, raw in artifact.meta["metrics"].items()} if artifact else {}

    def _placed(self, candidate: str) -> Placement | None:
        found = self.evaluated[candidate].compiled.meta.get("placed")
        return Placement.from_json(found) if found else None

    def _placements(self, candidate: str) -> tuple[Measurement, ...]:
        """How much of it runs elsewhere than it should."""
        placed = self._placed(candidate)
        if placed is None:
            return tuple(missing(name, unit, "its layers are not known") for name, unit in placement.METRICS.items())
        found = placed.measurements()
        if not self.plan.target.device.access.none:
            return found
        told = "told by the toolkit, no device was asked"
        return tuple(replace(m, why=f"{m.why}; {told}" if m.why else told) if m.n else m for m in found)

    def _size(self, candidate: Candidate) -> dict[str, Measurement]:
        size = self._size_mib(candidate.id)
        base = self._size_mib(self._baselines()[candidate.id])
        return {
            "size_mib": exact("size_mib", size, "MiB"),
            "size_mib ratio": exact("size_mib ratio", size / base, "1"),
        }

    def _size_mib(self, candidate: str) -> float:
        return sum(file.stat().st_size for file in self._files(candidate)) / 2**20

    def _files(self, candidate: str) -> list[Path]:
        """What the device needs of a candidate."""
        artifact = self.evaluated[candidate].compiled
        kept = (name for name in artifact.files if name != "layer_map.json" and not name.startswith(f"{ASIDE}/"))
        return [artifact.path(name) for name in kept]

    def _flips(self, shipped: str) -> tuple[FlipRecord, ...]:
        """Samples that what ships decides otherwise than its float baseline."""
        before, after = self.evaluated[self._baselines()[shipped]], self.evaluated[shipped]
        return flip.flips(before.evaluate, after.evaluate, self.splits["evaluate"], private=self.private)

    def _record(
        self, candidate: Candidate, choice: Choice, fixed: list[Measurement], times: list[Measurement]
    ) -> CandidateRecord:
        artifact = self.evaluated[candidate.id].compiled
        roc = self.evaluated[candidate.id].evaluate.meta.get("roc", {})
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
                path=self.plan.target.name if candidate.id == choice.shipped else None,
            ),
            measurements=(
                *self._accuracy(candidate, "evaluate").values(),
                *self._parity(candidate).values(),
                *times,
                self._size(candidate)["size_mib"],
                *fixed,
                *self._placements(candidate.id),
            ),
            selection=tuple(self._accuracy(candidate, "select").values()),
            rejected=choice.rejected.get(candidate.id, ""),
            placement=artifact.meta.get("placement", {}),
            placed=self._placed(candidate.id),
            facts=artifact.meta.get("facts", {}),
            roc={name: tuple(values) for name, values in roc.items()},
        )


def _nothing(candidate: Candidate) -> list[Measurement]:
    return []


def _figure(told: Mapping[str, Any]) -> Measurement:
    """A :class:`edgeopt.backends.Figure`. Of a lower bound nothing is known above it, for certain."""
    figure = replace(exact(told["metric"], told["value"], told["unit"], told["why"]), method=told["method"])
    return replace(figure, interval=(figure.value, None), confidence=1.0) if told.get("at_least") else figure


def _over(measured: Measurement, base: Measurement) -> Measurement:
    """The ratio of two readings, without error bars unless one of them is only a bound."""
    ratio = replace(measured, metric=f"{measured.metric} ratio", value=None, interval=None, unit="1")
    if measured.value is None or not base.value:
        return ratio
    (low, high), (base_low, base_high) = (one.interval or (one.value, one.value) for one in (measured, base))
    bounds = _quotient(low, base_high), _quotient(high, base_low)
    return replace(ratio, value=measured.value / base.value, interval=bounds if None in bounds else None)


def _quotient(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None
