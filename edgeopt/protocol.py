"""How latency is measured. Two numbers are compared only if everything here that changes what is timed is equal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple

from edgeopt import agent
from edgeopt.access import Limits
from edgeopt.agent.timer import WARMUP_RULE
from edgeopt.errors import ConfigError
from edgeopt.statistics import samples_needed

#: Fields that say how many samples are taken and how they are judged; two numbers that differ here can be compared.
_HOW_MANY = frozenset({"percentile", "confidence", "min_seconds", "min_runs", "max_seconds", "warmup_max_seconds"})

#: Facts of a device without which its timings are those of another one. The others may explain a change.
_SAME_MACHINE = ("cpu", "flags", "cores", "cpus", "cpu_limit", "gpu")


@dataclass(frozen=True)
class Protocol:
    """How latency is measured.

    The first group of attributes changes what is timed, and makes the digest.

    Attributes:
        runtimes: Those of the target, which compete in one process, as ``name version``; their order means nothing.
        threads: Per inference.
        batch: Samples per inference.
        mode: ``latency`` is one inference after the other; ``throughput`` keeps ``streams`` inferences in flight.
        streams: Inferences in flight at the same time.
        affinity: CPUs that the agent was bound to; none if the system placed it.
        transfers: Whether copying inputs in and outputs out is part of the time.
        cuda_graph: Whether a GPU replays a captured graph.
        power_mode: Of the device, if it has several.
        conditions: What else the runtime and the device say of how it was timed: ``spin wait``, ``weakly typed``,
            ``clocks locked``.
        inputs: Where the inputs come from: a digest, or a name.
        warmup_seconds, warmup_runs: Warming up goes on until both are reached, and all candidates are steady.
        warmup: The rule for steady.
        clock: What timed, as the agent names it: its own clock, and those of runtimes that time their calls themselves.
        agent: Version of the agent.
        version: Of the way that the host measures.
        percentile: The tail that the product cares about, in percent.
        confidence: Of all intervals.
        min_seconds, min_runs: Timing goes on until both are reached; seconds are those of all candidates together,
            a run is a round with one inference of each.
        max_seconds: After which timing ends, whatever was reached.
        warmup_max_seconds: After which warming up ends, whatever was reached; the timing then counts as disturbed.
    """

    runtimes: tuple[str, ...] = ()
    threads: int = 1
    batch: int = 1
    mode: Literal["latency", "throughput"] = "latency"
    streams: int = 1
    affinity: tuple[int, ...] = ()
    transfers: bool = False
    cuda_graph: bool = False
    power_mode: str = ""
    conditions: tuple[str, ...] = ()
    inputs: str = ""
    warmup_seconds: float = 1.0
    warmup_runs: int = 20
    warmup: str = WARMUP_RULE
    clock: str = ""
    agent: str = agent.VERSION
    version: int = 2
    percentile: float = 99.0
    confidence: float = 0.95
    min_seconds: float = 10.0
    min_runs: int = 200
    max_seconds: float = 120.0
    warmup_max_seconds: float = 10.0

    def identity(self) -> dict[str, Any]:
        """What changes what is timed, as JSON."""
        values = json.loads(json.dumps(asdict(self)))
        return {**{name: values[name] for name in IDENTITY}, "runtimes": sorted(self.runtimes)}

    def digest(self) -> str:
        """sha256 of the canonical JSON of ``identity``, without conditions where there are none."""
        told = {name: value for name, value in self.identity().items() if name != "conditions" or value}
        return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def limits(self) -> Limits:
        """What the agent is told. Never fewer runs than an interval for ``percentile`` needs."""
        needed = samples_needed(self.percentile / 100, self.confidence)
        return Limits(
            warmup_runs=self.warmup_runs,
            warmup_seconds=self.warmup_seconds,
            min_runs=max(self.min_runs, needed),
            min_seconds=self.min_seconds,
            max_seconds=self.max_seconds,
            warmup_max_seconds=self.warmup_max_seconds,
        )


#: Names of the fields that are known once the device has timed something.
FOUND = ("clock", "transfers", "cuda_graph", "power_mode", "conditions")

#: Names of the fields that the digest covers.
IDENTITY = tuple(field.name for field in fields(Protocol) if field.name not in _HOW_MANY)


class Difference(NamedTuple):
    """A field that two protocols, or machines, do not share, with both values; None where a record has none."""

    field: str
    a: Any
    b: Any


def differences(a: Protocol | Mapping[str, Any], b: Protocol | Mapping[str, Any]) -> list[Difference]:
    """In which fields two protocols time something else; none if their numbers can be compared.

    Args:
        a, b: Protocols, or what records hold of them; other entries of a record mean nothing.
    """
    first, second = _identity(a), _identity(b)
    return [Difference(name, first[name], second[name]) for name in IDENTITY if first[name] != second[name]]


def require_equal(a: Protocol | Mapping[str, Any], b: Protocol | Mapping[str, Any], *, where: str = "") -> None:
    """Stops a comparison of numbers that do not mean the same.

    Raises:
        ConfigError: The protocols differ; it names every field that does.
    """
    _refuse(differences(a, b), "in different ways", where, "measure both again in the same way, or in one run")


def machine_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """In which facts two devices, as records hold them, differ so that their timings are not comparable."""
    first, second = (
        json.loads(json.dumps({name: facts.get(name) for name in _SAME_MACHINE} | {"gpu": facts.get("gpu") or ""}))
        for facts in (a, b)
    )
    return [Difference(name, first[name], second[name]) for name in _SAME_MACHINE if first[name] != second[name]]


def require_same_machine(a: Mapping[str, Any], b: Mapping[str, Any], *, where: str = "") -> None:
    """Stops a comparison of timings of two devices.

    Raises:
        ConfigError: The devices differ; it names every fact that does.
    """
    _refuse(machine_differences(a, b), "on different machines", where, "measure both on one machine")


def _refuse(found: Sequence[Difference], how: str, where: str, fix: str) -> None:
    if found:
        listed = "; ".join(f"{name}: {_shown(first)} and {_shown(second)}" for name, first, second in found)
        raise ConfigError(f"these were measured {how} and cannot be compared ({listed})", where=where, fix=fix)


def _identity(protocol: Protocol | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(protocol, Protocol):
        return protocol.identity()
    known = json.loads(json.dumps({name: protocol.get(name) for name in IDENTITY}))
    runtimes = sorted(known["runtimes"]) if known["runtimes"] else known["runtimes"]
    return {**known, "runtimes": runtimes, "conditions": known["conditions"] or []}


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "not recorded" if value is None else repr(value) if isinstance(value, str) else str(value)
