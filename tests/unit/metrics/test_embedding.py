"""Parity of embeddings: by hand, and where it says nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from edgeopt import metrics
from edgeopt.metrics import NotMeasurable
from edgeopt.metrics.embedding import EmbeddingCosine, NeighbourFlips, RankAgreement
from edgeopt.recipe import MetricSpec
from tests.unit.verification.people import cosines, people

SETTINGS = {"confidence": 0.95, "seed": 0}
ALL = (EmbeddingCosine(), EmbeddingCosine(percentile=1), RankAgreement(), NeighbourFlips())


def noisy(embeddings: np.ndarray, much: float) -> np.ndarray:
    return embeddings + much * np.random.default_rng(5).standard_normal(embeddings.shape).astype(np.float32)


def test_cosines_by_hand():
    before = np.array([[1, 0], [0, 2], [1, 1], [3, 0]], np.float32)
    after = np.array([[5, 0], [1, 1], [1, 1], [0, 3]], np.float32)  # 1, 1/√2, 1, 0
    assert EmbeddingCosine().compute(after, before) == pytest.approx((2 + 0.5**0.5) / 4)
    assert EmbeddingCosine(percentile=25).compute(after, before) == pytest.approx(0, abs=1e-7)
    assert EmbeddingCosine(percentile=50).compute(after, before) == pytest.approx(0.5**0.5)
    assert metrics.label(MetricSpec(name="embedding_cosine", args={"percentile": 1})) == "embedding_cosine_p1"


def test_neighbours_by_hand():
    """Before, 0 and 1 are neighbours, and 2 and 3; after, 1 has moved to 2."""
    angles = {"before": [0, 10, 90, 105], "after": [0, 78, 90, 105]}
    before, after = (
        np.stack([np.cos(np.deg2rad(a)), np.sin(np.deg2rad(a))], axis=1).astype(np.float32) for a in angles.values()
    )
    assert NeighbourFlips().compute(after, before) == 0.5  # 1 and 2; 0 still has 1 nearest
    assert NeighbourFlips().compute(before, before) == 0


def test_neighbours_are_found_in_blocks_too(monkeypatch):
    embeddings, _ = people(20, 5)
    whole = NeighbourFlips().compute(noisy(embeddings, 0.5), embeddings)
    monkeypatch.setattr("edgeopt.metrics.embedding._BLOCK", 700)
    assert NeighbourFlips().compute(noisy(embeddings, 0.5), embeddings) == whole > 0


def test_rank_agreement_is_spearmans():
    embeddings, _ = people(20, 5)
    other = noisy(embeddings, 0.5)
    pairs = np.triu_indices(100, 1)
    expected = spearmanr(cosines(embeddings, *pairs), cosines(other, *pairs)).statistic
    assert RankAgreement().compute(other, embeddings) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.label)
def test_equal_embeddings_agree_and_noise_is_seen(metric):
    embeddings, _ = people(30, 5)
    best = 0.0 if metric.better == "lower" else 1.0
    assert metric.compute(3 * embeddings, embeddings) == pytest.approx(best, abs=1e-6)
    found = [metrics.score(metric, noisy(embeddings, much), embeddings, **SETTINGS) for much in (0.2, 1.0)]
    assert abs(found[0].value - best) < abs(found[1].value - best)
    for m in found:
        assert m.interval[0] is None or m.interval[0] <= m.value <= m.interval[1]
    assert metric.needs_baseline


def test_many_samples_are_ranked_by_some_of_them():
    embeddings, _ = people(300, 4, size=4)
    assert RankAgreement().compute(noisy(embeddings, 0.3), embeddings) == pytest.approx(0.95, abs=0.05)


def test_what_has_no_direction_or_order_is_not_measurable():
    embeddings, _ = people(5, 4)
    zero = embeddings.copy()
    zero[3] = 0
    with pytest.raises(NotMeasurable, match="sample 3 has zero norm"):
        EmbeddingCosine().compute(zero, embeddings)
    with pytest.raises(NotMeasurable, match="alike"):
        RankAgreement().compute(np.ones_like(embeddings), embeddings)
    with pytest.raises(NotMeasurable, match="2 samples"):
        NeighbourFlips().compute(embeddings[:2], embeddings[:2])
    with pytest.raises(ValueError, match=r"needs embeddings \(N, D\)"):
        NeighbourFlips().compute(embeddings[:, :2], embeddings)
