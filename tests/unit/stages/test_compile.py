"""Compile, with a real agent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt import provenance
from edgeopt.access import Agent, local
from edgeopt.errors import MissingBackend, PlanError, StageError
from edgeopt.stage import StageContext, StageOutput
from edgeopt.stages.compile import Compile, CompileParams
from edgeopt.target import MeasureSpec, Target
from tests import onnx_nets

FILES = {
    "onnxruntime": ("ort-model", "model.onnx", {"model.onnx", "layer_map.json"}),
    "openvino": ("openvino-model", "model.xml", {"model.xml", "model.bin", "layer_map.json"}),
}


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with local.start() as started:
        yield started


def run(folder: Path, agent: Agent, params: CompileParams, kind: str = "onnx") -> StageOutput:
    source, out = folder / "float", folder / "out"
    onnx_nets.convolutional(source / "model.onnx")
    out.mkdir()
    context = StageContext(out, folder, 7, {}, lambda *progress: None, lambda: agent, lambda environment: agent)
    return Compile().run({"model": onnx_nets.artifact(source, kind)}, params, context)


def test_batch_and_threads_come_from_the_measuring_protocol() -> None:
    target = Target(target=1, name="t", runtime=("openvino",), measure=MeasureSpec(batch=4, threads=2))
    assert Compile().bind(CompileParams(runtime="openvino"), target) == CompileParams(
        runtime="openvino", batch=4, threads=2
    )
    given = CompileParams(runtime="openvino", batch=1, threads=3)
    assert Compile().bind(given, target) == given


@pytest.mark.parametrize("runtime", FILES)
def test_it_writes_the_runtimes_file_and_a_layer_map(runtime: str, agent: Agent, tmp_path: Path) -> None:
    output = run(tmp_path, agent, CompileParams(runtime=runtime, batch=2, threads=1))
    kind, file, names = FILES[runtime]
    assert output.kind == kind
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert output.meta["runtime"] == runtime
    assert output.meta["file"] == file
    assert output.meta["batch"] == 2
    assert output.meta["input"] == onnx_nets.META["input"]
    layers = json.loads((tmp_path / "out" / "layer_map.json").read_text(encoding="utf-8"))
    assert sum(output.meta["placement"].values()) == len(layers)
    assert output.meta["placement"]["f32"] >= 4
    assert {layer["device"] for layer in layers} == {"CPU"}
    assert output.summary.startswith(f"{len(layers)} layers: ")


@pytest.mark.parametrize("runtime", FILES)
def test_the_model_is_closed_in_the_agent(runtime: str, agent: Agent, tmp_path: Path) -> None:
    """Twice under one name: the second would be refused if the first were still open."""
    for attempt in ("a", "b"):
        run(tmp_path / attempt, agent, CompileParams(runtime=runtime, batch=1, threads=1))


def test_a_failing_agent_does_not_leave_the_model_open(agent: Agent, tmp_path: Path) -> None:
    closed: list[str] = []

    class Failing:
        def open(self, name: str, *args: Any, **kwargs: Any) -> None:
            closed.append(f"open {name}")

        def layers(self, name: str, inputs: list[np.ndarray]) -> Any:
            raise StageError("the device is gone")

        def close(self, name: str) -> None:
            closed.append(f"close {name}")

    with pytest.raises(StageError, match="the device is gone"):
        run(tmp_path, Failing(), CompileParams(runtime="onnxruntime"))  # type: ignore[arg-type]
    assert [event.split()[0] for event in closed] == ["open", "close"]


def test_a_missing_toolkit_is_named_with_the_line_that_installs_it(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "tool_version", lambda name: "" if name == "openvino" else "1")
    with pytest.raises(MissingBackend, match="openvino") as caught:
        run(tmp_path, agent, CompileParams(runtime="openvino"))
    assert caught.value.fix == "pip install 'edgeopt[openvino]'"
    assert list((tmp_path / "out").iterdir()) == []


def test_a_kind_that_the_runtime_does_not_read(agent: Agent, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="onnxruntime does not read openvino-ir"):
        run(tmp_path, agent, CompileParams(runtime="onnxruntime"), kind="openvino-ir")
