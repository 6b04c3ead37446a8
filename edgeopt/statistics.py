"""Point values with confidence intervals, each from a published method; pure functions of numbers.

All confidence intervals are two-sided and lose the same probability at either end. A bound that the data cannot
support is None: it is never made up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]] | npt.NDArray[np.integer[Any]] | Sequence[float]
Interval = tuple[float | None, float | None]

#: rounds that enter a ratio's bootstrap; more are thinned, which widens the interval a little
_BOOTSTRAP_ROUNDS = 20_000


class Estimate(NamedTuple):
    """A value and its (low, high) bounds; a bound is None where the data cannot support one."""

    value: float
    interval: Interval


def percentile_interval(samples: Floats, q: float, confidence: float = 0.95) -> Estimate:
    """The q-quantile and its distribution-free interval between two order statistics.

    The number of samples below the true quantile is binomial(n, q), so that the l-th and u-th smallest samples enclose
    it with probability P(l ≤ B < u), exactly, for any continuous distribution of independent samples.
    Source: David and Nagaraja, Order Statistics, 3rd ed. (2003), section 7.1. The value is the nearest-rank quantile,
    the ⌈nq⌉-th smallest sample. Latencies in a row are not quite independent: the interval is then somewhat short.

    Args:
        samples: (n,) in any order and unit, n ≥ 1.
        q: In (0, 1).
        confidence: In (0, 1).
    """
    _require_fractions(q=q, confidence=confidence)
    ordered = np.sort(_series(samples, "samples"))
    n, alpha = len(ordered), 1 - confidence
    low = _binomial_quantile(alpha / 2, n, q)
    high = _binomial_quantile(1 - alpha / 2, n, q) + 1
    return Estimate(
        value=float(ordered[_rank(n, q) - 1]),
        interval=(float(ordered[low - 1]) if low >= 1 else None, float(ordered[high - 1]) if high <= n else None),
    )


def samples_needed(q: float, confidence: float = 0.95) -> int:
    """The smallest n for which ``percentile_interval`` gives both bounds.

    The largest sample lies above the q-quantile with probability 1 - qⁿ, the smallest below it with 1 - (1-q)ⁿ; both
    must reach 1 - α/2. Source: as ``percentile_interval``. For 95 %: 6 for the median, 36 for p90, 368 for p99.
    """
    _require_fractions(q=q, confidence=confidence)
    return math.ceil(math.log((1 - confidence) / 2) / math.log(max(q, 1 - q)))


def ratio_interval(
    a: Floats, b: Floats, q: float = 0.5, confidence: float = 0.95, seed: int = 0, resamples: int = 1000
) -> Estimate:
    """The ratio of the q-quantiles of two interleaved series, a / b, by a circular block bootstrap over rounds.

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
    _require_fractions(q=q, confidence=confidence)
    first, second = _series(a, "a"), _series(b, "b")
    if len(first) != len(second):
        raise ValueError(f"interleaved series have the same length, not {len(first)} and {len(second)}")
    if min(first.min(), second.min()) <= 0:
        raise ValueError("a ratio needs positive samples")
    value = float(_quantile(first, q) / _quantile(second, q))
    if len(first) < 20:
        return Estimate(value, (None, None))
    random = np.random.default_rng(seed)
    if (step := math.ceil(len(first) / _BOOTSTRAP_ROUNDS)) > 1:  # one round, at random, of every `step`
        kept = np.arange(0, len(first) - step + 1, step)
        kept += random.integers(step, size=len(kept))
        first, second = first[kept], second[kept]
    n = len(first)
    block = math.ceil(math.sqrt(n))
    blocks = math.ceil(n / block)
    wanted = _rank(blocks * block, q)
    order_first, order_second = np.argsort(first), np.argsort(second)
    ratios = np.empty(resamples)
    for index in range(resamples):
        # How often each round is drawn, instead of the drawn rounds: the quantile is then found by a running sum.
        starts = np.bincount(random.integers(n, size=blocks), minlength=n)
        sums = np.concatenate(([0], np.cumsum(np.concatenate((starts[n - block + 1 :], starts)))))
        times = sums[block:] - sums[:-block]
        ratios[index] = (
            first[order_first[np.searchsorted(np.cumsum(times[order_first]), wanted)]]
            / second[order_second[np.searchsorted(np.cumsum(times[order_second]), wanted)]]
        )
    return Estimate(value, _between(ratios, confidence))


