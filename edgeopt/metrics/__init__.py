"""Accuracy metrics: one file, one family. A metric says what it is, and how sure the samples make it."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from edgeopt import statistics
from edgeopt.measure import Measurement

Array = npt.NDArray[Any]


class Metric(Protocol):
    """A metric over the outputs of a network.

    Attributes:
        name: As recipes write it.
        unit: ``1`` for a ratio.
        better: Which direction is better.
    """

    name: str
    unit: str
    better: Literal["lower", "higher"]

    def compute(self, outputs: Array, labels: Array) -> float:
        """The value over all samples.

        Args:
            outputs: (N, ...) float32, as the network gives them.
            labels: (N,) or (N, K).

        Raises:
            ValueError: Outputs and labels do not fit this metric.
        """
        ...

    def hits(self, outputs: Array, labels: Array) -> npt.NDArray[np.bool_] | None:
        """(N,) whether each sample counts as right, if the metric is the share of those; else ``None``."""
        ...


def score(metric: Metric, outputs: Array, labels: Array, *, confidence: float, seed: int) -> Measurement:
    """The metric with its interval: Clopper–Pearson for a proportion, else the bootstrap over samples."""
    value = metric.compute(outputs, labels)
    hits = metric.hits(outputs, labels)
    if hits is not None:
        interval = statistics.proportion_interval(int(hits.sum()), len(hits), confidence).interval
    else:
        estimate = statistics.bootstrap_interval(metric.compute, outputs, labels, confidence=confidence, seed=seed)
        interval = estimate.interval
    return _measurement(metric, metric.name, value, interval, len(labels), confidence)


def drop(
    metric: Metric, outputs: Array, baseline: Array, labels: Array, *, confidence: float, seed: int
) -> Measurement:
    """How much worse than the baseline on the same samples: above zero is worse, whatever direction the metric has."""
    sign = 1.0 if metric.better == "higher" else -1.0
    value = sign * (metric.compute(baseline, labels) - metric.compute(outputs, labels))
    hits, baseline_hits = metric.hits(outputs, labels), metric.hits(baseline, labels)
    if hits is not None and baseline_hits is not None:
        interval = statistics.paired_proportion_difference(baseline_hits, hits, confidence).interval
    else:
        better, worse = (baseline, outputs) if sign > 0 else (outputs, baseline)
        interval = statistics.paired_bootstrap_interval(
            metric.compute, better, worse, labels, confidence=confidence, seed=seed
        ).interval
    return _measurement(metric, f"{metric.name} drop", value, interval, len(labels), confidence, better="lower")


def _measurement(
    metric: Metric,
    name: str,
    value: float,
    interval: statistics.Interval,
    count: int,
    confidence: float,
    better: Literal["lower", "higher"] | None = None,
) -> Measurement:
    return Measurement(
        metric=name,
        value=value,
        unit=metric.unit,
        better=better or metric.better,
        interval=interval,
        n=count,
        method="measured",
        protocol="",
        machine="",
        confidence=confidence,
    )
