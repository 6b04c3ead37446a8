"""Intervals of error rates over identities."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from edgeopt.verification.trials import Array, Floats, Trials

if TYPE_CHECKING:
    from edgeopt.verification.scores import Scores

#: Of fewer identities, fewer than five of the thousand resamples lie beyond either bound (see ``quantiles``).
LEAST_IDENTITIES = 8
#: The dependence of errors is taken from at least so many of them.
_ERRORS = 20

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
    Computer Vision (2024), who recommend this interval. Few people may cause most errors, and then the variance itself
    is known badly: the normal quantile is Student's, with degrees of freedom after Satterthwaite, An approximate
    distribution of estimates of variance components, Biometrics Bulletin 2 (1946). How often 95 % intervals cover in
    simulations is in ``benchmarks/verification.py``; of thirty very unlike people it is about 92 %.
    """
    from scipy.special import stdtrit

    count = scores.impostor_count if kind == "far" else scores.genuine_count
    rate = scores.far(threshold) if kind == "far" else scores.frr(threshold)
    effect, freedom = dependence(scores, kind, threshold)
    n = count / effect
    z = float(stdtrit(freedom, 0.5 + confidence / 2))
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if rate == 0 else min(rate, max(0.0, centre - half))
    return low, 1.0 if rate == 1 else max(rate, min(1.0, centre + half))


def rate_drop_interval(
    before: Scores, after: Scores, kind: Kind, thresholds: tuple[float, float], confidence: float
) -> tuple[float, float]:
    """How much higher FAR or FRR was before, at a threshold each that is given, of the same comparisons.

    The adjusted Wald interval of Bonett and Price (2012), as in ``statistics.paired_proportion_difference``, for as
    many pairs as these are worth; the variance and Student's quantile are those of ``rate_interval``, of the pairs on
    which the two disagree.
    """
    from scipy.special import stdtrit

    errors = [scores.errors(kind, threshold) for scores, threshold in zip((before, after), thresholds, strict=True)]
    only = [np.setdiff1d(one, other, assume_unique=True) for one, other in (errors, errors[::-1])]
    trials, count = after.trials, after.impostor_count if kind == "far" else after.genuine_count
    first, second = (len(numbers) / count for numbers in only)
    worth = None
    if len(only[0]) + len(only[1]) >= _ERRORS:
        sign = np.repeat([1.0, -1.0], [len(numbers) for numbers in only])
        worth = _dependence(trials, kind, np.concatenate(only), sign, count)
    effect, freedom = worth or dependence(after, kind, thresholds[1])
    n = count / effect
    p_first, p_second = (first * n + 1) / (n + 2), (second * n + 1) / (n + 2)
    spread = math.sqrt((p_first + p_second - (p_first - p_second) ** 2) / (n + 2))
    half, centre = float(stdtrit(freedom, 0.5 + confidence / 2)) * spread, p_first - p_second
    value = first - second
    return min(value, max(-1.0, centre - half)), max(value, min(1.0, centre + half))


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
        n = count / dependence(scores, kind, threshold).effect
        half = float(ndtri(0.5 + confidence / 2)) * math.sqrt(2) / (n + 2)
        low, high = low - half, high + half
    return min(low, value), max(high, value)


class Dependence(NamedTuple):
    """How pairs hang together.

    Attributes:
        effect: How many of them are worth one independent pair, at least 1: the design effect.
        freedom: Degrees of freedom of that estimate.
    """

    effect: float
    freedom: float


def dependence(scores: Scores, kind: Kind, threshold: float) -> Dependence:
    """Of errors at the threshold, or where there are 20 of them: fewer do not show how they hang together."""
    errors = scores.errors(kind, threshold)
    count = scores.impostor_count if kind == "far" else scores.genuine_count
    if len(errors) < _ERRORS:
        rank = min(_ERRORS, count) - 1
        if kind == "far":
            threshold = float(scores.impostor_scores(slice(rank, rank + 1))[0])
        else:
            threshold = float(np.nextafter(scores.genuine_scores(slice(rank, rank + 1))[0], np.float32(np.inf)))
        errors = scores.errors(kind, threshold)
    return _dependence(scores.trials, kind, errors, np.ones(len(errors)), count)


def _dependence(trials: Trials, kind: Kind, numbers: Array, values: Floats, count: int) -> Dependence:
    """Of ``count`` pairs that have a value: these numbers the given ones, all others 0."""
    mean = float(values.sum()) / count
    spread = float(values @ values) - count * mean**2
    one, other = trials.at(numbers)
    people = int(np.count_nonzero(trials.genuine)) if kind == "frr" else trials.people
    if spread <= 0:
        return Dependence(count / (people if kind == "frr" else max(1, people // 2)), trials.people - 1)
    variance, residuals = (_genuine if kind == "frr" else _impostor)(trials, one, other, values, mean)
    squares = residuals**2  # the variance of their sum is at most that of the fourth powers
    freedom = 2 * squares.sum() ** 2 / (squares @ squares)
    return Dependence(max(1.0, variance / spread), float(np.clip(freedom, 1, people - 1)))


def _genuine(trials: Trials, one: Array, other: Array, values: Floats, mean: float) -> tuple[float, Floats]:
    """Variance of the sum, and residuals by identity, of which those of two do not hang together.

    n / (n - 1) for the mean is estimated as well.
    """
    residuals = np.bincount(one, values, trials.people) - mean * trials.genuine
    people = int(np.count_nonzero(trials.genuine))
    return float(residuals @ residuals) * people / max(1, people - 1), residuals


def _impostor(trials: Trials, one: Array, other: Array, values: Floats, mean: float) -> tuple[float, Floats]:
    """Variance of the sum, and residuals by identity: pairs that share one hang together, and each is counted twice.

    Of n identities of unlike effects, each sum has lost 2 / n of its own to the mean, which is estimated as well: for
    effects that add up the expectation is short by (n - 2)² / (n (n - 1)).
    """
    n = trials.people
    residuals = np.bincount(np.concatenate([one, other]), np.tile(values, 2), n) - mean * trials.impostors
    codes = np.minimum(one, other).astype(np.int64) * n + np.maximum(one, other)
    codes, place = np.unique(codes, return_inverse=True)
    sums = np.bincount(place, values, len(codes))
    among = trials.between(*np.divmod(codes, n))
    twice = float(sums @ sums - 2 * mean * (sums @ among) + mean**2 * trials.squares)
    return (float(residuals @ residuals) - twice) * n * (n - 1) / max(1, n - 2) ** 2, residuals
