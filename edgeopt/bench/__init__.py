"""Timing any artefacts against each other, ours or not, with the rigour of a run: ``edgeopt bench``.

files   which runtime a file is for, and what it is fed
against what an earlier benchmark or run measured
record  what was found, as data and as a folder
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeopt import __version__, footprint, noise, session, sessions
from edgeopt.access import Agent, Facts, Opened
from edgeopt.artifact import digest_of, file_digest
from edgeopt.bench.against import Reference
from edgeopt.bench.files import Arrays, Artefact, random_inputs, read_inputs
from edgeopt.bench_record import SCHEMA, BenchRecord, ComparisonRecord, FileRecord, OutputsRecord
from edgeopt.errors import MissingBackend, StageError
from edgeopt.measure import Candidate, Measurement, bounded, exact
from edgeopt.protocol import FOUND, Protocol, require_equal, require_same_machine
from edgeopt.sessions import Schedule, Sessions
from edgeopt.statistics import Estimate, independent_session_ratio
from edgeopt.target import Target

Mode = Literal["latency", "throughput"]

#: two runs at different times have to lie this far apart to be called different: the machine is not the same
_ACROSS_RUNS = 0.05
_SEED = 0
_NOT_FINITE = "its outputs hold NaN or infinity"


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        artefacts: The first is what the others are compared with.
        target: Device and measuring protocol.
        mode: ``throughput`` keeps as many inferences in flight as the device has cores for.
        inputs: ``.npz`` file; random numbers if None.
        reference: What an earlier benchmark or run measured.
    """

    artefacts: Sequence[Artefact]
    target: Target
    mode: Mode = "latency"
    inputs: Path | None = None
    reference: Reference | None = None


def run(
    question: Question,
    connect: Callable[[], Agent],
    *,
    noise_folder: Path | None = None,
    progress: sessions.Progress | None = None,
) -> tuple[BenchRecord, dict[str, npt.NDArray[np.int64]]]:
    """Measure and compare.

    Args:
        question: What is asked.
        connect: Starts a fresh agent on the device.
        noise_folder: Where the noise floors are kept; None to keep none.
        progress: ``(seconds done, seconds in all, note)``.

    Returns:
        What was found, and the raw samples by the name of the file: (rounds,) int64 ns.

    Raises:
        ConfigError: The artefacts do not take the same inputs, or the reference was measured in another way,
            or on another machine.
        MissingBackend: The device has not the runtime of a file.
        StageError: A file does not open or run, the agent died, or the device is not in the target's power mode.
    """
    began = time.time()
    artefacts, spec, mode = question.artefacts, question.target.measure, question.target.device.power_mode
    candidates = [Candidate(artefact.name, artefact.runtime, str(artefact.path)) for artefact in artefacts]
    with connect() as agent:
        facts = agent.probe()
        session.require_power_mode(mode, facts.machine.power_mode, where=question.target.name)
        if question.reference:
            require_same_machine(asdict(facts.machine), question.reference.machine, where=question.reference.where)
        _require_runtimes(facts, artefacts)
        inputs, outputs = _first_contact(agent, candidates, question)
    problems = {name: _NOT_FINITE for name, found in outputs.items() if not _finite(found)}
    machine = str(facts.machine)
    protocol = _protocol(question, facts, inputs)
    schedule = Schedule.of(spec.min_seconds, spec.max_seconds)
    floor = noise.read(noise_folder, machine, protocol.digest()) if noise_folder else None
    timed = Sessions(candidates, protocol, schedule, machine, floor, mode)

    def comparisons() -> list[ComparisonRecord]:
        reference = artefacts[0].name
        together = [_together(timed, artefact.name, reference, outputs) for artefact in artefacts[1:]]
        return together + (_across(timed, artefacts, question.reference) if question.reference else [])

    def decided() -> bool:
        if question.reference:
            require_equal(timed.protocol, question.reference.protocol, where=question.reference.where)
        hopeless = bool(question.reference and question.reference.disturbed)  # no session mends what is stored
        return all(one.outcome != "undecided" or (one.stored and hopeless) for one in comparisons())

    if question.reference:
        told = {name: question.reference.protocol[name] for name in FOUND if name in question.reference.protocol}
        known = replace(timed.protocol, **told)
        require_equal(known, question.reference.protocol, where=question.reference.where)  # before the work begins
    sessions.sample(connect, timed, inputs, seed=_SEED, decided=decided, progress=progress)
    fixed = _footprints(connect, artefacts, candidates, inputs, timed.protocol, machine, progress)
    found = comparisons()
    return BenchRecord(
        schema=SCHEMA,
        edgeopt=__version__,
        started=datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
        seconds=time.time() - began,
        target=question.target.name,
        answer=_answer(timed, artefacts, found, problems),
        files=tuple(
            _file(artefact, timed, fixed[artefact.name], problems.get(artefact.name, "")) for artefact in artefacts
        ),
        comparisons=tuple(found),
        noise=timed.noise(),
        machine={**asdict(facts.machine), "python": facts.python, "runtimes": dict(facts.runtimes)},
        condition=timed.condition(),
        disturbed=timed.disturbed(),
        protocol=timed.described(),
    ), {artefact.name: timed.pace_ns(artefact.name) for artefact in artefacts}


