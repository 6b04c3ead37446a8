from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter
from scipy.stats import binom, binomtest, ttest_ind

from edgeopt import statistics
from edgeopt.statistics import (
    bootstrap_interval,
    effective_count,
    independent_session_ratio,
    mcnemar_exact,
    paired_bootstrap_interval,
    paired_log_ratio,
    paired_proportion_difference,
    percentile_interval,
    proportion_interval,
    quantile_log_ratio,
    ratio_interval,
    samples_needed,
    session_ratio,
    smallest_proportion,
    trials_needed,
    wilson_interval,
)

REPEATS = 400
#: coverage of 95 % intervals counted over 400 simulations: 4.5 standard errors are 5 points
LOWEST = 0.90


def covered(interval: statistics.Interval, truth: float) -> bool:
    low, high = interval
    return low is not None and high is not None and low <= truth <= high


@pytest.mark.parametrize(("q", "confidence", "needed"), [(0.9, 0.98, 64), (0.99, 0.98, 662), (0.5, 0.95, 9)])
def test_samples_needed_as_mlperf_has_it(q: float, confidence: float, needed: int) -> None:
    assert samples_needed(q, confidence) == needed


@given(st.floats(0.02, 0.98), st.sampled_from([0.8, 0.95, 0.99]))
def test_samples_needed_is_where_one_outlier_is_not_the_bound(q: float, confidence: float) -> None:
    n = samples_needed(q, confidence)
    assert samples_needed(1 - q, confidence) == pytest.approx(n, abs=1)
    tail = min(q, 1 - q)
    assert binom.cdf(1, n, tail) <= (1 - confidence) / 2 < binom.cdf(1, n - 1, tail)
    low, high = percentile_interval(range(n), q, confidence).interval
    assert low is not None
    assert high is not None
    assert low > 0 or q > 0.5
    assert high < n - 1 or q < 0.5


@given(st.integers(1, 400), st.floats(0.02, 0.98), st.sampled_from([0.8, 0.95]))
def test_the_order_statistics_enclose_the_quantile_as_often_as_promised(n: int, q: float, confidence: float) -> None:
    low, high = percentile_interval(range(1, n + 1), q, confidence).interval  # values are ranks
    if low is not None and high is not None:
        assert binom.cdf(high - 1, n, q) - binom.cdf(low - 1, n, q) >= confidence - 1e-12


def test_percentile_value_is_the_nearest_rank_in_any_order() -> None:
    samples = np.random.default_rng(0).permutation(np.arange(1, 101))
    assert [percentile_interval(samples, q).value for q in (0.07, 0.5, 0.9, 0.99)] == [7, 50, 90, 99]
    assert percentile_interval([3.0], 0.5) == (3.0, (None, None))
    assert percentile_interval([3.0], 0.99) == (3.0, (3.0, None))  # it lies below p99 with a probability of 99 %


def test_percentile_coverage() -> None:
    random = np.random.default_rng(1)
    truth = math.exp(1.2815515655446004)  # p90 of the standard lognormal
    hits = sum(covered(percentile_interval(random.lognormal(size=200), 0.9).interval, truth) for _ in range(REPEATS))
    assert hits / REPEATS > LOWEST


def autocorrelated(random: np.random.Generator, count: int, length: float) -> np.ndarray:
    """(count,) standard normal, with a correlation that falls to 1/e within ``length``."""
    keep = math.exp(-1 / length)
    values = lfilter([1], [1, -keep], random.normal(size=count) * math.sqrt(1 - keep**2), zi=[keep * random.normal()])
    return np.asarray(values[0])


def test_a_drifting_series_is_worth_fewer_samples() -> None:
    random = np.random.default_rng(5)
    for q, most in ((0.5, 0.2), (0.9, 0.3), (0.99, 0.6)):
        counts = [effective_count(np.exp(0.1 * autocorrelated(random, 2000, 20)), q) for _ in range(20)]
        assert np.median(counts) < most * 2000
        assert min(counts) >= 1


