"""What counts as a change between two releases, and what cannot be known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from edgeopt import compare
from edgeopt.compare import Change, Comparison, TargetComparison
from edgeopt.errors import ConfigError, ExitCode
from edgeopt.measure import Measurement
from edgeopt.protocol import Protocol
from edgeopt.record import TargetRecord
from tests.releases import GATE, PROTOCOL, latency, measured, pair, release, run, size, target, top1


def only(comparison: Comparison) -> Change:
    ((_, change),) = comparison.changes()
    return change


def of(comparison: Comparison, name: str = "cpu") -> TargetComparison:
    return next(target for target in comparison.targets if target.name == name)


def compared(before: TargetRecord, after: TargetRecord, **options) -> Change:
    return only(compare.compare(*pair(before, after), **options))


# Latency


@pytest.mark.parametrize(
    ("after_ms", "result"),
    [(1.0, "no_difference"), (1.04, "no_difference"), (1.08, "worse"), (0.96, "no_difference"), (0.9, "better")],
)
def test_a_latency_counts_beyond_five_percent_only(after_ms: float, result: str) -> None:
    change = compared(target(latency(1.0)), target(latency(after_ms)))
    assert change.result == result
    assert change.regression == (result == "worse")
    assert change.value == pytest.approx(after_ms)


def test_the_interval_of_a_ratio_is_that_of_the_difference_of_logarithms() -> None:
    """By hand: both intervals reach 1 % down and up, so √2 times as far in logarithms."""
    change = compared(target(latency(1.0)), target(latency(1.2)))
    assert change.interval is not None
    low, high = change.interval
    assert low == pytest.approx(1.2 * np.exp(-np.hypot(np.log(1 / 0.99), np.log(1.01))))
    assert high == pytest.approx(1.2 * np.exp(np.hypot(np.log(1.01), np.log(1 / 0.99))))


def test_the_whole_interval_must_lie_beyond_the_tolerance() -> None:
    sure = compared(target(latency(1.0)), target(latency(1.1)))
    unsure = compared(target(latency(1.0, width=0.06)), target(latency(1.1, width=0.06)))
    assert (sure.result, unsure.result) == ("worse", "no_difference")


@pytest.mark.parametrize(("tolerance", "result"), [(0.0, "worse"), (0.05, "worse"), (0.2, "no_difference")])
def test_the_tolerance_can_be_set_for_all_and_for_one(tolerance: float, result: str) -> None:
    before, after = target(latency(1.0)), target(latency(1.1))
    assert compared(before, after, tolerance=tolerance).result == result
    assert compared(before, after, tolerances={"latency_p50_ms": tolerance}).result == result


def test_the_noise_floor_of_either_run_widens_the_tolerance() -> None:
    def noisy(part: TargetRecord, name: str) -> TargetRecord:
        return replace(part, protocol={**part.protocol, name: 0.136})

    before, after = target(latency(1.0)), target(latency(1.12))
    for name in ("noise", "noise_floor"):
        for pairing in ((noisy(before, name), after), (before, noisy(after, name))):
            change = compared(*pairing)
            assert change.result == "not_comparable"  # beyond the tolerance, which this noise cannot show
            assert "noise floor of 13.6 %" in change.why
    assert compared(noisy(before, "noise"), target(latency(1.03))).result == "no_difference"
    assert compared(before, after).result == "worse"


def test_a_drift_that_the_float_baseline_shares_is_no_regression() -> None:
    slow_day = compared(target(latency(1.0)), target(latency(1.1), base_ms=2.2))
    assert slow_day.result == "no_difference"
    assert "the machine has drifted" in slow_day.why
    both = compared(target(latency(1.0)), target(latency(1.5), base_ms=2.2))
    assert both.result == "worse"
    quick_day = compared(target(latency(1.0)), target(latency(0.9), base_ms=1.8))
    assert quick_day.result == "no_difference"


def test_a_baseline_that_changed_too_shows_no_drift() -> None:
    """All takes twice as long, and the float baseline is another file: the machine, or a slower architecture?"""
    before, after = target(latency(1.0)), target(latency(2.0), base="b2", base_ms=4.0)
    change = compared(before, after)
    assert change.result == "not_comparable"
    assert "is another file" in change.why
    assert compared(before, target(latency(2.0), base="b2")).result == "worse"
    other = replace(after.candidates[0], artifact=replace(after.candidates[0].artifact, size_mib=1.6))
    change = compared(before, replace(after, candidates=(other, after.candidates[1])))
    assert change.result == "worse"
    assert "cannot be told apart" in change.why


@pytest.mark.parametrize(
    ("base_ms", "width", "result"), [(2.0, 0.5, "worse"), (3.0, 0.5, "worse"), (3.8, 0.01, "no_difference")]
)
def test_a_drift_that_is_not_sure_excuses_nothing(base_ms: float, width: float, result: str) -> None:
    def widened(part: TargetRecord, value: float) -> TargetRecord:
        base = replace(part.candidates[0], measurements=(latency(value, width=width),))
        return replace(part, candidates=(base, part.candidates[1]))

    change = compared(widened(target(latency(1.0)), 2.0), widened(target(latency(2.0)), base_ms))
    assert (change.result, change.regression) == (result, result == "worse")


def test_the_same_bytes_that_need_longer_say_that_the_machine_changed() -> None:
    change = only(compare.compare(release(run(cpu=target(latency(1.0)))), release(run(cpu=target(latency(1.3))))))
    assert change.result == "not_comparable"
    assert "the machine has changed" in change.why


@given(st.floats(0.5, 2.0), st.floats(0.0, 0.3), st.floats(0.001, 0.2))
def test_swapping_the_runs_swaps_better_and_worse(ratio: float, tolerance: float, width: float) -> None:
    a, b = target(latency(1.0, width=width)), target(latency(ratio, width=width))
    there, back = compared(a, b, tolerance=tolerance), compared(b, a, tolerance=tolerance)
    swapped = {"better": "worse", "worse": "better"}
    assert back.result == swapped.get(there.result, there.result)


def test_raw_samples_are_used_where_both_runs_have_them() -> None:
    random = np.random.default_rng(0)
    before, after = pair(target(latency(1.0)), target(latency(1.2)))

    def with_samples(side, scale: float):
        draws = (scale * 1e6 * random.lognormal(0, 0.05, 4000)).astype(np.int64)
        base = (2e6 * random.lognormal(0, 0.05, 4000)).astype(np.int64)
        return replace(side, samples={"cpu": {"int8": draws, "float": base}})

    change = only(compare.compare(with_samples(before, 1.0), with_samples(after, 1.5)))
    assert change.value == pytest.approx(1.5, rel=0.01)  # of the samples, not of the two values
    assert change.interval is not None
    assert change.interval[0] < 1.5 < change.interval[1]
    assert change.result == "worse"


def test_the_scatter_between_sessions_is_in_the_interval() -> None:
    """By hand: three sessions on either side, medians 0.9, 1, 1.1 and 1.8, 2, 2.2: Welch's interval of their logs."""
    before, after = pair(target(latency(1.0)), target(latency(2.0)))

    def with_sessions(side, *medians: float):
        samples = np.concatenate([np.full(50, 1e6 * m, np.int64) for m in medians])
        part = side.record.targets["cpu"]
        part = replace(part, protocol={**part.protocol, "sessions": [50] * len(medians)})
        return replace(side, record=replace(side.record, targets={"cpu": part}), samples={"cpu": {"int8": samples}})

    change = only(compare.compare(with_sessions(before, 0.9, 1.0, 1.1), with_sessions(after, 1.8, 2.0, 2.2)))
    logs = np.log([0.9, 1.0, 1.1])
    half = scipy.stats.t.ppf(0.975, 4) * np.sqrt(2 * logs.var(ddof=1) / 3)
    assert change.value == pytest.approx(2.0, rel=1e-6)
    assert change.interval == pytest.approx((2 * np.exp(-half), 2 * np.exp(half)), rel=1e-5)
    assert change.result == "worse"


