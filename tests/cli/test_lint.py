"""``edgeopt lint``: findings, mended copies and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner, Result

from edgeopt.cli import app
from edgeopt.qdq import lint, refused
from tests.unit.qdq import patterns


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["lint", *map(str, arguments)])


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    file = tmp_path / "bad.onnx"
    onnx.save(patterns.REFUSED["int32 bias, one scale"][1](), file)
    return file


def test_a_refused_file_is_1_and_says_where_why_and_what_to_do(bad: Path) -> None:
    done = run(bad)
    assert done.exit_code == 1
    first, fix, last = done.stdout.splitlines()
    assert first.startswith("error int32-bias: DequantizeLinear 'net.dequantizelinear")
    assert "of module 'net.conv" in first
    assert "QuantizeBias" in fix
    assert fix.endswith("--fix mends it")
    assert last == f"{bad}: 1 place that TensorRT refuses; warnings: 0"


def test_an_accepted_file_is_0_also_with_warnings(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    onnx.save(patterns.conv(), file)
    assert run(file).exit_code == 0
    onnx.save(patterns.ACCEPTED["uint8, zero point 0"](), file)
    done = run(file)
    assert done.exit_code == 0
    assert done.stdout.startswith("warning uint8-activations: ")


def test_fix_writes_a_mended_copy_and_leaves_the_model(bad: Path, tmp_path: Path) -> None:
    before, out = bad.read_bytes(), tmp_path / "mended.onnx"
    done = run(bad, "--fix", out)
    assert done.exit_code == 0, done.output
    assert bad.read_bytes() == before
    assert refused(lint(onnx.load(out))) == ()
    assert "is stored as float32" in done.stdout
    assert "changes the numbers" not in done.stdout


def test_what_cannot_be_mended_is_1(tmp_path: Path) -> None:
    file, out = tmp_path / "bad.onnx", tmp_path / "mended.onnx"
    onnx.save(patterns.REFUSED["QLinearConv"][1](), file)
    done = run(file, "--fix", out)
    assert done.exit_code == 1
    assert "left operator-format: QLinearConv" in done.stdout


def test_json(bad: Path, tmp_path: Path) -> None:
    done = run(bad, "--fix", tmp_path / "mended.onnx", "--format", "json")
    data = json.loads(done.stdout)
    assert (data["accepted"], data["left"]) == (True, [])
    assert [finding["rule"] for finding in data["findings"]] == ["int32-bias"]
    assert [(change["rule"], change["exact"]) for change in data["changes"]] == [("int32-bias", True)]


@pytest.mark.parametrize(
    ("out", "says"), [("bad.onnx", "would replace the model"), ("nowhere/mended.onnx", "there is no folder")]
)
def test_a_copy_that_cannot_be_written(bad: Path, tmp_path: Path, out: str, says: str) -> None:
    done = run(bad, "--fix", tmp_path / out)
    assert done.exit_code == 2
    assert says in done.stderr


def test_no_model(tmp_path: Path) -> None:
    assert "cannot be read" in run(tmp_path / "none.onnx").stderr
    (tmp_path / "text.onnx").write_text("hello")
    done = run(tmp_path / "text.onnx")
    assert done.exit_code == 2
    assert "no ONNX file" in done.stderr
    assert "Traceback" not in done.output
