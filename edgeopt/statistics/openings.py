"""Percentiles of what was timed in several sessions, each of which opened the model anew."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgeopt.statistics.estimate import Estimate, Floats, quantile, require_fractions, series
from edgeopt.statistics.quantiles import effective_count
from edgeopt.statistics.ratios import FEWEST_SESSIONS

#: where a series is worth no more samples than this per session, drifts last as long as sessions do
_SAMPLES_PER_SESSION = 2.5
#: sessions that agree better than if each sample were worth so many do so by luck, as those of few samples may
_LUCK = 2


def session_percentile_interval(sessions: Sequence[Floats], q: float, confidence: float = 0.95) -> Estimate:
    """The q-quantile over all sessions, with bounds that hold for further sessions too.

    An opening is a few percent slower or faster for as long as it lasts, and the machine drifts. Both show in the share
    of each session's samples that lie at or below the common quantile: sessions are drawn as clusters, and the variance
    of the ratio of sums between them says how many independent samples all are worth (Woodruff, Confidence intervals
    for medians and other position measures, JASA 47 (1952); Cochran, Sampling Techniques, 3rd ed. (1977), section 6.4),
    with Student's quantile in place of the normal one. A drift that lasts longer than a session makes neighbouring
    sessions alike, which ``effective_count`` sees: the longer the series remembers, measured in sessions, the more its
    count weighs in the geometric mean of both, if it is the smaller one.

    The bounds are the samples at the levels that Jeffreys' interval gives for the share q of that many (Brown, Cai and
    DasGupta, Interval estimation for a binomial proportion, Statistical Science 16, 2001), on straight lines between
    order statistics, so that the interval is no longer than it must be (Nyblom, Note on interpolated order statistics,
    Statistics and Probability Letters 14, 1992). A series that happened to miss the machine's slow moments has both a
    lower p99 and a shorter interval of it, so that equal levels would miss far more often below the truth than above:
    the bound away from the median has (2 min(q, 1 - q))^(1/3) of half the misses, the other bound the rest. That power
    and the weight above were found by simulation; how often the interval holds the truth, and on which side it misses,
    is in ``benchmarks/coverage.py``.

    Args:
        sessions: (n,) each, in the order of time, one series per session.
        q: In (0, 1).
        confidence: In (0, 1).

    Returns:
        Both bounds are None below three sessions; one is None where its level lies beyond the samples.
    """
    from scipy.special import ndtri, stdtrit

    require_fractions(q=q, confidence=confidence)
    taken = [series(session, "sessions") for session in sessions]
    everything = np.concatenate(taken)
    value = quantile(everything, q)
    count, total = len(taken), len(everything)
    if count < FEWEST_SESSIONS:
        return Estimate(value, (None, None))
    share = float((everything <= value).mean())
    excess = np.array([(session <= value).sum() - share * len(session) for session in taken])
    variance = float(excess @ excess) * count / (count - 1) / total**2
    student = float(ndtri(0.5 + confidence / 2) / stdtrit(count - 1, 0.5 + confidence / 2))
    worth = float(_LUCK * total)
    if variance:
        worth = min(worth, q * (1 - q) / variance * student**2)
    within, memory = effective_count(everything, q, confidence), effective_count(everything, 0.5, confidence)
    if within < worth:
        weight = min(1.0, _SAMPLES_PER_SESSION * count / memory)
        worth = float(within**weight * worth ** (1 - weight))
    low, high = _at_levels(np.sort(everything), q, confidence, worth)
    return Estimate(value, (None if low is None else min(low, value), None if high is None else max(high, value)))


def _at_levels(
    ordered: npt.NDArray[np.float64], q: float, confidence: float, count: float
) -> tuple[float | None, float | None]:
    """The samples at the bounds of the share q of ``count`` independent ones."""
    from scipy.special import betaincinv

    def at(level: float) -> float | None:
        place = level * len(ordered) - 0.5
        if not 0 <= place <= len(ordered) - 1:
            return None
        below, part = int(place), place - math.floor(place)
        return float((1 - part) * ordered[below] + part * ordered[min(below + 1, len(ordered) - 1)])

    below, above = q * count + 0.5, (1 - q) * count + 0.5
    miss = 1 - confidence
    outer = miss / 2 * (2 * min(q, 1 - q)) ** (1 / 3)
    low_miss, high_miss = (outer, miss - outer) if q < 0.5 else (miss - outer, outer)
    return at(float(betaincinv(below, above, low_miss))), at(float(betaincinv(below, above, 1 - high_miss)))