# Accuracy


@pytest.mark.parametrize(
    ("after", "tolerances", "result", "regression"),
    [
        (0.950, {}, "worse", True),
        (0.950, {"top1": 0.02}, "worse", True),
        (0.950, {"top1": 0.045}, "worse", False),  # sure to be worse, not sure to be worse than that
        (0.986, {}, "no_difference", False),
        (0.999, {}, "better", False),
    ],
)
def test_an_accuracy_is_compared_by_its_difference(after, tolerances, result, regression) -> None:
    change = compared(target(top1(0.99)), target(top1(after)), tolerances=tolerances)
    assert (change.result, change.regression) == (result, regression)
    assert change.scale == "difference"
    assert change.value == pytest.approx(after - 0.99)
    half = np.hypot(0.005, 0.005)
    assert change.interval == pytest.approx((after - 0.99 - half, after - 0.99 + half))


def test_the_general_tolerance_is_not_for_accuracies() -> None:
    assert compared(target(top1(0.99)), target(top1(0.95)), tolerance=0.5).regression


def test_a_metric_of_the_user_that_is_better_when_lower() -> None:
    parts = [target(measured("mae_mm[indoor]", v, (v - 0.1, v + 0.1), unit="mm")) for v in (3.0, 3.5)]
    change = compared(*parts)
    assert (change.result, change.scale, change.value) == ("worse", "difference", pytest.approx(0.5))


