"""Trace: the network with its preprocessing in front, as a torch program that takes float32."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgeopt import checkpoint, data
from edgeopt.artifact import Artifact
from edgeopt.errors import StageError
from edgeopt.recipe import Preprocess
from edgeopt.reference import source_digest
from edgeopt.stages.trace import PROGRAM, Trace, TraceParams
from edgeopt.target import Target
from tests import compression

MODEL = """\
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x).mean((2, 3)), x.amax((2, 3))


class Branches(Net):
    def forward(self, x):
        return super().forward(x + 1 if x.sum() > 0 else x)
"""
RAW = {"raw": {"shape": (8, 8, 3), "dtype": "uint8"}, "scale": 255, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
PREPROCESS = Preprocess.model_validate(RAW)


def trained(root: Path, name: str) -> Artifact:
    (root / "net.py").write_text(MODEL)
    out = root / "torch"
    out.mkdir()
    factory = f"net:{name}"
    save_file(checkpoint.build(factory, {}, root).state_dict(), out / "weights.safetensors")
    (out / "checkpoint.json").write_text(json.dumps({"checkpoint": 1, "factory": factory, "args": {}, "plan": {}}))
    meta = {
        "factory": factory,
        "args": {},
        "source_digest": source_digest(factory, root),
        "input": {"name": "image", "shape": [3, 8, 8], "dtype": "float32"},
        "preprocess": PREPROCESS.model_dump(mode="json"),
    }
    return Artifact("torch", "0" * 64, out, {}, meta)


def test_the_program_computes_what_the_network_computes_of_preprocessed_samples(tmp_path: Path) -> None:
    source = trained(tmp_path, "Net")
    ctx = compression.context(tmp_path, root=tmp_path)
    output = Trace().run({"model": source}, TraceParams(batch=2), ctx)
    assert output.kind == "torch-program"
    assert output.meta["input"] == {"name": "image", "shape": [8, 8, 3], "dtype": "uint8"}
    assert [(port["name"], port["shape"]) for port in output.meta["outputs"]] == [("output_0", [4]), ("output_1", [3])]
    samples = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    given = torch.export.load(ctx.out / PROGRAM).module()(torch.from_numpy(samples.astype(np.float32)))
    with torch.no_grad():
        wanted = checkpoint.load(source, tmp_path)(torch.from_numpy(data.to_input(samples, PREPROCESS)))
    for one, other in zip(given, wanted, strict=True):
        torch.testing.assert_close(one.detach(), other, rtol=1e-4, atol=1e-5)


def test_the_batch_is_the_target_s() -> None:
    target = Target.model_validate({"target": 1, "name": "t", "runtime": "coreml", "measure": {"batch": 3}})
    assert Trace().bind(TraceParams(), target).batch == 3
    assert Trace().bind(TraceParams(batch=1), target).batch == 1


def test_control_flow_that_depends_on_values_is_refused_at_the_user_s_line(tmp_path: Path) -> None:
    source = trained(tmp_path, "Branches")
    with pytest.raises(StageError, match=r"net\.py:15"):
        Trace().run({"model": source}, TraceParams(batch=1), compression.context(tmp_path, root=tmp_path))
