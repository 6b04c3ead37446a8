from __future__ import annotations

import math
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.record import VerdictRecord
from edgeopt.report import wording


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.41234, "ms", "0.412 ms"),
        (9.996, "ms", "10.0 ms"),
        (99.96, "ms", "100 ms"),
        (1234.5, "ms", "1234 ms"),
        (0.0004567, "ms", "0.000457 ms"),
        (0.0, "ms", "0 ms"),
        (0.6189, "×", "0.62×"),
        (0.0042, "×", "0.0042×"),
        (1.5, "x", "1.50×"),
        (0.98829, "", "0.9883"),
        (0.0, "", "0.0000"),
        (-1e-16, "", "0.0000"),
        (0.000041, "", "0.000041"),
        (-0.00001, "", "-0.000010"),
        (0.00045, "", "0.00045"),
        (0.0009999, "", "0.0010"),
        (4.1e-8, "", "4.1e-08"),
        (0.00123, "", "0.0012"),
        (None, "ms", "not measured"),
        (math.nan, "", "not measured"),
    ],
)
def test_numbers_have_the_digits_that_their_unit_deserves(value, unit, text):
    assert wording.number(value, unit) == text


@pytest.mark.parametrize(
    ("bounds", "unit", "text"),
    [
        ((0.97912, 0.99412), "", "[0.979, 0.994]"),
        ((0.98812, 0.98998), "", "[0.9881, 0.9900]"),
        ((3e-5, 5e-5), "", "[0.000030, 0.000050]"),
        ((0.00042, 0.03), "", "[0.00042, 0.030]"),
        ((0.0, 5e-5), "", "[0.0000, 0.000050]"),
        ((0.405, None), "ms", "[0.405, ?]"),
        ((0.6, 0.65), "×", "[0.60, 0.65]"),
        ((None, None), "ms", ""),
        (None, "ms", ""),
    ],
)
def test_intervals_say_what_they_cannot_bound(bounds, unit, text):
    assert wording.interval(bounds, unit) == text


@given(st.floats(1e-9, 1e6), st.sampled_from(["ms", "MiB", "×", ""]))
def test_a_printed_number_is_close_to_the_number(value, unit):
    printed = float(wording.number(value, unit).rstrip("× msMiB"))
    assert printed == pytest.approx(value, rel={"×": 0.051, "": 0.0501}.get(unit, 0.0051))


@given(st.text(st.characters()))
def test_cleaned_text_is_one_line_of_valid_xml(text):
    cleaned = wording.clean(text)
    element = ElementTree.Element("a", b=cleaned)
    assert ElementTree.fromstring(ElementTree.tostring(element)).get("b") == cleaned
    assert len(cleaned.splitlines()) <= 1


def test_cleaning_leaves_ordinary_text_alone_and_shows_what_it_replaced():
    assert wording.clean("p99 ≤ 3 ms, naïve 数 🙂") == "p99 ≤ 3 ms, naïve 数 🙂"
    assert wording.clean("a\x1b[31mb\u202ec\n d") == "a\ufffd[31mb\ufffdc d"


@pytest.mark.parametrize(
    ("gate", "metric", "limit", "unit", "text"),
    [
        ("latency_p99_ms max", "latency_p99_ms", 3.0, "ms", "≤ 3 ms"),
        ("top1 min", "top1", 0.97, "1", "≥ 0.97"),
        ("top1 max_drop", "top1", 0.01, "1", "≤ 0.01"),
        ("latency_ratio max", "latency_ratio", 0.8, "1", "≤ 0.8×"),
        ("size_mib max_ratio", "size_mib", 0.5, "1", "≤ 0.5×"),
    ],
)
def test_limits_keep_the_digits_of_the_user(gate, metric, limit, unit, text):
    assert wording.limit(VerdictRecord(gate, metric, limit, None, None, "pass", "", unit)) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3725, "1 h 02 min")]
)
def test_durations(value, text):
    assert wording.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(-0.0022, "-0.0022"), (0.01, "+0.0100"), (-0.00001, "-0.000010"), (3e-5, "+0.000030"), (1e-16, "0"), (0.0, "0")],
)
def test_changes_have_a_sign_unless_nothing_would_be_seen(value, text):
    assert wording.change(value) == text


