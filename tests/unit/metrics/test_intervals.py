"""Metrics with their intervals: a score, and a drop against a baseline on the same samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt import metrics, statistics
from edgeopt.metrics.classification import TopK
from edgeopt.metrics.probability import LogLoss
from edgeopt.metrics.regression import MeanAbsoluteError

SETTINGS = {"confidence": 0.95, "seed": 3}


def answers(right: np.ndarray, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (N, classes) that are right where ``right`` says so, and the labels."""
    labels = np.arange(len(right)) % classes
    said = np.where(right, labels, (labels + 1) % classes)
    return np.eye(classes, dtype=np.float32)[said], labels


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (7, 10), (10, 10), (590, 599)])
def test_the_score_of_a_share_has_the_exact_binomial_interval(hits, n):
    outputs, labels = answers(np.arange(n) < hits)
    found = metrics.score(TopK(1), outputs, labels, **SETTINGS)
    expected = statistics.proportion_interval(hits, n, 0.95)
    assert (found.value, found.interval) == (expected.value, expected.interval)
    assert (found.metric, found.unit, found.better, found.n) == ("top1", "1", "higher", n)
    assert (found.method, found.confidence) == ("measured", 0.95)


@pytest.mark.parametrize("metric", [LogLoss(), MeanAbsoluteError()], ids=lambda metric: metric.name)
def test_the_score_of_any_other_metric_is_bootstrapped(metric):
    outputs, labels = noisy(metric, 0)
    found = metrics.score(metric, outputs, labels, **SETTINGS)
    assert found.value == metric.compute(outputs, labels)
    low, high = found.interval
    assert low < found.value < high
    assert metrics.score(metric, outputs, labels, **SETTINGS) == found
    assert metrics.score(metric, outputs, labels, confidence=0.5, seed=3).interval[0] > low


def noisy(metric: metrics.Metric, noise: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    outputs, labels = answers(random.random(200) < 0.9)
    outputs = outputs * 3 + random.standard_normal(outputs.shape).astype(np.float32)
    if metric.name == "mae":
        labels = np.eye(4)[labels] * 3
        return (outputs + noise * np.sign(outputs - labels)).astype(np.float32), labels
    return outputs * np.float32(1 - noise), labels


def test_the_drop_of_a_share_looks_at_the_samples_in_pairs():
    n = 400
    baseline, labels = answers(np.arange(n) < 380)
    worse, _ = answers((np.arange(n) < 370) | (np.arange(n) == 390))  # ten lost, one won
    found = metrics.drop(TopK(1), TopK(1), worse, baseline, labels, **SETTINGS)
    assert found.metric == "top1 drop"
    assert found.value == pytest.approx(9 / n)
    assert found.better == "lower"
    hits = TopK(1).hits
    assert found.why == "10 samples lost and 1 won; exact McNemar p = 0.012"  # 2 (1 + 11) / 2¹¹
    expected = statistics.paired_proportion_difference(hits(baseline, labels), hits(worse, labels), 0.95)
    assert found.interval == expected.interval
    alone = metrics.score(TopK(1), worse, labels, **SETTINGS)
    assert found.interval[1] - found.interval[0] < alone.interval[1] - alone.interval[0]


@pytest.mark.parametrize("metric", [LogLoss(), MeanAbsoluteError()], ids=lambda metric: metric.name)
def test_a_drop_above_zero_is_worse_also_where_lower_is_better(metric):
    outputs, labels = noisy(metric, 0)
    worse, _ = noisy(metric, 0.9)
    assert metric.compute(worse, labels) > metric.compute(outputs, labels)
    lost = metrics.drop(metric, metric, worse, outputs, labels, **SETTINGS)
    won = metrics.drop(metric, metric, outputs, worse, labels, **SETTINGS)
    assert lost.value == pytest.approx(metric.compute(worse, labels) - metric.compute(outputs, labels))
    assert lost.interval[0] > 0
    assert lost.interval[0] < lost.value < lost.interval[1]
    assert won.value == -lost.value
    assert won.interval == pytest.approx((-lost.interval[1], -lost.interval[0]))


@pytest.mark.parametrize("metric", [TopK(1), LogLoss(), MeanAbsoluteError()], ids=lambda metric: metric.name)
def test_a_model_against_itself_has_not_dropped(metric):
    outputs, labels = noisy(metric, 0)
    found = metrics.drop(metric, metric, outputs, outputs, labels, **SETTINGS)
    assert found.value == 0.0
    low, high = found.interval  # a bootstrap over few samples that all agree has no bounds
    assert low is None or low <= 0
    assert high is None or high >= 0


@pytest.mark.parametrize("metric", [LogLoss(), MeanAbsoluteError()], ids=lambda metric: metric.name)
def test_a_few_equal_outputs_do_not_prove_that_nothing_dropped(metric):
    outputs, labels = (values[:12] for values in noisy(metric, 0))
    assert metrics.score(metric, outputs, labels, **SETTINGS).interval in (None, (None, None))
    found = metrics.drop(metric, metric, outputs, outputs, labels, **SETTINGS)
    assert found.value == 0
    assert found.interval in (None, (None, None))


@given(seed=st.integers(0, 1000), share=st.floats(0.5, 0.99), worse=st.floats(0, 0.2))
def test_the_drop_is_the_difference_of_the_scores_and_lies_in_its_interval(seed, share, worse):
    random = np.random.default_rng(seed)
    right = random.random(300) < share
    baseline, labels = answers(right)
    outputs, _ = answers(right & (random.random(300) >= worse))
    found = metrics.drop(TopK(1), TopK(1), outputs, baseline, labels, **SETTINGS)
    assert found.value == pytest.approx(TopK(1).compute(baseline, labels) - TopK(1).compute(outputs, labels))
    low, high = found.interval
    assert low - 0.01 <= found.value <= high + 0.01  # the adjusted interval is not centred on the value
