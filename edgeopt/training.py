"""The one fine-tune loop: deterministic for a seed, and it never gives back a worse model than it was given.

One CPU thread by default. Small networks gain nothing from more; beside busy neighbours on a small machine more threads
can cost a hundredfold; and the order of floating-point sums, so the result, depends on their number.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeopt.data import Array, Split, to_input
from edgeopt.errors import ConfigError, MissingBackend, StageError
from edgeopt.recipe import Preprocess
from edgeopt.stage import Clock, Progress

if TYPE_CHECKING:
    from torch import Tensor, nn

#: ``(model, inputs (B, ...), rows (B,) in the training split) -> scalar loss``
Objective = Callable[["nn.Module", "Tensor", "Tensor"], "Tensor"]
#: ``(outputs (N, ...), labels) -> (score, loss)``; the loss breaks ties
Judge = Callable[[Array], tuple[float, float]]

#: Share of all steps over which the learning rate rises from zero.
_WARM_UP = 0.05
_EVALUATION_BATCH = 256
_SECONDS_BETWEEN_REPORTS = 1.0


@dataclass(frozen=True)
class Schedule:
    """How to train.

    Attributes:
        epochs: Passes over the training split, at most.
        batch: Samples per step.
        lr: Highest learning rate; it rises over the first steps and then falls as a half cosine to zero.
        patience: Stop after so many epochs without a better one; 0 never stops early.
        optimizer: AdamW (Loshchilov & Hutter 2019), or SGD with Nesterov momentum 0.9.
        weight_decay: On weights of two or more dimensions.
        clip_norm: Largest norm of the gradient.
    """

    epochs: int
    batch: int
    lr: float
    patience: int = 0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 0.01
    clip_norm: float = 5.0


@dataclass(frozen=True)
class Epoch:
    """One pass.

    Attributes:
        number: 0 is the model as it came.
        loss: Mean over the training steps; NaN for epoch 0.
        score: On ``select``.
        select_loss: On ``select``.
    """

    number: int
    loss: float
    score: float
    select_loss: float


@dataclass(frozen=True)
class History:
    """All epochs, and the one whose weights the model now has."""

    epochs: tuple[Epoch, ...]
    best: Epoch


def fine_tune(
    model: nn.Module,
    train: Split,
    select: Split,
    *,
    preprocess: Preprocess | None,
    objective: Objective,
    judge: Judge,
    better: Literal["higher", "lower"],
    schedule: Schedule,
    seed: int,
    progress: Progress,
    metric: str = "score",
    device: Literal["cpu", "cuda"] = "cpu",
    threads: int = 1,
) -> History:
    """Train ``model`` in place, and leave it with the weights of its best epoch, in eval mode on the CPU.

    The best epoch has the best score on ``select``; among equals, the lowest loss there; then the earliest. The model
    as it came is one of them. Parameters that are frozen stay as they are, and so do statistics of frozen norms.

    Args:
        model: Any network from one tensor to one tensor.
        train: What is learned from. Steps that would hold fewer than ``batch`` samples are left out of an epoch.
        select: What the best epoch is chosen on, with labels.
        preprocess: From a raw sample to the input of the network.
        objective: The loss of one step.
        judge: Score and loss on ``select``.
        better: Which direction of the score is better.
        schedule: How to train.
        seed: Of the order of samples and of dropout.
        progress: Told of every epoch, and of long ones in between.
        metric: Name of the score, for ``progress``.
        device: Where to train.
        threads: CPU threads.

    Raises:
        ConfigError: Too few samples.
        StageError: Nothing is trainable, the loss is not a number, or a step fails.
        MissingBackend: ``device`` is not there.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise MissingBackend("training on a GPU was asked for, and PyTorch sees none", fix="use device: cpu")
    batch = min(schedule.batch, len(train))
    if batch < 2:
        raise ConfigError(f"training needs at least 2 samples, there are {len(train)}", where="data.train")
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise StageError("no parameter of the model is trainable", fix="do not freeze all parameters in the factory")
    steps = len(train) // batch
    with deterministic(seed, threads=threads, device=device), torch.enable_grad():
        model.to(device)
        optimizer = _optimizer(schedule, trainable)
        generator = torch.Generator().manual_seed(seed)

        def judged(number: int, loss: float) -> Epoch:
            return Epoch(number, loss, *judge(predict(model, select, preprocess, threads=threads)))

        def learn(step: int, rows: Tensor) -> float:
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr * _shape(step, schedule.epochs * steps)
            loss = objective(model, to_samples(train, rows.numpy(), preprocess, device), rows.to(device))
            value = loss.item()
            if not math.isfinite(value):
                raise StageError(
                    f"the loss became {value} in step {step + 1}", where="training", fix="use a smaller lr"
                )
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(trainable, schedule.clip_norm)
            optimizer.step()
            return value

        epochs = [judged(0, math.nan)]
        best, state = epochs[0], _snapshot(model)
        report = _Report(progress, schedule.epochs * steps, steps, metric, best.score)
        for number in range(1, schedule.epochs + 1):
            _training_mode(model)
            order = torch.split(torch.randperm(len(train), generator=generator)[: steps * batch], batch)
            losses = []
            for step, rows in enumerate(order, (number - 1) * steps):
                try:
                    losses.append(learn(step, rows))
                except (
                    RuntimeError,
                    ValueError,
                ) as error:  # out of memory, an operator without deterministic kernel, …
                    raise StageError(f"a training step failed: {error}", where="training") from error
                report.step(step + 1, losses[-1])
            epochs.append(judged(number, math.fsum(losses) / steps))
            report.score = epochs[-1].score
            report.step(number * steps, epochs[-1].loss, always=True)
            if _rank(epochs[-1], better) > _rank(best, better):
                best, state = epochs[-1], _snapshot(model)
            if schedule.patience and number - best.number >= schedule.patience:
                break
        model.load_state_dict(state)
    model.to("cpu").eval()
    return History(tuple(epochs), best)


