"""Proportions: their intervals, their differences, and how many trials they need."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgeopt.statistics.estimate import Estimate, require_fractions


def proportion_interval(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """A proportion with the exact (conservative) binomial interval.

    Source: Clopper and Pearson, Biometrika 26 (1934), in its beta-quantile form.

    Args:
        successes: From 0 to n.
        n: Trials, at least 1.
        confidence: In (0, 1).
    """
    from scipy.special import betaincinv  # scipy.stats has it too, but takes a second to import

    _require_counts(successes, n, confidence)
    tail = (1 - confidence) / 2
    low = float(betaincinv(successes, n - successes + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, n - successes, 1 - tail)) if successes < n else 1.0
    return Estimate(successes / n, (low, high))


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """A proportion with Wilson's score interval: shorter than the exact one, right on average over proportions.

    Source: Wilson, Probable inference, the law of succession, and statistical inference (1927); recommended by Brown,
    Cai and DasGupta, Interval estimation for a binomial proportion, Statistical Science 16 (2001). Where a gate must
    not be passed by luck, use ``proportion_interval``.

    Arguments: as ``proportion_interval``.
    """
    from scipy.special import ndtri

    _require_counts(successes, n, confidence)
    z = float(ndtri(0.5 + confidence / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else centre - half
    return Estimate(share, (low, 1.0 if successes == n else centre + half))


def trials_needed(proportion: float, confidence: float = 0.95) -> int:
    """The fewest trials that can show a proportion to be at most ``proportion``: that many without a single event.

    ⌈log(1 - confidence) / log(1 - proportion)⌉, close to 3 / proportion at 95 %: the rule of three. Fewer trials cannot
    resolve the proportion, and a number claimed for it means nothing.
    Sources: Hanley and Lippman-Hand, If nothing goes wrong, is everything all right?, JAMA 249 (1983); ISO/IEC 19795-1,
    annex B, for error rates in biometrics.
    """
    require_fractions(proportion=proportion, confidence=confidence)
    return math.ceil(round(math.log1p(-confidence) / math.log1p(-proportion), 9))


def smallest_proportion(n: int, confidence: float = 0.95) -> float:
    """The smallest proportion that n trials resolve, 1 - (1 - confidence)^(1/n): the inverse of ``trials_needed``."""
    require_fractions(confidence=confidence)
    if n < 1:
        raise ValueError(f"{n} trials resolve no proportion")
    return -math.expm1(math.log1p(-confidence) / n)


def mcnemar_exact(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike) -> float:
    """The two-sided p-value of both being right equally often, given the samples on which they disagree.

    With n₁₂ samples right in a only and n₂₁ in b only, n₁₂ is binomial(n₁₂ + n₂₁, 1/2) if neither is better; p is twice
    the smaller tail, at most 1. Without disagreement it is 1.
    Source: McNemar, Psychometrika 12 (1947), in the exact form; compared with its rivals by Fagerland, Lydersen and
    Laake, The McNemar test for binary matched-pairs data, BMC Medical Research Methodology 13 (2013).

    Args:
        correct_a, correct_b: (n,) bool; element i of both is the same sample.
    """
    from scipy.special import bdtr

    _, only_a, only_b = _disagreement(correct_a, correct_b)
    total = only_a + only_b
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), total, 0.5))) if total else 1.0


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

    require_fractions(confidence=confidence)
    n, only_a, only_b = _disagreement(correct_a, correct_b)
    p_a, p_b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = float(ndtri(0.5 + confidence / 2)) * math.sqrt((p_a + p_b - (p_a - p_b) ** 2) / (n + 2))
    centre = p_a - p_b
    return Estimate((only_a - only_b) / n, (max(-1.0, centre - half), min(1.0, centre + half)))


def _disagreement(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike) -> tuple[int, int, int]:
    """Samples in all, right in a only, right in b only."""
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise ValueError(f"paired observations have the same shape (n,), not {a.shape} and {b.shape}")
    return a.size, int((a & ~b).sum()), int((b & ~a).sum())


def _require_counts(successes: int, n: int, confidence: float) -> None:
    require_fractions(confidence=confidence)
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} successes of {n} are no proportion")
