"""What an earlier benchmark or run measured, to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgeopt import bench_record, publish
from edgeopt.errors import ConfigError


class Stored(NamedTuple):
    """An artefact of the reference, and its times: one (rounds,) int64 ns per session."""

    name: str
    sessions_ns: tuple[npt.NDArray[np.int64], ...]


@dataclass(frozen=True)
class Reference:
    """An earlier measurement.

    Attributes:
        where: Its place.
        protocol: As its record has it.
        stored: Its artefacts by name.
        machine: Facts of the device, as its record has them.
        disturbed: Why its latencies cannot be trusted; empty if nothing was seen.
    """

    where: str
    protocol: Mapping[str, Any]
    stored: Mapping[str, Stored]
    machine: Mapping[str, Any] = field(default_factory=dict)
    disturbed: tuple[str, ...] = ()

    def of(self, name: str) -> Stored:
        """What an artefact called ``name`` is compared with: the one of that name, or the only one.

        Raises:
            ConfigError: There is none of that name, and there are several.
        """
        if name in self.stored or len(self.stored) == 1:
            return self.stored.get(name) or next(iter(self.stored.values()))
        raise ConfigError(f"{name} was not measured there; there are: {', '.join(self.stored)}", where=self.where)


def read(path: Path, target: str) -> Reference:
    """The reference in the folder of a saved benchmark, or of a run: there, what ships on ``target``.

    Raises:
        ConfigError: It is missing or damaged, or has not this target.
    """
    where = str(path)
    if bench_record.is_bench(path):
        bench, samples = bench_record.load(path)
        stored = {name: _stored(name, found, bench.protocol, where) for name, found in samples.items()}
        return Reference(where, bench.protocol, stored, bench.machine, bench.disturbed)
    run = publish.read_run(path)
    entry = run.record.targets.get(target)
    if entry is None or not entry.shipped:
        known = ", ".join(run.record.targets) or "none"
        raise ConfigError(f"this run serves no target {target!r}; it has: {known}", where=where)
    shipped = run.samples.get(target, {}).get(entry.shipped)
    if shipped is None:
        raise ConfigError(f"the samples of {entry.shipped} are missing", where=where)
    stored = {entry.shipped: _stored(entry.shipped, shipped, entry.protocol, where)}
    return Reference(where, entry.protocol, stored, entry.machine, tuple(entry.disturbed))


def _stored(name: str, samples: npt.NDArray[np.int64], protocol: Mapping[str, Any], where: str) -> Stored:
    lengths = protocol.get("sessions") or []
    if sum(lengths) != len(samples):
        what = f"the samples of {name} do not belong to the sessions of its record"
        raise ConfigError(what, where=where, fix="measure it again with this edgeopt")
    return Stored(name, tuple(np.split(samples, np.cumsum(lengths)[:-1])))
