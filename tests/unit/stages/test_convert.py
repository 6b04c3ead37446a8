"""Conversion to LiteRT: with the real converter where its environment is installed, and with a made-up one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgeopt import checkpoint, data, tools
from edgeopt.access import Agent, local
from edgeopt.agent import tflite_file
from edgeopt.artifact import Artifact
from edgeopt.errors import EdgeoptError, StageError
from edgeopt.recipe import Preprocess
from edgeopt.reference import source_digest
from edgeopt.stage import StageContext, StageOutput
from edgeopt.stages.convert import Convert, ConvertParams
from edgeopt.target import Target
from tests import tflite_nets

MODEL = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1, groups=groups) for groups in (1, 8))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.body:
            x = torch.relu(x + layer(x))
        return self.head(x.mean(dim=(2, 3)))


class Odd(nn.Module):
    def forward(self, x):
        return torch.linalg.svdvals(x)


class Unsupported(Net):
    def __init__(self):
        super().__init__()
        self.neck = nn.Sequential(Odd(), nn.Flatten(), nn.Linear(64, 8))

    def forward(self, x):
        return self.head(self.neck(self.stem(x)))


class Branches(Net):
    def forward(self, x):
        return super().forward(x + 1 if x.sum() > 0 else x)


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 5)

    def forward(self, x):
        return torch.relu(self.layer(x))
"""
IMAGE = {"raw": {"shape": (8, 8, 3), "dtype": "uint8"}, "scale": 255, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
Host = Callable[[str], Any]
Run = Callable[..., tuple[StageOutput, Path]]

installed = pytest.mark.skipif(
    tools.status("litert-torch").state != "installed", reason="the tool environment litert-torch is not installed"
)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Host]:
    """Agents on this machine, one for each environment."""
    with ExitStack() as stack:
        started: dict[str, Agent] = {}

        def host(environment: str) -> Agent:
            if environment not in started:
                python = str(tools.python(environment)) if environment else None
                agent = local.start(python=python, limit_s=600) if python else local.start(limit_s=600)
                started[environment] = stack.enter_context(agent)
            return started[environment]

        yield host


@pytest.fixture
def convert(tmp_path: Path, hosts: Host) -> Run:
    def run(
        name: str,
        shape: tuple[int, ...] = (3, 8, 8),
        preprocess: Mapping[str, Any] | None = IMAGE,
        *,
        host: Host = hosts,
        batch: int = 1,
        **params: Any,
    ) -> tuple[StageOutput, Path]:
        root, out = tmp_path / "recipe", tmp_path / "out"
        root.mkdir(exist_ok=True)
        out.mkdir()
        (root / "net.py").write_text(MODEL)
        artifact = torch_artifact(f"net:{name}", root, tmp_path / "torch", shape, preprocess)
        context = StageContext(out, root, 0, {}, lambda *_: None, no_agent, host)
        return Convert().run({"model": artifact}, ConvertParams(batch=batch, **params), context), out / "model.tflite"

    return run


def no_agent() -> Agent:
    raise AssertionError("nothing here runs on a device")


def torch_artifact(
    factory: str, root: Path, out: Path, shape: tuple[int, ...], preprocess: Mapping[str, Any] | None
) -> Artifact:
    out.mkdir()
    model = checkpoint.build(factory, {}, root)
    save_file(model.state_dict(), out / "weights.safetensors")
    described = {"checkpoint": 1, "factory": factory, "args": {}, "plan": {}}
    (out / "checkpoint.json").write_text(json.dumps(described))
    folded = None if preprocess is None else Preprocess.model_validate(dict(preprocess)).model_dump(mode="json")
    meta = {
        "factory": factory,
        "args": {},
        "source_digest": source_digest(factory, root),
        "input": {"name": "image", "shape": list(shape), "dtype": "float32"},
        "preprocess": folded,
    }
    return Artifact("torch", "", out, {}, meta)


def by_torch(
    tmp_path: Path, name: str, samples: np.ndarray, preprocess: Mapping[str, Any] | None = IMAGE
) -> np.ndarray:
    network = checkpoint.build(f"net:{name}", {}, tmp_path / "recipe")
    folded = None if preprocess is None else Preprocess.model_validate(dict(preprocess))
    with torch.no_grad():
        return network(torch.from_numpy(data.to_input(samples, folded))).numpy()


