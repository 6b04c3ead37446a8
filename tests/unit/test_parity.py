"""The formulas of parity, on numbers that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeopt import parity, registry
from edgeopt.metrics import Metric, NotMeasurable, score
from edgeopt.parity import SQNR_LIMIT_DB, DecisionAgreement, MaxAbsError, OutputCosine, Sqnr

TOP1 = registry.find("metrics", "top1")


def outputs(count: int = 400, width: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def taken(metric: Metric, own: np.ndarray, reference: np.ndarray):
    return score(metric, own, reference, confidence=0.95, seed=1)


def test_every_metric_is_listed_with_its_direction():
    listed = {metric.label: metric.better for metric in parity.metrics(None, nearest=False)}
    assert listed == parity.METRICS


def test_sqnr_by_hand():
    """Powers 3² + 4² = 25 and 0, errors 0.5² and 0."""
    reference = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    assert Sqnr().compute(reference + np.float32([[0.5, 0], [0, 0]]), reference) == pytest.approx(20.0)


def test_a_tenfold_error_is_20_db_and_the_scale_does_not_matter():
    reference, noise = outputs(), outputs(seed=1)
    near, far = (Sqnr().compute(reference + factor * noise, reference) for factor in (0.001, 0.01))
    assert near - far == pytest.approx(20, abs=0.01)
    assert Sqnr().compute(64 * (reference + 0.01 * noise), 64 * reference) == pytest.approx(far, abs=1e-4)


def test_uniform_quantization_has_the_noise_of_its_step():
    """A step d has the noise power d² / 12 (Widrow), here against the power 1/3 of uniform values in -1..1."""
    reference = np.random.default_rng(0).uniform(-1, 1, (20_000, 10))
    step = 1 / 128
    found = Sqnr().compute(np.round(reference / step) * step, reference)
    assert found == pytest.approx(10 * math.log10((1 / 3) / (step**2 / 12)), abs=0.05)


def test_equal_outputs_pass_any_gate_with_a_finite_number():
    same = outputs()
    found = taken(Sqnr(), same, same)
    assert found.value == SQNR_LIMIT_DB == pytest.approx(144.494, abs=0.001)
    assert found.interval == (SQNR_LIMIT_DB, SQNR_LIMIT_DB)
    assert "rounding of float32" in found.why
    rounded = same.astype(np.float64) * (1 + 1e-9)
    assert Sqnr().compute(rounded, same) == SQNR_LIMIT_DB
    assert Sqnr().compute(same * np.float32(1 + 2**-20), same) < 125


def test_sqnr_of_nothing_is_not_measured():
    zeros = np.zeros((50, 3), np.float32)
    assert taken(Sqnr(), zeros + 1, zeros).value is None


def test_the_interval_of_sqnr_holds_the_true_ratio():
    """Noise of a tenth of the signal's deviation: 20 dB."""
    hit = 0
    for seed in range(40):
        reference, noise = outputs(100, 4, seed), outputs(100, 4, 1000 + seed)
        low, high = taken(Sqnr(), reference + 0.1 * noise, reference).interval
        hit += low <= 20 <= high
    assert hit >= 32


def test_cosine_by_hand_and_its_worst_hundredth():
    reference = np.tile(np.float32([1, 0]), (400, 1))
    own = reference.copy()
    own[:8] = [1, 1]
    mean, worst = OutputCosine(), OutputCosine(1.0)
    assert (mean.label, worst.label) == ("output_cosine", "output_cosine_p1")
    assert mean.compute(own, reference) == pytest.approx(0.98 + 0.02 / math.sqrt(2))
    found = taken(worst, own, reference)
    assert found.value == pytest.approx(1 / math.sqrt(2))
    low, high = found.interval
    assert low <= found.value <= high


def test_cosine_takes_maps_as_vectors_and_refuses_single_numbers():
    reference = outputs(60, 12).reshape(60, 3, 2, 2)
    assert OutputCosine().compute(2 * reference, reference) == pytest.approx(1)
    one = outputs(60, 1)
    assert "one output" in taken(OutputCosine(), one, one).why


def test_the_largest_error_is_that_of_one_output_of_one_sample():
    reference = outputs()
    own = reference.copy()
    own[17, 3] -= 0.75
    found = taken(MaxAbsError(), own, reference)
    assert found.value == pytest.approx(0.75, abs=1e-6)
    assert f"{np.abs(reference).max():.4g}" in found.why


def test_agreement_is_that_of_the_metric_that_decides():
    reference = np.eye(4, dtype=np.float32)[np.arange(200) % 4]
    own = reference.copy()
    own[:10] = own[:10, ::-1]
    found = taken(DecisionAgreement(TOP1), own, reference)
    assert found.value == 0.95
    low, high = found.interval
    assert low < 0.95 < high
    assert found.why == "decisions of top1"


def test_agreement_of_embeddings_is_that_of_neighbours():
    """Two samples change places, which are each other's neighbour no more."""
    angles = np.repeat(np.arange(30) * 0.2, 2) + np.tile([0, 0.01], 30)
    reference = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    same = taken(DecisionAgreement(None, nearest=True), reference, reference)
    assert same.value == 1.0
    assert "nearest neighbours among 60" in same.why
    own = reference.copy()
    own[[1, 3]] = own[[3, 1]]
    assert taken(DecisionAgreement(None, nearest=True), own, reference).value == pytest.approx(56 / 60)


def test_without_decisions_agreement_is_not_measured():
    found = taken(DecisionAgreement(), outputs(), outputs())
    assert found.value is None
    assert "no metric of the recipe decides" in found.why
    with pytest.raises(NotMeasurable):
        DecisionAgreement().compute(outputs(), outputs())
