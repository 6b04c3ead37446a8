from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from edgeopt.report import gates
from tests import made_up_run


def test_outcomes_are_counted_in_words(record):
    assert gates.tally(*record.targets.values()) == (
        "10 gates: 6 ✓ pass, 1 ✗ FAIL, 1 ? inconclusive, 1 ○ not measured, 1 ! WAIVED"
    )
    assert gates.tally(record.targets["jetson"]) == ""


def test_a_threshold_is_common_only_if_all_targets_have_the_same(record):
    assert gates.common_limit(record, "top1 min") == "≥ 0.97"
    target = record.targets["cpu"]
    other = replace(target, verdicts=(replace(target.verdicts[0], limit=0.9),))
    assert gates.common_limit(replace(record, targets={**record.targets, "cpu": other}), "top1 min") == ""


@pytest.mark.parametrize(
    "outcomes", [*itertools.combinations(("fail", "inconclusive", "not_measured", "waived", "pass"), 2)]
)
def test_of_two_gates_with_one_name_the_worst_shows(passing, outcomes):
    target = passing.targets["cpu-openvino"]
    verdicts = [replace(target.verdicts[0], outcome=outcome) for outcome in outcomes]
    for order in (verdicts, verdicts[::-1]):
        found = gates.verdict_of(replace(target, verdicts=tuple(order)), verdicts[0].gate)
        assert found.outcome == outcomes[0]


def test_exact_numbers_are_never_wrong_by_chance(passing):
    (family,) = gates.families(passing)
    assert (family.gates, family.confidence, family.looks) == (2, 0.95, 1)
    assert family.wrong == pytest.approx(0.1)
    assert "at most 0.1 of these verdicts wrong on average, or one in 10 runs" in gates.by_chance(passing)


def test_what_the_run_recorded_about_its_looks_counts(passing):
    target = replace(passing.targets["cpu-openvino"], family={"gates": 3, "level": 0.99, "looks": 4})
    text = gates.by_chance(replace(passing, targets={"cpu-openvino": target}))
    assert text.startswith("2 gates with error bars, judged at 99 % confidence each, all looks together (at most 4).")
    assert text.endswith("at most 0.02 of these verdicts wrong on average, or one in 50 runs like this one.")


def test_the_wrong_verdicts_of_all_targets_add_up(record):
    crowd = made_up_run.crowd(record, 20)
    assert sum(family.gates for family in gates.families(crowd)) == 20 * 9
    assert "at most 9 of these" in gates.by_chance(crowd)


def test_no_error_bars_no_sentence(record):
    assert gates.by_chance(replace(record, targets={"jetson": record.targets["jetson"]})) == ""
