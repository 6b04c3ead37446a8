"""Percentiles over sessions whose openings differ."""

from __future__ import annotations

import numpy as np
import pytest

from edgeopt.statistics import serial_percentile_interval, session_percentile_interval, session_ratio


def sessions(count: int, between: float, seed: int, rounds: int = 200) -> list[np.ndarray]:
    """Latencies around 1 whose openings differ by ``between``, rounds by 2 %."""
    random = np.random.default_rng(seed)
    return [
        np.exp(opening + 0.02 * random.standard_normal(rounds)) for opening in between * random.standard_normal(count)
    ]


def test_it_is_the_hull_of_both_intervals():
    taken = sessions(4, 0.05, 1)
    value, (low, high) = session_percentile_interval(taken, 0.5)
    whole = serial_percentile_interval(np.concatenate(taken), 0.5)
    own = [float(np.log(np.quantile(series, 0.5, method="inverted_cdf"))) for series in taken]
    between = session_ratio(own).interval
    assert value == whole.value
    assert low == pytest.approx(min(whole.interval[0], between[0]))
    assert high == pytest.approx(max(whole.interval[1], between[1]))


def test_without_scatter_between_openings_it_is_about_as_short_as_the_series_allows():
    widths = []
    for seed in range(30):
        taken = sessions(10, 0.0, seed)
        low, high = session_percentile_interval(taken, 0.5).interval
        whole = serial_percentile_interval(np.concatenate(taken), 0.5).interval
        widths.append((high - low) / (whole[1] - whole[0]))
    assert min(widths) >= 1
    assert np.median(widths) < 1.6


@pytest.mark.parametrize(("count", "between"), [(4, 0.02), (10, 0.05), (20, 0.005)])
def test_it_holds_the_truth_of_openings_that_are_still_to_come(count, between):
    held = series_held = 0
    for seed in range(200):
        taken = sessions(count, between, seed)
        low, high = session_percentile_interval(taken, 0.5).interval
        held += low <= 1 <= high
        low, high = serial_percentile_interval(np.concatenate(taken), 0.5).interval
        series_held += low <= 1 <= high
    assert held >= 183  # 95 % of 200, less three standard deviations
    assert held >= series_held


def test_two_openings_do_not_show_how_far_they_lie_apart():
    assert session_percentile_interval(sessions(2, 0.02, 0), 0.5).interval == (None, None)
