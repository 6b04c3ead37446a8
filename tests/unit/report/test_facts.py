from __future__ import annotations

from dataclasses import replace

from edgeopt.report import facts
from tests import made_up_run
from tests.made_up_run import measured


def _with_p50(target, name, value, interval=None, rejected=None):
    """``target`` with another median latency of candidate ``name``."""
    candidates = []
    for c in target.candidates:
        if c.id == name:
            measurements = tuple(
                replace(m, value=value, interval=interval) if m.metric == facts.LATENCY else m for m in c.measurements
            )
            c = replace(c, measurements=measurements, rejected=c.rejected if rejected is None else rejected)
        candidates.append(c)
    return replace(target, candidates=tuple(candidates))


def test_the_baseline_is_the_one_of_the_runtime_that_ships(record):
    target = replace(record.targets["cpu"], shipped="onnxruntime-int8-pruned")
    assert facts.baseline_of(target).id == "onnxruntime-float"


def test_gated_rows_come_first_and_nothing_is_listed_twice(record):
    rows = facts.metric_rows(record.targets["cpu-onnxruntime"])
    names = [row.name for row in rows]
    assert names[:3] == ["top1", "latency_p99_ms", "latency_ratio"]
    assert [bool(row.outcome) for row in rows] == [True] * 3 + [False] * (len(rows) - 3)
    assert len(set(names)) == len(names)


def test_a_relative_row_has_no_baseline_and_shows_what_was_judged(record):
    drop = next(row for row in facts.metric_rows(record.targets["cpu"]) if row.name == "top1 drop")
    assert (drop.baseline, str(drop.shipped), drop.limit) == (None, "0.0043 [-0.001, 0.011]", "≤ 0.01")


def test_what_was_not_measured_on_the_device_is_labelled(record):
    target = record.targets["cpu-openvino"]
    estimated = tuple(
        replace(c, measurements=tuple(replace(m, method="estimated") for m in c.measurements))
        for c in target.candidates
    )
    verdicts = tuple(replace(verdict, method="estimated") for verdict in target.verdicts)
    rows = facts.metric_rows(replace(target, candidates=estimated, verdicts=verdicts))
    assert {row.shipped.method for row in rows} == {"ESTIMATED"}


def test_the_winner_is_named_with_its_lead(record):
    text = facts.runtime_winner(record.targets["cpu"])
    assert "openvino wins over onnxruntime: p50 0.312 ms [0.307, 0.318] against 0.355 ms [0.350, 0.362]" in text
    assert "onnxruntime takes 1.14× the time." in text


def test_a_lead_within_the_noise_is_called_so(record):
    target = _with_p50(record.targets["cpu"], "onnxruntime-int8-pruned", 0.315, (0.31, 0.32))
    assert "within the noise" in facts.runtime_winner(target)


def test_a_faster_rival_that_may_not_ship_is_not_hidden(record):
    target = _with_p50(
        record.targets["cpu"], "onnxruntime-int8-pruned", 0.2, (0.19, 0.21), "accuracy does not hold: top1 is 0.91"
    )
    text = facts.runtime_winner(target)
    assert text.startswith("onnxruntime (onnxruntime-int8-pruned) is faster")
    assert "does not ship: accuracy does not hold: top1 is 0.91." in text


def test_no_contest_no_winner(record):
    assert facts.runtime_winner(record.targets["cpu-openvino"]) == ""
    assert facts.runtime_winner(record.targets["jetson"]) == ""


def test_letters_go_on_after_z(record):
    target = record.targets["cpu-openvino"]
    many = replace(target, candidates=tuple(replace(target.candidates[0], id=str(i)) for i in range(28)))
    assert [row.letter for row in facts.candidate_rows(many)][-3:] == ["Z", "AA", "AB"]


def test_nested_facts_become_dotted_names():
    assert facts.flat({"a": {"b": 1, "c": [1, 2]}, "d": None}) == (("a.b", "1"), ("a.c", "1, 2"), ("d", ""))


def test_steps_are_reused_or_ran_or_failed(record):
    assert [facts.done(step) for step in record.stages] == ["reused", "ran", "failed"]


def test_equal_caveats_are_said_once(record):
    (caveat,) = facts.caveats(record.targets["cpu-openvino"])
    assert caveat == ("peak_memory_mib: a single reading (openvino-float, openvino-float-pruned, openvino-int8-pruned)")


def test_of_many_accuracies_those_with_a_gate_tell_candidates_apart(record):
    target = record.targets["cpu"]
    more = tuple(measured(f"m{i}", 0.5, "1") for i in range(5))
    many = tuple(replace(c, measurements=more + c.measurements) for c in target.candidates)
    names = facts.headline_metrics(replace(target, candidates=many))
    assert names[: names.index(facts.LATENCY)] == ("top1", "m0", "m1")


def test_what_was_not_measured_says_why(record):
    target = made_up_run.eventful(record).targets["cpu"]
    row = next(row for row in facts.metric_rows(target) if row.name == "energy_mj")
    assert (str(row.shipped), row.why) == ("not measured", "the kernel lets only root read the counters")


def test_the_call_of_the_runtime_is_set_against_the_latency(record):
    text = facts.call_overhead(made_up_run.eventful(record).targets["cpu"])
    assert "0.312 ms [0.307, 0.318], the runtime's own call takes 0.0210 ms [0.0200, 0.0230] (7 %)" in text
    assert facts.call_overhead(record.targets["cpu"]) == ""


def test_conditions_stand_side_by_side(record):
    assert facts.conditions(made_up_run.eventful(record).targets["cpu"]) == (
        ("load", "0.2", "3.9"),
        ("frequency_mhz", "2450.0, 2450.0", "1800.0, 2450.0"),
        ("governor", "performance", "performance"),
        ("temperature_c", "not readable", "not readable"),
        ("disturbed_sessions", "", "2"),
    )
    assert facts.conditions(record.targets["cpu"]) == ()


def test_flips_are_grouped_the_losses_first(record):
    groups = facts.flips(made_up_run.eventful(record).targets["cpu"])
    assert [(title, len(found)) for title, _, found in groups] == [
        ("Lost", 6),
        ("Gained", 2),
        ("Wrong in another way", 2),
        ("Changed", 2),
    ]


def test_what_was_not_had_on_the_device_is_told_first(no_devices):
    estimated, compiled, here = (facts.sentences(target) for target in no_devices.targets.values())
    assert estimated[0].startswith("The latency is ESTIMATED by vela 5.2.0")
    assert "The accuracy is SIMULATED" in estimated[0]
    assert compiled[0].startswith("The latency is NOT MEASURED: no device is at hand.")
    assert not any("MEASURED" in sentence or "SIMULATED" in sentence for sentence in here)


def test_estimates_contest_nothing(record):
    cpu = record.targets["cpu"]
    candidates = tuple(
        replace(c, measurements=tuple(replace(m, method="estimated") for m in c.measurements)) for c in cpu.candidates
    )
    assert facts.runtime_winner(cpu)
    assert facts.runtime_winner(replace(cpu, candidates=candidates)) == ""


def test_parity_and_placement_are_no_accuracies(no_devices):
    target = no_devices.targets["ethos-u55-128"]
    assert facts.accuracy_metrics(target) == ("top1",)
    names = [row.name for row in facts.metric_rows(target)]
    assert {"sqnr_db", "output_cosine_p1", "max_abs_error", "decision_agreement", "fallback_operators"} <= set(names)
    assert len(names) == len(set(names))