def independent_ratio(
    a: Floats, b: Floats, q: float = 0.5, confidence: float = 0.95, seed: int = 0, resamples: int = 1000
) -> Estimate:
    """The ratio of the q-quantiles of two series that were not interleaved, a / b, by a circular block bootstrap.

    Each series is resampled by itself. What differs between their days is not in the interval. Source, blocks and
    arguments: as ``ratio_interval``, but the lengths may differ.
    """
    _require_fractions(q=q, confidence=confidence)
    first, second = _series(a, "a"), _series(b, "b")
    if min(first.min(), second.min()) <= 0:
        raise ValueError("a ratio needs positive samples")
    value = float(_quantile(first, q) / _quantile(second, q))
    if min(len(first), len(second)) < 20:
        return Estimate(value, (None, None))
    random = np.random.default_rng(seed)
    ratios = _block_quantiles(first, q, resamples, random) / _block_quantiles(second, q, resamples, random)
    return Estimate(value, _between(ratios, confidence))


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


def proportion_interval(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """A proportion with the exact (conservative) binomial interval.

    Source: Clopper and Pearson, Biometrika 26 (1934), in its beta-quantile form.

    Args:
        successes: From 0 to n.
        n: Trials, at least 1.
        confidence: In (0, 1).
    """
    from scipy.special import betaincinv  # scipy.stats has it too, but takes a second to import

    _require_fractions(confidence=confidence)
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} successes of {n} are no proportion")
    tail = (1 - confidence) / 2
    low = float(betaincinv(successes, n - successes + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, n - successes, 1 - tail)) if successes < n else 1.0
    return Estimate(successes / n, (low, high))


def paired_proportion_difference(
    correct_a: npt.ArrayLike, correct_b: npt.ArrayLike, confidence: float = 0.95
) -> Estimate:
    """How much larger a proportion of a is than that of b, both observed on the same samples.

    The adjusted Wald interval: with n₁₂ samples right in a only and n₂₁ in b only, p̃ = (count + 1) / (n + 2) and
    d̃ ± z √((p̃₁₂ + p̃₂₁ - d̃²) / (n + 2)), d̃ = p̃₁₂ - p̃₂₁. It works without any disagreement as well.
    Source: Bonett and Price, Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data, Journal of Educational and Behavioral Statistics 37 (2012).

    Args:
        correct_a, correct_b: (n,) bool; element i of both is the same sample.
        confidence: In (0, 1).
    """
    from scipy.special import ndtri

    _require_fractions(confidence=confidence)
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise ValueError(f"paired observations have the same shape (n,), not {a.shape} and {b.shape}")
    n = a.size
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p_a, p_b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = float(ndtri(0.5 + confidence / 2)) * math.sqrt((p_a + p_b - (p_a - p_b) ** 2) / (n + 2))
    centre = p_a - p_b
    return Estimate((only_a - only_b) / n, (max(-1.0, centre - half), min(1.0, centre + half)))


def bootstrap_interval(
    compute: Callable[[npt.NDArray[Any], npt.NDArray[Any]], float],
    outputs: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    strata: npt.NDArray[Any] | None = None,
) -> Estimate:
    """Any metric with a percentile bootstrap over samples.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    Args:
        compute: The metric, of (outputs, labels).
        outputs: (N, …), one row per sample.
        labels: (N, …), one row per sample.
        confidence: In (0, 1).
        resamples: How many.
        seed: Of the resampling.
        strata: (N,) classes within each of which is drawn, for metrics that need every class (EER, APCER).

    Raises:
        ValueError: The metric is not finite on some resample: without its classes it is not defined; give ``strata``.
    """
    values = (
        compute(outputs[rows], labels[rows]) for rows in _resampled(labels, len(outputs), resamples, seed, strata)
    )
    return Estimate(float(compute(outputs, labels)), _between(_finite(values), confidence))


