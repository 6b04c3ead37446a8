"""What every metric must do; a new file in ``edgeopt/metrics`` is tested without being named here."""

from __future__ import annotations

import numpy as np
import pytest

from edgeopt import metrics, registry
from edgeopt.metrics import Metric

METRICS = dict(registry.builtin("metrics"))
COUNT, CLASSES = 120, 8


def example(metric: Metric) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and labels that the metric takes: class numbers if it can, else targets."""
    random = np.random.default_rng(1)
    outputs = random.standard_normal((COUNT, CLASSES)).astype(np.float32)
    labels: np.ndarray = random.integers(0, CLASSES, COUNT)
    outputs[np.arange(COUNT), labels] += 1.5
    try:
        metric.compute(outputs, labels)
    except ValueError:
        labels = outputs + random.standard_normal(outputs.shape)
    return outputs, labels


@pytest.fixture(params=METRICS)
def metric(request: pytest.FixtureRequest) -> Metric:
    return METRICS[request.param]


def test_it_says_what_it_is(metric):
    assert metric.name
    assert metric.name.isidentifier()
    assert metric.better in ("lower", "higher")
    assert isinstance(metric.unit, str)
    assert type(metric).__doc__


def test_it_is_one_finite_number_and_the_same_each_time(metric):
    outputs, labels = example(metric)
    value = metric.compute(outputs, labels)
    assert type(value) is float
    assert np.isfinite(value)
    assert metric.compute(outputs.copy(), labels.copy()) == value


def test_it_leaves_its_arguments_alone(metric):
    outputs, labels = example(metric)
    before = outputs.copy(), labels.copy()
    metric.compute(outputs, labels)
    metric.hits(outputs, labels)
    np.testing.assert_array_equal(outputs, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_the_order_of_the_samples_does_not_matter(metric):
    outputs, labels = example(metric)
    order = np.random.default_rng(2).permutation(COUNT)
    assert metric.compute(outputs[order], labels[order]) == pytest.approx(metric.compute(outputs, labels), rel=1e-12)


def test_hits_are_one_per_sample_and_the_value_is_their_share(metric):
    outputs, labels = example(metric)
    hits = metric.hits(outputs, labels)
    if hits is None:
        return
    assert (hits.shape, hits.dtype) == ((COUNT,), np.bool_)
    assert metric.compute(outputs, labels) == hits.mean()
    assert (metric.better, metric.unit) == ("higher", "1")


def test_better_is_the_direction_in_which_better_outputs_go(metric):
    outputs, labels = example(metric)
    values = []
    for truth in (0.0, 0.5, 1.0):  # how much of the right answer is mixed in
        best = np.eye(CLASSES, dtype=np.float32)[labels] * 20 if labels.ndim == 1 else labels
        values.append(metric.compute(((1 - truth) * outputs + truth * best).astype(np.float32), labels))
    assert values == sorted(values, reverse=metric.better == "lower")
    assert values[0] != values[-1]


def test_outputs_and_labels_of_unlike_number_are_refused(metric):
    outputs, labels = example(metric)
    with pytest.raises(ValueError, match="needs"):
        metric.compute(outputs, labels[:-1])


def test_score_and_drop_have_intervals_around_them(metric):
    outputs, labels = example(metric)
    score = metrics.score(metric, outputs, labels, confidence=0.95, seed=0)
    low, high = score.interval
    assert low <= score.value <= high
    assert (score.metric, score.unit, score.better, score.n) == (metric.name, metric.unit, metric.better, COUNT)
    random = np.random.default_rng(3).standard_normal(outputs.shape).astype(np.float32)
    worse = metrics.drop(metric, metric, outputs + 2 * random, outputs, labels, confidence=0.95, seed=0)
    low, high = worse.interval
    assert low <= worse.value <= high
    assert worse.value > 0
    assert worse.better == "lower"
