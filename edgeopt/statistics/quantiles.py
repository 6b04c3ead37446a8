"""Percentiles: their intervals, from independent samples and from a time series, and the samples that they need."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgeopt.statistics.estimate import Estimate, Floats, quantile, rank, require_fractions, series

#: numbers of batches whose means show slow drifts
_BATCHES = (8, 16)
#: a percentile with a smaller share of the samples beyond it is an outer one
_OUTER = 0.1
#: batches count only where they vary more than independent samples would, at this level
_BATCH_LEVEL = 0.99


def percentile_interval(samples: Floats, q: float, confidence: float = 0.95) -> Estimate:
    """The q-quantile and its distribution-free interval between two order statistics.

    The number of samples below the true quantile is binomial(n, q), so that the l-th and u-th smallest samples enclose
    it with probability P(l ≤ B < u), exactly, for any continuous distribution of independent samples.
    Source: David and Nagaraja, Order Statistics, 3rd ed. (2003), section 7.1. The value is the nearest-rank quantile,
    the ⌈nq⌉-th smallest sample. For latencies use ``session_percentile_interval``.

    Args:
        samples: (n,) in any order and unit, n ≥ 1.
        q: In (0, 1).
        confidence: In (0, 1).
    """
    require_fractions(q=q, confidence=confidence)
    ordered = np.sort(series(samples, "samples"))
    n, alpha = len(ordered), 1 - confidence
    low, high = _binomial_quantile(alpha / 2, n, q), _binomial_quantile(1 - alpha / 2, n, q) + 1
    bounds = (float(ordered[low - 1]) if low >= 1 else None, float(ordered[high - 1]) if high <= n else None)
    return Estimate(float(ordered[rank(n, q) - 1]), bounds)


def effective_count(samples: Floats, q: float, confidence: float = 0.95) -> int:
    """How many independent samples would fix the q-quantile as well as these in a row do; 1 to n.

    It is n divided by the inflation of the variance of the share of samples at or below the quantile (Woodruff,
    Confidence intervals for medians and other position measures, 1952), which is the largest one of these estimates:

    - the sum of autocovariances up to where the sum of a neighbouring pair is not positive, made non-increasing: the
      initial monotone sequence of Geyer, Practical Markov chain Monte Carlo (1992), section 3.3; degrees of freedom
      n / M for a window of M lags (Priestley, Spectral Analysis and Time Series, 1981, table 6.1);
    - the same sum over as many lags as the median's sequence has, for the machine remembers as long at all levels, but
      the few samples beyond an outer percentile do not show it;
    - the variance of the means of 8 and of 16 batches (Schmeiser, Batch size effects in the analysis of simulation
      output, 1982), which sees drifts that are too slow for the others. It counts only where it is larger than that of
      independent samples at the 1 % level, for most of the time it would only add noise.

    Beyond p90, and below p10, few samples say how they hang together, and a series that happened to miss the machine's
    slow moments looks independent there. The inflation is then at least the geometric mean, with weights 1 and 2, of
    that at the percentile and that at the one with three times as many samples beyond it; found by simulation, see
    ``benchmarks/coverage.py``.

    The count is lowered by (z/t)², so that an interval made with the normal quantile is one with Student's.

    Args:
        samples: (n,) in the order of time, n ≥ 1.
        q: In (0, 1).
        confidence: Of the interval that the count is for, in (0, 1).
    """
    require_fractions(q=q, confidence=confidence)
    taken = series(samples, "samples")
    n = len(taken)
    if n < 2 * max(_BATCHES):
        return n
    inflation, tail = _inflation(taken, q, confidence), round(min(q, 1 - q), 9)
    if tail < _OUTER:
        nearer = _inflation(taken, 3 * tail if q < 0.5 else 1 - 3 * tail, confidence)
        inflation = max(inflation, (inflation * nearer**2) ** (1 / 3))
    return max(1, int(n / inflation))


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


def _inflation(samples: npt.NDArray[np.float64], q: float, confidence: float) -> float:
    """Of the variance of the share of samples at or below the q-quantile, with Student's factor; at least 1."""
    from scipy.special import chdtri, ndtri, stdtrit

    below = _below(samples, q)
    n, variance = len(below), below.var()
    if variance == 0:
        return 1.0
    pairs, window = _covariances(below)
    inflations = [_initial_sequence(pairs[:window], variance, n)]
    if q != 0.5:
        lags = max(window, _covariances(_below(samples, 0.5))[1])
        inflations.append((float(2 * pairs[:lags].sum() / variance - 1), _freedom(n, lags)))
    for batches in _BATCHES:
        size = n // batches
        means = below[: batches * size].reshape(batches, size).mean(axis=1)
        inflation, freedom = float(means.var(ddof=1) * size / variance), batches - 1.0
        if inflation > chdtri(freedom, 1 - _BATCH_LEVEL) / freedom:
            inflations.append((inflation, freedom))
    upper = 0.5 + confidence / 2
    widened = (value * (stdtrit(freedom, upper) / ndtri(upper)) ** 2 for value, freedom in inflations if value > 1)
    return float(max(widened, default=1.0))


def _below(samples: npt.NDArray[np.float64], q: float) -> npt.NDArray[np.float64]:
    """(n,) 1 where a sample is at or below the q-quantile."""
    return (samples <= quantile(samples, q)).astype(np.float64)


def _covariances(indicator: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], int]:
    """Sums of neighbouring pairs of autocovariances, and how many of them come before the first not positive one."""
    n = len(indicator)
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(indicator - indicator.mean(), size)
    covariance = np.fft.irfft(spectrum * spectrum.conj(), size)[:n] / n
    pairs = covariance[0 : n - 1 : 2] + covariance[1:n:2]
    ends = np.flatnonzero(pairs <= 0)
    return pairs, int(ends[0]) if len(ends) else len(pairs)


def _initial_sequence(pairs: npt.NDArray[np.float64], variance: float, n: int) -> tuple[float, float]:
    """Inflation of the variance of the mean, and its degrees of freedom."""
    if not len(pairs):
        return 1.0, _freedom(n, 0)
    return float(2 * np.minimum.accumulate(pairs).sum() / variance - 1), _freedom(n, len(pairs))


def _freedom(n: int, pairs: int) -> float:
    return max(3.0, n / max(1, 2 * pairs))


def _binomial_quantile(probability: float, n: int, p: float) -> int:
    """The smallest k with P(B ≤ k) ≥ ``probability`` for a binomial(n, p) B."""
    from scipy.special import bdtr, bdtrik

    k: int = max(0, math.ceil(bdtrik(probability, n, p)))
    return k - 1 if k > 0 and bdtr(k - 1, n, p) >= probability else k
