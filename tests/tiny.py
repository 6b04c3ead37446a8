"""A tiny recipe, written into a folder: four classes, told apart by which quadrant of an 8×8 image is bright.

The network trains in a second, and the whole chain runs in well under a minute.
"""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

MODEL = """\
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width),
        )

    def forward(self, x):
        return torch.relu(x + self.body(x))


class Net(nn.Module):
    def __init__(self, width=16, classes=4):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.block = Block(width)
        down = nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False)
        self.down = nn.Sequential(down, nn.BatchNorm2d(2 * width), nn.ReLU())
        self.head = nn.Linear(2 * width * 4 * 4, classes)

    def forward(self, x):
        return self.head(torch.flatten(self.down(self.block(self.stem(x))), 1))


def build(width=16, classes=4):
    return Net(width, classes)
"""

DATA = """\
import numpy as np


def _split(seed, count):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    samples = random.integers(0, 90, (count, 8, 8, 1), dtype=np.uint8)
    for image, label in zip(samples, labels):
        row, column = divmod(int(label), 2)
        image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 120
    return samples, labels.astype(np.int64)


def train():
    return _split(1, 256)


def calibrate():
    return _split(2, 64)


def select():
    return _split(3, 400)


def evaluate():
    return _split(4, 400)
"""

RECIPE = """\
recipe: 1
name: tiny
model:
  factory: model:build
  args: {width: 16}
  weights: weights.safetensors
input: {name: image, shape: [1, 8, 8]}
preprocess:
  raw: {shape: [8, 8, 1], dtype: uint8}
  scale: 255
  mean: [0.5]
  std: [0.5]
data:
  train:     {loader: data:train}
  calibrate: {loader: data:calibrate}
  select:    {loader: data:select}
  evaluate:  {loader: data:evaluate}
metrics: [top1]
seed: 7
steps:
  - prune:    {criterion: l1, macs_ratio: 0.6}
  - distill:  {epochs: 2, temperature: 4.0}
  - quantize: {scheme: int8}
gates:
  top1: {min: 0.9, max_drop: 0.05}
targets:
  - tiny-openvino
  - name: tiny-onnxruntime
    gates: {size_mib: {max: 1.0}}
"""

TARGET = """\
target: 1
name: {name}
runtime: {runtime}
limits: {{channel_multiple: 4}}
measure: {{percentile: 90, min_seconds: 0.1, min_runs: 100, max_seconds: 0.1}}
"""


def write(folder: Path) -> Path:
    """Write the recipe, its modules, trained weights and targets into ``folder``; returns ``folder``."""
    shutil.copytree(_template(), folder, dirs_exist_ok=True)
    return folder


@cache
def _template() -> Path:
    import torch
    from safetensors.torch import save_file

    folder = Path(mkdtemp(prefix="edgeopt-tiny-"))
    (folder / "model.py").write_text(MODEL)
    (folder / "data.py").write_text(DATA)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "targets").mkdir()
    for name, runtime in (
        ("tiny-openvino", "openvino"),
        ("tiny-onnxruntime", "onnxruntime"),
        ("tiny", "[openvino, onnxruntime]"),
    ):
        (folder / "targets" / f"{name}.yaml").write_text(TARGET.format(name=name, runtime=runtime))
    scope: dict[str, object] = {}
    exec(MODEL + DATA, scope)
    torch.manual_seed(0)
    model = scope["build"]()  # type: ignore[operator]
    samples, labels = scope["train"]()  # type: ignore[operator]
    x = (torch.from_numpy(samples).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    y = torch.from_numpy(labels)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    save_file(model.state_dict(), folder / "weights.safetensors")
    return folder
