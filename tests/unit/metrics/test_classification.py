"""Classification metrics, by hand and against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeopt import metrics
from edgeopt.metrics import NotMeasurable
from edgeopt.metrics.classification import F1, AnyTopK, Precision, Recall, TopK
from edgeopt.metrics.probability import CalibrationError, LogLoss
from edgeopt.metrics.ranking import RocAuc
from edgeopt.recipe import MetricSpec
from edgeopt.statistics import proportion_interval

OUTPUTS = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.4, 0.4, 0.2]], dtype=np.float32)
LABELS = np.array([1, 1, 0, 0])


def test_top_k_by_hand():
    np.testing.assert_array_equal(TopK(1).hits(OUTPUTS, LABELS), [True, False, False, False])  # the last one is a tie
    np.testing.assert_array_equal(TopK(2).hits(OUTPUTS, LABELS), [True, True, False, True])
    assert TopK(1).compute(OUTPUTS, LABELS) == 0.25
    assert TopK(2).compute(OUTPUTS, LABELS) == 0.75
    assert (TopK(1).name, TopK(5).name, TopK(1).better, TopK(1).unit) == ("top1", "top5", "higher", "1")


@given(
    outputs=hnp.arrays(np.float32, (8, 4), elements=st.floats(-5, 5, width=32), unique=True),
    labels=hnp.arrays(np.int64, 8, elements=st.integers(0, 3)),
    k=st.integers(1, 3),
)
def test_top_k_without_ties_is_what_torch_finds(outputs, labels, k):
    best = torch.from_numpy(outputs).topk(k).indices.numpy()
    np.testing.assert_array_equal(
        TopK(k).hits(outputs, labels), [label in row for label, row in zip(labels, best, strict=True)]
    )


@pytest.mark.parametrize("k", [1, 2])
def test_a_network_that_says_always_the_same_is_never_right(k):
    assert TopK(k).compute(np.zeros((5, 3), np.float32), np.array([0, 1, 2, 0, 1])) == 0.0


def test_a_nan_counts_as_wrong():
    outputs = OUTPUTS.copy()
    outputs[0, 2] = np.nan
    assert not TopK(2).hits(outputs, LABELS)[0]
    np.testing.assert_array_equal(TopK(2).hits(outputs, LABELS)[1:], TopK(2).hits(OUTPUTS, LABELS)[1:])


def test_infinity_is_the_largest():
    outputs = np.array([[0, np.inf, 1], [0, -np.inf, 1]], np.float32)
    np.testing.assert_array_equal(TopK(1).hits(outputs, np.array([1, 1])), [True, False])


@pytest.mark.parametrize("metric", [TopK(1), LogLoss(), CalibrationError()], ids=lambda metric: metric.name)
@pytest.mark.parametrize(
    ("outputs", "labels", "why"),
    [
        (OUTPUTS, LABELS[:3], "needs outputs"),
        (OUTPUTS[0], LABELS, "needs outputs"),
        (OUTPUTS, LABELS[:, None], "needs outputs"),
        (OUTPUTS[:, :, None], LABELS, "needs outputs"),
        (OUTPUTS[:, :1], LABELS * 0, "needs at least 2 outputs, there are 1"),
        (OUTPUTS, LABELS / 1, "needs class numbers as labels, got float64"),
        (OUTPUTS, LABELS > 0, "needs class numbers as labels, got bool"),
        (OUTPUTS, LABELS + 2, "needs labels 0 to 2, got 2 to 3"),
        (OUTPUTS, LABELS - 1, "needs labels 0 to 2, got -1 to 0"),
    ],
)
def test_outputs_and_labels_that_do_not_fit(metric, outputs, labels, why):
    with pytest.raises(ValueError, match=why):
        metric.compute(outputs, labels)


def test_five_classes_are_too_few_for_top_5():
    with pytest.raises(ValueError, match="needs at least 6 outputs, there are 5"):
        TopK(5).hits(np.zeros((2, 5), np.float32), np.array([0, 1]))


@pytest.mark.parametrize("metric", [Recall(), Precision(), F1(), RocAuc(), CalibrationError()], ids=lambda m: m.name)
def test_a_nan_is_no_answer(metric):
    outputs = OUTPUTS.copy()
    outputs[0, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        metric.compute(outputs, LABELS)


def test_any_k_by_its_parameter():
    built = metrics.build(MetricSpec(name="top_k", args={"k": 3}))
    assert (built, built.label) == (AnyTopK(3), "top3")
    outputs = np.eye(5, dtype=np.float32)[[0, 1, 2]] + np.arange(5) / 10
    labels = np.array([4, 0, 1])
    assert built.compute(outputs, labels) == TopK(3).compute(outputs, labels) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match=r"k: .*greater than or equal to 1"):
        metrics.build(MetricSpec(name="top_k", args={"k": 0}))


# Truth 0 0 0 1 1 2, answers 0 0 1 1 2 2: recalls 2/3, 1/2, 1; precisions 1, 1/2, 1/2; F1 4/5, 1/2, 2/3.
TRUTH = np.array([0, 0, 0, 1, 1, 2])
SAID = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2, 2]]


@pytest.mark.parametrize(
    ("make", "by_class"),
    [(Recall, [2 / 3, 1 / 2, 1]), (Precision, [1, 1 / 2, 1 / 2]), (F1, [4 / 5, 1 / 2, 2 / 3])],
)
def test_precision_recall_and_f1_by_hand(make, by_class):
    assert make().compute(SAID, TRUTH) == pytest.approx(np.mean(by_class))
    for number, value in enumerate(by_class):
        assert make(positive=number).compute(SAID, TRUTH) == pytest.approx(value)
    assert (make().label, make(positive=2).label) == (make.name, f"{make.name}:2")


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 6), count=st.integers(6, 60))
def test_precision_recall_and_f1_are_those_of_scikit_learn(seed, classes, count):
    random = np.random.default_rng(seed)
    outputs = random.standard_normal((count, classes)).astype(np.float32)
    labels = random.integers(0, classes, count)
    said = outputs.argmax(axis=1)
    there = np.unique(labels)
    for metric, theirs in (
        (Recall, sklearn.metrics.recall_score),
        (Precision, sklearn.metrics.precision_score),
        (F1, sklearn.metrics.f1_score),
    ):
        expected = theirs(labels, said, labels=there, average="macro", zero_division=0)
        assert metric().compute(outputs, labels) == pytest.approx(expected, abs=1e-12)
        one = int(there[0])
        expected = theirs(labels, said, labels=[one], average="macro", zero_division=0)
        assert metric(positive=one).compute(outputs, labels) == pytest.approx(expected, abs=1e-12)
    balanced = sklearn.metrics.recall_score(labels, said, labels=there, average="macro")
    assert Recall().compute(outputs, labels) == pytest.approx(balanced, abs=1e-12)


def test_a_network_with_one_output_needs_a_threshold():
    outputs = np.array([[-1.0], [0.2], [0.5], [2.0]], np.float32)
    labels = np.array([0, 1, 0, 1])
    assert Recall(positive=1, threshold=0.5).compute(outputs, labels) == 1 / 2
    assert Precision(positive=1, threshold=0.5).compute(outputs, labels) == 1 / 2
    np.testing.assert_array_equal(F1(threshold=0.5).decisions(outputs), [0, 0, 1, 1])
    with pytest.raises(ValueError, match="needs `threshold`"):
        F1().compute(outputs, labels)
    with pytest.raises(ValueError, match="needs no `threshold`"):
        F1(threshold=0.5).compute(SAID, TRUTH)
    with pytest.raises(ValueError, match="needs labels 0 to 1, got 0 to 2"):
        F1(threshold=0.5).compute(outputs, np.array([0, 1, 0, 2]))


def test_a_class_without_samples():
    with pytest.raises(NotMeasurable, match="no sample is of class 7"):
        F1(positive=7).compute(SAID, TRUTH)
    never = np.eye(3, dtype=np.float32)[[0, 0, 0, 0, 0, 0]]  # nothing is said to be of class 1
    assert Precision(positive=1).compute(never, TRUTH) == 0
    assert Precision(positive=1).interval(never, TRUTH, confidence=0.95, seed=0) == (0, 1)


def test_intervals_of_one_class_are_exact():
    settings = {"confidence": 0.95, "seed": 0}
    assert Recall(positive=0).interval(SAID, TRUTH, **settings) == proportion_interval(2, 3).interval
    assert Precision(positive=0).interval(SAID, TRUTH, **settings) == proportion_interval(2, 2).interval
    low, high = proportion_interval(2, 3).interval  # Jaccard: of 3 samples that are or are said to be of class 0
    assert F1(positive=0).interval(SAID, TRUTH, **settings) == (2 * low / (1 + low), 2 * high / (1 + high))


@pytest.mark.parametrize("make", [Recall, Precision, F1])
@pytest.mark.parametrize("positive", [None, 1])
def test_no_error_at_all_does_not_prove_a_share_of_one(make, positive):
    labels = np.arange(60) % 3
    outputs = np.eye(3, dtype=np.float32)[labels]
    metric = make(positive=positive)
    low, high = metric.interval(outputs, labels, confidence=0.95, seed=0)
    assert (low < 0.93, high) == (True, 1)
    low, high = metric.drop_interval(outputs, outputs, labels, metric, confidence=0.95, seed=0)
    assert -0.15 < low < 0 < high < 0.15


@pytest.mark.parametrize("make", [Recall, Precision, F1])
def test_intervals_cover_the_truth(make):
    """Ten unlike classes with few errors, and a second model that disagrees here and there."""
    rounds, metric, settings = 300, make(), {"confidence": 0.95, "seed": 0}

    def draw(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        labels = random.choice(10, count, p=np.arange(1, 11) / 55)
        first, second = (random.random(count) < rate for rate in (0.04, 0.03))
        other = (labels + random.integers(1, 10, count)) % 10
        ours, theirs = np.where(first, other, labels), np.where(first | second, other, labels)
        return np.eye(10)[ours], np.eye(10)[theirs], labels

    ours, theirs, labels = draw(np.random.default_rng(1), 300_000)
    value, lost = metric.compute(ours, labels), metric.compute(ours, labels) - metric.compute(theirs, labels)
    outside = [0, 0]
    for seed in range(rounds):
        ours, theirs, labels = draw(np.random.default_rng(seed), 400)
        low, high = metric.interval(ours, labels, **settings)
        outside[0] += not low <= value <= high
        low, high = metric.drop_interval(theirs, ours, labels, metric, **settings)
        outside[1] += not low <= lost <= high
    assert all(count / rounds <= 0.08 for count in outside), outside
