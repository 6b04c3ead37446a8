"""What a measured number is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from edgeopt.statistics import Estimate, Interval

if TYPE_CHECKING:
    from edgeopt.protocol import Protocol


@dataclass(frozen=True)
class Measurement:
    """One number with its error bars and where it comes from.

    Attributes:
        metric: Like ``latency_p99_ms``.
        value: None if it was not measured; ``why`` then says why.
        unit: Like ``ms``, ``MiB``; ``1`` for ratios and proportions.
        better: Which direction is good.
        interval: (low, high) at ``confidence``; a bound is None where the data cannot support one. None altogether for
            a number without error bars (a file size, a single reading).
        n: Samples behind the value.
        method: How it was obtained.
        protocol: Digest of the measuring protocol; numbers of different protocols are never compared. May be empty.
        machine: The device.
        confidence: Of the interval.
        why: Why there is no value, or what else a reader must know.
        broken: There is no value because what was measured does not work, such as a network that gives NaN. Every gate
            on it fails.
    """

    metric: str
    value: float | None
    unit: str
    better: Literal["lower", "higher"]
    interval: Interval | None
    n: int
    method: Literal["measured", "simulated", "estimated"]
    protocol: str
    machine: str
    confidence: float = 0.95
    why: str = ""
    broken: bool = False

    def to_json(self) -> dict[str, Any]:
        """A JSON object; the interval becomes a list."""
        return {**asdict(self), "interval": None if self.interval is None else list(self.interval)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of ``to_json``."""
        interval = data["interval"]
        return cls(**{**data, "interval": None if interval is None else (interval[0], interval[1])})


@dataclass(frozen=True)
class Candidate:
    """What measuring has to know of a candidate: a new name, the runtime, and the file on the device."""

    name: str
    runtime: str
    path: str


def exact(metric: str, value: float, unit: str, why: str = "") -> Measurement:
    """A number without noise, such as the size of a file; lower is better."""
    return Measurement(metric, value, unit, "lower", None, 1, "measured", "", "", why=why)


def missing(metric: str, unit: str, why: str) -> Measurement:
    """What nothing measured; lower is better."""
    return Measurement(metric, None, unit, "lower", None, 0, "measured", "", "", why=why)


def single(metric: str, value: float | None, unit: str, protocol: Protocol, machine: str, why: str = "") -> Measurement:
    """One reading without error bars; lower is better. Without a value, ``why`` says why."""
    count = 0 if value is None else 1
    return Measurement(metric, value, unit, "lower", None, count, "measured", protocol.digest(), machine, why=why)


def bounded(
    metric: str, unit: str, estimate: Estimate, count: int, protocol: Protocol, machine: str, why_not: str = ""
) -> Measurement:
    """A measurement, lower is better, that has a value only if both bounds of its interval are known.

    Args:
        metric, unit, machine: As the attributes.
        estimate: At the protocol's confidence.
        count: Samples behind it.
        protocol: How it was measured.
        why_not: Why there is no value, if there is none.
    """
    supported = None not in estimate.interval
    return Measurement(
        metric=metric,
        value=estimate.value if supported else None,
        unit=unit,
        better="lower",
        interval=estimate.interval,
        n=count,
        method="measured",
        protocol=protocol.digest(),
        machine=machine,
        confidence=protocol.confidence,
        why="" if supported else why_not,
    )
