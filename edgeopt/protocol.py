"""How latency is measured. Two numbers are compared only if everything here is equal."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from edgeopt.access import Limits
from edgeopt.statistics import samples_needed


@dataclass(frozen=True)
class Protocol:
    """How latency is measured. Everything here changes what the numbers mean, so all of it is in the digest.

    Attributes:
        runtimes: Those of the target, which compete in one process.
        threads: Per inference.
        batch: Samples per inference.
        percentile: The tail that the product cares about, in percent.
        confidence: Of all intervals.
        min_seconds, min_runs: Timing goes on until both are reached; seconds are those of all candidates together,
            a run is a round with one inference of each.
        max_seconds: After which timing ends, whatever was reached.
        warmup_seconds, warmup_runs: Warming up goes on until both are reached.
        version: Of the way that this module and the agent measure.
    """

    runtimes: tuple[str, ...] = ()
    threads: int = 1
    batch: int = 1
    percentile: float = 99.0
    confidence: float = 0.95
    min_seconds: float = 10.0
    min_runs: int = 200
    max_seconds: float = 120.0
    warmup_seconds: float = 1.0
    warmup_runs: int = 20
    version: int = 1

    def digest(self) -> str:
        """sha256 of the canonical JSON."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def limits(self) -> Limits:
        """What the agent is told. Never fewer runs than an interval for ``percentile`` needs."""
        needed = samples_needed(self.percentile / 100, self.confidence)
        return Limits(
            self.warmup_runs, self.warmup_seconds, max(self.min_runs, needed), self.min_seconds, self.max_seconds
        )
