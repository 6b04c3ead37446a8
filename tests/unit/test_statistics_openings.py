"""Percentiles over sessions whose openings differ."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import beta, norm, t

from edgeopt.statistics import effective_count, percentile_interval, session_percentile_interval


def sessions(count: int, between: float, seed: int, rounds: int = 200) -> list[np.ndarray]:
    """Latencies around 1 whose openings differ by ``between``, rounds by 2 %."""
    random = np.random.default_rng(seed)
    return [
        np.exp(opening + 0.02 * random.standard_normal(rounds)) for opening in between * random.standard_normal(count)
    ]


def test_by_hand() -> None:
    """6, 3, 4 and 1 of 7 samples each at or below the median: excesses of 2.5, -0.5, 0.5 and -2.5."""
    below, above = np.split(np.arange(1.0, 15.0), [6, 9, 13]), np.split(np.arange(15.0, 29.0), [1, 5, 8])
    value, (low, high) = session_percentile_interval(
        [np.concatenate(parts) for parts in zip(below, above, strict=True)], 0.5
    )
    assert value == 14
    variance = 4 / 3 * (2.5**2 + 0.5**2 + 0.5**2 + 2.5**2) / 28**2
    worth = 0.25 / variance * (norm.ppf(0.975) / t(3).ppf(0.975)) ** 2
    levels = beta(worth / 2 + 0.5, worth / 2 + 0.5).ppf([0.025, 0.975])
    assert (low, high) == pytest.approx(28 * levels + 0.5)  # k is the k-th smallest, at the level (k - 1/2) / 28


def test_sessions_may_have_unlike_lengths() -> None:
    taken = sessions(8, 0.0, 3)
    whole = session_percentile_interval(taken, 0.9).interval
    halved = session_percentile_interval([s[:100] for s in taken[:4]] + taken[4:], 0.9).interval
    assert halved == pytest.approx(whole, rel=0.02)


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_without_scatter_between_openings_it_is_about_as_short_as_that_of_independent_samples(q: float) -> None:
    widths = []
    for seed in range(60):
        taken = sessions(20, 0.0, seed)
        low, high = session_percentile_interval(taken, q).interval
        plain = percentile_interval(np.concatenate(taken), q).interval
        widths.append((high - low) / (plain[1] - plain[0]))
    assert 0.8 < np.median(widths) < 1.3


@pytest.mark.parametrize(("count", "between"), [(4, 0.02), (10, 0.05), (20, 0.005)])
def test_it_holds_the_truth_of_openings_that_are_still_to_come(count: int, between: float) -> None:
    held = plain_held = 0
    for seed in range(200):
        taken = sessions(count, between, seed)
        low, high = session_percentile_interval(taken, 0.5).interval
        held += low <= 1 <= high
        low, high = percentile_interval(np.concatenate(taken), 0.5).interval
        plain_held += low <= 1 <= high
    assert 181 <= held <= 199  # 95 % of 200, give or take three standard deviations
    assert held >= plain_held


def test_a_drift_that_outlasts_sessions_makes_neighbours_alike() -> None:
    """Ten sessions on five levels are worth as much as the five."""
    random = np.random.default_rng(0)
    held = clusters = 0
    for _ in range(200):
        levels = np.repeat(0.05 * random.standard_normal(5), 400)
        series = np.exp(levels + 0.02 * random.standard_normal(2000))
        low, high = session_percentile_interval(np.split(series, 10), 0.5).interval
        held += low <= 1 <= high
        alone = session_percentile_interval(random.permutation(series).reshape(10, 200), 0.5).interval
        clusters += alone[0] <= 1 <= alone[1]
    assert held >= 170
    assert clusters < 100


def test_a_memory_within_sessions_counts_too() -> None:
    taken = sessions(6, 0.0, 1)
    slow = [np.sort(session) for session in taken]  # each session rises
    short, long = (session_percentile_interval(each, 0.5).interval for each in (taken, slow))
    assert long[1] - long[0] > 1.5 * (short[1] - short[0])
    assert effective_count(np.concatenate(slow), 0.5) < 200


def test_two_openings_do_not_show_how_far_they_lie_apart() -> None:
    assert session_percentile_interval(sessions(2, 0.02, 0), 0.5).interval == (None, None)


def test_sessions_that_agree_exactly() -> None:
    assert session_percentile_interval([[2.0] * 100] * 4, 0.99) == (2.0, (2.0, 2.0))
    taken = [np.random.default_rng(0).permutation(np.arange(1.0, 101.0))] * 4
    low, high = session_percentile_interval(taken, 0.5).interval
    whole = percentile_interval(np.concatenate(taken), 0.5).interval
    assert (high - low) / (whole[1] - whole[0]) == pytest.approx(math.sqrt(0.5), abs=0.1)


def test_a_level_beyond_the_samples_is_no_bound() -> None:
    taken = [np.arange(1.0, 11.0) + k / 10 for k in range(3)]
    assert session_percentile_interval(taken, 0.99).interval[1] is None
    assert session_percentile_interval(taken, 0.01).interval[0] is None
    assert None not in session_percentile_interval(taken, 0.5).interval


@pytest.mark.parametrize("q", [0.5, 0.9, 0.97])
def test_a_percentile_and_its_mirror_image(q: float) -> None:
    taken = sessions(6, 0.005, 3)
    low, high = session_percentile_interval(taken, q).interval
    mirrored = session_percentile_interval([-session for session in taken], 1 - q).interval
    assert mirrored == pytest.approx((-high, -low), rel=1e-3)


def test_a_gate_at_the_true_p99_passes_no_more_often_than_it_fails() -> None:
    """Equal levels would miss below the truth about twice as often as above."""
    truth, below, above = math.exp(0.3 * 2.3263478740408408), 0, 0
    for seed in range(300):
        taken = np.exp(0.3 * np.random.default_rng(seed).normal(size=(6, 300)))
        low, high = session_percentile_interval(list(taken), 0.99).interval
        below, above = below + (high < truth), above + (low > truth)
    assert below <= above
    assert below + above <= 0.07 * 300