def test_accuracies_on_different_data_are_not_compared_but_other_splits_may_change() -> None:
    before, after = pair(target(top1(0.99), latency(1.0)), target(top1(0.95), latency(1.0)))

    def with_data(side, **digests):
        provenance = {**side.record.provenance, "data": {"evaluate": "e1", "train": "t1"} | digests}
        return replace(side, record=replace(side.record, provenance=provenance))

    changes = {c.metric: c for _, c in compare.compare(before, with_data(after, evaluate="e2")).changes()}
    assert changes["top1"].result == "not_comparable"
    assert "different data: evaluate" in changes["top1"].why
    assert changes["latency_p50_ms"].result == "no_difference"
    changes = {c.metric: c for _, c in compare.compare(before, with_data(after, train="t2")).changes()}
    assert changes["top1"].result == "worse"


def test_a_record_without_digests_of_its_data_says_so() -> None:
    before, after = pair(target(top1(0.99)), target(top1(0.95)))
    provenance = {name: value for name, value in before.record.provenance.items() if name != "data"}
    change = only(compare.compare(replace(before, record=replace(before.record, provenance=provenance)), after))
    assert change.result == "worse"
    assert "do not say whether both runs evaluated the same data" in change.why


def redefined(side, *metrics: dict[str, object], **data: str):
    """The side, as of a recipe with these metrics and of data with these digests."""
    provenance = {**side.record.provenance, "data": {**side.record.provenance["data"], **data}}
    recipe = replace(side.record.recipe, values={"metrics": list(metrics)})
    return replace(side, record=replace(side.record, recipe=recipe, provenance=provenance))


@pytest.mark.parametrize(
    ("label", "before", "after", "why"),
    [
        ("tar@far=0.001", {"similarity": "cosine"}, {"similarity": "l2"}, "defined otherwise: tar {"),
        ("tar@far=0.001[indoor]", {"similarity": "cosine"}, {"similarity": "l2"}, "defined otherwise: tar {"),
        ("tar@far=0.001", {}, {"similarity": "cosine"}, ""),  # the default, written out
        ("top1", {"similarity": "cosine"}, {"similarity": "l2"}, ""),
    ],
)
def test_one_label_with_two_definitions_is_not_comparable(label: str, before: dict, after: dict, why: str) -> None:
    parts = [target(replace(top1(value), metric=label)) for value in (0.90, 0.97)]
    specs = [{"name": "tar", "args": {"far": 0.001, **args}} for args in (before, after)]
    sides = [redefined(side, {"name": "top1"}, spec) for side, spec in zip(pair(*parts), specs, strict=True)]
    change = only(compare.compare(*sides))
    assert change.result == ("not_comparable" if why else "better")
    assert why in change.why


@pytest.mark.parametrize(("factory", "result"), [("mine:Dice", "better"), ("mine:Dice2", "not_comparable")])
def test_a_metric_of_the_user_is_defined_by_its_factory_and_arguments(factory: str, result: str) -> None:
    before, after = pair(*(target(replace(top1(value), metric="dice")) for value in (0.90, 0.97)))
    old = redefined(before, {"name": "dice", "factory": "mine:Dice", "args": {"smooth": 1}})
    new = redefined(after, {"name": "dice", "factory": factory, "args": {"smooth": 1}})
    assert only(compare.compare(old, new)).result == result