def paired_bootstrap_interval(
    compute: Callable[[npt.NDArray[Any], npt.NDArray[Any]], float],
    outputs_a: npt.NDArray[Any],
    outputs_b: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    *,
    compute_b: Callable[[npt.NDArray[Any], npt.NDArray[Any]], float] | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    strata: npt.NDArray[Any] | None = None,
) -> Estimate:
    """How much larger a metric is for a than for b, by a percentile bootstrap over the samples that both saw.

    Arguments, source and errors: as ``bootstrap_interval``; row i of both outputs is the same sample, and ``compute_b``
    is the metric for b where it differs, as by its threshold.
    """
    if len(outputs_a) != len(outputs_b):
        raise ValueError(f"paired outputs have the same length, not {len(outputs_a)} and {len(outputs_b)}")

    def difference(rows: Any) -> float:
        return compute(outputs_a[rows], labels[rows]) - (compute_b or compute)(outputs_b[rows], labels[rows])

    values = map(difference, _resampled(labels, len(outputs_a), resamples, seed, strata))
    return Estimate(float(difference(slice(None))), _between(_finite(values), confidence))


def _binomial_quantile(probability: float, n: int, p: float) -> int:
    """The smallest k with P(B ≤ k) ≥ ``probability`` for a binomial(n, p) B."""
    from scipy.special import bdtr, bdtrik

    k: int = max(0, math.ceil(bdtrik(probability, n, p)))
    return k - 1 if k > 0 and bdtr(k - 1, n, p) >= probability else k


def _resampled(labels: npt.NDArray[Any], count: int, resamples: int, seed: int, strata: npt.NDArray[Any] | None) -> Any:
    """Yields row numbers, (count,) each."""
    if count != len(labels) or not count:
        raise ValueError(f"outputs and labels have the same length, at least 1, not {count} and {len(labels)}")
    random = np.random.default_rng(seed)
    groups = [np.arange(count)] if strata is None else [np.flatnonzero(strata == label) for label in np.unique(strata)]
    for _ in range(resamples):
        yield np.concatenate([random.choice(rows, size=len(rows)) for rows in groups])


def _finite(values: Any) -> npt.NDArray[np.float64]:
    collected = np.fromiter(values, dtype=np.float64)
    if not np.isfinite(collected).all():
        raise ValueError("the metric is not defined on some resamples; draw within its classes (strata)")
    return collected


def _between(values: npt.NDArray[np.float64], confidence: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _block_quantiles(
    series: npt.NDArray[np.float64], q: float, resamples: int, random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """The q-quantiles of circular block resamples: (resamples,)."""
    if (step := math.ceil(len(series) / _BOOTSTRAP_ROUNDS)) > 1:  # one sample, at random, of every `step`
        kept = np.arange(0, len(series) - step + 1, step)
        series = series[kept + random.integers(step, size=len(kept))]
    n = len(series)
    block = math.ceil(math.sqrt(n))
    blocks = math.ceil(n / block)
    wanted = _rank(blocks * block, q)
    order = np.argsort(series)
    found = np.empty(resamples)
    for index in range(resamples):
        # How often each sample is drawn, instead of the drawn samples: the quantile is then found by a running sum.
        starts = np.bincount(random.integers(n, size=blocks), minlength=n)
        sums = np.concatenate(([0], np.cumsum(np.concatenate((starts[n - block + 1 :], starts)))))
        times = sums[block:] - sums[:-block]
        found[index] = series[order[np.searchsorted(np.cumsum(times[order]), wanted)]]
    return found


def _rank(n: int, q: float) -> int:
    """⌈nq⌉, at least 1; the product is rounded first, for 100 × 0.07 is 7.000000000000001 in floats."""
    return max(1, math.ceil(round(n * q, 9)))


def _quantile(samples: npt.NDArray[np.float64], q: float) -> float:
    position = _rank(len(samples), q) - 1
    return float(np.partition(samples, position)[position])


def _series(samples: Floats, name: str) -> npt.NDArray[np.float64]:
    array = np.asarray(samples, dtype=np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"{name} must be a non-empty series of finite numbers, not of shape {array.shape}")
    return array


def _require_fractions(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie between 0 and 1, not {value}")