def test_an_outer_percentile_is_worth_no_more_where_the_slow_moments_were_missed() -> None:
    """p97 shows the memory, the few samples beyond p99 lie apart."""
    series = np.sin(np.arange(3000) / 200)
    series[::100] = 5  # once in a hundred, never two in a row: alone, worth all 3000
    assert effective_count(series, 0.97) < 0.1 * 3000
    assert effective_count(series, 0.99) < 0.2 * 3000


def test_independent_samples_are_worth_nearly_all_of_their_number() -> None:
    random = np.random.default_rng(6)
    counts = [effective_count(random.lognormal(size=2000), 0.5) for _ in range(50)]
    assert np.median(counts) > 1500
    assert max(counts) <= 2000
    assert effective_count(np.full(2000, 3.0), 0.5) == 2000


def test_sessions_agree_on_the_geometric_mean_with_students_interval() -> None:
    ratio, (low, high) = session_ratio(np.log([1.0, 1.1, 1.21]))
    assert ratio == pytest.approx(1.1)
    half = 4.302652729911275 * math.log(1.1) / math.sqrt(3)  # t of 97.5 % with 2 degrees of freedom; sd is log 1.1
    assert (low, high) == pytest.approx((1.1 * math.exp(-half), 1.1 * math.exp(half)))
    assert session_ratio([0.0, 0.0]) == (1.0, (None, None))
    assert session_ratio([0.0, 0.0, 0.0]) == (1.0, (1.0, 1.0))


def test_runs_apart_are_compared_with_welchs_interval_as_scipy_has_it() -> None:
    random = np.random.default_rng(3)
    a, b = random.normal(0.1, 0.02, 6), random.normal(0, 0.1, 9)
    expected = ttest_ind(a, b, equal_var=False).confidence_interval(0.99)
    ratio, interval = independent_session_ratio(a, b, 0.99)
    assert ratio == pytest.approx(math.exp(a.mean() - b.mean()))
    assert interval == pytest.approx((math.exp(expected.low), math.exp(expected.high)))
    assert independent_session_ratio(a[:2], b).interval == (None, None)
    assert independent_session_ratio([0.0] * 3, [0.0] * 3) == (1.0, (1.0, 1.0))


@given(st.floats(0.5, 2.0))
def test_what_slows_a_round_cancels_in_the_paired_ratio(factor: float) -> None:
    random = np.random.default_rng(0)
    base = random.lognormal(sigma=1.0, size=101)
    assert paired_log_ratio(factor * base, base) == pytest.approx(math.log(factor), abs=1e-12)
    assert quantile_log_ratio(factor * base, base, 0.1) == pytest.approx(math.log(factor), abs=1e-12)
    other = random.permutation(base)
    assert paired_log_ratio(base, other) == pytest.approx(-paired_log_ratio(other, base), abs=1e-12)


def test_ratio_of_a_series_with_itself_is_exactly_one() -> None:
    series = np.random.default_rng(0).lognormal(size=500)
    assert ratio_interval(series, series) == (1.0, (1.0, 1.0))
    scaled = ratio_interval(3 * series, series, 0.1)
    assert (scaled.value, *scaled.interval) == pytest.approx((3, 3, 3))