@pytest.mark.parametrize(
    ("code_before", "code_after", "why"),
    [("c1", "c1", ""), ("c1", "c2", "the code of the metric has changed: mine:Dice"), ("", "c2", "")],
)
def test_edited_code_makes_another_metric(code_before: str, code_after: str, why: str) -> None:
    sides = []
    for side, code in zip(
        pair(*(target(replace(top1(value), metric="dice")) for value in (0.90, 0.97))),
        (code_before, code_after),
        strict=True,
    ):
        own = redefined(side, {"name": "dice", "factory": "mine:Dice"})
        provenance = {**own.record.provenance, **({"metrics": {"dice": code}} if code else {})}
        sides.append(replace(own, record=replace(own.record, provenance=provenance)))
    change = only(compare.compare(*sides))
    assert change.result == ("not_comparable" if why else "better")
    assert why in change.why


@pytest.mark.parametrize(
    ("name", "args", "label", "result"),
    [
        ("frr_at", {"far": 0.01}, "frr@float=0.01", "not_comparable"),
        ("top1", {}, "top1", "better"),
    ],
)
def test_a_threshold_fitted_on_other_data_is_another_metric(name: str, args: dict, label: str, result: str) -> None:
    before, after = pair(*(target(replace(top1(value), metric=label)) for value in (0.90, 0.97)))
    spec = {"name": name, "args": args}
    old = redefined(before, spec, select="s1")
    change = only(compare.compare(old, redefined(after, spec, select="s2")))
    assert change.result == result
    assert ("fitted thresholds on different data: select" in change.why) == (result == "not_comparable")
    assert only(compare.compare(old, redefined(after, spec, select="s1"))).result == "better"


def test_a_network_that_breaks_is_worse_and_one_that_was_broken_before_is_not_comparable() -> None:
    nan = measured("top1", None, better="higher", why="it gives NaN on 5 of 500 samples", broken=True)
    comparison = compare.compare(*pair(target(top1(0.99), size(1.0)), target(nan, size(1.0))))
    change = next(c for _, c in comparison.changes() if c.metric == "top1")
    assert (change.result, change.regression, change.why) == ("worse", True, "it gives NaN on 5 of 500 samples")
    assert comparison.exit_code() == ExitCode.GATE_FAILED
    assert compared(target(nan), target(nan)).result == "not_comparable"
    assert compared(target(nan), target(top1(0.99))).result == "not_comparable"


# Other numbers


@pytest.mark.parametrize(
    ("after", "result", "regression"),
    [(1.0, "no_difference", False), (1.03, "worse", False), (1.06, "worse", True), (0.999, "better", False)],
)
def test_a_size_is_exact(after: float, result: str, regression: bool) -> None:
    change = compared(target(size(1.0)), target(size(after)))
    assert (change.result, change.regression) == (result, regression)


def test_a_single_reading_of_memory_counts_beyond_the_tolerance() -> None:
    def memory(value: float) -> TargetRecord:
        return target(measured("peak_memory_mib", value, unit="MiB", n=1, protocol=PROTOCOL.digest()))

    assert compared(memory(100.0), memory(104.0)).result == "no_difference"
    assert compared(memory(100.0), memory(106.0)).regression
    assert compared(memory(100.0), memory(94.0)).result == "better"


def test_a_disturbance_of_the_machine_says_nothing_against_memory() -> None:
    def memory(value: float) -> TargetRecord:
        reading = measured("peak_memory_mib", value, unit="MiB", n=1, protocol=PROTOCOL.digest())
        return replace(target(reading), disturbed=("the load was 7.1",))

    assert compared(memory(100.0), memory(110.0)).regression


def test_numbers_of_the_runs_own_baseline_and_single_times_are_left_out() -> None:
    names = (
        "top1 drop",
        "latency_ratio",
        "latency_ratio_p10",
        "size_mib ratio",
        "call_overhead_ms",
        "threshold@far=0.1",
    )
    parts = [measured(name, 0.5, (0.4, 0.6)) for name in names] + [measured("load_ms", 30.0, unit="ms")]
    comparison = compare.compare(*pair(target(*parts, size(1.0)), target(*parts, size(1.0))))
    assert [change.metric for _, change in comparison.changes()] == ["size_mib"]


