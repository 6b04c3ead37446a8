"""``edgeopt bench`` with real runtimes: what it prints, what it saves, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from edgeopt.cli import app
from tests.onnx_chains import chain


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short and a long chain, and a target that is soon done."""
    made = tmp_path_factory.mktemp("bench")
    chain(made / "short.onnx", 2)
    chain(made / "long.onnx", 40, batch="n")
    _target(made / "quick.yaml")
    return made


def _target(path: Path, **measure: Any) -> Path:
    spec = {"percentile": 50, "min_seconds": 0.2, "max_seconds": 0.2, "min_runs": 20, **measure}
    path.write_text(yaml.safe_dump({"target": 1, "name": "quick", "runtime": "onnxruntime", "measure": spec}))
    return path


@pytest.fixture(autouse=True)
def cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEOPT_CACHE", str(folder / "cache"))


def run(folder: Path, *arguments: object, code: int | None = 0) -> str:
    target = () if "--target" in arguments else ("--target", folder / "quick.yaml")
    result = CliRunner().invoke(app, ["bench", *(str(argument) for argument in (*arguments, *target))])
    assert code is None or result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def saved(folder: Path) -> Path:
    """A saved benchmark of both."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEOPT_CACHE", str(folder / "cache"))
        text = run(folder, folder / "long.onnx", folder / "short.onnx", "--save", folder / "saved")
    assert "short.onnx is faster than long.onnx" in text
    assert "short.onnx is the fastest" in text
    assert "Their outputs are equal, bit for bit." in text
    for word in ("p50", "load", "first inference", "the runtime's call", "peak memory", "size in a zip"):
        assert word in text
    return folder / "saved"


def test_what_is_saved(saved: Path) -> None:
    record = json.loads((saved / "bench.json").read_text())
    assert record["schema"] == 1
    (comparison,) = record["comparisons"]
    assert comparison["outcome"] == "faster"
    assert comparison["ratio"]["interval"][1] < 1
    assert comparison["outputs"]["max_difference"] == 0
    assert {m["protocol"] for f in record["files"] for m in f["measurements"] if m["protocol"]} == {
        record["protocol"]["digest"]
    }
    energy = [m for f in record["files"] for m in f["measurements"] if m["metric"] == "energy_mj"]
    assert all(m["value"] is not None or m["why"] for m in energy)
    rounds = sum(record["protocol"]["sessions"])
    assert [np.load(saved / "samples" / f"{i}.npy").shape for i in (0, 1)] == [(rounds,), (rounds,)]


def test_against_a_saved_benchmark(folder: Path, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "earlier")
    chain(tmp_path / "long.onnx", 1, batch="n")  # it got forty times shorter
    earlier = json.loads((saved / "bench.json").read_text())
    (tmp_path / "earlier" / "bench.json").write_text(json.dumps({**earlier, "disturbed": []}))
    printed = run(folder, tmp_path / "long.onnx", "--against", tmp_path / "earlier", "--format", "json", code=None)
    record = json.loads(printed)
    (comparison,) = record["comparisons"]
    assert comparison["stored"]
    assert comparison["ratio"]["interval"][1] < 0.95
    assert comparison["outcome"] == ("undecided" if record["disturbed"] else "faster")
    assert ("disturbed now" in comparison["why"]) == bool(record["disturbed"])
    assert comparison["smallest_effect"] >= 0.05
    assert "not timed together" in comparison["why"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batch": 2}, "batch: 1 and 2|batch: 2 and 1"),
        ({"inputs": "other"}, "inputs"),
        ({"runtimes": ["onnxruntime 0.1"]}, "runtimes"),
    ],
)
def test_protocols_that_differ_are_not_compared(
    folder: Path, saved: Path, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    shutil.copytree(saved, tmp_path / "earlier")
    record = json.loads((tmp_path / "earlier" / "bench.json").read_text())
    record["protocol"] |= change
    (tmp_path / "earlier" / "bench.json").write_text(json.dumps(record))
    text = run(folder, folder / "long.onnx", "--against", tmp_path / "earlier", code=2)
    assert "cannot be compared" in text
    assert any(part in text for part in says.split("|"))


def test_another_machine_is_refused_before_anything_is_timed(folder: Path, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "earlier")
    record = json.loads((tmp_path / "earlier" / "bench.json").read_text())
    record["machine"] |= {"cpu": "another one", "cores": 99, "memory_mib": 1}
    (tmp_path / "earlier" / "bench.json").write_text(json.dumps(record))
    text = " ".join(run(folder, folder / "long.onnx", "--against", tmp_path / "earlier", code=2).split())
    assert "measured on different machines" in text
    assert "cpu: " in text
    assert "cores: " in text
    assert "memory_mib" not in text


def test_nothing_is_decided_against_a_disturbed_benchmark(folder: Path, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "earlier")
    record = json.loads((tmp_path / "earlier" / "bench.json").read_text())
    record["disturbed"] = ["the processor was throttled"]
    (tmp_path / "earlier" / "bench.json").write_text(json.dumps(record))
    chain(tmp_path / "long.onnx", 1, batch="n")
    printed = run(folder, tmp_path / "long.onnx", "--against", tmp_path / "earlier", "--format", "json", code=4)
    (comparison,) = json.loads(printed)["comparisons"]
    assert comparison["outcome"] == "undecided"
    assert "disturbed when the other was stored: the processor was throttled" in comparison["why"]


@pytest.mark.parametrize("damage", ["bench.json", "samples/0.npy", "schema", "lengths", "missing"])
def test_a_reference_that_cannot_be_read(folder: Path, saved: Path, tmp_path: Path, damage: str) -> None:
    earlier = tmp_path / "earlier"
    shutil.copytree(saved, earlier)
    record = json.loads((earlier / "bench.json").read_text())
    if damage == "missing":
        shutil.rmtree(earlier)
    elif damage == "schema":
        (earlier / "bench.json").write_text(json.dumps({**record, "schema": 99, "edgeopt": "9.9"}))
    elif damage == "lengths":
        record["protocol"]["sessions"] = [1, 2, 3]
        (earlier / "bench.json").write_text(json.dumps(record))
    else:
        (earlier / damage).write_bytes(b"{")
    text = run(folder, folder / "long.onnx", "--against", earlier, code=2)
    assert str(earlier) in text
    if damage == "schema":
        assert "9.9" in text


def test_throughput(folder: Path) -> None:
    printed = run(folder, folder / "short.onnx", "--mode", "throughput", "--format", "json")
    record = json.loads(printed)
    assert record["protocol"]["mode"] == "throughput"
    assert record["answer"] == "short.onnx was timed alone"
    assert "throughput_per_s" in {m["metric"] for m in record["files"][0]["measurements"]}


def test_outputs_that_differ_are_shown(folder: Path, tmp_path: Path) -> None:
    chain(tmp_path / "scaled.onnx", 2, scale=2.0)
    text = run(folder, folder / "short.onnx", tmp_path / "scaled.onnx", code=None)
    assert "Their outputs differ by up to" in text


def test_what_gives_nan_is_not_ranked(folder: Path, tmp_path: Path) -> None:
    chain(tmp_path / "nan.onnx", 2, scale=float("nan"))
    text = run(folder, folder / "short.onnx", tmp_path / "nan.onnx", code=4)
    assert "nan.onnx does not work: its outputs hold NaN or infinity; nothing is ranked" in text
    assert "fastest" not in text


def test_all_inputs_are_looked_at(folder: Path, tmp_path: Path) -> None:
    """One that overflows comes late."""
    inputs = np.ones((12, 256), np.float32)
    inputs[10] = 3e38
    np.savez(tmp_path / "inputs.npz", x=inputs)
    chain(tmp_path / "scaled.onnx", 2, scale=2.0)
    given = ("--inputs", tmp_path / "inputs.npz")
    text = run(folder, folder / "short.onnx", tmp_path / "scaled.onnx", *given, code=4)
    assert "scaled.onnx does not work: its outputs hold NaN or infinity; nothing is ranked" in text


def test_what_is_wrong_with_the_files(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    assert "broken.onnx" in run(folder, tmp_path / "broken.onnx", code=3)
    assert "no such file" in run(folder, tmp_path / "absent.onnx", code=2)
    chain(tmp_path / "narrow.onnx", 2, width=8)
    text = run(folder, folder / "short.onnx", tmp_path / "narrow.onnx", code=2)
    assert "does not take the same inputs as short.onnx" in text
    chain(tmp_path / "four.onnx", 2, batch=4)
    assert "set measure.batch of the target to 4" in run(folder, tmp_path / "four.onnx", code=2)


def test_nothing_else_is_overwritten(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    text = run(folder, folder / "short.onnx", "--save", tmp_path, code=2)
    assert "no earlier benchmark" in text
