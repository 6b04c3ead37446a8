from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest

from edgeopt.console import print_summary
from edgeopt.measure import Measurement
from edgeopt.record import (
    ArtifactRecord,
    CandidateRecord,
    RecipeRecord,
    RunRecord,
    TargetRecord,
    VerdictRecord,
    WaiverRecord,
)
from edgeopt.report import wording
from tests import made_up_run


def _candidate(name: str, top1: float, p50_ms: float, *, baseline: bool, method: str = "measured") -> CandidateRecord:
    def of(metric, value, unit, interval):
        return Measurement(metric, value, unit, "lower", interval, 400, method, "p", "cpu")

    return CandidateRecord(
        id=name,
        runtime="openvino",
        precision="float" if baseline else "int8",
        pruned=not baseline,
        baseline=baseline,
        artifact=ArtifactRecord("openvino-ir", "ab", 0.1),
        measurements=(
            of("top1", top1, "1", (top1 - 0.01, top1 + 0.005)),
            of("latency_p50_ms", p50_ms, "ms", (p50_ms * 0.98, p50_ms * 1.02)),
            of("latency_p99_ms", p50_ms * 2, "ms", (p50_ms * 1.9, None)),
            of("size_mib", 0.0983, "MiB", None),
        ),
    )


VERDICTS = (
    VerdictRecord("top1 min", "top1", 0.97, 0.988, (0.978, 0.993), "pass", "all above", "1"),
    VerdictRecord("top1 max_drop", "top1", 0.01, 0.0043, (-0.001, 0.011), "inconclusive", "it straddles 0.01", "1"),
    VerdictRecord("latency_p99_ms max", "latency_p99_ms", 0.5, 0.62, (0.59, None), "fail", "all above 0.5", "ms"),
    VerdictRecord("power_mw max", "power_mw", 900.0, None, None, "not_measured", "no rails", "mW"),
)


@pytest.fixture
def record() -> RunRecord:
    served = TargetRecord(
        shipped="openvino-int8",
        reason="it is faster [bold]and holds",
        candidates=(
            _candidate("openvino-float", 0.9926, 0.81, baseline=True),
            _candidate("openvino-int8", 0.988, 0.31, baseline=False),
        ),
        verdicts=VERDICTS,
    )
    return RunRecord(
        schema=1,
        outcome="fail",
        exit_code=1,
        started="2026-11-02T10:11:12+00:00",
        seconds=12.0,
        recipe=RecipeRecord("digits", "recipe.yaml", "cd"),
        targets={"cpu": served, "jetson": TargetRecord("", "", (), (), error="no driver\n  fix: install one")},
        ledger=(),
        stages=(),
        provenance={},
    )


def _plain(record: RunRecord) -> str:
    stream = io.StringIO()
    print_summary(record, stream)
    return stream.getvalue()


def _row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.split()[: len(name.split())] == name.split())


def test_a_file_gets_words_and_no_decoration(record):
    text = _plain(record)
    assert "\x1b" not in text
    assert not re.search("[\u2500-\u257f]", text)
    assert max(map(len, text.splitlines())) <= 120
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_every_gate_has_its_numbers_threshold_and_verdict(record):
    text = _plain(record)
    assert re.search(r"0\.9926 \[0\.983, 0\.998\] +0\.9880 \[0\.978, 0\.993\] +≥ 0\.97 +✓ pass", _row(text, "top1"))
    assert re.search(r"0\.0043 \[-0\.001, 0\.011\] +≤ 0\.01 +\? inconclusive", _row(text, "top1 drop"))
    assert re.search(r"0\.620 ms \[0\.590, \?\] +≤ 0\.5 ms +✗ FAIL", _row(text, "latency_p99_ms"))
    assert re.search(r"not measured +≤ 900 mW +○ not measured", _row(text, "power_mw"))
    assert _row(text, "latency_p50_ms").endswith("no gate")


