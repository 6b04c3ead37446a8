"""Ratios of latencies, and differences of any two independent estimates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt.statistics.estimate import (
    Estimate,
    Floats,
    between,
    positive_pair,
    quantile,
    rank,
    require_fractions,
    series,
)

#: rounds that enter a bootstrap; more are thinned, which widens the interval a little
_BOOTSTRAP_ROUNDS = 20_000
#: fewer sessions say nothing about how far sessions lie apart
FEWEST_SESSIONS = 3


def paired_log_ratio(a: Floats, b: Floats) -> float:
    """The median over rounds of log a - log b: how much longer a takes at the same moment of the machine.

    Whatever slows the machine for longer than a round cancels within the round, so that this repeats about twice as
    well as the ratio of medians on a busy machine. Its estimand is the median of the ratio, not the ratio of medians;
    the two agree where both series have the same shape.

    Args:
        a, b: (n,) each, positive, n ≥ 1; element i of both is the same round.
    """
    first, second = positive_pair(a, b)
    return float(np.median(np.log(first) - np.log(second)))


def quantile_log_ratio(a: Floats, b: Floats, q: float) -> float:
    """log of the ratio of the q-quantiles of two interleaved series; arguments as ``paired_log_ratio``."""
    require_fractions(q=q)
    first, second = positive_pair(a, b)
    return math.log(quantile(first, q) / quantile(second, q))


def session_ratio(log_ratios: Floats, confidence: float = 0.95) -> Estimate:
    """The ratio that several sessions agree on: the geometric mean, with Student's t interval over the sessions.

    In every session the models are opened anew. Two openings of one file differ by up to a few percent for as long as
    they last, by where their memory happens to lie, so that rounds of one session, however many, cannot tell a slower
    model from an unlucky opening; the scatter between sessions contains both that and the noise within them.
    Source: the need of replicated processes, Kalibera and Jones, Rigorous benchmarking in reasonable time (2013);
    Student's t on logarithms gives the geometric mean, Fleming and Wallace, How not to lie with statistics (1986).

    Args:
        log_ratios: (sessions,), one logarithm of a ratio per session.
        confidence: In (0, 1).

    Returns:
        Both bounds are None below three sessions. Sessions that agree exactly give an interval of no width.
    """
    from scipy.special import stdtrit

    require_fractions(confidence=confidence)
    values = series(log_ratios, "log_ratios")
    count, centre = len(values), float(values.mean())
    if count < FEWEST_SESSIONS:
        return Estimate(math.exp(centre), (None, None))
    half = float(stdtrit(count - 1, 0.5 + confidence / 2)) * float(values.std(ddof=1)) / math.sqrt(count)
    return Estimate(math.exp(centre), (math.exp(centre - half), math.exp(centre + half)))


def independent_session_ratio(a: Floats, b: Floats, confidence: float = 0.95) -> Estimate:
    """The ratio a / b of two runs that were not interleaved, from the logarithm of one latency per session each.

    Welch's t interval: the scatter of both runs' sessions is in it, what changed on the machine between them is not.
    Source: Welch, The generalization of Student's problem when several different population variances are involved,
    Biometrika 34 (1947).

    Args:
        a, b: (sessions,) each, logarithms; the numbers may differ.
        confidence: In (0, 1).

    Returns:
        Both bounds are None if either has fewer than three sessions.
    """
    from scipy.special import stdtrit

    require_fractions(confidence=confidence)
    first, second = series(a, "a"), series(b, "b")
    centre = float(first.mean() - second.mean())
    if min(len(first), len(second)) < FEWEST_SESSIONS:
        return Estimate(math.exp(centre), (None, None))
    parts = [float(values.var(ddof=1)) / len(values) for values in (first, second)]
    weights = sum(part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True))
    freedom = sum(parts) ** 2 / weights if weights else 1.0
    half = float(stdtrit(freedom, 0.5 + confidence / 2)) * math.sqrt(sum(parts))
    return Estimate(math.exp(centre), (math.exp(centre - half), math.exp(centre + half)))


def ratio_interval(
    a: Floats, b: Floats, q: float = 0.5, confidence: float = 0.95, seed: int = 0, resamples: int = 1000
) -> Estimate:
    """The ratio of the q-quantiles of two interleaved series, a / b, by a circular block bootstrap over rounds.

    It holds for the one opening of the models that was timed; see ``session_ratio``.
    Rounds are resampled, so that what hits both series of a round stays together; whole blocks of neighbouring rounds,
    so that slow drifts stay in. Source: Politis and Romano, A circular block-resampling procedure for stationary data
    (1992); percentile intervals after Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    Blocks are √n long: longer than the n^(1/3) that suits short memory, since a busy machine remembers for long.

    Args:
        a, b: (n,) each, positive; element i of both is the same round.
        q: In (0, 1).
        confidence: In (0, 1).
        seed: Of the resampling.
        resamples: How many.

    Returns:
        The ratio over all rounds. Both bounds are None below 20 rounds, where a bootstrap means nothing.
    """
    require_fractions(q=q, confidence=confidence)
    first, second = positive_pair(a, b)
    value = quantile(first, q) / quantile(second, q)
    if len(first) < 20:
        return Estimate(value, (None, None))
    random = np.random.default_rng(seed)
    kept = _thinned(len(first), random)
    first, second = first[kept], second[kept]
    order_first, order_second = np.argsort(first), np.argsort(second)
    ratios = [
        first[_weighted_position(order_first, times, q)] / second[_weighted_position(order_second, times, q)]
        for times in _block_draws(len(first), resamples, random)
    ]
    return Estimate(value, between(np.array(ratios), confidence))


def independent_ratio(
    a: Floats, b: Floats, q: float = 0.5, confidence: float = 0.95, seed: int = 0, resamples: int = 1000
) -> Estimate:
    """The ratio of the q-quantiles of two series that were not interleaved, a / b, by a circular block bootstrap.

    Each series is resampled by itself. What differs between their days is not in the interval. Source, blocks and
    arguments: as ``ratio_interval``, but the lengths may differ.
    """
    require_fractions(q=q, confidence=confidence)
    first, second = series(a, "a"), series(b, "b")
    if min(first.min(), second.min()) <= 0:
        raise ValueError("a ratio needs positive samples")
    value = quantile(first, q) / quantile(second, q)
    if min(len(first), len(second)) < 20:
        return Estimate(value, (None, None))
    random = np.random.default_rng(seed)
    ratios = _block_quantiles(first, q, resamples, random) / _block_quantiles(second, q, resamples, random)
    return Estimate(value, between(ratios, confidence))


def independent_difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b of two independent estimates whose intervals have the same confidence, from these intervals alone.

    The lower bound is a - b - √((a - low a)² + (high b - b)²), the upper one likewise: the method of variance estimates
    recovery (MOVER), which keeps the asymmetry of either interval. Sources: Newcombe, Interval estimation for the
    difference between independent proportions, Statistics in Medicine 17 (1998), method 10; Zou and Donner,
    Construction of confidence limits about effect measures, Statistics in Medicine 27 (2008). For estimates that rise
    and fall together, as of the same samples, the interval is too wide, never too narrow.
    """
    value = a.value - b.value
    (low_a, high_a), (low_b, high_b) = a.interval, b.interval
    return Estimate(
        value,
        (
            None if low_a is None or high_b is None else value - math.hypot(a.value - low_a, high_b - b.value),
            None if high_a is None or low_b is None else value + math.hypot(high_a - a.value, b.value - low_b),
        ),
    )


