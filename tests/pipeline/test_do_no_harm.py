"""A planted case on real digits: INT8 that is faster and wrong must not ship."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeopt import record
from edgeopt.agent import machine
from edgeopt.cli import app

DIGITS = Path(__file__).parents[2] / "recipes" / "digits"
#: Full-range int8 weights times uint8 activations: pairs of products overflow 16 bits on a CPU without VNNI.
SATURATING = """\
target: 1
name: saturating
runtime: onnxruntime
quantization: {reduce_range: false}
measure: {percentile: 90, min_seconds: 0.3, min_runs: 100, max_seconds: 0.3}
"""


@pytest.mark.skipif(
    "avx2" not in machine.facts()["flags"] or {"avx512_vnni", "avx_vnni"} & set(machine.facts()["flags"]),
    reason="8-bit products saturate only on an x86 CPU without VNNI",
)
def test_saturating_int8_does_not_ship(tmp_path: Path) -> None:
    (tmp_path / "saturating.yaml").write_text(SATURATING)
    options = ["--set", "steps=[quantize]", "--set", f"targets=[{tmp_path / 'saturating.yaml'}]"]
    result = CliRunner().invoke(
        app, ["compile", str(DIGITS), "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), *options]
    )
    assert result.exit_code == 0, result.output
    run = record.load(tmp_path / "out")
    target = run.targets["saturating"]
    assert target.shipped == "onnxruntime-float"
    assert "accuracy does not hold" in target.candidate("onnxruntime-int8").rejected
    assert "onnxruntime-int8" in target.reason
    quantized, compiled = (
        next(entry.value for entry in run.ledger if (entry.stage, entry.candidate) == point)
        for point in (("quantized", None), ("compiled", "onnxruntime-int8"))
    )
    assert quantized > 0.98, "the file itself is right"
    assert compiled < quantized - 0.01, "the ledger pins the drop on the runtime's kernels"


def test_a_feature_that_the_device_lacks_is_refused(tmp_path: Path) -> None:
    if {"avx512_vnni", "avx_vnni"} & set(machine.facts()["flags"]):
        pytest.skip("this CPU has VNNI")
    claim = SATURATING.replace("quantization: {reduce_range: false}", "device: {features: [vnni]}")
    (tmp_path / "saturating.yaml").write_text(claim)
    options = ["--set", "steps=[]", "--set", f"targets=[{tmp_path / 'saturating.yaml'}]"]
    result = CliRunner().invoke(
        app, ["compile", str(DIGITS), "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), *options]
    )
    assert result.exit_code == 3
    assert "VNNI" in result.output
    assert not (tmp_path / "out").exists()
