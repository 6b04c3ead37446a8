"""``--track``: the results are complete whatever the server says, and what the gates say is what counts."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeopt import contest, tracking
from edgeopt.cli import app
from edgeopt.record import TargetRecord
from tests import tiny
from tests.releases import GATE, candidate, size

pytest.importorskip("mlflow", reason="mlflow is not installed")
NOBODY = "http://dana:pa55word@127.0.0.1:9"
TOO_LARGE = ("--set", "targets.tiny-onnxruntime.gates.size_mib.max=0.0001")


def edgeopt(*arguments: object, code: int) -> SimpleNamespace:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    assert "pa55word" not in result.output
    return SimpleNamespace(out=result.stdout, err=result.stderr)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe whose first candidate ships with 0.1 MiB, and passes all gates but those on a smaller size."""

    def run(self: contest.Contest) -> tuple[TargetRecord, dict[str, Any]]:
        shipped = candidate(self.plan.candidates[0].id, "d", size(0.1), baseline=True)
        gates = [
            replace(GATE, gate=g.name, metric=g.metric, limit=g.limit, value=0.1, interval=None)
            for g in self.plan.gates
        ]
        judged = [replace(v, outcome="fail") if v.metric == "size_mib" and v.limit < 0.1 else v for v in gates]
        return TargetRecord(shipped.id, "there is no other", (shipped,), tuple(judged)), {}

    monkeypatch.setattr(contest.Contest, "run", run)
    return tiny.write(tmp_path / "recipe")


def compile_(folder: Path, *options: object, code: int) -> SimpleNamespace:
    common = ("--target", "tiny-onnxruntime", "--set", "steps=[]", "--out", folder / "out", "--cache", folder / "cache")
    return edgeopt("compile", folder, *common, *options, code=code)


def test_a_run_is_tracked_at_once_or_later_and_is_the_same_run(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("alembic", reason="the whole of mlflow is not installed")
    uri = f"sqlite:///{tmp_path}/runs.db"
    printed = compile_(folder, "--track", uri, "--format", "json", code=0)
    record = json.loads(printed.out)
    assert "tracked: run " in printed.err
    assert "tracked: run " in edgeopt("report", folder / "out", "--track", uri, code=0).err

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert run.data.tags["outcome"] == record["outcome"]
    assert run.data.params["seed"] == str(record["recipe"]["values"]["seed"])
    assert run.data.metrics["tiny-onnxruntime.size_mib"] == 0.1
    sent = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert sent == {path.name for path in (folder / "out").iterdir()} - {"samples"}  # which is empty here


def test_no_server_does_not_cost_the_results(folder: Path) -> None:
    out = folder / "out"
    printed = compile_(folder, "--track", NOBODY, code=3)
    assert "SHIP" in printed.out
    assert "edgeopt: http://127.0.0.1:9: the run was not tracked: the server cannot be reached" in printed.err
    assert f"Its results are complete in {out}" in printed.err
    assert f"edgeopt report {out} --track URI" in printed.err
    record = json.loads((out / "run.json").read_text())
    assert (record["outcome"], record["exit_code"]) == ("pass", 0)
    assert {path.name for path in out.iterdir()} >= {"report.html", "report.md", "junit.xml", "tiny-onnxruntime"}
    assert not any("pa55word" in path.read_text(errors="replace") for path in out.rglob("*") if path.is_file())
    edgeopt("report", out, code=0)
    assert "the run was not tracked" in edgeopt("report", out, "--track", NOBODY, code=3).err


def test_a_gate_that_fails_is_not_hidden_by_a_server_that_does(folder: Path) -> None:
    printed = compile_(folder, *TOO_LARGE, "--track", NOBODY, code=1)
    assert "✗ FAIL" in printed.out
    assert "the run was not tracked" in printed.err


def test_a_uri_that_cannot_work_is_told_before_the_work(folder: Path) -> None:
    printed = compile_(folder, "--track", "dana:pa55word@host", code=2)
    assert printed.err.startswith("edgeopt: --track: this is not the URI of an MLflow server")
    assert not (folder / "out").exists()
    assert "--track: " in compile_(folder, "--track", "", code=2).err


def test_the_log_of_a_bug_has_no_credentials(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_(uri: str) -> None:
        raise RuntimeError(f"cannot parse {uri}")

    monkeypatch.setattr(tracking, "parse", break_)
    monkeypatch.setattr(sys, "argv", ["edgeopt", "compile", "--track", NOBODY])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    edgeopt("compile", folder, "--track", NOBODY, code=3)
    (log,) = tmp_path.glob("edgeopt-bug-*.log")
    assert "edgeopt compile --track http://***@127.0.0.1:9" in log.read_text()
    assert "pa55word" not in log.read_text()
