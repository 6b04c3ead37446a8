"""The whole chain on a tiny model: one cold run, then what a second run, a change and a damaged store do."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgeopt import publish, record
from edgeopt.cli import app
from tests import tiny

CLI = CliRunner()


def compile_(folder: Path, *options: str, out: str = "out") -> tuple[int, str]:
    """Run ``edgeopt compile`` in this process; returns the exit code and stdout + stderr."""
    arguments = ["compile", str(folder), "--out", str(folder / out), "--cache", str(folder / "cache"), *options]
    result = CLI.invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def cold(folder: Path) -> record.RunRecord:
    code, output = compile_(folder)
    assert code in (0, 4), output
    return record.load(folder / "out")


def test_every_point_of_the_ledger_is_there(cold: record.RunRecord) -> None:
    stages = [(entry.stage, entry.target) for entry in cold.ledger]
    for stage in ("trained", "pruned", "distilled", "exported"):
        assert (stage, None) in stages
    for target in ("tiny-openvino", "tiny-onnxruntime"):
        assert ("quantized", target) in stages
        assert ("compiled", target) in stages
    assert all(0.9 < entry.value <= 1 and entry.interval for entry in cold.ledger if entry.stage != "pruned")


def test_each_target_has_float_pruned_and_int8_candidates(cold: record.RunRecord) -> None:
    for target in cold.targets.values():
        assert [(c.precision, c.pruned, c.baseline) for c in target.candidates] == [
            ("float", False, True),
            ("float", True, False),
            ("int8", True, False),
        ]
        assert sum(candidate.rejected == "" for candidate in target.candidates) == 1
        assert target.candidate(target.shipped).rejected == ""


def test_what_ships_does_no_harm(cold: record.RunRecord) -> None:
    for target in cold.targets.values():
        shipped = target.candidate(target.shipped)
        if not shipped.baseline:
            ratio = shipped.measurement("latency_ratio")
            assert ratio is not None
            assert ratio.interval is not None
            assert (ratio.interval[1] or 2) < 1


def test_int8_candidates_run_in_int8(cold: record.RunRecord) -> None:
    """The raw uint8 input and its conversion are 8-bit layers of every candidate; INT8 ones have more."""
    for target in cold.targets.values():
        eight_bit = [
            sum(count for precision, count in candidate.placement.items() if precision.endswith("8"))
            / sum(candidate.placement.values())
            for candidate in target.candidates
        ]
        assert eight_bit[0] < 0.4
        assert eight_bit[1] < 0.4
        assert eight_bit[2] > 0.6


def test_the_folder_is_complete_and_verified(folder: Path, cold: record.RunRecord) -> None:
    out = folder / "out"
    for name in ("run.json", "events.jsonl", "report.md", "report.html", "junit.xml"):
        assert (out / name).stat().st_size > 0
    for name, target in cold.targets.items():
        manifest = publish.read_manifest(out / name)
        assert manifest["candidate"] == target.shipped
    cases = ET.parse(out / "junit.xml").getroot().iter("testcase")
    assert len(list(cases)) == sum(len(target.verdicts) for target in cold.targets.values())
    samples = publish.read_samples(out, cold)
    assert {name: set(found) for name, found in samples.items()} == {
        name: {candidate.id for candidate in target.candidates} for name, target in cold.targets.items()
    }
    assert all(len(values) >= 100 and (values > 0).all() for found in samples.values() for values in found.values())
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert events[0]["event"] == "run_started"
    assert events[-1]["event"] == "run_finished"


def test_no_shipped_file_holds_a_path_of_this_machine(folder: Path, cold: record.RunRecord) -> None:
    secrets = (str(folder).encode(), str(Path(__file__).parents[2]).encode(), str(Path.home()).encode() + b"/")
    for name in cold.targets:
        for file in (folder / "out" / name).iterdir():
            if file.suffix in (".onnx", ".xml", ".bin"):
                content = file.read_bytes()
                assert not [secret for secret in secrets if secret in content], file


def test_the_shipped_artefact_agrees_with_its_ledger(folder: Path, cold: record.RunRecord) -> None:
    """Open the shipped file with the runtime alone, as the user's device would, and count the hits."""
    import onnxruntime

    scope: dict[str, object] = {}
    exec(tiny.DATA, scope)
    samples, labels = scope["evaluate"]()  # type: ignore[operator]
    session = onnxruntime.InferenceSession(folder / "out" / "tiny-onnxruntime" / "model.onnx")
    name = session.get_inputs()[0].name
    outputs = np.concatenate([session.run(None, {name: samples[i : i + 1]})[0] for i in range(len(samples))])
    target = cold.targets["tiny-onnxruntime"]
    recorded = target.candidate(target.shipped).measurement("top1")
    assert recorded is not None
    assert (outputs.argmax(1) == labels).mean() == pytest.approx(recorded.value, abs=1e-9)


