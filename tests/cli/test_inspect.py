"""``edgeopt inspect``: where the layers of an artefact run, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeopt import placement
from edgeopt.artifact import Store
from edgeopt.cli import app

LAYERS = [
    {"name": "c0", "op": "CONV_2D", "source": ["stem/Conv"], "precision": "i8", "device": "NPU", "exec": "mac"},
    {"name": "c1", "op": "CONV_2D", "source": ["body/Conv"], "precision": "f32", "device": "CPU", "exec": "ref",
     "why": "a window of 9x9 is too large"},
]  # fmt: skip


@pytest.fixture
def inspect(tmp_path: Path):
    """Runs the command on a compiled artefact."""
    store = Store(tmp_path / "cache")
    placed = placement.of(LAYERS, {"stem/Conv": 300, "body/Conv": 100}, "NPU", asked="int8")
    with store.scratch() as out:
        (out / "layer_map.json").write_text(json.dumps(LAYERS), encoding="utf-8")
        artifact = store.put("vela-tflite", out, {"batch": 1, "placed": placed.to_json()})

    def run(*arguments: str) -> str:
        command = ["inspect", artifact.digest, "--cache", str(tmp_path / "cache"), *arguments]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


def test_every_layer_with_its_processor_and_reason(inspect):
    layers = [line.split() for line in inspect().splitlines() if line.startswith("layer:")]
    assert layers[0] == ["layer:", "CONV_2D", "NPU", "i8", "mac", "c0", "<-", "stem/Conv"]
    assert layers[1][1:7] == ["CONV_2D", "CPU", "f32", "ref", "c1", "<-"]
    assert " ".join(layers[1][7:]) == "body/Conv (a window of 9x9 is too large)"


def test_shares_by_processor_and_every_fallback(inspect):
    text = inspect()
    shares = [line.split() for line in text.splitlines() if line.startswith("MACs:")]
    assert shares == [["MACs:", "CPU", "f32", "100", "25.0", "%"], ["MACs:", "NPU", "i8", "300", "75.0", "%"]]
    assert "fallback_macs: 0.25\n" in text
    assert "note: CONV_2D c1 runs on CPU, not NPU, 25 % of the MACs: a window of 9x9 is too large" in text
    assert "note: in float although INT8 was asked for: CONV_2D c1" in text


def test_json_holds_all_of_it(inspect):
    found = json.loads(inspect("--format", "json"))
    assert found["layers"] == LAYERS
    assert found["meta"]["placed"]["fallbacks"][0]["why"] == "a window of 9x9 is too large"