def _block_quantiles(
    samples: npt.NDArray[np.float64], q: float, resamples: int, random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """The q-quantiles of circular block resamples: (resamples,)."""
    samples = samples[_thinned(len(samples), random)]
    order = np.argsort(samples)
    draws = _block_draws(len(samples), resamples, random)
    return np.array([samples[_weighted_position(order, times, q)] for times in draws])


def _thinned(n: int, random: np.random.Generator) -> npt.NDArray[np.intp]:
    """Indices of at most ``_BOOTSTRAP_ROUNDS`` of n rounds: one, at random, of every so many."""
    step = math.ceil(n / _BOOTSTRAP_ROUNDS)
    kept = np.arange(0, n - step + 1, step)
    return kept + random.integers(step, size=len(kept))


def _block_draws(n: int, resamples: int, random: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """How often each of n rounds is drawn, (n,), when blocks of √n neighbours are drawn in a circle."""
    block = math.ceil(math.sqrt(n))
    blocks = math.ceil(n / block)
    for _ in range(resamples):
        starts = np.bincount(random.integers(n, size=blocks), minlength=n)
        sums = np.concatenate(([0], np.cumsum(np.concatenate((starts[n - block + 1 :], starts)))))
        yield sums[block:] - sums[:-block]


def _weighted_position(order: npt.NDArray[np.intp], times: npt.NDArray[np.int64], q: float) -> Any:
    """Index of the q-quantile of samples that are drawn so many times; ``order`` sorts them."""
    sums = np.cumsum(times[order])
    return order[np.searchsorted(sums, rank(int(sums[-1]), q))]
