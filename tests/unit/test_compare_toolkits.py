"""Release against release without a device: estimates, simulations, figures of toolkits, parity and placement."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgeopt import compare, parity, placement, verdict
from edgeopt.compare import Change, Comparison, kinds
from edgeopt.errors import ExitCode
from edgeopt.measure import Measurement, exact
from edgeopt.report import changes, compare_markdown, html, sarif
from edgeopt.report import markdown as markdown_report
from tests.releases import measured, pair, size, target, top1

VELA = "vela 5.2.0, ethos-u55-128, Ethos_U55_High_End_Embedded, Shared_Sram"


def estimated(metric: str, value: float, unit: str, why: str = VELA, method: str = "estimated") -> Measurement:
    return replace(exact(metric, value, unit, why), method=method)


def parity_of(metric: str, value: float, half: float | None = None, why: str = "the simulator", **more: Any):
    bounds = None if half is None else (value - half, value + half)
    fields = {"better": parity.METRICS[metric], "method": "simulated", "why": why, **more}
    return measured(metric, value, bounds, **fields)


def compared(before: Measurement, after: Measurement, **options: Any) -> Change:
    ((_, change),) = compare.compare(*pair(target(before), target(after)), **options).changes()
    return change


# Figures of toolkits


@pytest.mark.parametrize(
    ("metric", "unit"),
    [
        ("latency_p50_ms", "ms"),
        ("flash_mib", "MiB"),
        ("dram_mib", "MiB"),
        ("arena_mib", "MiB"),
        ("npu_cycles", "cycles"),
        ("dma_bytes", "B"),  # of somebody's own backend
    ],
)
@pytest.mark.parametrize("method", ["estimated", "simulated"])
def test_a_figure_is_exact_and_a_regression_beyond_five_percent(metric: str, unit: str, method: str) -> None:
    for factor, result, regression in ((1.0, "no_difference", False), (1.01, "worse", False), (1.06, "worse", True),
                                       (0.99, "better", False)):  # fmt: skip
        change = compared(*(estimated(metric, 100 * f, unit, method=method) for f in (1.0, factor)))
        assert (change.result, change.regression) == (result, regression)
        assert (change.scale, change.value, change.tolerance) == ("ratio", pytest.approx(factor), 0.05)
        assert change.interval is None


def test_an_estimated_latency_fifty_times_as_long_ends_with_1_and_is_labelled_everywhere(tmp_path) -> None:
    sides = [target(size(1.0), estimated("latency_p99_ms", value, "ms")) for value in (0.1, 5.0)]
    before, after = pair(*sides)
    comparison = compare.compare(before, after)
    assert comparison.exit_code() == ExitCode.GATE_FAILED
    assert "latency_p99_ms on cpu (+4900 %, ESTIMATED)" in changes.decision(comparison).sentence
    markdown = compare_markdown.render(comparison)
    assert "| 0.100 ms (ESTIMATED) | 5.00 ms (ESTIMATED) | +4900 % |" in markdown
    assert "0.100 ms (ESTIMATED) before, 5.00 ms (ESTIMATED) now (+4900 %)" in sarif.render(comparison, tmp_path)
    assert "| +4900 %, ESTIMATED |" in markdown_report.render(after.record, {}, comparison)
    section = (
        html.render(after.record, {}, comparison).partition('<section id="comparison"')[2].partition("</section>")[0]
    )
    assert "5.00 ms (ESTIMATED)" in section
    assert "(+4900 %, ESTIMATED)" in section
    assert '"method":"estimated"' in comparison.to_json().replace(" ", "")


@pytest.mark.parametrize(("metric", "unit"), [("npu_cycles", "cycles"), ("latency_p50_ms", "ms"), ("sram_mib", "MiB")])
@pytest.mark.parametrize(
    "other",
    [VELA.replace("u55-128", "u55-256"), VELA.replace("5.2.0", "5.3.0"), VELA.replace("Shared_", "Dedicated_"), ""],
)
def test_estimates_of_other_assumptions_are_not_compared_and_both_are_shown(metric, unit, other) -> None:
    change = compared(estimated(metric, 100.0, unit), estimated(metric, 900.0, unit, other))
    assert (change.result, change.regression, change.value) == ("not_comparable", False, None)
    assert VELA in change.why
    assert (other or "nobody tells") in change.why


def test_of_lower_bounds_that_leave_out_the_same_the_known_part_is_compared() -> None:
    def at_least(value: float, on_cpu: int) -> Measurement:
        partly = estimated("latency_p50_ms", value, "ms", f"{VELA}; without the {on_cpu} operators on the CPU")
        return replace(partly, interval=(value, None), confidence=1.0)

    change = compared(at_least(1.0, 2), at_least(2.0, 2))
    assert (change.result, change.regression, change.value) == ("worse", True, 2.0)
    assert "the same is left out" in change.why
    assert compared(at_least(1.0, 2), at_least(2.0, 3)).result == "not_comparable"
    assert compared(at_least(1.0, 2), estimated("latency_p50_ms", 2.0, "ms")).result == "not_comparable"


def test_what_the_toolkit_stamped_may_explain_a_change() -> None:
    def stamped(**facts: Any):
        made = target(size(1.0))
        return replace(made, candidates=(made.candidates[0], replace(made.candidates[1], facts=facts)))

    comparison: Comparison = compare.compare(*pair(stamped(optimise="Size", vela="5"), stamped(optimise="x", vela="5")))
    found = [(d.name, d.before, d.after) for t in comparison.targets for d in t.differences]
    assert found == [("toolkit.optimise", "Size", "x")]


def test_nothing_of_nothing_is_no_difference_and_something_of_nothing_has_no_ratio() -> None:
    none, some = estimated("sram_mib", 0.0, "MiB"), estimated("sram_mib", 0.5, "MiB")
    assert compared(none, none).result == "no_difference"
    assert compared(none, some).why == "a ratio needs two positive numbers"


def test_a_metric_of_the_recipe_in_milliseconds_is_no_resource() -> None:
    """Such as the error of an onset in a recording: its tolerance is 0, in its own unit."""
    onset = measured("onset_ms", 12.0, (11.9, 12.1), unit="ms")
    before, after = pair(target(onset), target(replace(onset, value=12.4, interval=(12.3, 12.5))))
    values = {"metrics": [{"name": "onset_ms", "factory": "mine:Onset"}]}
    sides = [
        replace(s, record=replace(s.record, recipe=replace(s.record.recipe, values=values))) for s in (before, after)
    ]
    ((_, change),) = compare.compare(*sides).changes()
    assert (change.scale, change.regression, change.tolerance) == ("difference", True, 0.0)


def test_every_number_of_the_device_is_a_resource_or_a_share() -> None:
    """Whoever adds one to what can be gated must not get it compared as an accuracy."""
    relative = {"latency_ratio", "latency_ratio_p10"}  # to the run's own baseline: left out
    for metric, unit in verdict.DEVICE_METRICS.items():
        found = kinds.of(metric, [exact(metric, 1.0, unit)], [])
        assert found == ("share" if metric in placement.METRICS else "resource") or metric in relative
    assert {kinds.of(metric, [parity_of(metric, 1.0)], []) for metric in parity.METRICS} == {"quality"}


# Parity


@pytest.mark.parametrize(
    ("metric", "before", "after", "half"),
    [
        ("sqnr_db", 30.0, 20.0, 2.0),
        ("output_cosine", 0.999, 0.99, 0.001),
        ("output_cosine_p1", 0.99, 0.9, 0.01),
        ("decision_agreement", 0.99, 0.9, 0.01),
    ],
)
def test_parity_is_compared_with_its_interval_and_in_its_direction(metric, before, after, half) -> None:
    there = compared(parity_of(metric, before, half), parity_of(metric, after, half))
    assert (there.result, there.regression, there.scale) == ("worse", True, "difference")
    assert compared(parity_of(metric, after, half), parity_of(metric, before, half)).result == "better"
    assert compared(parity_of(metric, before, half), parity_of(metric, before - half, half)).result == "no_difference"


@pytest.mark.parametrize(
    ("after", "result", "regression"),
    [(4.0, "no_difference", False), (4.1, "worse", False), (4.3, "worse", True), (3.9, "better", False)],
)
def test_the_largest_error_may_grow_by_a_part_of_what_it_was(after: float, result: str, regression: bool) -> None:
    """It has no interval: 5 % of 4 are 0.2, in its own unit."""
    remarks = [f"the largest output of the float network is {n}; the simulator" for n in (26.7, 26.8)]
    sides = [parity_of("max_abs_error", v, why=why) for v, why in zip((4.0, after), remarks, strict=True)]
    change = compared(*sides)
    assert (change.result, change.regression) == (result, regression)
    assert change.tolerance == pytest.approx(0.2)
    assert compared(*sides, tolerances={"max_abs_error": 0.5}).regression is False


def test_what_was_simulated_otherwise_is_not_compared_and_a_remark_on_the_network_forbids_nothing() -> None:
    def simulated(value: float, why: str) -> Measurement:
        return replace(top1(value), method="simulated", why=why)

    change = compared(simulated(0.99, "HTP v73"), simulated(0.95, "HTP v75"))
    assert change.result == "not_comparable"
    assert change.why == "it was simulated otherwise: before, HTP v73; now, HTP v75"
    assert compared(simulated(0.99, "3 ties; HTP v73"), simulated(0.95, "5 ties; HTP v73")).regression


def test_agreement_in_decisions_of_two_metrics_is_not_compared() -> None:
    sides = [parity_of("decision_agreement", 0.99, 0.01, f"decisions of {m}; HTP") for m in ("top1", "top5")]
    change = compared(*sides)
    assert change.result == "not_comparable"
    assert "decisions of top1" in change.why


# Placement


@pytest.mark.parametrize("metric", list(placement.METRICS))
@pytest.mark.parametrize(
    ("before", "after", "result", "regression"),
    [
        (0.0, 0.0, "no_difference", False),
        (0.0, 0.02, "worse", False),
        (0.0, 0.3, "worse", True),
        (0.25, 0.29, "worse", False),
        (0.3, 0.0, "better", False),
    ],
)
def test_a_share_of_the_network_may_grow_by_a_twentieth_of_the_network(metric, before, after, result, regression):
    change = compared(*(exact(metric, value, "1") for value in (before, after)))
    assert (change.result, change.regression, change.scale) == (result, regression, "difference")
    assert compared(*(exact(metric, v, "1") for v in (before, after)), tolerance=0.0).regression == (result == "worse")


def test_shares_whose_bounds_overlap_may_be_the_same() -> None:
    """The bounds are certain, so the change lies between the differences of opposite bounds."""

    def between(low: float, high: float) -> Measurement:
        return replace(exact("fallback_macs", high, "1"), interval=(low, high), confidence=1.0)

    change = compared(between(0.0, 0.4), between(0.3, 0.6))
    assert change.result == "no_difference"
    assert change.interval == pytest.approx((-0.1, 0.6))
    assert change.confidence == 1.0
    assert compared(between(0.0, 0.1), between(0.3, 0.6)).regression


def test_a_placement_does_not_depend_on_the_data() -> None:
    before, after = pair(*(target(exact("fallback_operators", v, "1")) for v in (0.0, 0.5)))
    provenance = {**after.record.provenance, "data": {"evaluate": "e2"}}
    other = replace(after, record=replace(after.record, provenance=provenance))
    ((_, change),) = compare.compare(before, other).changes()
    assert change.regression
    assert change.why == "it is worse, by more than the tolerated 0.05"