def test_why_a_gate_did_not_pass_and_what_ships_is_said(record):
    text = _plain(record)
    assert "cpu ships openvino-int8: it is faster [bold]and holds" in text
    assert "latency_p99_ms max: all above 0.5" in text
    assert "jetson not served: no driver; fix: install one" in text
    assert "DON'T SHIP" in text
    assert wording.decision(record).sentence in " ".join(text.split())


def test_what_must_not_be_missed_stands_before_the_decision(record):
    waiver = WaiverRecord("top1 min", "cpu", "known", "Dana Ruiz", "2026-01-31", "waivers.yaml:2:5", "expired")
    cpu = replace(record.targets["cpu"], disturbed=("The load rose from 0.2 to 3.9.",))
    text = _plain(replace(record, targets={"cpu": cpu}, waivers=(waiver,)))
    alarms, _, _ = text.partition("DON'T SHIP")
    assert "! The waiver of top1 min on cpu (waivers.yaml:2:5) expired after 2026-01-31\n" in alarms
    assert "! The machine was disturbed while cpu was timed\n  The load rose from 0.2" in alarms


def test_a_waived_gate_says_who_waived_it(record):
    waiver = WaiverRecord("latency_p99_ms max", "cpu", "known", "Dana Ruiz", "2026-12-31", "waivers.yaml:2:5", "used")
    gate = replace(VERDICTS[2], outcome="waived", waiver=waiver)
    cpu = replace(record.targets["cpu"], verdicts=(gate,))
    text = " ".join(_plain(replace(record, outcome="pass", targets={"cpu": cpu}, waivers=(waiver,))).split())
    assert text.count("! WAIVED") == 2
    assert "Dana Ruiz waived it until 2026-12-31: known" in text
    assert "SHIP With 1 waived gate of 1 gate:" in text


def test_numbers_that_were_not_measured_are_labelled(record):
    cpu = record.targets["cpu"]
    shipped = _candidate("openvino-int8", 0.988, 0.31, baseline=False, method="estimated")
    text = _plain(replace(record, targets={"cpu": replace(cpu, candidates=(cpu.candidates[0], shipped))}))
    assert _row(text, "latency_p50_ms").count("(ESTIMATED)") == 1


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_a_terminal_is_never_exceeded(record, terminal, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    print_summary(record, terminal)
    lines = re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue()).splitlines()
    assert max(map(len, lines)) <= columns
    assert sum("✗ FAIL" in line for line in lines) == 2
    if columns == 80:
        assert any("[0.978, 0.993]" in line for line in lines)


def test_colour_only_where_it_is_wanted(record, terminal, monkeypatch):
    print_summary(record, terminal)
    assert "\x1b[1;31m✗ FAIL" in terminal.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.truncate(0)
    print_summary(record, terminal)
    assert not re.search(r"\x1b\[[\d;]*3\dm", terminal.getvalue())
    assert "✗ FAIL" in terminal.getvalue()


def test_a_stream_without_unicode_still_gets_the_verdicts(record):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    print_summary(record, stream)
    stream.flush()
    text = raw.getvalue().decode("ascii")
    assert re.search(r">= 0\.97 +\+ pass", text)
    assert re.search(r"<= 0\.5 ms +x FAIL", text)


def test_a_run_that_passed_ships(record):
    cpu = replace(record.targets["cpu"], verdicts=VERDICTS[:1])
    text = _plain(replace(record, outcome="pass", exit_code=0, targets={"cpu": cpu}))
    assert text.splitlines()[-1] == "SHIP  The only gate passed on 1 target."


def test_what_no_device_measured_is_told(record):
    text = " ".join(_plain(made_up_run.without_devices(made_up_run.record())).split())
    assert "The latency is ESTIMATED by vela 5.2.0" in text
    assert "The latency is NOT MEASURED: no device is at hand." in text
    assert "The latency was not measured on 2 of 3 targets" in text
    assert "CONV_2D conv1" in text
    assert "output_cosine" not in text