def test_a_second_run_reuses_everything_but_the_latency(folder: Path, cold: record.RunRecord) -> None:
    code, output = compile_(folder, "--explain", out="again")
    again = record.load(folder / "again")
    assert code in (0, 4), output
    assert all(stage.cached for stage in again.stages)
    assert "reused: nothing that it depends on has changed" in output
    assert [s.output for s in again.stages] == [s.output for s in cold.stages]
    runs = {"out": cold, "again": again}
    first, second = (publish.read_samples(folder / out, run)["tiny-openvino"] for out, run in runs.items())
    assert not np.array_equal(first["openvino-float"][:50], second["openvino-float"][:50])


@pytest.mark.parametrize(
    ("change", "first_changed", "kept"),
    [
        (["--set", "steps.quantize.scheme=int8", "--set", "seed=8"], "load", []),
        (["--set", "steps.distill.epochs=1"], "distill", ["load", "prune", "export:trained"]),
        (["--set", "gates.top1.min=0.5"], None, ["load", "prune", "distill", "export", "quantize:openvino"]),
    ],
)
def test_an_override_runs_again_exactly_what_depends_on_it(
    folder: Path, cold: record.RunRecord, change: list[str], first_changed: str | None, kept: list[str]
) -> None:
    code, output = compile_(folder, "--target", "tiny-onnxruntime", *change, out="changed")
    assert code in (0, 4), output
    stages = {stage.id: stage for stage in record.load(folder / "changed").stages}
    assert all(stages[name].cached for name in kept if name in stages)
    if first_changed:
        assert not stages[first_changed].cached
    else:
        assert all(stage.cached for stage in stages.values())


def test_other_calibration_data_quantize_again_and_nothing_before(folder: Path, cold: record.RunRecord) -> None:
    text = (folder / "data.py").read_text()
    (folder / "data.py").write_text(text.replace("_split(2, 64)", "_split(5, 64)"))
    try:
        code, output = compile_(folder, "--target", "tiny-onnxruntime", out="calibrated")
    finally:
        (folder / "data.py").write_text(text)
    assert code in (0, 4), output
    stages = record.load(folder / "calibrated").stages
    first = next(stage for stage in stages if not stage.cached)
    assert first.id == "quantize:onnxruntime"
    assert first.why.startswith("data.calibrate: ")
    assert all("int8" in stage.id or "quantize" in stage.id for stage in stages if not stage.cached)


def test_a_damaged_object_is_made_again(folder: Path, cold: record.RunRecord) -> None:
    export = next(stage for stage in cold.stages if stage.id == "export")
    file = folder / "cache" / "objects" / export.output[:2] / export.output / "model.onnx"
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    code, output = compile_(folder, out="mended")
    assert code in (0, 4), output
    stages = {stage.id: stage for stage in record.load(folder / "mended").stages}
    assert not stages["export"].cached
    assert "missing or damaged" in stages["export"].why
    assert stages["export"].output == export.output
    assert stages["quantize:openvino"].cached


def test_an_unreachable_threshold_exits_1_and_writes_every_report(folder: Path, cold: record.RunRecord) -> None:
    code, output = compile_(folder, "--set", "targets.tiny-onnxruntime.gates.size_mib.max=0.0001", out="failing")
    assert code == 1, output
    assert {"run.json", "report.md", "report.html", "junit.xml"} <= {p.name for p in (folder / "failing").iterdir()}
    verdicts = record.load(folder / "failing").targets["tiny-onnxruntime"].verdicts
    assert [v.outcome for v in verdicts if v.gate == "size_mib max"] == ["fail"]


def test_two_runtimes_compete(folder: Path, cold: record.RunRecord) -> None:
    code, output = compile_(folder, "--set", "targets=[tiny]", out="both")
    assert code in (0, 4), output
    run = record.load(folder / "both")
    target = run.targets["tiny"]
    assert {candidate.runtime for candidate in target.candidates} == {"openvino", "onnxruntime"}
    assert sum(candidate.baseline for candidate in target.candidates) == 2
    assert [stage.id for stage in run.stages if not stage.cached] == []


def test_report_renders_again_from_the_record(folder: Path, cold: record.RunRecord) -> None:
    before = (folder / "out" / "report.html").read_text()
    (folder / "out" / "report.html").unlink()
    result = CLI.invoke(app, ["report", str(folder / "out")])
    assert result.exit_code == 0, result.output
    assert (folder / "out" / "report.html").read_text() == before


def test_inspect_shows_the_layers(folder: Path, cold: record.RunRecord) -> None:
    result = CLI.invoke(app, ["inspect", str(folder / "out" / "tiny-openvino"), "--format", "json"])
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert shown["layers"]
    assert shown["kind"] == "openvino-model"
