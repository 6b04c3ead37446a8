from __future__ import annotations

from dataclasses import replace

import pytest

from edgeopt.record import LedgerRecord
from edgeopt.report import ledger


@pytest.mark.parametrize(
    ("label", "change", "against"),
    [
        ("trained", "", ""),
        ("pruned", "-0.0222", "trained"),
        ("distilled", "+0.0185", "pruned"),
        ("compiled · cpu-openvino · openvino-float", "0", "trained"),
        ("compiled · cpu-openvino · openvino-float-pruned", "0", "exported"),
        ("quantized · cpu-onnxruntime · onnxruntime", "-0.00060", "exported"),
        ("compiled · cpu-onnxruntime · onnxruntime-int8-pruned", "0", "quantized"),
    ],
)
def test_the_ledger_pins_a_change_on_the_step_of_the_same_chain(record, label, change, against):
    row = next(row for row in ledger.rows(record)["top1"] if row.label == label)
    assert (row.change, row.against) == (change, against)


def test_without_compression_every_candidate_descends_from_the_export(record):
    plain = tuple(p for p in record.ledger if p.stage in ("trained", "exported", "compiled"))
    row = next(r for r in ledger.rows(replace(record, ledger=plain))["top1"] if r.label.endswith("openvino-float"))
    assert row.against == "exported"


def _chains(record):
    return ledger.chains(record, ledger.rows(record)["top1"])


def test_a_chain_leads_from_the_trained_model_to_every_candidate(record):
    ways = {(c.target, c.candidate): [row.record.stage for row in c.rows] for c in _chains(record)}
    assert ways["cpu-openvino", "openvino-float"] == ["trained", "compiled"]
    assert ways["cpu-openvino", "openvino-float-pruned"] == ["trained", "pruned", "distilled", "exported", "compiled"]
    assert ways["cpu-openvino", "openvino-int8-pruned"][-2:] == ["quantized", "compiled"]
    assert len(ways) == 6


def test_what_ships_is_known_and_comes_last(record):
    assert [c.shipped for c in _chains(record)] == [False] * 4 + [True] * 2


def test_the_largest_loss_on_the_way_to_what_ships_is_found(record):
    assert ledger.worst_drop(_chains(record)).record.stage == "pruned"
    text = ledger.where("top1", _chains(record))
    assert text.startswith("top1 goes from 0.9926 (trained) to 0.9883 (compiled · ")
    assert "a change of -0.0043" in text
    assert (
        "The largest loss of one step is at pruned: -0.0222, beyond the intervals, and later steps regain it." in text
    )


def _points(*values, better="higher", interval=None):
    return tuple(LedgerRecord(f"s{i}", "m", value, interval, better=better) for i, value in enumerate(values))


@pytest.mark.parametrize(
    ("better", "values", "step"),
    [("higher", (0.9, 0.8, 0.79, 0.85), "s1"), ("lower", (0.1, 0.11, 0.3, 0.2), "s2"), ("higher", (0.5, 0.5, 0.7), "")],
)
def test_a_loss_is_one_in_the_direction_of_the_metric(record, better, values, step):
    run = replace(record, ledger=_points(*values, better=better))
    drop = ledger.worst_drop(ledger.chains(run, ledger.rows(run)["m"]))
    assert (drop.record.stage if drop else "") == step


def test_nothing_lost_is_said(record):
    run = replace(record, ledger=_points(0.9, 0.9, 0.95))
    assert ledger.where("m", ledger.chains(run, ledger.rows(run)["m"])).endswith("No step made it worse.")


def test_a_small_rate_that_got_worse_is_said(record):
    run = replace(record, ledger=_points(1e-5, 4e-5, better="lower"))
    text = ledger.where("m", ledger.chains(run, ledger.rows(run)["m"]))
    assert text.startswith("m goes from 0.000010 (s0) to 0.000040 (s1), a change of +0.000030.")
    assert "The largest loss of one step is at s1: +0.000030" in text


def test_the_rounding_of_a_subtraction_is_no_loss(record):
    run = replace(record, ledger=_points(0.1 + 0.2, 0.3))
    assert ledger.where("m", ledger.chains(run, ledger.rows(run)["m"])).endswith("No step made it worse.")


def test_a_loss_within_the_intervals_is_called_so(record):
    points = tuple(replace(p, interval=(p.value - 0.1, p.value + 0.1)) for p in _points(0.9, 0.88))
    run = replace(record, ledger=points)
    text = ledger.where("m", ledger.chains(run, ledger.rows(run)["m"]))
    assert text.endswith("at s1: -0.0200, within the intervals.")


def test_a_simulated_point_is_labelled(no_devices):
    points = {row.record.stage: row for row in ledger.rows(no_devices)["top1"]}
    assert points["compiled"].quantity.method == "SIMULATED"
    assert points["trained"].quantity.method == ""


def test_a_simulated_end_of_the_chain_is_labelled(record):
    points = _points(0.99, 0.98)
    run = replace(record, ledger=(points[0], replace(points[1], method="simulated")))
    text = ledger.where("m", ledger.chains(run, ledger.rows(run)["m"]))
    assert text.startswith("m goes from 0.9900 (s0) to 0.9800 (SIMULATED) (s1), ")


def test_what_no_device_gave_is_named(record):
    assert ledger.labels(_chains(record)) == ""
    points = tuple(replace(p, method="simulated") if p.target == "cpu-openvino" else p for p in record.ledger)
    run = replace(record, ledger=points)
    assert ledger.labels(_chains(run)) == "SIMULATED, not taken on the device: cpu-openvino."
