"""ROC-AUC, by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from edgeopt import metrics
from edgeopt.metrics import NotMeasurable
from edgeopt.metrics.ranking import RocAuc, score_interval

SETTINGS = {"confidence": 0.95, "seed": 0}


def test_the_area_by_hand():
    """Of the 2 × 3 pairs, 4 are in order and one is equal."""
    scores = np.array([[0.8], [0.4], [0.5], [0.4], [0.1]])
    labels = np.array([1, 1, 0, 0, 0])
    assert RocAuc().compute(scores, labels) == pytest.approx((3 + 1.5) / 6)
    assert RocAuc(positive=0).compute(scores, labels) == pytest.approx(4.5 / 6)
    assert (RocAuc().label, RocAuc(positive=3).label) == ("roc_auc", "roc_auc:3")


@given(seed=st.integers(0, 10_000), count=st.integers(8, 80), ties=st.booleans(), share=st.floats(0.1, 0.9))
def test_two_classes_are_those_of_scikit_learn(seed, count, ties, share):
    random = np.random.default_rng(seed)
    labels = (np.arange(count) < max(1, int(share * count) - 1)).astype(np.int64)
    scores = random.standard_normal((count, 1))
    scores = np.round(scores) if ties else scores
    expected = sklearn.metrics.roc_auc_score(labels, scores[:, 0])
    assert RocAuc().compute(scores, labels) == pytest.approx(expected, abs=1e-12)
    both = np.hstack([np.zeros_like(scores), scores])
    assert RocAuc().compute(both, labels) == pytest.approx(expected, abs=1e-12)
    assert RocAuc(positive=0).compute(both, labels) == pytest.approx(expected, abs=1e-12)


@given(seed=st.integers(0, 10_000), classes=st.integers(3, 6))
def test_several_classes_are_the_macro_average_of_scikit_learn(seed, classes):
    random = np.random.default_rng(seed)
    logits = random.standard_normal((60, classes)) * 2
    labels = np.arange(60) % classes
    odds = np.exp(logits)
    p = odds / odds.sum(axis=1, keepdims=True)
    expected = sklearn.metrics.roc_auc_score(labels, p, multi_class="ovr", average="macro")
    assert RocAuc().compute(logits, labels) == pytest.approx(expected, abs=1e-12)
    assert RocAuc(softmax=False).compute(p, labels) == pytest.approx(expected, abs=1e-12)
    one = sklearn.metrics.roc_auc_score(labels == 1, p[:, 1])
    assert RocAuc(positive=1).compute(logits, labels) == pytest.approx(one, abs=1e-12)


def test_a_sure_network_keeps_its_order():
    """As probabilities, all of these would be exactly 1."""
    logits = np.array([[0.0, 50.0], [0.0, 60.0], [0.0, 55.0], [0.0, 45.0]])
    assert RocAuc().compute(logits, np.array([0, 1, 1, 0])) == 1.0
    three = np.hstack([logits, np.full((4, 1), -5.0)])
    assert RocAuc(positive=1).compute(three, np.array([0, 1, 1, 0])) == 1.0


@pytest.mark.parametrize(("labels", "why"), [([0, 0, 0], "no sample is of class 1"), ([1, 1, 1], "every sample is")])
def test_one_class_has_no_order(labels, why):
    with pytest.raises(NotMeasurable, match=why):
        RocAuc().compute(np.zeros((3, 2)), np.array(labels))


def test_the_score_interval_solves_its_equation():
    area, inside, outside = 0.9, 40, 160
    low, high = score_interval(area, inside, outside, 0.95)
    for bound in (low, high):
        q1, q2 = bound / (2 - bound), 2 * bound**2 / (1 + bound)  # Hanley and McNeil 1982, as they write it
        variance = max(
            bound * (1 - bound) + (m - 1) * (q1 - bound**2) + (n - 1) * (q2 - bound**2)
            for m, n in ((inside, outside), (outside, inside))
        ) / (inside * outside)
        assert abs(area - bound) == pytest.approx(1.959964 * variance**0.5, rel=1e-6)
    assert score_interval(1.0, 40, 160, 0.95)[1] == 1
    assert 0.9 < score_interval(1.0, 40, 160, 0.95)[0] < 0.97
    assert score_interval(0.0, 40, 160, 0.95) == pytest.approx(
        [1 - bound for bound in score_interval(1.0, 40, 160, 0.95)[::-1]]
    )


@pytest.mark.parametrize("share", [0.5, 0.1])
@pytest.mark.parametrize("distance", [1.0, 3.0])
def test_intervals_cover_the_truth(share, distance):
    rounds, count = 200, 200

    def draw(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        labels = (np.arange(count) < share * count).astype(np.int64)
        scores = random.standard_normal((count, 1)) + distance * labels[:, None]
        return scores, scores + 0.5 * random.standard_normal(scores.shape), labels

    scores, worse, labels = draw(np.random.default_rng(0), 300_000)
    value, lost = RocAuc().compute(scores, labels), RocAuc().compute(scores, labels) - RocAuc().compute(worse, labels)
    outside = [0, 0]
    for seed in range(rounds):
        scores, worse, labels = draw(np.random.default_rng(seed), count)
        low, high = RocAuc().interval(scores, labels, **SETTINGS)
        outside[0] += not low <= value <= high
        low, high = RocAuc().drop_interval(worse, scores, labels, RocAuc(), **SETTINGS)
        outside[1] += not low <= lost <= high
    assert all(missed / rounds <= 0.08 for missed in outside), outside


def test_perfect_order_twice_does_not_prove_that_nothing_changed():
    labels = np.arange(60) % 2
    scores = labels[:, None] + np.random.default_rng(0).random((60, 1)) / 2
    found = metrics.drop(RocAuc(), RocAuc(), scores * 2, scores, labels, **SETTINGS)
    assert found.value == 0
    assert found.interval[0] < -0.02
    assert found.interval[1] > 0.02
