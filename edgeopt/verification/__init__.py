"""Verification: embeddings to scores of genuine and impostor pairs, exact error rates, and their intervals.

A pair is accepted if its score is at or above the threshold. FAR is the share of impostor pairs (of two identities)
that are accepted, FRR the share of genuine pairs (of one identity) that are not, and TAR is 1 - FRR; ISO/IEC 19795-1
calls the first two false match rate and false non-match rate.
"""

from __future__ import annotations

from edgeopt.verification.intervals import (
    LEAST_IDENTITIES,
    Kind,
    difference_interval,
    quantiles,
    rate_drop_interval,
    rate_interval,
)
from edgeopt.verification.pairs import Design, TooFew, prepare
from edgeopt.verification.resample import RESAMPLES, Curves
from edgeopt.verification.scores import Scores
from edgeopt.verification.trials import Similarity, Trials

__all__ = [
    "LEAST_IDENTITIES",
    "RESAMPLES",
    "Curves",
    "Design",
    "Kind",
    "Scores",
    "Similarity",
    "TooFew",
    "Trials",
    "difference_interval",
    "prepare",
    "quantiles",
    "rate_drop_interval",
    "rate_interval",
]
