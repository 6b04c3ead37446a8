"""Percentiles: their intervals, from independent samples and from a time series, and the samples that they need."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgeopt.statistics.estimate import Estimate, Floats, rank, require_fractions, series

#: numbers of batches whose means show slow drifts
_BATCHES = (8, 16)
#: batches count only where they vary more than independent samples would, at this level
_BATCH_LEVEL = 0.99


def percentile_interval(samples: Floats, q: float, confidence: float = 0.95) -> Estimate:
    """The q-quantile and its distribution-free interval between two order statistics.

    The number of samples below the true quantile is binomial(n, q), so that the l-th and u-th smallest samples enclose
    it with probability P(l ≤ B < u), exactly, for any continuous distribution of independent samples.
    Source: David and Nagaraja, Order Statistics, 3rd ed. (2003), section 7.1. The value is the nearest-rank quantile,
    the ⌈nq⌉-th smallest sample. For latencies in a row use ``serial_percentile_interval``.

    Args:
        samples: (n,) in any order and unit, n ≥ 1.
        q: In (0, 1).
        confidence: In (0, 1).
    """
    require_fractions(q=q, confidence=confidence)
    ordered = np.sort(series(samples, "samples"))
    return _between_ranks(ordered, q, confidence)


def serial_percentile_interval(samples: Floats, q: float, confidence: float = 0.95) -> Estimate:
    """As ``percentile_interval``, for samples that were taken one after the other on a machine that remembers.

    Neighbours are alike where the machine drifts or changes between modes, so that n samples are worth fewer. The
    bounds are the samples at the levels that Jeffreys' interval gives for the share q of ``effective_count`` ones
    (Brown, Cai and DasGupta, Interval estimation for a binomial proportion, Statistical Science 16, 2001); if all
    count, they are those of ``percentile_interval``. It is too short for the outermost percentiles of a series that is
    less than about a hundred times as long as the machine's memory.

    Args:
        samples: (n,) in the order of time, n ≥ 1.
        q: In (0, 1).
        confidence: In (0, 1).
    """
    require_fractions(q=q, confidence=confidence)
    taken = series(samples, "samples")
    ordered, count = np.sort(taken), effective_count(taken, q, confidence)
    if count == len(taken):
        return _between_ranks(ordered, q, confidence)
    return _between_levels(ordered, q, confidence, count)


def effective_count(samples: Floats, q: float, confidence: float = 0.95) -> int:
    """How many independent samples would fix the q-quantile as well as these in a row do; 1 to n.

    It is n divided by the inflation of the variance of the share of samples at or below the quantile (Woodruff,
    Confidence intervals for medians and other position measures, 1952), which is the larger one of two estimates:

    - the sum of autocovariances up to where the sum of a neighbouring pair is not positive, made non-increasing: the
      initial monotone sequence of Geyer, Practical Markov chain Monte Carlo (1992), section 3.3; degrees of freedom
      n / M for a window of M lags (Priestley, Spectral Analysis and Time Series, 1981, table 6.1);
    - the variance of the means of 8 and of 16 batches (Schmeiser, Batch size effects in the analysis of simulation
      output, 1982), which sees drifts that are too slow for the first. It counts only where it is larger than that of
      independent samples at the 1 % level, for most of the time it would only add noise.

    The count is lowered by (z/t)², so that an interval made with the normal quantile is one with Student's.

    Args:
        samples: (n,) in the order of time, n ≥ 1.
        q: In (0, 1).
        confidence: Of the interval that the count is for, in (0, 1).
    """
    from scipy.special import chdtri, ndtri, stdtrit

    require_fractions(q=q, confidence=confidence)
    taken = series(samples, "samples")
    n = len(taken)
    below = (taken <= np.partition(taken, rank(n, q) - 1)[rank(n, q) - 1]).astype(np.float64)
    variance = below.var()
    if n < 2 * max(_BATCHES) or variance == 0:
        return n
    inflations = [_initial_sequence(below)]
    for batches in _BATCHES:
        size = n // batches
        means = below[: batches * size].reshape(batches, size).mean(axis=1)
        inflation, freedom = float(means.var(ddof=1) * size / variance), batches - 1.0
        if inflation > chdtri(freedom, 1 - _BATCH_LEVEL) / freedom:
            inflations.append((inflation, freedom))
    normal = ndtri(0.5 + confidence / 2)
    worth = (
        n / inflation * (normal / stdtrit(freedom, 0.5 + confidence / 2)) ** 2
        for inflation, freedom in inflations
        if inflation > 1
    )
    return max(1, int(min(worth, default=n)))


def samples_needed(q: float, confidence: float = 0.95) -> int:
    """The smallest number of independent samples that supports the q-quantile at all.

    The smallest n for which at most one sample beyond a bound proves, with a probability of (1 + confidence) / 2, that
    the q-quantile lies within the bound: P(binomial(n, 1 - q) ≤ 1) ≤ (1 - confidence) / 2. A single outlier is then
    not the bound. Below the median the same holds for the other tail.
    Source: the early stopping rule of MLPerf Inference, appendix "Early Stopping Criterion" of the inference policies
    (https://github.com/mlcommons/inference_policies), with tolerance 0 and one over-latency query; its own figures are
    64 for p90 and 662 for p99, at a one-sided 99 %, which is ``confidence=0.98`` here.
    """
    from scipy.special import bdtr

    require_fractions(q=q, confidence=confidence)
    tail, alpha = min(q, 1 - q), (1 - confidence) / 2
    low, high = 1, 2
    while bdtr(1, high, tail) > alpha:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if bdtr(1, middle, tail) > alpha else (low, middle)
    return high


def _between_ranks(ordered: npt.NDArray[np.float64], q: float, confidence: float) -> Estimate:
    """The order statistics of independent samples."""
    n, alpha = len(ordered), 1 - confidence
    return _bounded(ordered, q, _binomial_quantile(alpha / 2, n, q), _binomial_quantile(1 - alpha / 2, n, q) + 1)


def _between_levels(ordered: npt.NDArray[np.float64], q: float, confidence: float, count: int) -> Estimate:
    """The order statistics at the bounds of the share q of ``count`` samples."""
    from scipy.special import betaincinv

    n, tail = len(ordered), (1 - confidence) / 2
    below, above = q * count + 0.5, (1 - q) * count + 0.5
    low, high = betaincinv(below, above, tail), betaincinv(below, above, 1 - tail)
    return _bounded(ordered, q, math.floor(low * n), math.ceil(high * n) + 1)


def _bounded(ordered: npt.NDArray[np.float64], q: float, low: int, high: int) -> Estimate:
    """The q-quantile, and the ``low``-th and ``high``-th smallest samples where there are such."""
    n = len(ordered)
    bounds = (float(ordered[low - 1]) if low >= 1 else None, float(ordered[high - 1]) if high <= n else None)
    return Estimate(float(ordered[rank(n, q) - 1]), bounds)


def _initial_sequence(indicator: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Inflation of the variance of the mean, and its degrees of freedom."""
    n = len(indicator)
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(indicator - indicator.mean(), size)
    covariance = np.fft.irfft(spectrum * spectrum.conj(), size)[:n] / n
    pairs = covariance[0 : n - 1 : 2] + covariance[1:n:2]
    ends = np.flatnonzero(pairs <= 0)
    window = int(ends[0]) if len(ends) else len(pairs)
    total = 2 * np.minimum.accumulate(pairs[:window]).sum() if window else covariance[0]
    return float((total - covariance[0]) / covariance[0]), max(3.0, n / max(1, 2 * window))


def _binomial_quantile(probability: float, n: int, p: float) -> int:
    """The smallest k with P(B ≤ k) ≥ ``probability`` for a binomial(n, p) B."""
    from scipy.special import bdtr, bdtrik

    k: int = max(0, math.ceil(bdtrik(probability, n, p)))
    return k - 1 if k > 0 and bdtr(k - 1, n, p) >= probability else k
