"""``edgeopt compare`` and ``--against``: formats, exit codes, and what bad input gets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgeopt.cli import app
from edgeopt.record import RunRecord
from tests.releases import latency, run, size, target, top1


def edgeopt(*arguments: object, code: int) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    assert "internal error" not in result.output
    return result.output


def write(folder: Path, record: RunRecord) -> Path:
    (folder / "samples").mkdir(parents=True)
    (folder / "run.json").write_text(record.to_json())
    return folder


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return write(tmp_path / "old", run(cpu=target(latency(1.0), top1(0.99), size(1.0))))


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    return write(tmp_path / "slow", run(cpu=target(latency(1.3), top1(0.99), size(1.0), digest="s2")))


def test_a_regression_is_exit_code_1_in_every_format(old: Path, slow: Path) -> None:
    assert "✗ REGRESSION" in edgeopt("compare", old, slow, code=1)
    assert json.loads(edgeopt("compare", old, slow, "--format", "json", code=1))["schema"] == 1
    assert "### digits: REGRESSION" in edgeopt("compare", old, slow, "--format", "markdown", code=1)
    log = json.loads(edgeopt("compare", old, slow, "--format", "sarif", code=1))
    assert [result["ruleId"] for result in log["runs"][0]["results"]] == ["regression"]


def test_no_regression_is_exit_code_0_whichever_way_round(old: Path, slow: Path) -> None:
    assert "NO REGRESSION SHOWN" in edgeopt("compare", old, old, code=0)
    assert "✓ better" in edgeopt("compare", slow, old, code=0)


def test_a_run_may_be_given_as_its_record(old: Path, slow: Path) -> None:
    edgeopt("compare", old / "run.json", slow / "run.json", code=1)


def test_the_file_gets_the_format_and_the_screen_the_text(old: Path, slow: Path, tmp_path: Path) -> None:
    out = tmp_path / "comment.md"
    assert "✗ REGRESSION" in edgeopt("compare", old, slow, "--format", "markdown", "--out", out, code=1)
    assert out.read_text(encoding="utf-8").startswith("<!-- edgeopt compare -->")
    edgeopt("compare", old, slow, "--out", out, code=1)
    assert "✗ REGRESSION" in out.read_text(encoding="utf-8")


def test_tolerances(old: Path, slow: Path) -> None:
    edgeopt("compare", old, slow, "--tolerance", "0.5", code=0)
    edgeopt("compare", old, slow, "--tolerance", "latency_p50_ms=0.5", code=0)
    edgeopt("compare", old, slow, "--tolerance", "0.5", "--tolerance", "latency_p50_ms=0.01", code=1)


@pytest.mark.parametrize("text", ["much", "-0.1", "top1=", "top1=nan", "inf", "=", ""])
def test_a_tolerance_that_is_none(old: Path, text: str) -> None:
    assert "expected [METRIC=]VALUE" in edgeopt("compare", old, old, f"--tolerance={text}", code=2)


def test_a_tolerance_for_an_unknown_metric(old: Path) -> None:
    output = edgeopt("compare", old, old, "--tolerance", "top2=0.1", code=2)
    assert "no metric 'top2' is compared (did you mean 'top1'?)" in output


def test_strict_asks_that_everything_can_be_compared(old: Path, tmp_path: Path) -> None:
    more = write(
        tmp_path / "more", run(cpu=target(latency(1.0), top1(0.99), size(1.0), latency(2.0, "latency_p99_ms")))
    )
    assert "the later run does not have it" in edgeopt("compare", more, old, code=0)
    edgeopt("compare", more, old, "--strict", code=4)
    edgeopt("compare", old, old, "--strict", code=0)


def test_an_accuracy_or_a_gated_number_that_is_gone_is_exit_code_4(old: Path, tmp_path: Path) -> None:
    for name, parts in (("untimed", (top1(0.99), size(1.0))), ("unscored", (latency(1.0), size(1.0)))):
        assert "the later run does not have it" in edgeopt(
            "compare", old, write(tmp_path / name, run(cpu=target(*parts))), code=4
        )


def test_a_network_that_gives_nan_is_a_regression_in_every_format(old: Path, tmp_path: Path) -> None:
    nan = replace(top1(0.99), value=None, interval=None, broken=True, why="it gives NaN on 5 of 500 samples")
    broken = write(tmp_path / "nan", run(cpu=target(latency(1.0), nan, size(1.0), digest="s2")))
    for form in ("text", "json", "markdown", "sarif"):
        assert "it gives NaN on 5 of 500 samples" in edgeopt("compare", old, broken, "--format", form, code=1)
    assert "top1 on cpu (broken)" in edgeopt("compare", old, broken, code=1)


def test_raw_samples_beside_the_records_are_used(old: Path, slow: Path) -> None:
    """Half of the later run's inferences need 0.9 ms and half 1.3: the median is unsure, whatever the record says."""
    for folder, series_ms in ((old, [1.0] * 3001), (slow, [0.9, 1.3] * 1500 + [1.3])):
        np.save(folder / "samples" / "cpu.int8.npy", np.rint(np.array(series_ms) * 1e6).astype(np.int64))
    assert "no difference shown" in edgeopt("compare", old, slow, code=0)


