"""Waivers from end to end: told by ``check`` when wrong, loud in all reports when used, failing when not needed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeopt import contest
from edgeopt.cli import app
from edgeopt.record import TargetRecord
from tests import tiny
from tests.releases import GATE, candidate, size

WAIVERS = """\
waivers: 1
entries:
  - gate: size_mib max
    target: tiny-onnxruntime
    reason: the flash of the new board is twice as large
    by: A. Person
    until: 2099-12-31
"""
TOO_LARGE = ("--set", "targets.tiny-onnxruntime.gates.size_mib.max=0.0001")


def edgeopt(*arguments: object, code: int) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result.output


def waive(folder: Path, text: str = WAIVERS) -> Path:
    path = folder / "waivers.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "recipe")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("size_mib max", "size_mib min", "waivers.yaml:3:11: target 'tiny-onnxruntime' has no gate 'size_mib min'"),
        (
            "tiny-onnxruntime",
            "tiny-openvin",
            "waivers.yaml:4:13: the recipe has no target 'tiny-openvin' (did you mean",
        ),
        ("2099-12-31", "2099-13-31", "waivers.yaml:7:12: "),
    ],
)
def test_a_mistake_in_the_waivers_is_told_by_check(folder: Path, old: str, new: str, message: str) -> None:
    path = waive(folder, WAIVERS.replace(old, new))
    assert message in edgeopt("check", folder, code=2)
    (folder / "waivers.yaml").rename(folder / "other.yaml")
    assert ": ok:" in edgeopt("check", folder, code=0)
    output = edgeopt("check", folder, "--waivers", folder / "other.yaml", code=2)
    assert message.replace("waivers.yaml", "other.yaml") in output
    assert not path.exists()


def test_mistakes_in_the_recipe_and_in_the_waivers_come_at_once(folder: Path) -> None:
    waive(folder, WAIVERS.replace("size_mib max", "size_mb max"))
    output = edgeopt("check", folder, "--set", "steps.prune.macs_ratio=6", code=2)
    assert "macs_ratio" in output
    assert "has no gate 'size_mb max' (did you mean 'size_mib max'?)" in output


def test_a_waiver_for_a_target_that_is_not_asked_for_is_fine(folder: Path) -> None:
    waive(folder)
    edgeopt("check", folder, "--target", "tiny-openvino", code=0)


def test_a_waivers_file_that_is_not_there(folder: Path) -> None:
    assert "no such file" in edgeopt("check", folder, "--waivers", folder / "none.yaml", code=2)


@pytest.fixture
def _no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first candidate ships with 0.1 MiB, and passes all gates but those on a smaller size."""

    def run(self: contest.Contest) -> tuple[TargetRecord, dict[str, Any]]:
        shipped = candidate(self.plan.candidates[0].id, "d", size(0.1), baseline=True)
        verdicts = [
            replace(GATE, gate=g.name, metric=g.metric, limit=g.limit, value=0.1, interval=None)
            for g in self.plan.gates
        ]
        judged = [replace(v, outcome="fail") if v.metric == "size_mib" and v.limit < 0.1 else v for v in verdicts]
        return TargetRecord(shipped.id, "there is no other", (shipped,), tuple(judged)), {}

    monkeypatch.setattr(contest.Contest, "run", run)


@pytest.mark.usefixtures("_no_measuring")
def test_a_waiver_from_end_to_end(folder: Path) -> None:
    out = folder / "out"

    def compile_(*options: object, code: int) -> str:
        common = ("--target", "tiny-onnxruntime", "--set", "steps=[]", "--out", out, "--cache", folder / "cache")
        return edgeopt("compile", folder, *common, *options, code=code)

    def record() -> dict:
        return json.loads((out / "run.json").read_text())

    assert "✗ FAIL" in compile_(*TOO_LARGE, code=1)
    keys = [stage["key"] for stage in record()["stages"]]

    waive(folder)
    output = compile_(*TOO_LARGE, code=0)
    assert "! WAIVED" in output
    assert "A. Person waived it until 2099-12-31: the flash of the new board is twice as large" in " ".join(
        output.split()
    )
    assert [stage["key"] for stage in record()["stages"]] == keys
    assert all(stage["cached"] for stage in record()["stages"])
    assert [waiver["status"] for waiver in record()["waivers"]] == ["used"]
    for name in ("report.md", "report.html", "junit.xml", "tiny-onnxruntime/manifest.json"):
        text = (out / name).read_text()
        assert "waived" in text.lower(), name
        assert "A. Person" in text, name

    waive(folder, WAIVERS.replace("2099", "2019"))
    output = compile_(*TOO_LARGE, code=1)
    assert "✗ FAIL" in output
    assert "expired" in output
    assert [waiver["status"] for waiver in record()["waivers"]] == ["expired"]

    waive(folder)
    output = compile_(code=1)
    assert "DON'T SHIP" in output
    assert [waiver["status"] for waiver in record()["waivers"]] == ["unused"]
    assert record()["outcome"] == "fail"
