"""Intervals of numbers that are means or maxima of others, and of differences that no table of counts decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt.statistics import Estimate, proportion_interval

Floats = npt.NDArray[np.floating[Any]]
Bounds = tuple[float, float]


def mean_of(estimates: Sequence[Estimate], correlation: npt.ArrayLike | None = None) -> Bounds:
    """Bounds of the mean of several numbers, from their values and intervals.

    With d_k the distances of the values from their lower bounds and R their correlations, the lower bound lies
    √(dᵀ R d) / K below the mean, the upper one likewise: the method of variance estimates recovery (MOVER), which keeps
    the asymmetry of the intervals and works where an estimate is 0 or 1.
    Source: Zou and Donner, Construction of confidence limits about effect measures, Statistics in Medicine 27 (2008).

    Args:
        estimates: K of them, with both bounds.
        correlation: (K, K); left out, they are independent.
    """
    values = np.array([estimate.value for estimate in estimates])
    bounds = np.array([estimate.interval for estimate in estimates], dtype=np.float64)
    matrix = np.eye(len(values)) if correlation is None else np.asarray(correlation)
    below, above = (
        math.sqrt(max(0.0, d @ matrix @ d)) / len(d) for d in (values - bounds[:, 0], bounds[:, 1] - values)
    )
    mean = float(values.mean())
    return mean - below, mean + above


def largest_proportion(counts: Sequence[tuple[int, int]], confidence: float) -> Bounds:
    """Bounds of the largest of several proportions, each ``(successes, n)`` on samples of its own.

    Upper: the largest of the exact upper bounds, for one of them belongs to the largest proportion. Lower: the largest
    of the exact lower bounds, each at the level α/K, for any of them may be the one that errs (Bonferroni).
    """
    strict = 1 - (1 - confidence) / len(counts)
    return max(exact(*count, strict)[0] for count in counts), max(exact(*count, confidence)[1] for count in counts)


def within(bounds: Bounds, least: float, greatest: float) -> Bounds:
    """The bounds, cut to what the number can be at all."""
    return max(least, bounds[0]), min(greatest, bounds[1])


def exact(successes: int, n: int, confidence: float) -> Bounds:
    """Of a proportion; (0, 1) without any samples."""
    if not n:
        return 0.0, 1.0
    low, high = proportion_interval(successes, n, confidence).interval
    assert low is not None and high is not None  # noqa: PT018
    return low, high


def paired_difference(
    value: float, influence_a: Floats, influence_b: Floats, one_sample: float, confidence: float
) -> Bounds:
    """Bounds of a - b, two numbers of the same samples, from what every sample contributes to them.

    ``value`` ± z √(Σ (ψa - ψb)² / N² + 2 s²): the linearised variance of a smooth statistic (Deville, Variance
    estimation for complex statistics, Survey Methodology 25 (1999)) with two more samples on which a and b disagree,
    which keeps models that agree on all samples from looking exactly equal. For a share of samples that is the
    adjusted Wald interval (Bonett and Price 2012), but for its centre.

    Args:
        value: a - b.
        influence_a, influence_b: (N,) the influence function ψ at every sample.
        one_sample: s, how far one sample that changes sides moves the number.
        confidence: In (0, 1).
    """
    from scipy.special import ndtri

    spread = float(((influence_a - influence_b) ** 2).sum()) / len(influence_a) ** 2 + 2 * one_sample**2
    half = float(ndtri(0.5 + confidence / 2)) * math.sqrt(spread)
    return value - half, value + half
