"""Thresholds from elsewhere: the case that this is for, and how it is seen."""

from __future__ import annotations

import numpy as np
import pytest

from edgeopt import metrics
from edgeopt.measure import Measurement
from edgeopt.metrics import NotMeasurable
from edgeopt.metrics.threshold import FalseAcceptsAt, FalseRejectsAt, Threshold
from edgeopt.metrics.verification import EqualErrorRate, TrueAcceptRate
from edgeopt.recipe import MetricSpec
from edgeopt.verification import Design
from tests.unit.verification.people import people

SETTINGS = {"confidence": 0.95, "seed": 0}
FAR = 0.01
OFFSET = 0.6


def of_people(seed: int) -> tuple[np.ndarray, Design]:
    """Unit embeddings with one more number that is zero."""
    embeddings, identity = people(60, 5, noise=1.0, seed=seed)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.hstack([embeddings, np.zeros((300, 1), np.float32)]), Design(identity)


def squeezed(embeddings: np.ndarray, offset: float) -> np.ndarray:
    """All embeddings moved alike, as by a biased INT8 layer: a cosine c becomes (c + offset²) / (1 + offset²).

    The order of all pairs stays, so every rate at a FAR on the same samples does too; the scores do not.
    """
    moved = embeddings.copy()
    moved[:, -1] = offset
    return moved


SELECT, SELECT_PEOPLE = of_people(1)
EVALUATE, EVALUATE_PEOPLE = of_people(2)


@pytest.fixture(scope="module")
def taken() -> dict[str, dict[str, Measurement]]:
    """All metrics of the float model and of the optimised one, and the drops."""
    found: dict[str, dict[str, Measurement]] = {}
    for model, change in (("float", 0.0), ("int8", OFFSET)):
        found[model] = {}
        for metric in (
            EqualErrorRate(),
            TrueAcceptRate(far=FAR),
            FalseAcceptsAt(far=FAR),
            FalseRejectsAt(far=FAR),
            FalseAcceptsAt(far=FAR, threshold_of="own"),
            Threshold(far=FAR),
        ):
            reference = metric.fit(SELECT, SELECT_PEOPLE) if metric.fitted_on else metric
            own = metric.fit(squeezed(SELECT, change), SELECT_PEOPLE) if metric.fitted_on == "own" else reference
            outputs = squeezed(EVALUATE, change)
            for m in (
                metrics.score(own, outputs, EVALUATE_PEOPLE, **SETTINGS),
                metrics.drop(own, reference, outputs, EVALUATE, EVALUATE_PEOPLE, **SETTINGS),
            ):
                found[model][m.metric] = m
    return found


def test_a_model_as_good_as_before_lets_more_impostors_in(taken):
    before, after = taken["float"], taken["int8"]
    for same in ("eer", f"tar@far={FAR}"):
        assert after[same].value == pytest.approx(before[same].value, abs=1e-3)
    label = f"far@float={FAR}"
    assert before[label].value == pytest.approx(FAR, rel=0.3)
    assert after[label].value > 2 * before[label].value
    assert after[label].interval[0] > before[label].interval[1]
    low, high = after[f"{label} drop"].interval
    assert 0.5 * FAR < low < after[f"{label} drop"].value < high
    assert before[label].why.startswith(after[label].why.split(";")[0])
    assert "FAR 0.01 of the float baseline on select" in after[label].why
    assert after[f"frr@float={FAR}"].value < before[f"frr@float={FAR}"].value


def test_a_threshold_fixed_anew_mends_it(taken):
    before, after = taken["float"], taken["int8"]
    assert after[f"far@own={FAR}"].value == pytest.approx(before[f"far@own={FAR}"].value, abs=1e-3)
    old, new = before[f"threshold@far={FAR}"], after[f"threshold@far={FAR}"]
    assert new.value == pytest.approx((old.value + OFFSET**2) / (1 + OFFSET**2), abs=1e-5)
    assert new.interval[0] < new.value < new.interval[1]
    assert new.interval[0] > old.value
    assert new.unit == "score"
    low, high = after[f"threshold@far={FAR} drop"].interval
    assert 0 < low < after[f"threshold@far={FAR} drop"].value < high
    assert after[f"threshold@far={FAR} drop"].value == pytest.approx(new.value - old.value)


def test_the_point_of_equal_errors_is_a_threshold_too():
    metric = FalseAcceptsAt(far="eer").fit(SELECT, SELECT_PEOPLE)
    assert metric.label == "far@float=eer"
    assert metric.compute(SELECT, SELECT_PEOPLE) == pytest.approx(
        EqualErrorRate().compute(SELECT, SELECT_PEOPLE), abs=2e-3
    )
    threshold = Threshold(far="eer").fit(SELECT, SELECT_PEOPLE)
    low, high = threshold.interval(EVALUATE, EVALUATE_PEOPLE, **SETTINGS)
    assert low < threshold.compute(EVALUATE, EVALUATE_PEOPLE) < high


def test_a_given_threshold_needs_nothing_else():
    metric = metrics.build(MetricSpec(name="far_at", args={"threshold": 0.42}))
    assert (metric.label, metric.fitted_on, metric.needs_baseline) == ("far@threshold=0.42", "", False)
    scores = EVALUATE.astype(np.float64) @ EVALUATE.T
    one, other = np.triu_indices(300, 1)
    impostors = scores[one, other][EVALUATE_PEOPLE.identity[one] != EVALUATE_PEOPLE.identity[other]]
    assert metric.compute(EVALUATE, EVALUATE_PEOPLE) == pytest.approx((impostors >= 0.42).mean(), abs=1e-9)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"far": 0.1, "threshold": 0.3}, "one of far and threshold"),
        ({"threshold": 0.3, "threshold_of": "own"}, "threshold_of says"),
        ({"far": "eeer"}, "far"),
        ({"far": 1.5}, "far"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(args, message):
    with pytest.raises(ValueError, match=message):
        metrics.build(MetricSpec(name="far_at", args=args))


def test_the_threshold_is_fixed_on_enough_pairs_or_not_at_all():
    embeddings, identity = people(10, 5)
    with pytest.raises(NotMeasurable, match="needs at least"):
        FalseAcceptsAt(far=0.0001).fit(embeddings, Design(identity))
    with pytest.raises(ValueError, match="needs its threshold"):
        FalseAcceptsAt(far=0.01).compute(EVALUATE, EVALUATE_PEOPLE)
