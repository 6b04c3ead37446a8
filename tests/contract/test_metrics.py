"""What every metric must do; a new file in ``edgeopt/metrics`` is tested without being named here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from edgeopt import metrics, registry
from edgeopt.metrics import Metric
from edgeopt.recipe import MetricSpec

METRICS = dict(registry.builtin("metrics"))
COUNT, CLASSES = 240, 8
Columns = Mapping[str, np.ndarray]
SETTINGS = {"confidence": 0.95, "seed": 0}


def example(metric: Metric) -> tuple[np.ndarray, Columns, np.ndarray]:
    """Outputs and columns that the metric takes, and the best outputs: of a classifier if it can, else of a regression.

    The outputs are embeddings as well, and class 7 is an attack.
    """
    random = np.random.default_rng(1)
    outputs = random.standard_normal((COUNT, CLASSES)).astype(np.float32)
    labels = np.arange(COUNT) % CLASSES
    outputs[np.arange(COUNT), labels] += 1.5
    columns = {
        "labels": labels,
        "identity": np.array([f"person {label}" for label in labels]),
        "attack": np.where(labels == 7, np.where(np.arange(COUNT) % 16 == 7, "print", "replay"), ""),
        "baseline": outputs + random.standard_normal(outputs.shape).astype(np.float32),
    }
    best = np.eye(CLASSES, dtype=np.float32)[labels] * 20
    if metric.labels == "baseline":
        return outputs, columns, columns["baseline"]
    try:
        fitted(metric, outputs, columns).compute(outputs, metric.truth(columns))
    except ValueError:
        columns["labels"] = outputs + random.standard_normal(outputs.shape)
        best = columns["labels"].astype(np.float32)
    return outputs, columns, best


def fitted(metric: Metric, outputs: np.ndarray, columns: Columns) -> Metric:
    return metric.fit(outputs, metric.truth(columns)) if metric.fitted_on else metric


def value(metric: Metric, outputs: np.ndarray, columns: Columns) -> float:
    return fitted(metric, outputs, columns).compute(outputs, metric.truth(columns))


@pytest.fixture(params=METRICS)
def metric(request: pytest.FixtureRequest) -> Metric:
    return METRICS[request.param]


def test_it_says_what_it_is(metric):
    assert metric.name.isidentifier()
    assert metric.label
    assert metric.better in ("lower", "higher")
    assert isinstance(metric.unit, str)
    assert isinstance(metric.note, str)
    assert metric.fitted_on in ("", "own", "baseline")
    assert type(metric).__doc__


def test_only_its_parameters_can_be_set(metric):
    """A recipe must not be able to turn around which direction is better."""
    parameters = {field.name for field in dataclasses.fields(metric) if field.init}
    assert not parameters & {"name", "label", "unit", "better", "labels", "fitted_on", "note"}
    with pytest.raises(ValueError, match="better: "):
        metrics.build(MetricSpec(name=metric.name, args={"better": "lower"}))


def test_a_recipe_can_spell_out_every_default(metric):
    defaults: dict[str, Any] = {f.name: getattr(metric, f.name) for f in dataclasses.fields(metric) if f.init}
    if defaults:
        assert metrics.build(MetricSpec(name=metric.name, args=defaults)) == metric


def test_it_is_one_finite_number_and_the_same_each_time(metric):
    outputs, columns, _ = example(metric)
    found = value(metric, outputs, columns)
    assert type(found) is float
    assert np.isfinite(found)
    assert value(metric, outputs.copy(), {name: column.copy() for name, column in columns.items()}) == found


def test_it_leaves_its_arguments_alone(metric):
    outputs, columns, _ = example(metric)
    before = outputs.copy(), {name: column.copy() for name, column in columns.items()}
    made = fitted(metric, outputs, columns)
    labels = made.truth(columns)
    made.compute(outputs, labels)
    made.interval(outputs, labels, **SETTINGS)
    made.hits(outputs, labels)
    made.decisions(outputs)
    np.testing.assert_array_equal(outputs, before[0])
    for name, column in columns.items():
        np.testing.assert_array_equal(column, before[1][name])


def test_fitting_gives_a_new_metric_of_the_same_name(metric):
    outputs, columns, _ = example(metric)
    made = metric.fit(outputs, metric.truth(columns))
    assert made.label == metric.label
    assert (made.better, made.unit) == (metric.better, metric.unit)
    if metric.fitted_on:
        assert made != metric
        assert made.note
    else:
        assert made == metric


def test_the_order_of_the_samples_does_not_matter(metric):
    outputs, columns, _ = example(metric)
    order = np.random.default_rng(2).permutation(COUNT)
    shuffled = {name: column[order] for name, column in columns.items()}
    assert value(metric, outputs[order], shuffled) == pytest.approx(value(metric, outputs, columns), rel=1e-12)


def test_hits_are_one_per_sample_and_the_value_is_their_share(metric):
    outputs, columns, _ = example(metric)
    hits = metric.hits(outputs, metric.truth(columns))
    if hits is None:
        return
    assert (hits.shape, hits.dtype) == ((COUNT,), np.bool_)
    assert metric.compute(outputs, metric.truth(columns)) == hits.mean()
    assert (metric.better, metric.unit) == ("higher", "1")


def test_decisions_are_one_per_sample_and_can_be_stored(metric, tmp_path):
    outputs, columns, best = example(metric)
    made = fitted(metric, outputs, columns)
    decisions = made.decisions(outputs)
    if decisions is None:
        return
    assert decisions.shape == (COUNT,)
    np.save(tmp_path / "decisions.npy", decisions, allow_pickle=False)
    right = made.right(best, made.truth(columns))
    assert right is None or right.all()


def test_better_is_the_direction_in_which_better_outputs_go(metric):
    outputs, columns, best = example(metric)
    values = [
        value(metric, ((1 - share) * outputs + share * best).astype(np.float32), columns) for share in (0.0, 0.5, 1.0)
    ]  # how much of the right answer is mixed in
    assert values == sorted(values, reverse=metric.better == "lower")
    assert values[0] != values[-1]


def test_outputs_and_labels_of_unlike_number_are_refused(metric):
    outputs, columns, _ = example(metric)
    made = fitted(metric, outputs, columns)
    with pytest.raises(ValueError, match="needs"):
        made.compute(outputs[:-1], made.truth(columns))


def test_score_and_drop_have_intervals_around_them(metric):
    outputs, columns, _ = example(metric)
    made, labels = fitted(metric, outputs, columns), metric.truth(columns)
    score = metrics.score(made, outputs, labels, **SETTINGS)
    low, high = score.interval
    assert low <= score.value <= high
    assert (score.metric, score.unit, score.better, score.n) == (metric.label, metric.unit, metric.better, COUNT)
    if metric.labels == "baseline":
        return
    noisy = outputs + 4 * np.random.default_rng(3).standard_normal(outputs.shape).astype(np.float32)
    own = made if metric.fitted_on == "baseline" else fitted(metric, noisy, columns)
    worse = metrics.drop(own, made, noisy, outputs, labels, **SETTINGS)
    low, high = worse.interval
    assert low <= worse.value <= high
    assert worse.value > 0
    assert worse.better == "lower"


def test_a_model_against_itself_has_not_dropped(metric):
    outputs, columns, _ = example(metric)
    if metric.labels == "baseline":
        return
    made, labels = fitted(metric, outputs, columns), metric.truth(columns)
    found = metrics.drop(made, made, outputs, outputs, labels, **SETTINGS)
    assert found.value == 0
    low, high = found.interval  # a bootstrap over few samples that all agree has no bounds
    assert low is None or low <= 0
    assert high is None or high >= 0
