"""Verification: rates by hand, drops over the same people, refusals, and what every metric brings along."""

from __future__ import annotations

import numpy as np
import pytest

from edgeopt import metrics
from edgeopt.metrics import NotMeasurable, sharing
from edgeopt.metrics.verification import EqualErrorRate, FalseRejectRate, TrueAcceptRate
from edgeopt.recipe import MetricSpec
from edgeopt.verification import Design, Scores
from tests.unit.verification.people import people

SETTINGS = {"confidence": 0.95, "seed": 0}


def on_a_circle(*degrees: float) -> np.ndarray:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_a_case_by_hand():
    """a at 0° and 30°, b at 90° and 50°, c at 200° and 300°: genuine pairs at 30°, 40° and 100°.

    Of the 12 impostor pairs the nearest are at 20°, 50° and twice 60°: a FAR of 0.25 allows three of them.
    """
    embeddings = on_a_circle(0, 30, 90, 50, 200, 300)
    design = Design(np.array(list("aabbcc")))
    assert TrueAcceptRate(far=0.25).compute(embeddings, design) == pytest.approx(2 / 3)
    assert FalseRejectRate(far=0.25).compute(embeddings, design) == pytest.approx(1 / 3)
    assert EqualErrorRate().compute(embeddings, design) == pytest.approx(1 / 3)


def test_tar_and_frr_are_two_sides_of_one_thing():
    embeddings, identity = people(60, 5, noise=1.1)
    design = Design(identity)
    tar, frr = (
        metrics.score(kind(far=0.01), embeddings, design, **SETTINGS) for kind in (TrueAcceptRate, FalseRejectRate)
    )
    assert tar.value == pytest.approx(1 - frr.value)
    assert tar.interval == pytest.approx((1 - frr.interval[1], 1 - frr.interval[0]))
    assert tar.interval[0] < tar.value < tar.interval[1]
    assert "44,250 impostor and 600 genuine pairs of 60 identities" in tar.why
    assert tar.why.startswith("threshold 0.")


def test_a_drop_is_paired_so_that_a_small_one_is_seen():
    """Of the same people the difference is surer than either rate."""
    embeddings, identity = people(60, 5, noise=1.1)
    noisy = embeddings + 0.5 * np.random.default_rng(1).standard_normal(embeddings.shape).astype(np.float32)
    for metric in (EqualErrorRate(), TrueAcceptRate(far=0.01)):
        design = Design(identity)
        single = metrics.score(metric, embeddings, design, **SETTINGS)
        drop = metrics.drop(metric, metric, noisy, embeddings, design, **SETTINGS)
        low, high = drop.interval
        assert 0 < low < drop.value < high
        assert high - low < 0.8 * (single.interval[1] - single.interval[0])


def test_nothing_changed_is_no_drop_but_no_proof_either():
    embeddings, identity = people(60, 5, noise=1.1)
    for metric in (EqualErrorRate(), TrueAcceptRate(far=0.01)):
        drop = metrics.drop(metric, metric, embeddings, embeddings, Design(identity), **SETTINGS)
        assert drop.value == 0
        assert -0.1 < drop.interval[0] < 0 < drop.interval[1] < 0.1


def test_no_error_has_an_upper_bound():
    embeddings, identity = people(30, 4, noise=0.01)
    found = metrics.score(EqualErrorRate(), embeddings, Design(identity), **SETTINGS)
    assert found.value == 0
    assert 0 < found.interval[1] < 0.1


def test_few_people_give_a_value_without_an_interval():
    embeddings, identity = people(7, 12)
    for metric in (EqualErrorRate(), TrueAcceptRate(far=0.01)):
        found = metrics.score(metric, embeddings, Design(identity), **SETTINGS)
        assert found.value is not None
        assert found.interval == (None, None)


def test_a_far_that_the_pairs_cannot_resolve_is_refused_with_the_number_needed():
    _, identity = people(10, 5)
    with pytest.raises(
        NotMeasurable, match=r"FAR of 0.0001 needs at least 29,956 impostor pairs .* there are 1,125, enough for 0.0027"
    ):
        TrueAcceptRate(far=0.0001).require(Design(identity), fitting=False)
    TrueAcceptRate(far=0.01).require(Design(identity), fitting=False)


