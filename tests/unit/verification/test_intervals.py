"""Intervals over identities: equal to resampling by hand, and they cover."""

from __future__ import annotations

import numpy as np
import pytest

from edgeopt.statistics import paired_proportion_difference
from edgeopt.verification import Curves, Design, Scores, quantiles, rate_drop_interval, rate_interval
from edgeopt.verification.intervals import dependence
from edgeopt.verification.resample import draws
from tests.unit.verification.people import cosines, people


def weighted(embeddings, identity, weights, far):
    """FRR at a FAR and the EER of one resample, pair by pair."""
    one, other = np.triu_indices(len(embeddings), 1)
    scores = cosines(embeddings, one, other)
    person = np.unique(identity, return_inverse=True)[1]
    genuine = person[one] == person[other]
    pair = np.where(genuine, weights[person[one]], weights[person[one]] * weights[person[other]])
    order = np.argsort(-scores, kind="stable")
    accepted = [np.cumsum(np.where(kind, pair, 0)[order]) for kind in (~genuine, genuine)]
    false, true = (sums / sums[-1] for sums in accepted)
    return 1 - true[np.searchsorted(false, far, side="right") - 1], false[np.argmin(np.abs(false - (1 - true)))]


def test_the_curves_are_those_of_resampled_pairs():
    """The thresholds of the curves lie so close that the spread of the resamples hides the steps."""
    embeddings, identity = people(40, 4, noise=1.2)
    scores = Scores.of(embeddings, Design(identity))
    weights = draws(40, 1000, 3)
    by_hand = np.array([weighted(embeddings, identity, weights[:, b], 0.02) for b in range(40)])
    frr = scores.resampled(0.02, 3).frr
    eer = scores.resampled("eer", 3).far
    for resampled, expected in ((frr, by_hand[:, 0]), (eer, by_hand[:, 1])):
        difference = resampled[:40] - expected
        assert abs(difference.mean()) < 0.02 * resampled.std()
        assert np.abs(difference).max() < 0.25 * resampled.std()


def test_without_resampling_the_curves_are_the_rates(monkeypatch):
    embeddings, identity = people(20, 4)
    scores = Scores.of(embeddings, Design(identity))
    monkeypatch.setattr("edgeopt.verification.resample.draws", lambda people, n, seed: np.ones((people, n), np.float32))
    thresholds = scores.grid(1.0, 50)
    curves = Curves.of(scores, thresholds, 0, resamples=3)
    np.testing.assert_allclose(curves.far, np.repeat([[scores.far(t)] for t in thresholds], 3, axis=1))
    np.testing.assert_allclose(curves.frr, np.repeat([[scores.frr(t)] for t in thresholds], 3, axis=1))


def test_what_was_resampled_deeper_says_the_same():
    embeddings, identity = people(30, 4)
    fresh, used = (Scores.of(embeddings, Design(identity)) for _ in range(2))
    used.resampled(0.5, 1)
    for point in (0.01, "eer"):
        for one, other in zip(fresh.resampled(point, 1), used.resampled(point, 1), strict=True):
            np.testing.assert_array_equal(one, other)


def test_every_identity_is_drawn_once_on_average_and_the_draws_repeat():
    weights = draws(50, 400, 1)
    assert (weights.sum(axis=0) == 50).all()
    np.testing.assert_array_equal(weights, draws(50, 400, 1))


def test_pairs_of_one_person_are_worth_less_than_independent_ones():
    """All pairs of a person fail together, or none: 6 pairs are worth one."""
    base, identity = people(60, 4, noise=0.05, size=32)
    bad = np.repeat(np.arange(60) % 10 == 0, 4)
    noise = np.random.default_rng(1).standard_normal(base.shape).astype(np.float32)
    scores = Scores.of(base + np.where(bad[:, None], 20 * noise, 0), Design(identity))
    assert scores.frr(0.9) == pytest.approx(0.1)
    assert dependence(scores, "frr", 0.9).effect == pytest.approx(6 * 60 / 59, rel=0.01)
    low, high = rate_interval(scores, "frr", 0.9, 0.95)
    assert low < 0.06
    assert high > 0.19