# Not comparable


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (target(latency(1.0)), target(), "the later run does not have it"),
        (target(), target(latency(1.0)), "the earlier run does not have it"),
        (
            target(latency(1.0)),
            target(measured("latency_p50_ms", None, unit="ms", why="the clock went backwards")),
            "not measured in the later run: the clock went backwards",
        ),
        (
            target(latency(1.0)),
            target(replace(latency(1.0), method="estimated")),
            "the method was measured, now it is estimated",
        ),
        (
            target(latency(1.0)),
            replace(target(latency(1.0)), machine={"cpu": "Xeon", "cores": 4, "flags": ["avx2"]}),
            "the machines differ: cpu: EPYC before, Xeon now; cores: 2 before, 4 now",
        ),
        (
            target(latency(1.0)),
            replace(target(latency(1.0)), disturbed=("the load was 7.1",)),
            "the machine was disturbed in the later run: the load was 7.1",
        ),
    ],
    ids=["gone", "new", "not measured", "estimated", "machine", "disturbed"],
)
def test_what_cannot_be_compared_says_why(before: TargetRecord, after: TargetRecord, why: str) -> None:
    comparison = compare.compare(*pair(before, after))
    change = only(comparison)
    assert change.result == "not_comparable"
    assert change.value is None
    assert why in change.why
    assert comparison.exit_code() == ExitCode.INCONCLUSIVE


def test_protocols_that_differ_are_never_compared_and_the_fields_are_named() -> None:
    other = Protocol(runtimes=("openvino 2026.4",), threads=2)
    after = target(latency(1.0, protocol=other), size(1.0))
    after = replace(after, protocol={**other.identity(), "digest": other.digest()})
    comparison = compare.compare(*pair(target(latency(1.0), size(1.0)), after))
    changes = {c.metric: c for _, c in comparison.changes()}
    assert changes["latency_p50_ms"].result == "not_comparable"
    assert "threads: 1 before, 2 now" in changes["latency_p50_ms"].why
    assert changes["size_mib"].result == "no_difference"
    assert ("protocol.threads", "1", "2") in [(d.name, d.before, d.after) for d in of(comparison).differences]


def test_another_kernel_explains_a_change_and_forbids_none() -> None:
    after = replace(target(latency(1.0)), machine={**target().machine, "system": "Linux 6.2"})
    comparison = compare.compare(*pair(target(latency(1.0)), after))
    assert only(comparison).result == "no_difference"
    assert [(d.name, d.before, d.after) for d in of(comparison).differences] == [
        ("machine.system", "Linux 6.1", "Linux 6.2")
    ]


# Targets, gates, differences


def test_new_and_vanished_targets_and_targets_that_are_lost() -> None:
    served, broken = target(size(1.0)), TargetRecord("", "", (), (), error="no driver")
    comparison = compare.compare(
        release(run(cpu=served, old=served, npu=served, tpu=broken)),
        release(run(cpu=served, new=served, npu=broken, tpu=broken)),
    )
    assert {t.name: (t.presence, t.lost) for t in comparison.targets} == {
        "cpu": ("both", False),
        "old": ("vanished", False),
        "npu": ("both", True),
        "tpu": ("both", False),
        "new": ("new", False),
    }
    assert of(comparison, "npu").error == "no driver"
    assert comparison.exit_code() == ExitCode.GATE_FAILED


def test_changed_gates_and_which_of_them_ask_less() -> None:
    def gated(*verdicts) -> TargetRecord:
        return replace(target(size(1.0)), verdicts=verdicts)

    accuracy = replace(GATE, gate="top1 min", limit=0.97)
    before = gated(GATE, accuracy, replace(GATE, gate="a max"), replace(GATE, gate="b max"))
    after = gated(
        replace(GATE, limit=4.0),
        replace(accuracy, limit=0.98),
        replace(GATE, gate="a max", outcome="fail"),
        replace(GATE, gate="c max"),
    )
    gates = {g.gate: g for g in of(compare.compare(*pair(before, after))).gates}
    assert {name: gate.loosened for name, gate in gates.items()} == {
        "latency_p50_ms max": True,
        "top1 min": False,
        "a max": False,
        "b max": True,
        "c max": False,
    }
    assert (gates["a max"].before, gates["a max"].after) == ("pass", "fail")
    assert (gates["b max"].limit_after, gates["c max"].limit_before) == (None, None)