def test_ratio_coverage_under_a_common_drift() -> None:
    random = np.random.default_rng(2)
    hits = 0
    for seed in range(REPEATS // 2):
        drift = np.exp(0.3 * np.sin(np.linspace(0, 9, 300) + random.uniform(0, 6)))
        a, b = (scale * drift * random.lognormal(sigma=0.1, size=300) for scale in (0.8, 1.0))
        hits += covered(ratio_interval(a, b, seed=seed, resamples=200).interval, 0.8)
    assert hits / (REPEATS // 2) > LOWEST - 0.02


def test_ratio_is_deterministic_thins_long_series_and_refuses_short_ones() -> None:
    random = np.random.default_rng(3)
    a, b = random.lognormal(size=(2, 50_000))
    assert ratio_interval(a, b, seed=5, resamples=50) == ratio_interval(a, b, seed=5, resamples=50)
    assert ratio_interval(a, b, seed=5, resamples=50) != ratio_interval(a, b, seed=6, resamples=50)
    assert covered(ratio_interval(a, b, resamples=200).interval, 1.0)
    assert ratio_interval(a[:19], b[:19]).interval == (None, None)
    with pytest.raises(ValueError, match="same length"):
        ratio_interval(a, b[1:])
    with pytest.raises(ValueError, match="positive"):
        ratio_interval(a - 100, b)


def test_clopper_pearson_known_values() -> None:
    # 0 of n: the upper bound solves (1-p)^n = α/2. 8 of 10: Clopper and Pearson's classic table, 0.444 to 0.975.
    assert proportion_interval(0, 30) == (0, (0, pytest.approx(1 - 0.025 ** (1 / 30))))
    assert proportion_interval(30, 30) == (1, (pytest.approx(0.025 ** (1 / 30)), 1))
    assert proportion_interval(8, 10).interval == pytest.approx((0.4439, 0.9748), abs=1e-4)
    with pytest.raises(ValueError, match="no proportion"):
        proportion_interval(5, 4)


def test_paired_difference_known_value() -> None:
    # n12 = 9, n21 = 3, n = 98: p̃ = 0.10 and 0.04, half-width 1.95996 √((0.14 - 0.0036) / 100).
    a = np.array([True] * 9 + [False] * 3 + [True] * 86)
    b = np.array([False] * 9 + [True] * 3 + [True] * 86)
    half = 1.959964 * math.sqrt(0.1364 / 100)
    assert paired_proportion_difference(a, b) == (
        pytest.approx(6 / 98),
        (pytest.approx(0.06 - half), pytest.approx(0.06 + half)),
    )


def test_paired_difference_without_disagreement_is_still_unsure() -> None:
    estimate = paired_proportion_difference(np.ones(400, bool), np.ones(400, bool))
    low, high = estimate.interval
    assert estimate.value == 0
    assert low is not None
    assert high is not None
    assert -0.01 < low < 0 < high < 0.01
    assert low == -high


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_paired_difference_is_antisymmetric_and_encloses_its_value(pairs: list[tuple[bool, bool]]) -> None:
    a, b = np.array(pairs).T
    there, back = paired_proportion_difference(a, b), paired_proportion_difference(b, a)
    assert there.value == -back.value
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))


def test_paired_difference_coverage() -> None:
    random = np.random.default_rng(4)
    hits = 0
    for _ in range(REPEATS):
        kind = random.choice(3, size=150, p=[0.90, 0.07, 0.03])
        hits += covered(paired_proportion_difference(kind != 2, kind != 1).interval, 0.04)
    assert hits / REPEATS > LOWEST


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    return float((outputs == labels).mean())


def test_bootstrap_agrees_with_the_closed_form() -> None:
    labels = np.zeros(900, int)
    outputs = np.array([0] * 720 + [1] * 180)
    estimate = bootstrap_interval(accuracy, outputs, labels, resamples=2000, seed=1)
    half = 1.96 * math.sqrt(0.8 * 0.2 / 900)
    assert estimate.value == pytest.approx(0.8)
    assert estimate.interval == pytest.approx((0.8 - half, 0.8 + half), abs=0.004)


def test_paired_bootstrap_is_exact_for_equal_outputs_and_agrees_with_the_closed_form() -> None:
    random = np.random.default_rng(5)
    labels = np.zeros(500, int)
    a, b = random.random((2, 500)) < 0.1
    assert paired_bootstrap_interval(accuracy, a, a, labels).interval == (0, 0)
    estimate = paired_bootstrap_interval(accuracy, a, b, labels, resamples=2000)
    closed = paired_proportion_difference(~a, ~b)
    assert estimate.value == pytest.approx(closed.value)
    assert estimate.interval == pytest.approx(closed.interval, abs=0.006)