def lone_pairs(embeddings):
    """4000 samples in 2000 pairs, so that no pair shares a person with another: 1000 genuine, 1000 of impostors."""
    pairs = np.arange(4000).reshape(2000, 2)
    identity = np.where(np.arange(4000) < 2000, np.arange(4000) // 2, np.arange(4000))
    return Scores.of(embeddings, Design(identity, pairs=pairs))


def test_independent_pairs_are_worth_what_they_are():
    scores = lone_pairs(np.random.default_rng(0).standard_normal((4000, 2)).astype(np.float32))
    assert dependence(scores, "far", 0.0).effect == pytest.approx(1, abs=0.1)
    assert dependence(scores, "frr", 0.0).effect == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("kind", ["far", "frr"])
def test_the_drop_on_independent_pairs_is_that_of_a_proportion(kind):
    random = np.random.default_rng(1)
    x = random.standard_normal((4000, 2))
    before, after = (lone_pairs(x + noise * random.standard_normal(x.shape)) for noise in (0, 0.3))
    wrong = []
    for scores in (before, after):
        one, other = np.zeros(2000, bool), scores.errors(kind, 0.2)
        one[other] = True
        wrong.append(one[:1000] if kind == "frr" else one[1000:])
    expected = paired_proportion_difference(*wrong)
    assert rate_drop_interval(before, after, kind, (0.2, 0.2), 0.95) == pytest.approx(expected.interval, rel=0.1)
    assert rate_drop_interval(after, before, kind, (0.2, 0.2), 0.95) == pytest.approx(
        [-bound for bound in expected.interval[::-1]], rel=0.1
    )


def test_a_model_that_decides_alike_may_still_differ_on_other_people():
    embeddings, identity = people(50, 4)
    scores = Scores.of(embeddings, Design(identity))
    low, high = rate_drop_interval(scores, scores, "far", (0.6, 0.6), 0.95)
    assert low == -high
    assert 1 / scores.impostor_count < high < 0.01


def test_no_error_is_not_proof_of_none():
    embeddings, identity = people(50, 4, noise=0.05, size=32)
    scores = Scores.of(embeddings, Design(identity))
    low, high = rate_interval(scores, "frr", 0.5, 0.95)
    assert low == 0
    assert 3 / scores.genuine_count < high < 0.1


def of_people(count: int, seed: int) -> np.ndarray:
    """Embeddings (4 * count, 8) of people who differ in how noisy they are."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((count, 8))
    noise = np.exp(0.4 * random.standard_normal(count))[:, None, None]
    return (centres[:, None] + noise * random.standard_normal((count, 4, 8))).reshape(-1, 8)


def damaged(embeddings: np.ndarray) -> np.ndarray:
    return embeddings + 0.4 * np.random.default_rng(1).standard_normal(embeddings.shape) + 0.2


def compared(embeddings: np.ndarray) -> Scores:
    return Scores.of(embeddings, Design(np.repeat(np.arange(len(embeddings) // 4), 4)))


@pytest.mark.parametrize("kind", ["far", "frr"])
@pytest.mark.parametrize("threshold", [0.45, 0.8])
def test_intervals_cover_as_often_as_they_say(kind, threshold):
    held, drops, repeats = 0, 0, 100
    everyone = of_people(800, 10**6)
    before, after = (getattr(compared(x), kind)(threshold) for x in (everyone, damaged(everyone)))
    for seed in range(repeats):
        sample = of_people(40, seed)
        scores = compared(sample), compared(damaged(sample))
        low, high = rate_interval(scores[0], kind, threshold, 0.95)
        held += low <= before <= high
        low, high = rate_drop_interval(*scores, kind, (threshold, threshold), 0.95)
        drops += low <= before - after <= high
    assert held / repeats >= 0.89  # 95 %, less nearly three standard deviations
    assert drops / repeats >= 0.89


def test_few_people_widen_the_interval():
    values = np.random.default_rng(0).standard_normal(100_000)
    assert quantiles(values, 10**6, 0.95) == pytest.approx((-1.96, 1.96), abs=0.03)
    low, high = quantiles(values, 10, 0.95)
    assert high == pytest.approx(2.26 * np.sqrt(10 / 9), abs=0.08)
    assert low == pytest.approx(-high, abs=0.1)