def test_samples_of_another_run_are_refused(old: Path, slow: Path) -> None:
    np.save(old / "samples" / "cpu.int8.npy", np.full(400, 1_300_000))
    assert "the samples are damaged" in edgeopt("compare", old, slow, code=2)


# Bad input


def test_a_run_that_is_not_there(old: Path, tmp_path: Path) -> None:
    output = edgeopt("compare", old, tmp_path / "sow", code=2)
    assert "no such run" in output
    assert "fix: give the folder that `edgeopt compile` wrote" in output
    assert "did you mean 'old'" in edgeopt("compare", tmp_path / "oldd", old, code=2)


def test_a_folder_that_is_no_run(old: Path, tmp_path: Path) -> None:
    assert "no run here" in edgeopt("compare", tmp_path, old, code=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": 9, "provenance": {"edgeopt": "4.2"}}', "a newer edgeopt wrote this record: schema 9, edgeopt 4.2"),
        ('{"schema": 0}', "unknown schema 0"),
        ('{"schema": 1}', "the run record is damaged at"),
        ('{"name": 1}', "this is not a run record"),
    ],
)
def test_a_record_that_cannot_be_read(old: Path, slow: Path, text: str, message: str) -> None:
    (slow / "run.json").write_text(text)
    for command in (("compare", old, slow), ("compare", slow, old), ("report", old, "--against", slow)):
        output = edgeopt(*command, code=2)
        assert message in output
        assert str(slow / "run.json") in output


def test_damaged_samples(old: Path, slow: Path) -> None:
    (slow / "samples" / "cpu.int8.npy").write_bytes(b"\x93NUMPY")
    assert "the samples are damaged" in edgeopt("compare", old, slow, code=2)


def test_a_file_that_cannot_be_written(old: Path, tmp_path: Path) -> None:
    assert "cannot be written" in edgeopt("compare", old, old, "--out", tmp_path / "no" / "file", code=2)


# --against


def test_a_report_compares_with_an_earlier_run_and_remembers_it(old: Path, slow: Path) -> None:
    output = edgeopt("report", slow, "--against", old, code=0)
    assert "✗ REGRESSION" in output
    assert json.loads((slow / "comparison.json").read_text())["before"]["path"] == str(old)
    first = (slow / "report.html").read_text()
    edgeopt("report", slow, code=0)
    assert (slow / "report.html").read_text() == first
    (slow / "comparison.json").write_text("{")
    assert "no readable comparison" in edgeopt("report", slow, code=2)


def test_hostile_target_names_reach_the_screen_as_text(tmp_path: Path) -> None:
    nasty = "[red]cpu\x1b[31m"
    folder = write(tmp_path / "run", run(**{nasty: target(size(1.0))}))
    output = edgeopt("compare", folder, folder, code=0)
    assert "[red]cpu" in output
    assert "\x1b" not in output