def test_tools_recipe_and_data_that_differ_are_listed() -> None:
    before, after = pair(target(size(1.0)), target(size(1.0)))
    record = replace(
        after.record,
        provenance={**after.record.provenance, "tools": {"openvino": "2026.5", "nncf": "3.1"}},
        recipe=replace(after.record.recipe, overrides=("seed=3",)),
    )
    comparison = compare.compare(before, replace(after, record=record))
    assert [(d.name, d.before, d.after) for d in comparison.differences] == [
        ("tools.openvino", "2026.4", "2026.5"),
        ("recipe.overrides", "", "seed=3"),
        ("tools.nncf", "", "3.1"),
    ]


# The whole


@pytest.mark.parametrize(
    ("after", "strict", "code"),
    [
        (target(size(1.0)), False, ExitCode.OK),
        (target(size(1.0)), True, ExitCode.OK),
        (target(size(2.0)), False, ExitCode.GATE_FAILED),
        (target(size(1.0), latency(1.0)), False, ExitCode.OK),
        (target(size(1.0), latency(1.0)), True, ExitCode.INCONCLUSIVE),
        (target(size(2.0), latency(1.0)), True, ExitCode.GATE_FAILED),
        (target(latency(1.0)), False, ExitCode.INCONCLUSIVE),
    ],
    ids=["same", "same, strict", "worse", "one unknown", "one unknown, strict", "worse, strict", "all unknown"],
)
def test_exit_codes(after: TargetRecord, strict: bool, code: ExitCode) -> None:
    assert compare.compare(*pair(target(size(1.0)), after)).exit_code(strict) == code


@pytest.mark.parametrize(
    ("metric", "code"),
    [
        (top1(0.99), ExitCode.INCONCLUSIVE),
        (latency(1.0), ExitCode.INCONCLUSIVE),  # it was gated
        (latency(1.0, "latency_p99_ms"), ExitCode.OK),
    ],
    ids=lambda value: getattr(value, "metric", None),
)
def test_an_accuracy_or_a_gated_number_without_a_value_cannot_be_told(metric: Measurement, code: ExitCode) -> None:
    before = target(size(1.0), metric)
    unmeasured = replace(metric, value=None, interval=None, why="no more")
    for after in (target(size(1.0)), target(size(1.0), unmeasured)):
        assert compare.compare(*pair(before, after)).exit_code() == code
        assert compare.compare(*pair(after, before)).exit_code() == ExitCode.OK


def test_what_neither_run_could_measure_does_not_disturb_a_strict_comparison() -> None:
    energy = measured("energy_mj", None, unit="mJ", why="no RAPL here")
    comparison = compare.compare(*pair(target(size(1.0), energy), target(size(1.0), energy)))
    (_, change) = comparison.changes("not_comparable")[0]
    assert change.why == "not measured in either run: no RAPL here"
    assert comparison.exit_code(strict=True) == ExitCode.OK


def test_runs_without_a_common_target_tell_nothing() -> None:
    comparison = compare.compare(release(run(cpu=target(size(1.0)))), release(run(npu=target(size(1.0)))))
    assert comparison.exit_code() == ExitCode.INCONCLUSIVE


def test_a_tolerance_for_a_metric_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"no metric 'size_mb' is compared \(did you mean 'size_mib'\?\)"):
        compared(target(size(1.0)), target(size(1.0)), tolerances={"size_mb": 0.1})


def test_a_comparison_survives_json(tmp_path) -> None:
    parts = (latency(1.0), top1(0.99), size(1.0))
    comparison = compare.compare(*pair(target(*parts), target(latency(1.3), top1(0.95))))
    file = tmp_path / "comparison.json"
    file.write_text(comparison.to_json())
    assert compare.load(file) == comparison
    assert json.loads(file.read_text())["schema"] == 1


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text[:50], "no readable comparison"),
        (lambda text: text.replace('"schema": 1', '"schema": 2').replace('"schema":1', '"schema":2'), "has schema 2"),
        (lambda text: "[]", "no readable comparison"),
    ],
)
def test_a_damaged_comparison_is_refused(tmp_path, edit, message) -> None:
    comparison = compare.compare(*pair(target(size(1.0)), target(size(1.0))))
    file = tmp_path / "comparison.json"
    file.write_text(edit(comparison.to_json()))
    with pytest.raises(ConfigError, match=message):
        compare.load(file)
