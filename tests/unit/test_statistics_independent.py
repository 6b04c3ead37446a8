"""Estimates of two releases that were not measured together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.statistics import Estimate, independent_difference, independent_ratio


def test_the_difference_of_two_proportions_of_newcombe() -> None:
    """Newcombe 1998, table II, method 10, for 56/70 and 48/80: 0.0524 to 0.3339, from the two Wilson intervals."""

    def wilson(successes: int, n: int) -> Estimate:
        z, p = 1.959964, successes / n
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return Estimate(p, (centre - half, centre + half))

    found = independent_difference(wilson(56, 70), wilson(48, 80))
    assert found.value == pytest.approx(0.2)
    assert found.interval == pytest.approx((0.0524, 0.3339), abs=5e-5)


@given(st.floats(-9, 9), st.floats(-9, 9), st.floats(0, 3), st.floats(0, 3))
def test_symmetric_intervals_add_up_like_variances(a: float, b: float, half_a: float, half_b: float) -> None:
    found = independent_difference(Estimate(a, (a - half_a, a + half_a)), Estimate(b, (b - half_b, b + half_b)))
    half = math.hypot(half_a, half_b)
    assert found.value == a - b
    assert found.interval == pytest.approx((a - b - half, a - b + half), abs=1e-9)


def test_a_bound_that_is_not_known_stays_unknown() -> None:
    found = independent_difference(Estimate(1.0, (None, 2.0)), Estimate(0.5, (0.0, 1.0)))
    assert found.interval[0] is None
    assert found.interval[1] == pytest.approx(0.5 + math.hypot(1.0, 0.5))


def test_the_ratio_of_series_of_unlike_length() -> None:
    random = np.random.default_rng(1)
    found = independent_ratio(1.2 * random.lognormal(0, 0.1, 3000), random.lognormal(0, 0.1, 5000), 0.5)
    low, high = found.interval
    assert low is not None
    assert high is not None
    assert low < 1.2 < high
    assert high - low < 0.03


def test_a_ratio_of_too_few_samples_has_no_interval() -> None:
    assert independent_ratio(np.full(19, 2.0), np.full(100, 1.0)) == Estimate(2.0, (None, None))
    with pytest.raises(ValueError, match="positive"):
        independent_ratio(np.zeros(30), np.ones(30))


def test_the_interval_covers_the_ratio_about_as_often_as_it_says() -> None:
    """95 % nominal; 3 standard errors of 300 trials are 4 %."""
    random = np.random.default_rng(2)
    covered = 0
    for seed in range(300):
        a, b = (random.lognormal(0, 0.2, 400) for _ in range(2))
        low, high = independent_ratio(a, b, 0.5, seed=seed, resamples=200).interval
        assert low is not None
        assert high is not None
        covered += low <= 1.0 <= high
    assert 0.9 <= covered / 300 <= 0.99