def _require_runtimes(facts: Facts, artefacts: Sequence[Artefact]) -> None:
    for artefact in artefacts:
        if artefact.runtime not in facts.runtimes:
            why = facts.missing.get(artefact.runtime, "its agent does not know it")
            what = f"the device has no {artefact.runtime}: {why}"
            raise MissingBackend(what, where=str(artefact.path), fix=f"install {artefact.runtime} there")


def _first_contact(
    agent: Agent, candidates: Sequence[Candidate], question: Question
) -> tuple[Arrays, Mapping[str, Arrays | str]]:
    """The inputs that suit all models, and each model's outputs for all of them, or why there are none."""
    spec = question.target.measure
    opened: dict[str, Opened] = {}
    for one in candidates:
        opened[one.name] = agent.open(one.name, one.runtime, one.path, threads=spec.threads)
    given = question.inputs
    inputs = read_inputs(given, opened, spec.batch) if given else random_inputs(opened, spec.batch)
    outputs: dict[str, Arrays | str] = {}
    for name in opened:
        try:
            outputs[name] = agent.infer(name, inputs, batch=spec.batch)
        except StageError as error:  # timing tells whether it runs at all
            outputs[name] = error.what.splitlines()[0]
    return inputs, outputs


def _protocol(question: Question, facts: Facts, inputs: Arrays) -> Protocol:
    spec = question.target.measure
    runtimes = sorted({artefact.runtime for artefact in question.artefacts})
    return Protocol(
        runtimes=tuple(f"{name} {facts.runtimes[name]}" for name in runtimes),
        threads=spec.threads,
        batch=spec.batch,
        mode=question.mode,
        streams=max(1, facts.machine.cores // spec.threads) if question.mode == "throughput" else 1,
        percentile=spec.percentile,
        min_runs=spec.min_runs,
        inputs=session.inputs_digest(inputs),
        **session.WARMUP,
    )


def _footprints(
    connect: Callable[[], Agent],
    artefacts: Sequence[Artefact],
    candidates: Sequence[Candidate],
    inputs: Arrays,
    protocol: Protocol,
    machine: str,
    progress: sessions.Progress | None,
) -> dict[str, list[Measurement]]:
    batch = [array[: protocol.batch] for array in inputs]
    energy = footprint.energy(connect, candidates, batch, protocol, machine, _SEED)
    found = {}
    for artefact, candidate in zip(artefacts, candidates, strict=True):
        if progress:
            progress(0, 0, f"memory of {artefact.name}")
        size_mib = sum(file.stat().st_size for file in artefact.files) / 2**20
        found[artefact.name] = [
            *footprint.memory(connect, candidate, batch, protocol, machine),
            exact("size_mib", size_mib, "MiB"),
            footprint.compressed_mib(artefact.files),
            energy[artefact.name],
        ]
    return found


def _file(artefact: Artefact, timed: Sessions, fixed: Sequence[Measurement], problem: str) -> FileRecord:
    overhead = timed.call_overhead(artefact.runtime)
    return FileRecord(
        name=artefact.name,
        path=str(artefact.path),
        runtime=artefact.runtime,
        digest=digest_of([file_digest(file) for file in artefact.files]),
        measurements=(*timed.measurements(artefact.name), *([overhead] if overhead else []), *fixed),
        problem=problem,
    )


# Comparing


def _together(
    timed: Sessions, first: str, second: str, outputs: Mapping[str, Arrays | str] | None = None
) -> ComparisonRecord:
    ratio = timed.ratio(first, second)
    outcome = timed.outcome(ratio)
    return ComparisonRecord(
        first=first,
        second=second,
        stored=False,
        outcome=outcome,
        ratio=ratio,
        ratio_p10=timed.ratio_p10(first, second),
        smallest_effect=timed.smallest_effect,
        outputs=_difference(outputs[first], outputs[second]) if outputs else None,
        why=_sentence(first, second, outcome, ratio, timed.smallest_effect),
    )


def _across(timed: Sessions, artefacts: Sequence[Artefact], reference: Reference) -> list[ComparisonRecord]:
    """Against what is stored. Nothing is decided if the machine was disturbed, now or then."""
    found = []
    disturbances = (("now", timed.disturbed()), ("when the other was stored", reference.disturbed))
    distrust = "; ".join(f"the machine was disturbed {when}: {', '.join(why)}" for when, why in disturbances if why)
    for artefact in artefacts:
        stored = reference.of(artefact.name)
        now = [float(np.log(np.median(session.pace_ns[artefact.name]))) for session in timed.done]
        before = [float(np.log(np.median(samples))) for samples in stored.sessions_ns]
        confidence = timed.schedule.ratio_confidence
        estimate: Estimate = independent_session_ratio(now, before, confidence)
        why = f"{len(now)} and {len(before)} sessions are too few for an interval"
        judged = replace(timed.protocol, confidence=confidence)
        ratio = bounded("latency_ratio", "1", estimate, len(now) + len(before), judged, timed.machine, why)
        smallest = max(_ACROSS_RUNS, timed.smallest_effect)
        outcome = "undecided" if distrust else sessions.outcome(ratio, smallest)
        name = f"{stored.name} as stored"
        verdict = (
            f"whether {artefact.name} and {name} differ is undecided: {distrust}"
            if distrust
            else _sentence(artefact.name, name, outcome, ratio, smallest)
        )
        found.append(
            ComparisonRecord(
                first=artefact.name,
                second=stored.name,
                stored=True,
                outcome=outcome,
                ratio=ratio,
                ratio_p10=None,
                smallest_effect=smallest,
                outputs=None,
                why=f"{verdict}; the two were not timed together, and what changed on the machine is not in this",
            )
        )
    return found


def _difference(first: Arrays | str, second: Arrays | str) -> OutputsRecord:
    """How far two lists of outputs lie apart."""
    for outputs in (first, second):
        if isinstance(outputs, str):
            return OutputsRecord(None, None, outputs)
    shapes = [[array.shape for array in outputs] for outputs in (first, second) if not isinstance(outputs, str)]
    if shapes[0] != shapes[1]:
        return OutputsRecord(None, None, f"their shapes differ: {shapes[0]} and {shapes[1]}")
    pairs: list[tuple[Any, Any]] = [
        (np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)) for a, b in zip(first, second, strict=True)
    ]
    if not (_finite(first) and _finite(second)):
        return OutputsRecord(None, None, "some hold NaN or infinity")
    largest = max((float(np.abs(a - b).max(initial=0)) for a, b in pairs), default=0.0)
    return OutputsRecord(largest, max((float(np.abs(b).max(initial=0)) for _, b in pairs), default=0.0))


