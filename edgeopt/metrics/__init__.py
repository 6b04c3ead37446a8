"""Accuracy metrics: one file, one family. A metric says what it is, and how sure the samples make it.

metric      what a metric is
building    from a recipe to metrics
scoring     from outputs to measurements
"""

from __future__ import annotations

from edgeopt.metrics.building import (
    build,
    clash,
    foreign_source,
    guards,
    label,
    load,
    source,
    with_companions,
)
from edgeopt.metrics.metric import BASELINE, Better, Metric, NotMeasurable
from edgeopt.metrics.scoring import blamed, check_split, drop, measurement, score

__all__ = [
    "BASELINE",
    "Better",
    "Metric",
    "NotMeasurable",
    "blamed",
    "build",
    "check_split",
    "clash",
    "drop",
    "foreign_source",
    "guards",
    "label",
    "load",
    "measurement",
    "score",
    "source",
    "with_companions",
]
