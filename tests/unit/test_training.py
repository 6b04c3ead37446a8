"""The fine-tune loop: it learns, repeats, and never gives back something worse."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgeopt.data import Split
from edgeopt.errors import ConfigError, MissingBackend, StageError
from edgeopt.training import Schedule, deterministic, fine_tune, predict, task_loss, to_labels
from tests.compression import split


def data(count: int = 96, seed: int = 0) -> Split:
    """Class 1 where the first three values sum to more than zero."""
    samples = np.random.default_rng(seed).normal(size=(count, 3, 4, 4)).astype(np.float32)
    return split("train", samples, (samples[:, 0].mean((1, 2)) > 0).astype(np.int64))


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(32, 2)
    )


def train(model: nn.Module, train_split: Split, select: Split, **options: Any) -> Any:
    labels = to_labels(train_split.labels)  # type: ignore[arg-type]

    def judge(outputs: Any) -> tuple[float, float]:
        truth = select.labels
        assert truth is not None
        loss = functional.cross_entropy(torch.from_numpy(outputs), torch.from_numpy(truth))
        return float((outputs.argmax(1) == truth).mean()), float(loss)

    settings = {
        "preprocess": None,
        "objective": lambda network, inputs, rows: functional.cross_entropy(network(inputs), labels[rows]),
        "judge": judge,
        "better": "higher",
        "schedule": Schedule(epochs=4, batch=16, lr=0.01),
        "seed": 1,
        "progress": lambda *progress: None,
    }
    return fine_tune(model, train_split, select, **{**settings, **options})


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_it_learns() -> None:
    model = net()
    history = train(model, data(256), data(seed=1), schedule=Schedule(epochs=8, batch=16, lr=0.02))
    assert history.best.score > history.epochs[0].score
    assert history.best.score > 0.8
    assert history.epochs[-1].loss < history.epochs[1].loss


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(optimizer: Any) -> None:
    states = []
    for seed in (1, 1, 2):
        model = net()
        torch.manual_seed(seed * 1000)  # what the caller did before does not matter
        train(model, data(), data(seed=1), seed=seed, schedule=Schedule(2, 16, 0.01, optimizer=optimizer))
        states.append(state(model))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["0.weight"], states[2]["0.weight"])


def test_the_model_is_left_at_its_best_epoch() -> None:
    model, select = net(), data(seed=1)
    scores = iter([0.1, 0.5, 0.9, 0.3, 0.9])
    seen = []

    def judge(outputs: Any) -> tuple[float, float]:
        seen.append(outputs)
        return next(scores), 1.0

    history = train(model, data(), select, judge=judge)
    assert history.best.number == 2
    assert [epoch.score for epoch in history.epochs] == [0.1, 0.5, 0.9, 0.3, 0.9]
    assert np.array_equal(predict(model, select, None), seen[2])
    assert not model.training


def test_equal_scores_are_decided_by_the_loss() -> None:
    results = iter([(0.5, 3.0), (0.9, 2.0), (0.9, 1.0), (0.9, 1.5), (0.9, 1.0)])
    history = train(net(), data(), data(seed=1), judge=lambda outputs: next(results))
    assert history.best.number == 2


def test_a_model_that_only_gets_worse_comes_back_as_it_was() -> None:
    model = net().eval()
    before = state(model)
    scores = iter([0.5, 0.4, math.nan, 0.2, 0.1])
    history = train(model, data(), data(seed=1), judge=lambda outputs: (next(scores), 0.0))
    assert history.best.number == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_lower_may_be_better() -> None:
    scores = iter([5.0, 4.0, 6.0, 3.0, 7.0])
    history = train(net(), data(), data(seed=1), better="lower", judge=lambda outputs: (next(scores), 0.0))
    assert history.best.number == 3


def test_patience_stops_early() -> None:
    scores = iter([0.1, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4])
    schedule = Schedule(epochs=6, batch=16, lr=0.01, patience=2)
    history = train(net(), data(), data(seed=1), schedule=schedule, judge=lambda outputs: (next(scores), 0.0))
    assert (history.best.number, history.epochs[-1].number) == (1, 3)


def test_frozen_parameters_stay() -> None:
    model = net()
    model[0].requires_grad_(False)
    model[1].requires_grad_(False)
    before = state(model)
    train(model, data(), data(seed=1))
    for name in ("0.weight", "1.weight", "1.running_mean", "1.running_var"):
        assert torch.equal(model.state_dict()[name], before[name])
    assert not torch.equal(model[5].weight, before["5.weight"])
    with pytest.raises(StageError, match="no parameter"):
        train(net().requires_grad_(False), data(), data(seed=1))


def test_a_loss_that_is_no_number_is_an_error() -> None:
    with pytest.raises(StageError, match="the loss became nan in step 1"):
        train(net(), data(), data(seed=1), objective=lambda model, x, rows: model(x).mean() * math.nan)


def test_a_step_that_fails_is_an_error_of_the_stage() -> None:
    with pytest.raises(StageError, match=r"a training step failed: .*shapes cannot be multiplied"):
        train(net(), data(), data(seed=1), objective=lambda model, x, rows: model(x[:, :, :3]).mean())


def test_it_trains_where_gradients_are_off() -> None:
    with torch.no_grad():
        assert train(net(), data(), data(seed=1)).best.number > 0


def test_few_samples_make_one_step_and_one_is_too_few() -> None:
    assert len(train(net(), data(5), data(seed=1)).epochs) == 5
    with pytest.raises(ConfigError, match="at least 2 samples"):
        train(net(), data(1), data(seed=1))


def test_progress_ends_complete_and_tells_loss_metric_and_time() -> None:
    told: list[tuple[Any, ...]] = []
    train(net(), data(), data(seed=1), progress=lambda *progress: told.append(progress), metric="top1")
    assert told[-1][:3] == (4.0, 4.0, "epochs")
    assert "loss " in told[-1][3]
    assert "top1 " in told[-1][3]
    assert told[-1][4] == 0
    assert [entry[0] for entry in told] == sorted(entry[0] for entry in told)


def test_settings_of_torch_are_as_before_afterwards() -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(9)
    expected = torch.rand(2)
    torch.manual_seed(9)

    def interrupted() -> None:
        with deterministic(3, threads=threads + 1):
            assert torch.are_deterministic_algorithms_enabled()
            assert torch.get_num_threads() == threads + 1
            torch.rand(5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named() -> None:
    with pytest.raises(MissingBackend, match="sees none"):
        train(net(), data(), data(seed=1), device="cuda")


def test_task_loss_is_that_of_the_labels() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    assert task_loss(logits, torch.tensor([0, 1]), "train").item() == pytest.approx(math.log(2))
    assert task_loss(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 0.0]), "train").item() == pytest.approx(5)
    with pytest.raises(ConfigError, match="do not fit"):
        task_loss(logits, torch.zeros(2, 3), "train")
    with pytest.raises(ConfigError, match="do not fit"):
        task_loss(logits, torch.zeros(2, 3, dtype=torch.int64), "train")