def _finite(outputs: Arrays | str) -> bool:
    """Whether all numbers are; those that are not known pass."""
    return isinstance(outputs, str) or all(np.isfinite(np.asarray(a, dtype=np.float64)).all() for a in outputs)


def _sentence(first: str, second: str, outcome: str, ratio: Measurement, smallest: float) -> str:
    low, high = ratio.interval or (None, None)
    if ratio.value is None or low is None or high is None:
        return f"{first} and {second} cannot be compared: {ratio.why}"
    times = f"{ratio.value:.3f}× its time [{low:.3f}, {high:.3f}]"
    sure = f"{1 - sessions.RATIO_LEVEL:.0%} sure over all looks"
    if outcome == "same":
        return f"no difference of more than {smallest:.0%} between {first} and {second}: {times}, {sure}"
    if outcome == "undecided":
        return f"no difference shown between {first} and {second}: {times}, {sure}; more seconds may decide"
    return f"{first} is {outcome} than {second}: {times}, {sure}"


def _answer(
    timed: Sessions,
    artefacts: Sequence[Artefact],
    found: Sequence[ComparisonRecord],
    problems: Mapping[str, str],
) -> str:
    """The result in one sentence. What does not work is not ranked."""
    if problems:
        return "; ".join(f"{name} does not work: {why}" for name, why in problems.items()) + "; nothing is ranked"
    if len(artefacts) == 1:
        return found[0].why if found else f"{artefacts[0].name} was timed alone"
    names = [artefact.name for artefact in artefacts]
    by_time = sorted(names, key=lambda name: timed.ratio(name, names[0]).value or np.inf)
    fastest, second = by_time[:2]
    close = [name for name in by_time[1:] if timed.outcome(timed.ratio(fastest, name)) != "faster"]
    if close:
        return f"no fastest: {fastest} has the shortest times, but no difference is shown to {', '.join(close)}"
    return f"{fastest} is the fastest: {second} takes {timed.ratio(second, fastest).value:.3f} times as long"