def predict(model: nn.Module, split: Split, preprocess: Preprocess | None, *, threads: int = 1) -> Array:
    """Outputs (N, ...) float32 of ``model`` in eval mode, in the order of the split, computed where the model is."""
    import torch

    model.eval()
    device: Any = next((parameter.device.type for parameter in model.parameters()), "cpu")
    outputs = []
    with deterministic(0, threads=threads, device=device), torch.no_grad():
        for start in range(0, len(split), _EVALUATION_BATCH):
            rows = np.arange(start, min(start + _EVALUATION_BATCH, len(split)))
            outputs.append(model(to_samples(split, rows, preprocess, device)).float().cpu().numpy())
    return np.concatenate(outputs)


def to_samples(
    split: Split, rows: Array, preprocess: Preprocess | None, device: Literal["cpu", "cuda"] = "cpu"
) -> Tensor:
    """Some samples as the network takes them: float32 (B, C, H, W) for images."""
    import torch

    return torch.from_numpy(to_input(split.samples[rows], preprocess)).to(device)


def to_labels(labels: Array) -> Tensor:
    """Class numbers as int64, values as float32."""
    import torch

    return torch.from_numpy(labels.astype(np.int64 if labels.dtype.kind in "iu" else np.float32))


def task_loss(outputs: Tensor, labels: Tensor, split: str) -> Tensor:
    """Cross-entropy, in nats, for class numbers; mean squared error for values.

    Args:
        outputs: (N, K, ...).
        labels: (N, ...) int64, or float32 like the outputs, where (N,) stands for (N, 1).
        split: Where the labels are from, for messages.

    Raises:
        ConfigError: The labels do not fit the outputs.
    """
    from torch.nn import functional

    if labels.dtype.is_floating_point:
        if len(labels) == len(outputs) and labels.numel() == outputs.numel():
            return functional.mse_loss(outputs, labels.reshape(outputs.shape))
    elif outputs.ndim >= 2 and labels.shape == (outputs.shape[0], *outputs.shape[2:]):
        return functional.cross_entropy(outputs, labels)
    raise ConfigError(
        f"labels of shape {list(labels.shape)} do not fit outputs of shape {list(outputs.shape)}",
        where=f"data.{split}",
    )


@contextlib.contextmanager
def deterministic(seed: int, *, threads: int = 1, device: Literal["cpu", "cuda"] = "cpu") -> Iterator[None]:
    """Inside, torch gives the same numbers each time; afterwards its settings are as before."""
    import torch

    if device == "cuda":  # cuBLAS reads it when it starts (PyTorch, "Reproducibility")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device == "cuda" else []):
        try:
            torch.manual_seed(seed)
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(True)
            torch.backends.cudnn.benchmark = False
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.use_deterministic_algorithms(before[1])
            torch.backends.cudnn.benchmark = before[2]


def _optimizer(schedule: Schedule, trainable: list[nn.Parameter]) -> Any:
    import torch

    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if schedule.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=schedule.lr)
    return torch.optim.SGD(groups, lr=schedule.lr, momentum=0.9, nesterov=True)


def _shape(step: int, steps: int) -> float:
    """Learning rate of a step as a share of the highest."""
    rising = max(1, round(_WARM_UP * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def _rank(epoch: Epoch, better: Literal["higher", "lower"]) -> tuple[float, float]:
    """Greater is better; a score that is no number is worst."""
    score = epoch.score if better == "higher" else -epoch.score
    return (score if math.isfinite(score) else -math.inf), -epoch.select_loss


def _training_mode(model: nn.Module) -> None:
    """Train mode, but for normalizations that are frozen: their statistics stay too."""
    from torch import nn

    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and not any(p.requires_grad for p in module.parameters()):
            module.train(module.affine is False)


def _snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


class _Report:
    """Tells of the progress, at most once a second between epochs."""

    def __init__(self, progress: Progress, total: int, steps: int, metric: str, score: float) -> None:
        self._progress, self._total, self._steps, self._metric = progress, total, steps, metric
        self._clock, self._last = Clock(), 0.0
        self.score = score

    def step(self, done: int, loss: float, *, always: bool = False) -> None:
        now = time.monotonic()
        if not always and now - self._last < _SECONDS_BETWEEN_REPORTS:
            return
        self._last = now
        note = f"loss {loss:.4f}, {self._metric} {self.score:.4f}"
        left = self._clock.seconds_left(done, self._total)
        self._progress(done / self._steps, self._total / self._steps, "epochs", note, left)
