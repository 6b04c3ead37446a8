"""Cutting layers: against plain indexing, and against the network whose removed channels are not read."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from edgeopt.surgery import Kept, Plan, Uncuttable, channels, cut, rows, silence


def sequence(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*layers).eval()


CHAINS = {
    "conv": (
        sequence(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 3)),
        Plan({"0": Kept(out=(1, 4, 5)), "2": Kept(into=(1, 4, 5))}),
    ),
    "conv1d": (
        sequence(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Conv1d(8, 5, 3)),
        Plan({"0": Kept(out=(0, 7)), "2": Kept(into=(0, 7))}),
    ),
    "transposed": (
        sequence(nn.ConvTranspose2d(3, 8, 2), nn.ReLU(), nn.ConvTranspose2d(8, 5, 2)),
        Plan({"0": Kept(out=(2, 3)), "2": Kept(into=(2, 3))}),
    ),
    "depthwise": (
        sequence(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.PReLU(8), nn.Conv2d(8, 5, 1)),
        Plan({"0": Kept(out=(0, 6)), "1": Kept(out=(0, 6)), "2": Kept(out=(0, 6)), "3": Kept(into=(0, 6))}),
    ),
    "grouped": (
        sequence(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 3, groups=4), nn.ReLU(), nn.Conv2d(12, 5, 1)),
        Plan(
            {
                "0": Kept(out=(0, 3, 4, 7)),
                "1": Kept(out=(0, 2, 3, 4, 7, 8, 9, 10), into=(0, 3, 4, 7)),
                "3": Kept(into=(0, 2, 3, 4, 7, 8, 9, 10)),
            }
        ),
    ),
    "grouped transposed": (
        sequence(nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 4, 2, groups=2), nn.ReLU(), nn.Conv2d(4, 5, 1)),
        Plan({"0": Kept(out=(1, 2, 5, 6)), "1": Kept(out=(0, 3), into=(1, 2, 5, 6)), "3": Kept(into=(0, 3))}),
    ),
    "norms": (
        sequence(
            nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.InstanceNorm2d(8, affine=True), nn.Flatten(), nn.Linear(8 * 36, 5)
        ),
        Plan(
            {
                "0": Kept(out=(1, 5)),
                "1": Kept(out=(1, 5)),
                "2": Kept(out=(1, 5)),
                "4": Kept(into=tuple(c * 36 + i for c in (1, 5) for i in range(36))),
            }
        ),
    ),
}


def randomise_statistics(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)


@pytest.mark.parametrize("name", CHAINS)
def test_a_cut_network_computes_what_the_whole_one_does_without_the_removed_channels(name: str) -> None:
    model, plan = CHAINS[name]
    randomise_statistics(model)
    x = torch.randn(2, 3, 6) if name == "conv1d" else torch.randn(2, 3, 6, 6)
    whole, silent, small = model, copy.deepcopy(model), copy.deepcopy(model)
    silence(silent, plan)
    cut(small, plan)
    assert torch.allclose(small(x), silent(x), atol=1e-5)
    assert not torch.allclose(small(x), whole(x), atol=1e-3)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in whole.parameters())


def test_weights_are_those_of_the_kept_channels() -> None:
    model = nn.Sequential(nn.Conv2d(4, 6, 3))
    weight, bias = model[0].weight.clone(), model[0].bias.clone()
    cut(model, Plan({"0": Kept(out=(0, 5), into=(1, 2))}))
    assert torch.equal(model[0].weight, weight[[0, 5]][:, [1, 2]])
    assert torch.equal(model[0].bias, bias[[0, 5]])
    assert (model[0].in_channels, model[0].out_channels) == (2, 2)


def test_layer_norm_group_norm_and_bare_parameters_are_cut() -> None:
    model = nn.Module()
    model.ln, model.gn = nn.LayerNorm(6), nn.GroupNorm(2, 6)
    model.gamma = nn.Parameter(torch.arange(6.0).reshape(1, 6, 1, 1), requires_grad=False)
    kept = Kept(out=(0, 2, 3, 5))
    cut(model, Plan({"ln": kept, "gn": kept, "gamma": kept}))
    assert model.ln(torch.randn(2, 4)).shape == (2, 4)
    assert model.gn(torch.randn(2, 4, 3, 3)).shape == (2, 4, 3, 3)
    assert model.gamma.flatten().tolist() == [0, 2, 3, 5]
    assert not model.gamma.requires_grad


def test_frozen_weights_stay_frozen() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(4, 4))
    model[0].requires_grad_(False)
    cut(model, Plan({"0": Kept(out=(0,)), "1": Kept(into=(0,))}))
    assert not model[0].weight.requires_grad
    assert not model[0].bias.requires_grad
    assert model[1].weight.requires_grad


@pytest.mark.parametrize(
    ("layer", "kept", "word"),
    [
        (nn.Conv2d(8, 8, 1, groups=2), Kept(out=(0, 1, 2, 7)), "equal groups"),
        (nn.GroupNorm(2, 8), Kept(out=(0, 1, 4)), "equal groups"),
        (nn.Conv2d(4, 4, 1), Kept(out=(0, 4)), "do not exist"),
        (nn.Conv2d(4, 4, 1), Kept(out=()), "0 out channels"),
        (nn.LSTM(4, 4), Kept(out=(0,)), "LSTM cannot be resized"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), Kept(out=(0,)), "computed from other tensors"),
    ],
)
def test_what_cannot_be_cut_says_why(layer: nn.Module, kept: Kept, word: str) -> None:
    with pytest.raises(Uncuttable, match=word):
        cut(nn.Sequential(layer), Plan({"0": kept}))


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(Uncuttable, match="gone"):
        cut(nn.Sequential(nn.Linear(2, 2)), Plan({"gone": Kept(out=(0,))}))


def test_plans_survive_json_and_follow_each_other() -> None:
    first = Plan({"0": Kept(out=(1, 3, 5, 7)), "1": Kept(out=None, into=(0, 2))})
    second = Plan({"0": Kept(out=(0, 3)), "2": Kept(out=(1,))})
    assert Plan.from_json(first.as_json()) == first
    both = first.then(second)
    assert both.layers == {"0": Kept(out=(1, 7)), "1": Kept(into=(0, 2)), "2": Kept(out=(1,))}
    stepwise, at_once = (nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.PReLU(8)) for _ in range(2))
    at_once.load_state_dict(stepwise.state_dict())
    only_first = Plan({"0": first.layers["0"]})
    only_second = Plan({"0": second.layers["0"]})
    cut(stepwise, only_first)
    cut(stepwise, only_second)
    cut(at_once, only_first.then(only_second))
    assert torch.equal(stepwise[0].weight, at_once[0].weight)


def test_rows_are_one_per_channel() -> None:
    grouped = nn.Conv2d(8, 12, 3, groups=4)
    by_input = rows(grouped, "in", grouped.weight)
    assert by_input.shape == (8, 3 * 9)
    assert torch.equal(by_input[5], grouped.weight[6:9, 1].reshape(-1))  # input 5 is the second of group 2
    up = nn.ConvTranspose2d(4, 6, 2)
    assert torch.equal(rows(up, "out", up.weight)[2], up.weight[:, 2].reshape(-1))
    assert torch.equal(rows(up, "in", up.weight)[2], up.weight[2].reshape(-1))
    linear = nn.Linear(4, 3)
    assert torch.equal(rows(linear, "in", linear.weight), linear.weight.T)


def test_channels_of_a_layer() -> None:
    assert channels(nn.Conv2d(3, 8, 1), "in") == 3
    assert channels(nn.ConvTranspose2d(3, 8, 1), "out") == 8
    assert channels(nn.BatchNorm2d(5), "in") == 5
    with pytest.raises(Uncuttable, match="Embedding"):
        channels(nn.Embedding(3, 3), "out")
