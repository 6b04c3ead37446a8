"""Intervals of error rates over identities."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from edgeopt.verification.scores import Scores

#: Of fewer identities, fewer than five of the thousand resamples lie beyond either bound (see ``quantiles``).
LEAST_IDENTITIES = 8
#: The dependence of errors is taken from at least so many of them.
_ERRORS = 30

Floats = npt.NDArray[np.float64]
Kind = Literal["far", "frr"]


def quantiles(values: Floats, people: int, confidence: float) -> tuple[float, float]:
    """The percentile interval of a bootstrap over identities, widened for few of them.

    The tails are Φ(√(n / (n - 1)) t), t being Student's quantile with n - 1 degrees of freedom: the expanded percentile
    interval of Hesterberg, What teachers should know about the bootstrap, The American Statistician 69 (2015).

    Args:
        values: (B,) of the resamples.
        people: n, at least 2.
        confidence: In (0, 1).
    """
    from scipy.special import ndtr, stdtrit

    tail = float(ndtr(math.sqrt(people / (people - 1)) * stdtrit(people - 1, (1 - confidence) / 2)))
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def rate_interval(scores: Scores, kind: Kind, threshold: float, confidence: float) -> tuple[float, float]:
    """Of FAR or FRR at a threshold that is given, by Wilson's score interval for as many pairs as these are worth.

    They are worth p (1 - p) / Var(p) independent ones, at most all. The variance is that of dyads that share a member:
    Fogliato, Patil and Perona, Confidence intervals for error rates in 1:1 matching tasks, International Journal of
    Computer Vision (2024), who recommend this interval. The normal quantile is Student's with one degree of freedom
    less than there are identities. In simulations of a hundred people of unlike noise 95 % intervals cover 94 %,
    see ``benchmarks/verification.py``; of thirty very unlike ones, 91 %.
    """
    from scipy.special import stdtrit

    count = scores.impostor_count if kind == "far" else scores.genuine_count
    rate = scores.far(threshold) if kind == "far" else scores.frr(threshold)
    n = count / design_effect(scores, kind, threshold)
    z = float(stdtrit(scores.trials.people - 1, 0.5 + confidence / 2))
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if rate == 0 else min(rate, max(0.0, centre - half))
    return low, 1.0 if rate == 1 else max(rate, min(1.0, centre + half))


def difference_interval(
    differences: Floats, value: float, scores: Scores, kind: Kind, threshold: float, confidence: float
) -> tuple[float, float]:
    """Of a difference of two rates over the same resamples.

    Where every resample says the same, nothing differed; the interval is then that of no disagreement among as many
    independent pairs as these are worth, by the formula of Bonett and Price (2012) as in
    ``statistics.paired_proportion_difference``.
    """
    from scipy.special import ndtri

    low, high = quantiles(differences, scores.trials.people, confidence)
    if low == high:
        count = scores.impostor_count if kind == "far" else scores.genuine_count
        n = count / design_effect(scores, kind, threshold)
        half = float(ndtri(0.5 + confidence / 2)) * math.sqrt(2) / (n + 2)
        low, high = low - half, high + half
    return min(low, value), max(high, value)


def design_effect(scores: Scores, kind: Kind, threshold: float) -> float:
    """How many dependent pairs are worth one independent pair, at least 1.

    Taken at the threshold, or where there are 30 errors: fewer do not show how they hang together.
    """
    if kind == "frr":
        if scores.false_rejects(threshold) < _ERRORS:
            rank = min(_ERRORS, scores.genuine_count) - 1
            threshold = float(np.nextafter(scores.genuine_scores(slice(rank, rank + 1))[0], np.float32(np.inf)))
        return _genuine_effect(scores, threshold)
    if scores.false_accepts(threshold) < _ERRORS:
        rank = min(_ERRORS, scores.impostor_count) - 1
        threshold = float(scores.impostor_scores(slice(rank, rank + 1))[0])
    return _impostor_effect(scores, threshold)


def _genuine_effect(scores: Scores, threshold: float) -> float:
    """Pairs of one identity hang together, those of two do not; n / (n - 1) for the rate is estimated as well."""
    trials, rate = scores.trials, scores.frr(threshold)
    people = int(np.count_nonzero(trials.genuine))
    if rate in (0, 1):
        return float(scores.genuine_count / people)
    errors = np.bincount(scores.rejected_genuine(threshold), minlength=trials.people)
    residuals = errors - rate * trials.genuine
    variance = float(residuals @ residuals) * people / max(1, people - 1)
    return max(1.0, variance / (rate * (1 - rate) * scores.genuine_count))


def _impostor_effect(scores: Scores, threshold: float) -> float:
    """Pairs that share an identity hang together: squared sums by identity, in which a pair is counted twice.

    Of n identities of unlike effects, each sum has lost 2 / n of its own to the rate, which is estimated as well: for
    effects that add up the expectation is short by (n - 2)² / (n (n - 1)).
    """
    trials, rate = scores.trials, scores.far(threshold)
    if rate in (0, 1):
        return float(scores.impostor_count / max(1, trials.people // 2))
    one, other = scores.accepted_impostors(threshold)
    errors = np.bincount(np.concatenate([one, other]), minlength=trials.people)
    residuals = errors - rate * trials.impostors
    codes = np.minimum(one, other).astype(np.int64) * trials.people + np.maximum(one, other)
    codes, counts = np.unique(codes, return_counts=True)
    among = trials.between(*np.divmod(codes, trials.people))
    twice = float(counts @ counts - 2 * rate * (counts @ among) + rate**2 * trials.squares)
    n = trials.people
    variance = (float(residuals @ residuals) - twice) * n * (n - 1) / max(1, n - 2) ** 2
    return max(1.0, variance / (rate * (1 - rate) * scores.impostor_count))