@installed
def test_it_computes_what_the_network_computes_of_raw_samples(convert: Run, tmp_path: Path) -> None:
    output, file = convert("Net")
    samples = tflite_nets.samples(5)
    given = tflite_nets.run(file.read_bytes(), samples)
    wanted = by_torch(tmp_path, "Net", samples)
    np.testing.assert_allclose(given, wanted, atol=1e-4 * np.abs(wanted).max())
    assert output.kind == "tflite"
    assert output.meta["max_abs_difference"] <= 1e-4 * np.abs(wanted).max()
    assert output.meta["input"] == {"name": "image", "shape": [8, 8, 3], "dtype": "uint8"}
    assert output.meta["outputs"] == [{"name": "output", "node": "head/Gemm", "shape": [4], "dtype": "float32"}]


@installed
def test_operators_are_called_after_the_modules_and_nothing_tells_of_the_converter(convert: Run) -> None:
    file = convert("Net")[1].read_bytes()
    graph = tflite_file.read(file)
    assert [operator.name for operator in graph.operators] == [
        "preprocess/Cast",
        "preprocess/Mul",
        "preprocess/Add",
        "stem.0/Conv+stem.2/Relu",
        "body.0/Conv",
        "model/Add+model/Relu",
        "body.1/Conv",
        "model/Add#2+model/Relu#2",
        "model/ReduceMean",
        "output",
    ]
    assert (graph.inputs[0].name, graph.inputs[0].shape) == ("image", (1, 8, 8, 3))
    assert b"module:" not in file
    assert "TRANSPOSE" not in {operator.op for operator in graph.operators}


@installed
def test_float_samples_and_a_batch(convert: Run, tmp_path: Path) -> None:
    _, file = convert("Dense", (12,), None, batch=3)
    samples = np.random.default_rng(0).standard_normal((6, 12)).astype(np.float32)
    given = tflite_nets.run(file.read_bytes(), samples)
    np.testing.assert_allclose(given, by_torch(tmp_path, "Dense", samples, None), atol=1e-5)
    assert tflite_file.read(file.read_bytes()).inputs[0].shape == (3, 12)


@installed
def test_operators_that_litert_lacks_are_listed_with_their_modules(convert: Run) -> None:
    with pytest.raises(EdgeoptError, match=r"LiteRT has no aten\._linalg_svd\.default \(in neck\.0\)"):
        convert("Unsupported")


def test_a_network_that_cannot_be_traced_is_told_by_the_line(convert: Run) -> None:
    with pytest.raises(StageError, match="control flow depends on the values") as caught:
        convert("Branches", host=lambda environment: no_agent())
    assert "net.py" in caught.value.where


def converter(file: bytes, hosts: Host) -> Host:
    """A host whose converter always gives the same file."""
    built = SimpleNamespace(files={"model.tflite": file}, facts={"versions": {"litert-torch": "0"}})
    agent = SimpleNamespace(build=lambda *arguments, **options: built)
    return lambda environment: agent if environment else hosts(environment)


def test_a_file_that_computes_something_else_is_refused_and_the_layer_is_named(convert: Run, hosts: Host) -> None:
    weight, bias = np.ones((12, 5), np.float32), np.zeros(5, np.float32)
    net = tflite_nets.Net()
    given = net.tensor("x", (1, 12))
    parameters = [net.constant("w", np.ascontiguousarray(weight.T)), net.constant("b", bias)]
    options = tflite_nets.schema.FullyConnectedOptionsT()
    x = net.add(
        tflite_nets.OP.FULLY_CONNECTED, [given, *parameters], net.tensor("module:network.layer;1", (1, 5)), options
    )
    file = net.file(given, net.add(tflite_nets.OP.RELU, [x], net.tensor("module:network;2", (1, 5))))
    with pytest.raises(StageError, match="the converted file differs from the network by") as caught:
        convert("Dense", (12,), None, host=converter(file, hosts))
    assert caught.value.where == "layer"


def test_a_file_with_other_outputs_is_refused(convert: Run, hosts: Host) -> None:
    net = tflite_nets.Net()
    given = net.tensor("x", (1, 12))
    file = net.file(given, net.add(tflite_nets.OP.RELU, [given], net.tensor("y", (1, 12))))
    with pytest.raises(StageError, match=r"gives outputs \[4, 12\], the network \[4, 5\]"):
        convert("Dense", (12,), None, host=converter(file, hosts))


def test_the_batch_is_that_of_the_measuring_protocol() -> None:
    target = Target.model_validate({"target": 1, "name": "t", "runtime": "litert", "measure": {"batch": 4}})
    assert Convert().bind(ConvertParams(), target).batch == 4
    assert Convert().bind(ConvertParams(batch=2), target).batch == 2
