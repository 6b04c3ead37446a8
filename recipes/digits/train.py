"""Train the digits network from scratch and write ``weights.safetensors``.

    python recipes/digits/train.py

Takes about four minutes on one core. The same packages on the same kind of machine give the same bytes: one thread,
deterministic kernels and one seed. Only ``train`` is learned from; the best epoch is chosen on ``select``; ``evaluate``
is looked at once, at the end, to print a number.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # do not spin on a core that others share; read when torch starts

import data
import torch
from model import digits_resnet
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

SEED = 7
EPOCHS = 40
BATCH = 50
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.05
LABEL_SMOOTHING = 0.05

# Augmentation: the largest change of each kind, drawn evenly for every image and epoch.
ROTATION_RAD = 0.2
SHEAR = 0.15
SCALE = 0.12
SHIFT_PIXELS = 3.0


def main() -> None:
    """Train, report and write the weights."""
    parser = argparse.ArgumentParser(description="Train the digits network and write its weights.")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="passes over the training images (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("weights.safetensors"), help="output file")
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    model = digits_resnet()
    best = train(model, epochs=options.epochs)
    model.load_state_dict(best)
    save_file(best, options.out)
    say(f"select   top-1 {accuracy(model, *tensors(data.select())):.4f}")
    say(f"evaluate top-1 {accuracy(model, *tensors(data.evaluate())):.4f}")
    say(f"wrote {options.out} ({options.out.stat().st_size / 2**20:.2f} MiB)")


def train(model: nn.Module, *, epochs: int) -> dict[str, Tensor]:
    """The state of the epoch with the best accuracy on ``select``; among equals, the one with the lowest loss there."""
    images, labels = tensors(data.train())
    select = tensors(data.select())
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps_per_epoch = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=epochs * steps_per_epoch)
    best_score = (-1.0, 0.0)
    best: dict[str, Tensor] = {}
    for epoch in range(1, epochs + 1):
        model.train()
        for batch in torch.randperm(len(images))[: steps_per_epoch * BATCH].split(BATCH):
            optimizer.zero_grad()
            logits = model(augment(images[batch]))
            functional.cross_entropy(logits, labels[batch], label_smoothing=LABEL_SMOOTHING).backward()
            optimizer.step()
            schedule.step()
        score = (accuracy(model, *select), -loss(model, *select))
        if score > best_score:
            best_score, best = score, copy.deepcopy(model.state_dict())
        say(f"epoch {epoch:3d}/{epochs}  select top-1 {score[0]:.4f}  loss {-score[1]:.4f}")
    return best


def augment(images: Tensor) -> Tensor:
    """Shift, turn, shear and scale each image of (N, 1, H, W) at random; what comes in at the border is background."""
    count, size = len(images), images.shape[-1]
    angle, shear, scale_x, scale_y, shift_x, shift_y = (
        limit * (2 * torch.rand(count) - 1)
        for limit in (ROTATION_RAD, SHEAR, SCALE, SCALE, 2 * SHIFT_PIXELS / size, 2 * SHIFT_PIXELS / size)
    )
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [
        torch.stack([(1 + scale_x) * cos, shear - sin, shift_x], dim=1),
        torch.stack([sin, (1 + scale_y) * cos, shift_y], dim=1),
    ]
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    # Background is -1 here, and grid_sample fills with 0: sample around a background of 0.
    return functional.grid_sample(images + 1, grid, align_corners=False) - 1


def tensors(split: data.Split) -> tuple[Tensor, Tensor]:
    """Preprocess as ``recipe.yaml`` says: uint8 (N, H, W, 1) -> float32 (N, 1, H, W) in -1..1; labels stay int64."""
    samples, labels = split
    images = torch.from_numpy(samples).permute(0, 3, 1, 2).float()
    return (images / 255 - 0.5) / 0.5, torch.from_numpy(labels)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images whose largest logit is the label's, 0..1."""
    return (model.eval()(images).argmax(dim=1) == labels).float().mean().item()


@torch.no_grad()
def loss(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Mean cross-entropy, in nats."""
    return functional.cross_entropy(model.eval()(images), labels).item()


def say(line: str) -> None:
    """One line of progress."""
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    main()