@pytest.mark.parametrize("identity", [np.zeros(20), np.arange(20)])
def test_without_genuine_or_impostor_pairs_nothing_starts(identity):
    with pytest.raises(NotMeasurable, match="there is no"):
        EqualErrorRate().require(Design(identity), fitting=False)


def test_an_embedding_of_zero_norm_is_not_measurable_and_named():
    embeddings, identity = people(10, 5)
    embeddings[17] = 0
    found = metrics.score(EqualErrorRate(), embeddings, Design(identity), **SETTINGS)
    assert found.value is None
    assert "sample 17 has zero norm" in found.why


def test_columns_become_the_design():
    columns = {
        "identity": np.arange(6),
        "t": np.arange(6),
        "p": np.array([0, 1, 0, 1, 0, 1]),
        "pairs": np.zeros((1, 2)),
    }
    design = EqualErrorRate(template="t", probe="p").truth(columns)
    assert design.template is columns["t"]
    assert design.probe.tolist() == [False, True] * 3
    assert design.pairs is columns["pairs"]
    for wrong, message in (({"p": np.arange(6)}, "true or false"), ({"identity": np.zeros((6, 2))}, "one identity")):
        with pytest.raises(ValueError, match=message):
            EqualErrorRate(template="t", probe="p").truth({**columns, **wrong})
    with pytest.raises(KeyError, match="t"):
        EqualErrorRate(template="t").truth({"identity": np.arange(6)})


def test_names_say_the_point_as_people_write_it():
    spec = MetricSpec(name="tar", args={"far": 0.00001})
    assert metrics.label(spec) == "tar@far=0.00001"
    with pytest.raises(ValueError, match="far: Input should be less than 1"):
        metrics.build(MetricSpec(name="tar", args={"far": 2}))


def test_what_becomes_of_the_threshold_is_taken_without_being_asked_for():
    listed = [MetricSpec(name="tar", args={"far": 0.01, "similarity": "l2"}), MetricSpec(name="top1")]
    every = metrics.with_companions(listed)
    assert list(every[:2]) == listed
    assert [metrics.label(spec) for spec in every[2:]] == ["far@float=0.01", "frr@float=0.01", "threshold@far=0.01"]
    assert all(spec.args["similarity"] == "l2" for spec in every[2:])
    assert metrics.with_companions(every) == every
    broken = MetricSpec(name="tar", args={"fra": 1})
    assert metrics.with_companions([broken]) == (broken,)


def test_scores_are_made_once_within_one_scoring(monkeypatch):
    made = []
    embeddings, identity = people(20, 4)
    real = Scores.of
    monkeypatch.setattr(Scores, "of", lambda *args: made.append(1) or real(*args))
    with sharing.sharing():
        for _ in range(3):
            EqualErrorRate().compute(embeddings.copy(), Design(identity))
            TrueAcceptRate(far=0.01).interval(embeddings, Design(identity), **SETTINGS)
        assert len(made) == 1
        EqualErrorRate().compute(2 * embeddings, Design(identity))
        EqualErrorRate(similarity="l2").compute(embeddings, Design(identity))
        assert len(made) == 3
    EqualErrorRate().compute(embeddings, Design(identity))
    assert len(made) == 4


def test_what_is_kept_is_bounded():
    with sharing.sharing():
        for number in range(3 * sharing.KEPT):
            assert sharing.once(number, lambda number=number: number) == number
        assert sharing.once(0, lambda: "made again") == "made again"
        assert sharing.once(3 * sharing.KEPT - 1, lambda: "made again") == 3 * sharing.KEPT - 1


def test_the_curve_for_charts_is_short_and_falls():
    embeddings, identity = people(60, 5, noise=1.1)
    curve = EqualErrorRate().roc(embeddings, Design(identity))
    assert curve == TrueAcceptRate(far=0.01).roc(embeddings, Design(identity))
    assert len(curve["far"]) == len(curve["frr"]) == len(curve["threshold"]) <= 101
    assert curve["far"] == sorted(curve["far"])
    assert curve["frr"] == sorted(curve["frr"], reverse=True)
