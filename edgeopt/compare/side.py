"""A target in one of two runs, and what its record says of how it was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeopt.compare.model import Release
from edgeopt.record import CandidateRecord, TargetRecord


@dataclass(frozen=True)
class Side:
    """A target in one of the runs."""

    name: str
    release: Release
    target: TargetRecord

    @property
    def shipped(self) -> CandidateRecord:
        return self.target.candidate(self.target.shipped)

    @property
    def baseline(self) -> CandidateRecord:
        return self.target.baseline_of(self.shipped)

    def data(self, split: str) -> dict[str, str]:
        """Digests of a split, such as ``evaluate``; empty if the record does not tell them."""
        digests = self.release.record.provenance.get("data", {})
        return {name: digest for name, digest in digests.items() if name.startswith(split)}

    def samples(self, candidate: CandidateRecord) -> npt.NDArray[np.int64] | None:
        return self.release.samples.get(self.name, {}).get(candidate.id)

    def sessions(self, candidate: CandidateRecord, q: float) -> list[float]:
        """The logarithm of the q-quantile of each session of the measuring; empty if the record does not tell them."""
        lengths, samples = self.target.protocol.get("sessions", ()), self.samples(candidate)
        if samples is None or not lengths or sum(lengths) != len(samples):
            return []
        parts = np.split(samples, np.cumsum(lengths)[:-1])
        return [math.log(np.quantile(part, q, method="inverted_cdf")) for part in parts]

    def noise(self) -> float:
        """How far a candidate lay apart from itself, on this machine and while this run was measured."""
        recorded = [self.target.protocol.get(name) for name in ("noise", "noise_floor")]
        return max((value for value in recorded if value is not None), default=0.0)
