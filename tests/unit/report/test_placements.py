"""Where candidates run, in words, and in every report."""

from __future__ import annotations

from dataclasses import replace

from edgeopt.record import CandidateRecord, RunRecord
from edgeopt.report import alarms, html, markdown, placements
from tests.made_up_run import Samples


def shipped(run: RunRecord, target: str) -> CandidateRecord:
    return run.targets[target].candidate(run.targets[target].shipped)


def test_shares_add_up_to_the_whole_network(no_devices):
    row = next(row for row in placements.rows(no_devices.targets["ethos-u55-128"]) if row.shipped)
    assert row.operators == "CPU i8 50 % (2), NPU i8 50 % (2)"
    assert row.macs == "NPU i8 60 %, CPU i8 30 %, folded or unknown 10 %"
    assert (row.fallbacks, row.in_float, row.unfused, row.reformats) == ("2", "0", "1", "1")


def test_every_fallback_has_its_name_and_reason(no_devices):
    found = {(row.candidate, row.what): row for row in placements.layer_rows(no_devices.targets["ethos-u55-128"])}
    fallback = found["ethos-int8", "fallback"]
    assert (fallback.layer, fallback.macs, fallback.why) == ("CONV_2D conv1", "30 %", "a window of 9x9 is too large")
    assert found["ethos-int8-pruned", "float, not INT8"].runs == "CPU f32"
    assert ("ethos-int8", "float, not INT8") not in found
    assert found["ethos-int8", "folded or unknown"].layer == "head/Gemm"
    assert found["ethos-int8", "Q/DQ not fused"].layer == "QUANTIZE q0"
    assert found["ethos-int8", "reformat"].layer == "TRANSPOSE transpose_1"


def test_a_sentence_says_what_runs_elsewhere_and_what_nobody_knows(no_devices):
    said = placements.sentence(shipped(no_devices, "ethos-u55-128"))
    assert said.startswith("2 of 4 operators with 30 % of the MACs do not run on the NPU: CONV_2D conv1, QUANTIZE q0.")
    assert "Where 10 % of the MACs run is not known" in said
    assert placements.sentence(shipped(no_devices, "snapdragon")) == ""
    assert placements.sentence(None) == ""


def test_arithmetic_elsewhere_is_an_alarm(no_devices):
    found = [alarm for alarm in alarms.alarms(no_devices) if "arithmetic" in alarm.title]
    assert [(alarm.target, alarm.tone) for alarm in found] == [("ethos-u55-128", "inconclusive")]
    assert "30 % of the arithmetic on ethos-u55-128 does not run on the NPU" in found[0].title


def test_records_of_before_show_their_counts(record):
    row = placements.rows(record.targets["cpu-openvino"])[0]
    assert (row.operators, row.macs, row.fallbacks) == ("22 × f32", "", "")
    candidate = replace(record.targets["cpu-openvino"].candidates[0], placement={})
    bare = replace(record.targets["cpu-openvino"], candidates=(candidate,))
    assert placements.rows(bare)[0].operators == placements.NOT_TOLD


def test_every_report_names_every_fallback(no_devices):
    nothing: Samples = {}
    for text in (markdown.render(no_devices, nothing), html.render(no_devices, nothing)):
        plain = text.replace("\\", "")
        for wanted in ("CONV_2D conv1", "a window of 9x9 is too large", "head/Gemm", "NPU i8 60 %"):
            assert wanted in plain
