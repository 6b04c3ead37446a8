"""Metrics applied to outputs: the number with its interval, the drop from the baseline, and who is to blame."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt import reference, statistics
from edgeopt.data import Split
from edgeopt.errors import ConfigError, EdgeoptError
from edgeopt.measure import Measurement
from edgeopt.metrics.metric import BASELINE, Array, Better, Metric, NotMeasurable
from edgeopt.statistics import Interval


@contextlib.contextmanager
def blamed(metric: Metric, root: Path) -> Iterator[None]:
    """What a metric raises within becomes an error that says which metric, and where in the user's own code.

    Raises:
        ConfigError: It refused its samples, or the user's own code raised anything at all.
    """
    try:
        yield
    except EdgeoptError:
        raise
    except Exception as error:
        place = reference.user_frame(error, root)
        if isinstance(error, ValueError | NotMeasurable):
            raise ConfigError(f"{metric.label}: {error}", where=place or "metrics") from error
        if not place:
            raise
        raise ConfigError(f"{metric.label} raised {type(error).__name__}: {error}", where=place) from error


def check_split(metric: Metric, split: Split, of_set: str = "", *, fitting: bool = False) -> None:
    """See that a split, or a set of it, has what the metric needs, or with ``fitting`` what its threshold needs.

    Raises:
        ConfigError: It lacks a column, or samples of some kind.
        ValueError: A column holds what the metric does not know.
    """
    where = f"data.{split.name}" + (f".sets.{of_set}" if of_set else "")
    rows = split.sets()[of_set] if of_set else None
    truth = split.truth(rows)
    count = len(split) if rows is None else len(rows)
    try:
        labels = metric.truth({BASELINE: np.empty((count, 0), np.float32), **truth})
    except KeyError as error:
        name = error.args[0]
        if name in truth:  # the metric's own doing
            raise
        raise ConfigError(
            f"{metric.label} needs {name!r} of every sample; there are: {', '.join(truth) or 'none'}",
            where=where,
            fix=f'return (samples, labels, {{"{name}": ...}}) from the loader, or put an array {name!r} into the .npz',
        ) from error
    try:
        metric.require(labels, fitting=fitting)
    except NotMeasurable as error:
        raise ConfigError(f"{metric.label} cannot be measured: {error}", where=where) from error


def score(metric: Metric, outputs: Array, labels: Any, *, confidence: float, seed: int) -> Measurement:
    """The metric with its interval.

    Args:
        metric: Fitted, if it needs to be.
        outputs: (N, ...) float32.
        labels: What :meth:`Metric.truth` gave for the same samples.
        confidence: Of the interval.
        seed: Of a bootstrap.

    Raises:
        ValueError: Outputs and labels do not fit the metric.
    """
    try:
        value = _finite(metric.compute(outputs, labels))
        interval = _bounds(metric.interval(outputs, labels, confidence=confidence, seed=seed))
        why = metric.remark(outputs, labels)
    except NotMeasurable as error:
        return measurement(metric, metric.label, None, None, len(outputs), confidence, why=str(error))
    return measurement(metric, metric.label, value, interval, len(outputs), confidence, why=why)


def drop(
    metric: Metric, reference: Metric, outputs: Array, baseline: Array, labels: Any, *, confidence: float, seed: int
) -> Measurement:
    """How much worse than the baseline on the same samples: above zero is worse, whatever direction the metric has.

    Args:
        metric: As fitted for the model.
        reference: The same metric as fitted for the baseline.
        outputs, baseline: (N, ...) float32 each.
        labels: As in :func:`score`.
        confidence, seed: As in :func:`score`.
    """
    name = f"{metric.label} drop"
    try:
        sign = 1.0 if metric.better == "higher" else -1.0
        value = sign * (_finite(reference.compute(baseline, labels)) - _finite(metric.compute(outputs, labels))) + 0.0
        low, high = _bounds(
            metric.drop_interval(outputs, baseline, labels, reference, confidence=confidence, seed=seed)
        )
    except NotMeasurable as error:
        return measurement(metric, name, None, None, len(outputs), confidence, better="lower", why=str(error))
    if sign < 0:
        low, high = None if high is None else -high, None if low is None else -low
    why = _disagreement(reference.hits(baseline, labels), metric.hits(outputs, labels))
    return measurement(metric, name, value, (low, high), len(outputs), confidence, better="lower", why=why)


def _disagreement(before: Array | None, after: Array | None) -> str:
    """Samples that were right before and are not, and the other way round, with the test of both being as many."""
    if before is None or after is None or (before == after).all():
        return ""
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    return f"{lost} samples lost and {won} won; exact McNemar p = {statistics.mcnemar_exact(before, after):.2g}"


def _finite(value: Any, what: str = "value") -> float:
    """A user's own metric may give any number, also one of numpy's, or none at all."""
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"its {what} is a {type(value).__name__}, not a number") from error
    if not math.isfinite(number):
        raise NotMeasurable(f"its {what} is {number}")
    return number


def _bounds(interval: Any) -> Interval:
    """As :func:`_finite`; no interval means that no bound is known, which no gate passes."""
    if interval is None:
        return None, None
    try:
        low, high = (None if bound is None else _finite(bound, "bound") for bound in interval)
    except TypeError as error:
        raise ValueError(f"its interval is a {type(interval).__name__}, not two bounds") from error
    if low is not None and high is not None and low > high:
        raise ValueError(f"its interval is upside down: {low} to {high}")
    return low, high


def measurement(
    metric: Metric,
    name: str,
    value: float | None,
    interval: Interval | None,
    count: int,
    confidence: float,
    *,
    better: Better | None = None,
    why: str = "",
) -> Measurement:
    """A measurement of a metric; it does not depend on a machine or a measuring protocol."""
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
        why=why,
    )
