"""The whole chain to LiteRT, TFLM and Ethos-U on a tiny model, where the converter's environment is installed."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from edgeopt import record, tools
from edgeopt.cli import app
from tests import tiny

pytestmark = pytest.mark.skipif(
    tools.status("litert-torch").state != "installed", reason="the tool environment litert-torch is not installed"
)
MEASURE = "measure: {percentile: 90, min_seconds: 0.1, min_runs: 100, max_seconds: 0.1}"
TARGETS = {
    "tiny-litert": f"runtime: litert\n{MEASURE}",
    "tiny-tflm": "runtime: tflm\ndevice: {kind: mcu, access: none}\naccept: [simulated]\n"
    "gates: {arena_mib: {max: 0.1}}",
    "tiny-npu": "runtime: ethos-u\ndevice: {kind: npu, access: none, arch: ethos-u55-64}\n"
    "accept: [estimated, simulated]\ngates: {fallback_macs: {max: 0.0}, latency_p99_ms: {max: 50}}",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> record.RunRecord:
    folder = tiny.write(tmp_path_factory.mktemp("recipe"))
    for name, rest in TARGETS.items():
        (folder / "targets" / f"{name}.yaml").write_text(f"target: 1\nname: {name}\n{rest}\n")
    text = (folder / "recipe.yaml").read_text()
    head, _, _ = text.partition("targets:\n")
    head = "\n".join(line for line in head.splitlines() if "prune:" not in line and "distill:" not in line)
    (folder / "recipe.yaml").write_text(f"{head}\ntargets: [{', '.join(TARGETS)}]\n")
    arguments = ["compile", str(folder), "--out", str(folder / "out"), "--cache", str(folder / "cache")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code in (0, 4), result.output
    return record.load(folder / "out")


def shipped(run: record.RunRecord, name: str) -> record.CandidateRecord:
    target = run.targets[name]
    return target.candidate(target.shipped)


def value(candidate: record.CandidateRecord, metric: str) -> tuple[float | None, str]:
    found = candidate.measurement(metric)
    assert found is not None, metric
    return found.value, found.method


def test_litert_is_measured_and_its_float_file_is_the_network(run: record.RunRecord) -> None:
    baseline, int8 = run.targets["tiny-litert"].candidates
    assert (baseline.precision, int8.precision) == ("float", "int8")
    assert value(baseline, "latency_p50_ms")[1] == value(int8, "latency_p50_ms")[1] == "measured"
    float_db, int8_db = (value(candidate, "sqnr_db")[0] for candidate in (baseline, int8))
    assert float_db is not None
    assert int8_db is not None
    assert float_db > 100 > int8_db > 20
    assert int8.placement.keys() == {"u8", "i8"}


def test_a_microcontroller_has_an_arena_and_no_latency(run: record.RunRecord) -> None:
    candidate = shipped(run, "tiny-tflm")
    assert candidate.precision == "int8"
    arena, method = value(candidate, "arena_mib")
    assert arena is not None
    assert 0 < arena < 0.1
    assert method == "simulated"
    assert value(candidate, "top1")[1] == "simulated"
    assert value(candidate, "latency_p50_ms")[0] is None


def test_an_npu_has_an_estimated_latency_and_nothing_beside_it(run: record.RunRecord) -> None:
    candidate = shipped(run, "tiny-npu")
    assert candidate.precision == "int8"
    for metric in ("latency_p50_ms", "latency_p99_ms", "sram_mib", "flash_mib"):
        number, method = value(candidate, metric)
        assert number is not None
        assert number > 0
        assert method == "estimated"
    assert value(candidate, "fallback_macs")[0] == 0
    assert value(candidate, "top1")[1] == "simulated"


def test_a_float_baseline_that_no_device_runs_does_not_ship(run: record.RunRecord) -> None:
    for name in ("tiny-tflm", "tiny-npu"):
        (baseline, _) = run.targets[name].candidates
        assert baseline.baseline
        assert baseline.rejected
