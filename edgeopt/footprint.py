"""What a candidate costs beside time: memory, energy, and space compressed."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgeopt.access import Agent
from edgeopt.measure import Candidate, Measurement, bounded, exact, single
from edgeopt.protocol import Protocol
from edgeopt.statistics import percentile_interval

Arrays = Sequence[npt.NDArray[Any]]

_ENERGY_CONFIDENCE = 0.95
#: enough for an interval of their median
_ENERGY_WINDOWS = 9
_ENERGY_WINDOW_SECONDS = 0.2
_UNKNOWN = "the system does not say how much memory a process uses, or the runtime is a process of its own"


def memory(
    connect: Callable[[], Agent], candidate: Candidate, inputs: Arrays, protocol: Protocol, machine: str
) -> list[Measurement]:
    """Resident memory of a fresh agent that opens the candidate and runs all of ``inputs``.

    It contains the interpreter, numpy and the runtime, which the device has to hold as well.

    Returns:
        ``load_memory_mib``, the peak of opening; ``peak_memory_mib``, the peak of opening and running;
        ``steady_memory_mib``, what is resident after running; ``runtime_memory_mib``, what the runtime itself says.

    Raises:
        StageError: The candidate does not open or run, or the agent died.
    """
    with connect() as agent:
        agent.open(candidate.name, candidate.runtime, candidate.path, threads=protocol.threads)
        loaded = agent.memory()
        agent.infer(candidate.name, inputs, batch=protocol.batch)
        run = agent.memory()
        own = agent.runtime_memory(candidate.name, [array[: protocol.batch] for array in inputs])

    def mib(metric: str, value: float | None, why: str) -> Measurement:
        return single(metric, value, "MiB", protocol, machine, why)

    unknown = "" if run.peak_mib is not None else _UNKNOWN
    return [
        mib("load_memory_mib", loaded.peak_mib, unknown),
        mib("peak_memory_mib", run.peak_mib, unknown),
        mib("steady_memory_mib", run.current_mib, unknown),
        mib("runtime_memory_mib", own.peak_mib, own.what),
    ]


def energy(
    connect: Callable[[], Agent],
    candidates: Sequence[Candidate],
    inputs: Arrays,
    protocol: Protocol,
    machine: str,
    seed: int,
    rails: Sequence[str] = (),
) -> dict[str, Measurement]:
    """``energy_mj``: energy per inference of each candidate, the median of some windows of time, in a fresh agent.

    Where the device does not tell, the measurement has no value, and says why. What else runs on the device, and its
    idle power, are in the number. ``rails`` are those of the target's device.

    Raises:
        StageError: A candidate does not open or run, or the agent died.
    """
    names = [candidate.name for candidate in candidates]
    with connect() as agent:
        found = agent.energy((), (), seed=seed, rails=rails)
        if not found.why:
            for candidate in candidates:
                agent.open(candidate.name, candidate.runtime, candidate.path, threads=protocol.threads)
            found = agent.energy(
                names,
                inputs,
                seed=seed,
                batch=protocol.batch,
                windows=_ENERGY_WINDOWS,
                window_seconds=_ENERGY_WINDOW_SECONDS,
                rails=rails,
            )
    judged = replace(protocol, confidence=_ENERGY_CONFIDENCE)
    if not found.mj:
        return {name: single("energy_mj", None, "mJ", judged, machine, found.why) for name in names}
    return {
        name: replace(
            bounded(
                "energy_mj", "mJ", percentile_interval(mj, 0.5, _ENERGY_CONFIDENCE), len(mj), judged, machine, found.why
            ),
            why=f"of {found.scope}, with its idle power and all that runs there",
        )
        for name, mj in found.mj.items()
    }


def compressed_mib(files: Iterable[Path]) -> Measurement:
    """``size_compressed_mib``: each file deflated at level 9, as a zip would hold it, without the zip's own entries."""
    size = sum(len(zlib.compress(file.read_bytes(), 9)) for file in files) / 2**20
    return exact("size_compressed_mib", size, "MiB", "each file deflated at level 9, as in a zip")
