"""Core ML: what is worked out on the host and, where the tool environment is installed, the real converter."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeopt import tools
from edgeopt.access import Agent, local
from edgeopt.agent.toolchains.coreml import PACKAGE
from edgeopt.artifact import Artifact
from edgeopt.backends import Request
from edgeopt.backends.coreml import Coreml, CoremlOptions
from edgeopt.errors import ConfigError, StageError
from edgeopt.quantizers.coreml import Coreml as Quantizer
from edgeopt.quantizers.coreml import CoremlParams
from edgeopt.target import Target
from tests import onnx_nets

META = {
    "input": {"name": "image", "shape": [8, 8, 3], "dtype": "uint8"},
    "outputs": [{"name": "logits", "shape": [4], "dtype": "float32"}],
    "file": "program.pt2",
}


def target(**more: Any) -> Target:
    return Target(target=1, name="t", runtime=("coreml",), **{"device": {"kind": "npu", "access": "none"}, **more})  # type: ignore[arg-type]


def test_options_come_from_the_target() -> None:
    assert Coreml().options(target(compile={"deployment": "iOS17"})) == CoremlOptions(deployment="iOS17")
    with pytest.raises(ConfigError, match="deployment"):
        Coreml().options(target(compile={"deployment": "iOS3"}))


def test_a_device_that_is_said_to_be_reached_is_refused() -> None:
    with pytest.raises(ConfigError, match="access: none"):
        Coreml().options(target(device={"kind": "npu", "access": {"ssh": "mac"}}))


def test_a_missing_environment_is_told_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEOPT_TOOLS", str(tmp_path))
    found = Coreml().probe()
    assert (found.installed, found.missing) == (False, ("coremltools",))
    assert found.fix == "edgeopt tools install coreml"


def test_weights_only_is_said(tmp_path: Path) -> None:
    (tmp_path / "program.pt2").write_bytes(b"program")
    out = tmp_path / "out"
    out.mkdir()
    done = Quantizer().quantize(tmp_path / "program.pt2", onnx_nets.samples(4), CoremlParams(), out, seed=0)
    assert (out / "program.pt2").read_bytes() == b"program"
    assert "only the weights" in done.notes[0]


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 16, 3)
        self.head = torch.nn.Linear(16, 4)

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(raw.permute(0, 3, 1, 2) / 255).relu().mean((2, 3)))


class Unknown(torch.nn.Module):
    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(raw[:, :, :, 0]).real


def artifact(folder: Path, network: torch.nn.Module, kind: str, **meta: Any) -> Artifact:
    torch.manual_seed(0)
    program = torch.export.export(network.eval(), (torch.zeros(1, 8, 8, 3),))
    torch.export.save(program, folder / "program.pt2")
    return Artifact(kind, "0" * 64, folder, {}, {**META, **meta})


# What follows runs the converter: `edgeopt tools install coreml`.

needs_toolkit = pytest.mark.skipif(
    tools.status("coreml").state != "installed",
    reason="needs the tool environment: edgeopt tools install coreml (0.9 GiB)",
)


@pytest.fixture
def host() -> Iterator[Callable[[str], Agent]]:
    with local.start(python=str(tools.python("coreml"))) as agent:
        yield lambda environment: agent


def request_of(host: Callable[[str], Agent], options: CoremlOptions | None = None) -> Request:
    return Request(1, 1, options or CoremlOptions(), 0, onnx_nets.no_agent, host)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@needs_toolkit
@pytest.mark.hardware
def test_it_converts_to_equal_bytes_and_says_what_is_unverified(tmp_path: Path, host: Callable[[str], Agent]) -> None:
    source = artifact(tmp_path, Net(), "torch-program")
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        compiled = Coreml().compile(source, request_of(host), tmp_path / name)
        made.append(contents(tmp_path / name))
    assert made[0] == made[1]
    assert {name.partition("/")[0] for name in made[0]} == {PACKAGE}
    manifest = json.loads(made[0][f"{PACKAGE}/Manifest.json"])
    assert manifest["rootModelIdentifier"] in manifest["itemInfoEntries"]
    assert all(str(tmp_path).encode() not in content for content in made[0].values())
    assert "unverified" in compiled.notes[0]
    assert compiled.stand_in is None
    assert compiled.layers is None
    assert compiled.facts["operations"]["conv"] == 1
    assert compiled.facts["compressed"] == 0
    model = made[0][f"{PACKAGE}/Data/com.apple.CoreML/model.mlmodel"]
    assert b"image" in model
    assert b"logits" in model


@needs_toolkit
@pytest.mark.hardware
@pytest.mark.parametrize("weights", ["int8", "palettized"])
def test_weights_become_small(tmp_path: Path, host: Callable[[str], Agent], weights: str) -> None:
    sizes = []
    for kind in ("torch-program", "torch-program-int8"):
        out = tmp_path / kind
        out.mkdir()
        source = artifact(tmp_path, Net(), kind, options={"weights": weights})
        compiled = Coreml().compile(source, request_of(host), out)
        sizes.append(len(contents(out)[f"{PACKAGE}/Data/com.apple.CoreML/weights/weight.bin"]))
    assert compiled.facts["compressed"] == 2
    assert any(weights in note for note in compiled.notes)
    assert sizes[1] < sizes[0] / 1.2


@needs_toolkit
@pytest.mark.hardware
def test_an_operator_that_core_ml_does_not_have_is_named(tmp_path: Path, host: Callable[[str], Agent]) -> None:
    source = artifact(tmp_path, Unknown(), "torch-program")
    with pytest.raises(StageError, match="eig") as caught:
        Coreml().compile(source, request_of(host), tmp_path)
    assert "Traceback" not in str(caught.value)
