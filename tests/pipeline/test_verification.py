"""An embedder from recipe to record: INT8 that is as good as before, and lets more impostors in, must not ship."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from edgeopt import record
from edgeopt.cli import app

MODEL = """\
from torch import nn


def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 256, bias=False), nn.ReLU(), nn.Linear(256, 256, bias=False))
"""
#: The calibration samples are nearly blank: the range of the activations is far too small, and INT8 cuts them off. What
#: is left says little more than which ones are there, so that all people look more alike, in nearly the same order.
DATA = """\
import numpy as np


def _split(seed, people, each):
    random = np.random.default_rng(seed)
    faces = np.repeat(random.standard_normal((people, 8, 8, 1)), each, axis=0)
    samples = 128 + 30 * (faces + 0.8 * random.standard_normal(faces.shape))
    identity = np.repeat([f"{seed}-{number}" for number in range(people)], each)
    return np.clip(samples, 0, 255).astype(np.uint8), None, {"identity": identity}


def train():
    return _split(1, 20, 4)


def calibrate():
    samples, _, columns = _split(2, 32, 4)
    samples[:] = 128
    samples.reshape(-1)[np.arange(128) * 64 + np.arange(128) // 2] = np.tile([68, 188], 64)  # one pixel of each
    return samples, None, columns


def select():
    return _split(3, 60, 5)


def evaluate():
    return _split(4, 60, 5)
"""
RECIPE = """\
recipe: 1
name: people
model: {factory: model:build, weights: weights.safetensors}
input: {name: image, shape: [1, 8, 8]}
preprocess:
  raw: {shape: [8, 8, 1], dtype: uint8}
  scale: 255
  mean: [0.5]
  std: [0.12]
data:
  train:     {loader: data:train}
  calibrate: {loader: data:calibrate}
  select:    {loader: data:select}
  evaluate:  {loader: data:evaluate}
metrics: [eer, {tar: {far: 0.01}}, embedding_cosine, rank_agreement, neighbour_flips]
steps:
  - quantize: {scheme: int8}
gates:
  eer: {max_drop: 0.03}
  far@float=0.01: {max_drop: 0.003}
targets: [tiny.yaml]
"""
TARGET = """\
target: 1
name: tiny
runtime: onnxruntime
measure: {percentile: 90, min_seconds: 0.1, min_runs: 100, max_seconds: 0.1}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("model.py", MODEL), ("data.py", DATA), ("recipe.yaml", RECIPE), ("tiny.yaml", TARGET)):
        (tmp_path / name).write_text(text)
    random = np.random.default_rng(0)
    first, second = random.standard_normal((256, 64)) / 8, np.linalg.qr(random.standard_normal((256, 256)))[0]
    weights = {"1.weight": torch.tensor(first).float(), "3.weight": torch.tensor(second).float()}
    save_file(weights, tmp_path / "weights.safetensors")
    return tmp_path


def compile_(folder: Path) -> tuple[int, str]:
    command = ["compile", str(folder), "--out", str(folder / "out"), "--cache", str(folder / "cache")]
    result = CliRunner().invoke(app, command)
    return result.exit_code, result.output


def test_int8_that_moves_the_scores_does_not_ship(folder: Path) -> None:
    code, output = compile_(folder)
    assert code == 0, output
    run = record.load(folder / "out")
    target = run.targets["tiny"]
    assert target.shipped == "onnxruntime-float"
    rejected = target.candidate("onnxruntime-int8").rejected
    assert "far@float=0.01" in rejected
    assert "eer" not in rejected
    before, after = (
        {m.metric: m for m in target.candidate(name).measurements} for name in ("onnxruntime-float", "onnxruntime-int8")
    )
    assert after["eer drop"].interval[1] < 0.03, "as good as before"
    threshold = "far@float=0.01"
    assert before[threshold].value == pytest.approx(0.01, abs=0.004)
    assert after[threshold].value > 3 * before[threshold].value
    assert after[threshold].interval[0] > before[threshold].interval[1]
    assert after["threshold@far=0.01"].interval[0] > before["threshold@far=0.01"].value
    assert after["rank_agreement"].value > 0.7
    assert after["embedding_cosine"].value < 0.99
    assert len(target.candidate("onnxruntime-int8").roc["far"]) > 20
    assert before["neighbour_flips"].value == 0 < after["neighbour_flips"].value
    report = (folder / "out" / "report.md").read_text()
    assert "threshold@far=0.01" in report


def test_without_a_gate_on_what_production_gets_nothing_is_compressed(folder: Path) -> None:
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("  far@float=0.01: {max_drop: 0.003}\n", ""))
    code, output = compile_(folder)
    assert code == 2
    assert "no gate on far@float=eer or far@float=0.01" in output
    assert "at the threshold that production keeps" in output


def test_one_person_in_two_splits_is_no_test(folder: Path) -> None:
    data = folder / "data.py"
    data.write_text(data.read_text().replace('f"{seed}-{number}"', 'f"{number}"'))
    code, output = compile_(folder)
    assert code == 2
    assert "identities leak" in output


def test_a_far_that_the_pairs_cannot_resolve_stops_at_once(folder: Path) -> None:
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("{far: 0.01}", "{far: 0.00001}").replace("=0.01", "=0.00001"))
    code, output = compile_(folder)
    assert code == 2
    assert "needs at least 299,572 impostor pairs" in output
