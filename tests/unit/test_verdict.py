"""Judging: intervals against limits, and which candidate ships."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.errors import ExitCode
from edgeopt.measure import Measurement
from edgeopt.recipe import Limit
from edgeopt.record import VerdictRecord, WaiverRecord
from edgeopt.verdict import Contender, Gate, decide, gate_problem, gates_of, outcome_of, select

BOUNDS = ("max", "min", "max_drop", "max_ratio")


def measured(value: float | None, interval: Any = None, method: Any = "measured", **more: Any) -> Measurement:
    fields: dict[str, Any] = {"metric": "m", "unit": "ms", "better": "lower", "n": 500, "protocol": "", "machine": ""}
    return Measurement(value=value, interval=interval, method=method, **{**fields, **more})


# decide


def meaning(bound: str, limit: float, low: float | None, high: float | None) -> str:
    """The rule, on the set of values that the interval stands for."""
    least, most = (-math.inf if low is None else low), (math.inf if high is None else high)
    inside = least >= limit if bound == "min" else most <= limit
    outside = most < limit if bound == "min" else least > limit
    return "pass" if inside else "fail" if outside else "inconclusive"


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize(
    ("low", "high"),
    [(a, b) for a, b in itertools.product([None, 1.0, 2.0, 3.0], repeat=2) if a is None or b is None or a <= b],
)
def test_a_gate_is_decided_on_the_whole_interval(bound, low, high):
    verdict = decide(Gate("m", bound, 2.0), measured(2.0, (low, high)))
    assert verdict.outcome == meaning(bound, 2.0, low, high)
    assert verdict.why
    assert (verdict.value, verdict.interval, verdict.limit, verdict.unit) == (2.0, (low, high), 2.0, "ms")
    assert (verdict.gate, verdict.metric) == (f"m {bound}", "m")


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("value", [1.0, 2.0, 3.0])
def test_an_exact_number_is_never_inconclusive(bound, value):
    outcome = decide(Gate("m", bound, 2.0), measured(value)).outcome
    assert outcome == meaning(bound, 2.0, value, value)
    assert outcome in ("pass", "fail")


@given(
    bound=st.sampled_from(BOUNDS),
    limit=st.floats(-10, 10),
    ends=st.tuples(st.floats(-10, 10), st.floats(-10, 10)),
    shift=st.floats(0, 5),
)
def test_a_better_interval_never_has_a_worse_verdict(bound, limit, ends, shift):
    low, high = sorted(ends)
    order = ["fail", "inconclusive", "pass"]
    before = decide(Gate("m", bound, limit), measured(low, (low, high))).outcome
    gain = shift if bound == "min" else -shift
    after = decide(Gate("m", bound, limit), measured(low, (low + gain, high + gain))).outcome
    assert order.index(after) >= order.index(before)
    narrower = decide(Gate("m", bound, limit), measured(low, ((low + high) / 2, (low + high) / 2))).outcome
    assert before in ("inconclusive", narrower)


@pytest.mark.parametrize("bound", BOUNDS)
def test_what_was_not_measured_never_passes(bound):
    gate = Gate("m", bound, 2.0)
    assert decide(gate, None).outcome == "not_measured"
    assert decide(gate, None).value is None
    missing = decide(gate, measured(None, (None, None), why="3 samples; p99 needs 368"))
    assert (missing.outcome, missing.why) == ("not_measured", "3 samples; p99 needs 368")
    assert decide(gate, measured(None)).why


@pytest.mark.parametrize("method", ["simulated", "estimated"])
def test_a_number_that_was_not_measured_passes_only_if_the_target_accepts_it(method):
    gate, other = Gate("m", "max", 2.0), {"simulated": "estimated", "estimated": "simulated"}[method]
    for value, outcome in ((1.0, "pass"), (3.0, "fail")):
        assert decide(gate, measured(value, method=method)).outcome == "not_measured"
        assert decide(gate, measured(value, method=method), (other,)).outcome == "not_measured"
        assert decide(gate, measured(value, method=method), (other, method)).outcome == outcome
    assert method in decide(gate, measured(1.0, method=method)).why


@pytest.mark.parametrize("interval", [None, (math.nan, math.nan)])
def test_not_a_number_never_passes(interval):
    for bound in BOUNDS:
        assert decide(Gate("m", bound, 2.0), measured(math.nan, interval)).outcome not in ("pass", "fail")


# Gates


def test_later_layers_replace_the_same_metric():
    target = {"size_mib": Limit(max=2.0), "latency_p99_ms": Limit(max=9.0)}
    recipe = {"top1": Limit(min=0.9, max_drop=0.01), "latency_p99_ms": Limit(max=5.0)}
    for_this_target = {"top1": Limit(min=0.8)}
    gates = gates_of(target, recipe, for_this_target)
    assert set(gates) == {
        Gate("size_mib", "max", 2.0),
        Gate("latency_p99_ms", "max", 5.0),
        Gate("top1", "min", 0.8),
    }
    assert gates_of() == gates_of({}, {}) == ()


def test_a_limit_gives_one_gate_per_bound_also_at_zero():
    assert gates_of({"top1": Limit(min=0.0, max_drop=0.0)}) == (Gate("top1", "min", 0.0), Gate("top1", "max_drop", 0.0))


@pytest.mark.parametrize(
    ("bound", "name", "measurement", "is_upper"),
    [
        ("max", "m max", "m", True),
        ("min", "m min", "m", False),
        ("max_drop", "m max_drop", "m drop", True),
        ("max_ratio", "m max_ratio", "m ratio", True),
    ],
)
def test_a_gate_knows_what_it_compares(bound, name, measurement, is_upper):
    gate = Gate("m", bound, 1.0)
    assert (gate.name, gate.measurement, gate.is_upper) == (name, measurement, is_upper)


@pytest.mark.parametrize(
    ("metric", "limit", "better", "expected"),
    [
        ("top1", {"min": 0.9}, "higher", ""),
        ("top1", {"max_drop": 0.01}, "higher", ""),
        ("top1", {"max": 0.9}, "higher", "top1 is better when higher"),
        ("top1", {"max_ratio": 1.1}, "higher", "`max_ratio` is for size_mib and peak_memory_mib"),
        ("mae", {"max": 0.9}, "lower", ""),
        ("mae", {"max_drop": 0.9}, "lower", ""),
        ("mae", {"min": 0.9}, "lower", "mae is better when lower"),
        ("latency_p99_ms", {"max": 3}, "lower", ""),
        ("latency_p99_ms", {"max_drop": 3}, "lower", "`max_drop` is for accuracy"),
        ("latency_p99_ms", {"max_ratio": 1}, "lower", "`max_ratio` is for size_mib and peak_memory_mib"),
        ("size_mib", {"max": 1, "max_ratio": 0.5}, "lower", ""),
        ("peak_memory_mib", {"max_ratio": 0.5}, "lower", ""),
    ],
)
def test_gates_that_make_no_sense(metric, limit, better, expected):
    problem = gate_problem(metric, Limit(**limit), better)
    assert problem.startswith(expected)
    assert bool(problem) == bool(expected)


# select


def judged(outcome: str, value: float | None = 0.98) -> VerdictRecord:
    return VerdictRecord("top1 min", "top1", 0.97, value, None, outcome, f"because {outcome}")  # type: ignore[arg-type]


def contender(
    name: str,
    latency_ms: float,
    rank: int = 2,
    runtime: str = "ov",
    accuracy: Sequence[str] = ("pass",),
    budgets: Sequence[str] = (),
) -> Contender:
    return Contender(name, rank, runtime, latency_ms, [judged(o) for o in accuracy], [judged(o) for o in budgets])


FLOAT, PRUNED, INT8 = contender("float", 10, 0), contender("pruned", 6, 1), contender("int8", 3, 2)


def ratios(contenders: Sequence[Contender], special: Mapping[tuple[str, str], Any] = {}):
    """Ratios of the latencies, within 5 %, but for ``special`` ones."""
    latency = {c.id: c.latency_ms for c in contenders}

    def compare(first: str, second: str) -> Measurement:
        ratio = latency[first] / latency[second]
        interval = special.get((first, second), (ratio * 0.95, ratio * 1.05))
        return measured(ratio, interval)

    return compare


def choice(*contenders: Contender, **special: Any):
    named = {tuple(key.split("__")): value for key, value in special.items()}
    return select(contenders, ratios(contenders, named))


def test_the_fastest_ships():
    found = choice(FLOAT, PRUNED, INT8)
    assert found.shipped == "int8"
    assert set(found.rejected) == {"float", "pruned"}
    assert all("int8 is faster" in why for why in found.rejected.values())
    assert "0.300× the latency [0.285, 0.315] of its float baseline" in found.reason
    assert not found.open


def test_the_order_of_the_candidates_does_not_matter():
    results = [choice(*order) for order in itertools.permutations([FLOAT, PRUNED, INT8, contender("slow", 20, 2)])]
    assert {(result.shipped, result.reason, result.open) for result in results} == {
        (results[0].shipped, results[0].reason, results[0].open)
    }


@pytest.mark.parametrize("outcome", ["fail", "inconclusive", "not_measured"])
def test_an_accuracy_that_does_not_hold_passes_to_the_next(outcome):
    found = choice(FLOAT, PRUNED, contender("int8", 3, accuracy=("pass", outcome)))
    assert found.shipped == "pruned"
    assert found.rejected["int8"].startswith("accuracy does not hold on the selection split: top1 min is 0.98")
    assert f"because {outcome}" in found.rejected["int8"]


def test_a_runtime_without_a_float_network_competes_with_the_floats_of_the_others():
    reference = replace(contender("npu-reference", math.inf, 0, runtime="npu"), ships=False)
    npu = contender("npu-int8", 3, runtime="npu")
    found = choice(FLOAT, reference, npu)
    assert found.shipped == "npu-int8"
    assert "of the float baseline float" in found.reason
    assert "the device cannot run it" in found.rejected["npu-reference"]
    found = choice(FLOAT, reference, npu, **{"npu-int8__float": (0.9, 1.1)})
    assert found.shipped == "float"
    assert found.open


def test_a_candidate_that_is_over_budget_passes_to_the_next():
    found = choice(FLOAT, PRUNED, contender("int8", 3, budgets=("pass", "fail")))
    assert found.shipped == "pruned"
    assert "over budget" in found.rejected["int8"]


def test_a_gain_that_is_not_there_passes_to_the_next():
    found = choice(FLOAT, PRUNED, contender("int8", 7))
    assert found.shipped == "pruned"
    found = choice(FLOAT, contender("pruned", 12, 1), contender("int8", 11))
    assert found.shipped == "float"
    assert "no measured gain over float: 1.100× the latency" in found.rejected["int8"]
    assert "int8: no measured gain over float" in found.reason
    assert not found.open


def test_int8_must_beat_the_pruned_float_too():
    found = choice(FLOAT, PRUNED, INT8, int8__pruned=(1.1, 1.2))
    assert found.shipped == "pruned"
    assert "no measured gain over pruned" in found.rejected["int8"]


def test_a_rival_that_could_not_ship_need_not_be_beaten():
    wrong = contender("pruned", 2.9, 1, accuracy=("fail",))
    assert choice(FLOAT, wrong, INT8).shipped == "int8"


def test_down_to_the_float_baseline_with_all_reasons():
    found = choice(FLOAT, contender("pruned", 6, 1, accuracy=("fail",)), contender("int8", 9.9))
    assert found.shipped == "float"
    assert "float" not in found.rejected
    assert "the float baseline float ships" in found.reason
    assert "pruned: accuracy does not hold" in found.reason
    assert "int8: no measured gain" in found.reason


def test_the_float_baseline_ships_even_if_its_own_gates_fail():
    found = choice(contender("float", 10, 0, accuracy=("fail",), budgets=("fail",)))
    assert found.shipped == "float"
    assert "there is none" in found.reason


@pytest.mark.parametrize("interval", [(0.9, 1.0), (0.9, 1.1), (None, 1.2), (0.5, None), (None, None), None])
def test_a_tie_does_not_ship_and_may_be_measured_longer(interval):
    found = choice(FLOAT, INT8, int8__float=interval)
    assert found.shipped == "float"
    assert found.open


@pytest.mark.parametrize("interval", [(1.0, 1.1), (1.0000001, None), (2.0, 3.0)])
def test_a_loss_is_final(interval):
    found = choice(FLOAT, INT8, int8__float=interval)
    assert found.shipped == "float"
    assert found.open == (None in interval)


def test_more_samples_cannot_help_where_another_rival_is_clearly_faster():
    found = choice(FLOAT, PRUNED, INT8, int8__pruned=(0.9, 1.1), int8__float=(1.1, 1.2))
    assert found.shipped == "pruned"
    assert not found.open


def test_a_tie_further_up_stays_open_when_the_next_one_ships():
    found = choice(FLOAT, PRUNED, INT8, int8__pruned=(0.9, 1.1))
    assert found.shipped == "pruned"
    assert found.open


def test_a_clear_loss_of_another_does_not_close_a_tie():
    found = choice(FLOAT, INT8, contender("int8-slow", 12), int8__float=(0.9, 1.1))
    assert found.shipped == "float"
    assert found.open


def test_two_runtimes_compete():
    ort = [contender("ort-float", 8, 0, "ort"), contender("ort-int8", 5, 2, "ort")]
    found = choice(FLOAT, INT8, *ort)
    assert found.shipped == "int8"
    assert "0.300× the latency [0.285, 0.315] of its float baseline" in found.reason
    assert "0.375× the latency [0.356, 0.394] of the best float (ort-float)" in found.reason
    assert set(found.rejected) == {"float", "ort-float", "ort-int8"}
    assert found.rejected["ort-int8"].startswith("int8 is faster")


def test_a_gain_over_its_own_float_is_not_enough_where_another_runtime_is_faster():
    found = choice(contender("ov-float", 10, 0), contender("ov-int8", 6), contender("ort-float", 5, 0, "ort"))
    assert found.shipped == "ort-float"
    assert "no measured gain over ort-float" in found.rejected["ov-int8"]
    assert found.rejected["ov-float"] == "ort-float is the faster float baseline"


RATIO_ENDS = st.none() | st.sampled_from([0.5, 0.9, 0.99, 1.0, 1.01, 2.0])
OUTCOMES = st.sampled_from(["pass", "pass", "pass", "fail", "inconclusive", "not_measured"])


@st.composite
def contests(draw: st.DrawFn):
    contenders = []
    for runtime in ("ov", "ort")[: draw(st.integers(1, 2))]:
        for rank in (0, *draw(st.lists(st.integers(1, 2), max_size=3))):
            contenders.append(
                contender(
                    f"{runtime}-{rank}-{len(contenders)}",
                    draw(st.floats(1, 10)),
                    rank,
                    runtime,
                    draw(st.lists(OUTCOMES, max_size=2)),
                    draw(st.lists(st.sampled_from(["pass", "pass", "fail"]), max_size=1)),
                )
            )
    table = {
        (a.id, b.id): draw(st.none() | st.tuples(RATIO_ENDS, RATIO_ENDS))
        for a in contenders
        for b in contenders
        if a.rank > b.rank
    }
    return draw(st.permutations(contenders)), table


@given(contest=contests())
def test_do_no_harm(contest):
    contenders, table = contest
    found = select(contenders, ratios(contenders, table))
    by_id = {c.id: c for c in contenders}
    shipped = by_id[found.shipped]
    baselines = [c for c in contenders if c.rank == 0]
    assert set(found.rejected) == set(by_id) - {found.shipped}
    assert all(found.rejected.values())
    assert found.reason
    if shipped.rank == 0:
        assert shipped.latency_ms == min(c.latency_ms for c in baselines)
        return
    assert all(verdict.outcome == "pass" for verdict in shipped.accuracy)
    assert all(verdict.outcome != "fail" for verdict in shipped.budgets)
    for baseline in baselines:  # the one of its runtime, the best one, and every other
        interval = table[shipped.id, baseline.id]
        assert interval is not None
        assert interval[1] is not None
        assert interval[1] < 1.0


# The outcome of a run


@pytest.mark.parametrize(
    ("outcomes", "errors", "outcome", "code"),
    [
        ([], False, "pass", ExitCode.OK),
        (["pass"], False, "pass", ExitCode.OK),
        (["pass", "inconclusive"], False, "inconclusive", ExitCode.INCONCLUSIVE),
        (["pass", "not_measured"], False, "inconclusive", ExitCode.INCONCLUSIVE),
        (["pass", "not_measured", "fail"], False, "fail", ExitCode.GATE_FAILED),
        (["fail"], True, "error", ExitCode.TOOL_FAILED),
        (["pass"], True, "error", ExitCode.TOOL_FAILED),
        ([], True, "error", ExitCode.TOOL_FAILED),
    ],
)
def test_outcome_and_exit_code(outcomes, errors, outcome, code):
    assert outcome_of([judged(o) for o in outcomes], errors) == (outcome, code)


@pytest.mark.parametrize(
    ("status", "gate", "expected"),
    [
        ("used", "waived", ("pass", 0)),
        ("not_judged", "inconclusive", ("inconclusive", 4)),
        ("expired", "pass", ("fail", 1)),
        ("unused", "pass", ("fail", 1)),
        ("expired", "fail", ("fail", 1)),
        ("unused", "inconclusive", ("fail", 1)),
    ],
)
def test_a_waiver_that_is_expired_or_unused_fails_the_run(status, gate, expected):
    waiver = WaiverRecord("m max", "cpu", "why", "who", "2026-01-01", "waivers.yaml:3:5", status)
    assert outcome_of([judged(gate)], False, [waiver]) == expected
    assert outcome_of([judged(gate)], True, [waiver]) == ("error", 3)
