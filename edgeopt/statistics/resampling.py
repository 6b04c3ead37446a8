"""Intervals of any metric by resampling the samples.

A resample holds only what the sample holds. The bootstrap therefore knows nothing of a few samples, nor of events that
did not happen to be among them: both bounds are None for fewer than 20 samples, and where all resamples agree, unless
the samples are many enough to have shown what 1 % of all samples do (the rule of three).
Sources: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; Schenker, Qualms about bootstrap
confidence intervals, JASA 80 (1985), for its coverage on samples of 20; for the rule of three see ``trials_needed``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt.statistics.estimate import Estimate, Interval, between
from edgeopt.statistics.proportions import trials_needed

#: of fewer samples nothing is known
_FEWEST = 20
#: what is seen in no sample may still be in this share of all
_UNSEEN = 0.01
#: resamples that differ by less, relative to their size, differ by rounding
_ROUNDING = 1e-12


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
    """Any metric with a percentile bootstrap over samples; no bounds where that means nothing, as the module says.

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
    return Estimate(float(compute(outputs, labels)), _interval(_finite(values), len(labels), confidence))


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

    Arguments, bounds and errors: as ``bootstrap_interval``; row i of both outputs is the same sample, and ``compute_b``
    is the metric for b where it differs, as by its threshold.
    """
    if len(outputs_a) != len(outputs_b):
        raise ValueError(f"paired outputs have the same length, not {len(outputs_a)} and {len(outputs_b)}")

    def difference(rows: Any) -> float:
        return compute(outputs_a[rows], labels[rows]) - (compute_b or compute)(outputs_b[rows], labels[rows])

    values = map(difference, _resampled(labels, len(outputs_a), resamples, seed, strata))
    return Estimate(float(difference(slice(None))), _interval(_finite(values), len(labels), confidence))


def _interval(values: npt.NDArray[np.float64], count: int, confidence: float) -> Interval:
    """Of the values on resamples of ``count`` samples."""
    agree = np.ptp(values) <= _ROUNDING * np.abs(values).max()
    if count < _FEWEST or (agree and count < trials_needed(_UNSEEN, (1 + confidence) / 2)):
        return None, None
    return between(values, confidence)


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
