"""Scores and error rates: by hand, against scikit-learn, and whatever the comparisons are."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.verification import Design, Scores, TooFew, prepare
from tests.unit.verification.people import cosines, people


def on_a_circle(*degrees: float) -> np.ndarray:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_a_case_by_hand():
    """a at 0° and 30°, b at 90° and 50°: genuine cos 30° and cos 40°, impostors cos 90°, 50°, 60° and 20°."""
    scores = Scores.of(on_a_circle(0, 30, 90, 50), Design(np.array(list("aabb"))))
    np.testing.assert_allclose(scores.genuine_scores(slice(None)), np.cos(np.deg2rad([40, 30])), atol=1e-6)
    np.testing.assert_allclose(scores.impostor_scores(slice(None)), np.cos(np.deg2rad([20, 50, 60, 90])), atol=1e-6)
    assert scores.far(0.6) == 0.5
    assert scores.frr(0.8) == 0.5
    assert scores.frr(scores.threshold(0.0)) == 1
    assert scores.frr(scores.threshold(0.25)) == 0
    assert scores.threshold(0.25) == pytest.approx(np.cos(np.deg2rad(50)), abs=1e-6)
    assert scores.threshold(1.0) == -np.inf
    assert scores.equal_error().rate == pytest.approx(0.25)  # from FAR 0.25, FRR 1 straight down to FAR 0.25, FRR 0


def test_distances_are_those_of_the_embeddings_as_they_are():
    embeddings = np.array([[0, 0], [3, 4], [0, 1]], np.float32)
    scores = Scores.of(embeddings, Design(np.array([0, 0, 1])), "l2")
    assert scores.genuine_scores(slice(None)).tolist() == [-5]
    np.testing.assert_allclose(scores.impostor_scores(slice(None)), [-1, -np.sqrt(18)], rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(2, 5), st.sampled_from([0.0, 0.5, 1.0, 3.0]))
def test_the_same_as_scikit_learn(seed, count, each, noise):
    from sklearn.metrics import roc_curve

    embeddings, identity = people(count, each, noise=noise, size=3, seed=seed)
    embeddings = np.round(embeddings, 1) + np.float32(0.05)  # so that scores tie
    scores = Scores.of(embeddings, Design(identity))
    one, other = np.triu_indices(len(embeddings), 1)
    far, tar, _ = roc_curve(identity[one] == identity[other], cosines(embeddings, one, other), drop_intermediate=False)
    for level in (0.01, 0.1, 0.3, 0.9):
        expected = tar[np.searchsorted(far, level, side="right") - 1]
        assert 1 - scores.frr(scores.threshold(level)) == pytest.approx(expected, abs=1e-9)
        assert scores.far(scores.threshold(level)) <= level + 1e-12
    level = np.flatnonzero(far >= 1 - tar)[0]
    before = (far[level - 1], 1 - tar[level - 1])
    after = (far[level], 1 - tar[level])
    gap, excess = before[1] - before[0], after[0] - after[1]
    assert scores.equal_error().rate == pytest.approx(
        before[0] + (after[0] - before[0]) * gap / (gap + excess), abs=1e-9
    )


def test_separated_people_have_no_error_and_chance_has_half():
    embeddings, identity = people(20, 5, noise=1e-3)
    assert Scores.of(embeddings, Design(identity)).equal_error().rate == 0
    shuffled = np.random.default_rng(0).permutation(identity)
    assert Scores.of(embeddings, Design(shuffled)).equal_error().rate == pytest.approx(0.5, abs=0.03)


def test_pairs_are_compared_as_listed():
    embeddings, identity = people(12, 4)
    pairs = np.array(list(combinations(range(48), 2)))
    every, listed = Scores.of(embeddings, Design(identity)), Scores.of(embeddings, Design(identity, pairs=pairs))
    assert every.equal_error() == listed.equal_error()
    few = Scores.of(embeddings, Design(identity, pairs=pairs[::3]))
    assert (few.impostor_count + few.genuine_count) == len(pairs[::3])


def test_all_ways_of_comparing_agree_on_who_met_whom():
    """Closed forms for a grid, and counting for a list."""
    embeddings, identity = people(6, 4)
    probe = np.arange(24) % 4 == 0
    crossed = [(i, j) for i in np.flatnonzero(~probe) for j in np.flatnonzero(probe)]
    weights = np.random.default_rng(0).integers(0, 3, (6, 5)).astype(np.float32)
    for design, pairs in (
        (Design(identity), list(combinations(range(24), 2))),
        (Design(identity, probe=probe), crossed),
    ):
        grid = prepare(embeddings, design, "cosine")
        listed = prepare(embeddings, Design(identity, pairs=np.array(pairs)), "cosine")
        assert grid.count == listed.count == len(pairs)
        np.testing.assert_allclose(grid.genuine, listed.genuine)
        np.testing.assert_allclose(grid.impostors, listed.impostors)
        np.testing.assert_allclose(grid.impostor_weight(weights), listed.impostor_weight(weights))
        assert grid.squares == pytest.approx(listed.squares)
        one, other = np.triu_indices(6, 1)
        np.testing.assert_allclose(grid.between(one, other), listed.between(one, other))
        numbers = np.arange(grid.count)
        np.testing.assert_array_equal(np.sort(grid.at(numbers), axis=0), np.sort(listed.at(numbers), axis=0))


def test_a_template_is_the_mean_of_directions():
    """b's samples of unlike length at 0° and 60° make one template at 30°."""
    embeddings = on_a_circle(40, 30, 0, 60) * np.array([[1], [2], [1], [9]], np.float32)
    identity, template = np.array(list("aabb")), np.array([1, 2, 3, 3])
    scores = Scores.of(embeddings, Design(identity, template))
    np.testing.assert_allclose(scores.impostor_scores(slice(None)), [1, np.cos(np.deg2rad(10))], atol=1e-6)
    assert scores.genuine_count == 1