def test_stratified_resamples_keep_every_class() -> None:
    labels = np.array([0] * 50 + [1])

    def lowest_recall(outputs: np.ndarray, labels: np.ndarray) -> float:
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(
                np.min([np.divide((outputs == labels)[labels == c].sum(), (labels == c).sum()) for c in (0, 1)])
            )

    with pytest.raises(ValueError, match="strata"):
        bootstrap_interval(lowest_recall, labels, labels)
    many = np.repeat(labels, 10)
    assert bootstrap_interval(lowest_recall, many, many, strata=many).interval == (1, 1)


@pytest.mark.parametrize("count", [1, 4, 19])
def test_a_few_samples_have_no_bootstrap(count: int) -> None:
    """Eight of ten right, drawn five times, would often be all right, and the bootstrap sure of it."""
    labels = np.zeros(count)
    outputs = np.arange(count) % 2
    estimate = bootstrap_interval(accuracy, outputs, labels)
    assert estimate == (pytest.approx(accuracy(outputs, labels)), (None, None))
    estimate = paired_bootstrap_interval(accuracy, labels, outputs, labels)
    assert estimate == (pytest.approx(1 - accuracy(outputs, labels)), (None, None))


@pytest.mark.parametrize(("count", "known"), [(20, False), (367, False), (368, True)])
def test_resamples_that_all_agree_prove_nothing_of_rare_events(count: int, known: bool) -> None:
    """0.99^n < 0.025 from n = 368: so many samples would have shown what 1 % of all do."""
    labels = np.zeros(count)
    expected = (0, 0) if known else (None, None)
    assert paired_bootstrap_interval(accuracy, labels, labels, labels, resamples=50) == (0, expected)
    alike = np.full(count, 0.1)  # their mean is not the same to the last bit however they are drawn

    def mean(outputs: np.ndarray, labels: np.ndarray) -> float:
        return float(outputs.mean())

    low, high = bootstrap_interval(mean, alike, labels, resamples=50).interval
    assert (low is not None, high is not None) == (known, known)


def test_twenty_samples_that_differ_have_a_bootstrap() -> None:
    labels = np.zeros(20)
    low, high = bootstrap_interval(accuracy, np.arange(20) % 2, labels).interval
    assert low is not None
    assert high is not None
    assert 0.2 < low < 0.5 < high < 0.8


@pytest.mark.parametrize("value", [0.0, 1.0, -0.5, 99.0])
def test_percent_is_not_taken_for_a_fraction(value: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        samples_needed(value)
    with pytest.raises(ValueError, match="between 0 and 1"):
        percentile_interval([1.0], 0.5, value)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (50, 100), (100, 100), (1, 2000)])
def test_wilson_as_scipy_has_it(successes: int, n: int) -> None:
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson_interval(successes, n).interval == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("only_a", "only_b", "p"), [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 2 / 32), (1, 9, 2 * 11 / 1024)])
def test_mcnemar_by_hand(only_a: int, only_b: int, p: float) -> None:
    a = np.array([True] * only_a + [False] * only_b + [True, False])
    b = np.array([False] * only_a + [True] * only_b + [True, False])
    assert mcnemar_exact(a, b) == pytest.approx(p)
    assert mcnemar_exact(b, a) == pytest.approx(p)


@given(st.floats(1e-6, 0.5), st.sampled_from([0.9, 0.95, 0.99]))
def test_a_proportion_needs_as_many_trials_as_make_no_event_unlikely(proportion: float, confidence: float) -> None:
    n = trials_needed(proportion, confidence)
    assert (1 - proportion) ** n <= 1 - confidence + 1e-9
    assert n == 1 or (1 - proportion) ** (n - 1) > 1 - confidence - 1e-9
    assert smallest_proportion(n, confidence) <= proportion * (1 + 1e-9)


def test_the_rule_of_three() -> None:
    assert trials_needed(0.001) == 2995
    assert smallest_proportion(3000) == pytest.approx(0.001, rel=0.01)
    with pytest.raises(ValueError, match="0 trials"):
        smallest_proportion(0)
