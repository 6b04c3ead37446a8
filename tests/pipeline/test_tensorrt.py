"""``edgeopt compile`` for a device with TensorRT, whose ``trtexec`` is synthetic: from the recipe to the record."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeopt import record
from edgeopt.cli import app
from tests import fakes, tiny

TARGET = """\
target: 1
name: board
runtime: tensorrt
device: {kind: gpu, arch: sm_87, power_mode: 15W, access: local}
precision: [int8]
measure: {percentile: 90, min_seconds: 0.1, min_runs: 60, max_seconds: 0.1, batch: 100}
gates: {fallback_macs: {max: 0.0}}
"""


def compile_(folder: Path) -> tuple[int, str]:
    arguments = ["compile", str(folder), "--out", str(folder / "out"), "--cache", str(folder / "cache")]
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tiny.write(tmp_path / "recipe")
    (made / "targets" / "board.yaml").write_text(TARGET)
    recipe = (made / "recipe.yaml").read_text()
    steps, targets = recipe.index("  - prune"), recipe.index("targets:")
    (made / "recipe.yaml").write_text(
        recipe[:steps] + recipe[recipe.index("  - quantize") : targets] + "targets: [board]\n"
    )
    fakes.install_trtexec(tmp_path / "bin", (10, 3, 0))
    fakes.install_jetson(tmp_path / "bin", "RAM 1/2MB GR3D_FREQ 9%@[612] VDD_IN 5000mW/1mW", gpu_mhz=(612, 612))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return made


def test_from_the_recipe_to_the_record(folder: Path, tmp_path: Path) -> None:
    code, output = compile_(folder)
    assert code in (0, 4), output
    board = record.load(folder / "out").targets["board"]
    assert [candidate.id for candidate in board.candidates] == ["tensorrt-float", "tensorrt-int8"]
    int8 = board.candidate("tensorrt-int8")
    assert int8.artifact.kind == "trt-engine"
    found = {m.metric: m for m in int8.measurements}
    assert found["top1"].value == 1.0
    assert found["latency_p50_ms"].value == pytest.approx(1.5, rel=0.05)
    assert found["fallback_macs"].value == 0.0
    assert found["weights_mib"].value == 0.125
    for unknown in ("load_ms", "first_inference_ms", "peak_memory_mib"):
        assert found[unknown].value is None, unknown
    assert "names no power rails" in found["energy_mj"].why
    assert board.protocol is not None
    assert board.protocol["power_mode"] == "15W"
    assert board.protocol["cuda_graph"] is True
    assert list(board.protocol["conditions"]) == ["clocks locked", "spin wait", "weakly typed"]
    assert board.protocol["runtimes"] == ["tensorrt 10.3.0 (trtexec)"]

    (folder / "targets" / "board.yaml").write_text(TARGET.replace("15W", "MAXN"))
    code, output = compile_(folder)
    assert code == 3
    assert "the target says that the device's power mode is MAXN, the device says 15W" in output
