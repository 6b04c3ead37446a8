"""A whole recipe for a device that is reached over ssh: a real sshd on loopback."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeopt import record
from tests import tiny
from tests.pipeline.test_compile import compile_
from tests.sshd import HOST, Sshd


def test_a_recipe_for_a_device_behind_ssh(tmp_path: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEOPT_SSH_CONFIG", str(sshd.config))
    folder = tiny.write(tmp_path / "recipe; touch pwned")
    recipe = folder / "recipe.yaml"
    recipe.write_text(re.sub(r"  - (prune|distill):.*\n", "", recipe.read_text()))
    target = folder / "targets" / "tiny-openvino.yaml"  # a model of two files
    target.write_text(
        f"{target.read_text()}device: {{access: {{ssh: {HOST}, python: {sshd.python}, folder: {sshd.work}}}}}\n"
    )
    code, output = compile_(folder, "--target", "tiny-openvino")
    assert code in (0, 4), output
    found = record.load(folder / "out").targets["tiny-openvino"]
    assert found.candidates
    for candidate in found.candidates:
        assert candidate.measurement("latency_p50_ms").value > 0
        assert candidate.measurement("top1").value > 0.9
    assert "openvino" in found.machine["runtimes"]
    assert not list(sshd.work.iterdir())

    sshd.trust("other_key")
    code, output = compile_(folder, "--target", "tiny-openvino")
    assert code == 3
    assert "the host key of the device is not the one that is known" in output
    assert "Traceback" not in output