def test_a_run_whose_gates_all_pass_ships(passing):
    assert wording.decision(passing) == wording.Decision("SHIP", "All 3 gates passed on 1 target.")


def test_a_failed_gate_decides_even_when_a_target_could_not_be_served(record):
    answer = wording.decision(record)
    assert answer.word == "DON'T SHIP"
    assert "1 of 10 gates failed: latency_p99_ms max on cpu-onnxruntime (0.593 ms [0.510, 0.750], limit ≤ 0.5 ms)" in (
        answer.sentence
    )
    assert "jetson (compile:jetson: no driver; fix: install one)" in answer.sentence


def test_a_run_that_ships_with_a_waived_gate_says_so_first(record):
    target = record.targets["cpu-openvino"]
    answer = wording.decision(replace(record, outcome="pass", targets={"cpu-openvino": target}))
    assert answer.word == "SHIP"
    assert answer.sentence.startswith("With 1 waived gate of 4 gates: peak_memory_mib max on cpu-openvino (118 MiB")


@pytest.mark.parametrize(("status", "text"), [("expired", "expired after 2026-12-31"), ("unused", "is not needed")])
def test_an_expired_or_unused_waiver_forbids_to_ship(passing, record, status, text):
    waiver = replace(record.waivers[0], status=status)
    answer = wording.decision(replace(passing, outcome="fail", waivers=(waiver,)))
    assert answer.word == "DON'T SHIP"
    assert f"The waiver of peak_memory_mib max on cpu-openvino (waivers.yaml:2:5) {text}" in answer.sentence


@pytest.mark.parametrize(("name", "outcome"), [("cpu", "inconclusive"), ("jetson", "error")])
def test_what_is_not_known_is_not_shipped(record, name, outcome):
    run = replace(record, outcome=outcome, targets={name: record.targets[name]})
    assert wording.decision(run).word == "CAN'T TELL"


def test_an_outcome_without_a_reason_is_still_not_shipped(passing):
    assert wording.decision(replace(passing, outcome="error")).word == "CAN'T TELL"
    assert wording.decision(replace(passing, outcome="fail")).word == "DON'T SHIP"


def test_a_run_without_gates_says_so(passing):
    target = replace(passing.targets["cpu-openvino"], verdicts=())
    answer = wording.decision(replace(passing, targets={"cpu-openvino": target}))
    assert answer == wording.Decision("SHIP", "No gate was set, so none failed.")


def test_a_long_list_of_failures_is_cut_and_counted(record):
    target = record.targets["cpu-onnxruntime"]
    gates = tuple(replace(target.verdicts[1], gate=f"m{i} max") for i in range(5))
    answer = wording.decision(replace(record, targets={"cpu-onnxruntime": replace(target, verdicts=gates)}))
    assert "m2 max" in answer.sentence
    assert "m3 max" not in answer.sentence
    assert "and 2 more" in answer.sentence


def test_the_decision_says_on_how_many_targets_no_latency_was_measured(record, no_devices):
    told = wording.decision(no_devices).sentence
    assert told.endswith(
        "The latency was not measured on 2 of 3 targets: ESTIMATED on ethos-u55-128; NOT MEASURED on snapdragon."
    )
    assert "latency was not measured" not in wording.decision(record).sentence


def test_a_judged_number_that_was_not_measured_is_labelled_in_the_decision(no_devices):
    ethos = no_devices.targets["ethos-u55-128"]
    failed = replace(ethos.verdicts[0], outcome="fail")
    run = replace(no_devices, targets={"ethos-u55-128": replace(ethos, verdicts=(failed,))})
    assert "latency_p99_ms max on ethos-u55-128 (1.90 ms (ESTIMATED), limit ≤ 3 ms)" in wording.decision(run).sentence