def test_probes_meet_enrolled_templates_only():
    embeddings, identity = people(5, 4)
    probe = np.arange(20) % 4 == 3
    scores = Scores.of(embeddings, Design(identity, template=identity, probe=probe))
    assert (scores.genuine_count, scores.impostor_count) == (5, 20)
    mean = embeddings[:3] / np.linalg.norm(embeddings[:3], axis=1, keepdims=True)
    expected = cosines(np.vstack([mean.mean(axis=0), embeddings[3]]), np.array([0]), np.array([1]))[0]
    assert scores.genuine_scores(slice(None)).tolist() == pytest.approx(
        sorted([expected, *scores.genuine_scores(slice(None))])[: len(scores.genuine)], rel=1
    )
    assert np.isclose(scores.genuine_scores(slice(None)), expected, atol=1e-6).any()


def test_a_pair_of_templates_counts_once():
    embeddings, identity = people(3, 2)
    pairs = np.array([[0, 2], [1, 3], [2, 0], [0, 4]])
    scores = Scores.of(
        embeddings, Design(identity, template=np.array([1, 1, 2, 2, 3, 4]), pairs=np.vstack([pairs, [4, 5]]))
    )
    assert (scores.impostor_count, scores.genuine_count) == (2, 1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"identity": np.array(["x"] * 8)}, TooFew, "all samples are of one identity: there"),
        ({"identity": np.arange(8)}, TooFew, "no genuine pair"),
        ({"pairs": np.array([[0, 1]])}, TooFew, "no impostor pair"),
        ({"pairs": np.array([[0, 4], [3, 3]])}, ValueError, "pair 1 compares sample 3 with 3"),
        ({"template": np.zeros(8)}, ValueError, "template of sample . holds samples of two identities"),
        ({"identity": np.array(list("abc"))}, ValueError, "an identity for each of 8"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, error, message):
    embeddings, identity = people(2, 4)
    with pytest.raises(error, match=message):
        Scores.of(embeddings, Design(**{"identity": identity, **change}))


def test_embeddings_that_have_no_direction_are_named():
    embeddings, identity = people(2, 4)
    embeddings[5] = 0
    with pytest.raises(TooFew, match="the embedding of sample 5 has zero norm"):
        Scores.of(embeddings, Design(identity))
    embeddings[5] = np.nan
    with pytest.raises(TooFew, match="the embedding of sample 5 is not finite"):
        Scores.of(embeddings, Design(identity))
    with pytest.raises(ValueError, match="needs embeddings"):
        Scores.of(embeddings[:, 0], Design(identity))
    opposite = on_a_circle(0, 180, 10, 20)
    with pytest.raises(TooFew, match="the mean of template 0 has zero norm"):
        Scores.of(np.round(opposite, 3), Design(np.array(list("aabb")), template=np.array([0, 0, 1, 2])))


def test_only_the_worst_are_kept_of_very_many(monkeypatch):
    embeddings, identity = people(30, 5)
    whole = Scores.of(embeddings, Design(identity))
    monkeypatch.setattr(Scores, "LIMIT", 2000)
    monkeypatch.setattr("edgeopt.verification.trials._BLOCK", 1000)
    part = Scores.of(embeddings, Design(identity))
    assert (len(part.impostor), part.impostor_count) == (2000, whole.impostor_count)
    np.testing.assert_array_equal(part.impostor, whole.impostor[:2000])
    for far in (0.001, 0.01, 0.1):
        assert part.threshold(far) == whole.threshold(far)
        assert part.frr(part.threshold(far)) == whole.frr(whole.threshold(far))
    assert part.resampled(0.01, 0).frr.std() > 0
    assert 0.15 < part.roc().far[-1] < 0.2
    with pytest.raises(TooFew, match="more than 2,000 errors"):
        part.far(-0.5)
    with pytest.raises(TooFew, match="give a shorter list"):
        part.threshold(0.5)
    with pytest.raises(TooFew, match="give a shorter list"):
        part.resampled(0.5, 0)


def test_the_roc_is_monotone_and_short():
    embeddings, identity = people(40, 5)
    scores = Scores.of(embeddings, Design(identity))
    threshold, far, frr = scores.roc()
    assert len(threshold) <= 201
    assert (np.diff(threshold) < 0).all()
    assert (np.diff(far) > 0).all()
    assert (np.diff(frr) <= 0).all()
    assert (far[0], far[-1]) == (0, 1)
