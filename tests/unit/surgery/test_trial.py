"""Every trap of structured pruning: it works, or the layers are protected and the reason is said."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from edgeopt.checkpoint import example
from edgeopt.errors import ConfigError, StageError
from edgeopt.surgery import channels, cut, silence
from edgeopt.surgery.coupling import Protected, plan_of
from edgeopt.surgery.trial import Trial, about_half, find_groups
from tests import nets
from tests.compression import ROOT, SHAPES


def model_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    return getattr(nets, name)().eval()


def reasons(protected: list[Protected]) -> dict[str, str]:
    return {layer: entry.reason for entry in protected for layer in entry.layers}


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "Norms"])
def test_any_selection_of_units_can_be_cut_from_the_real_network(name: str) -> None:
    model = model_of(name)
    x = example(SHAPES[name])
    groups, _ = find_groups(model, x, root=ROOT)
    assert groups
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        removed = frozenset()
        for group in groups:
            going = torch.randperm(len(group.units), generator=generator)[: len(group.units) // 3]
            removed |= group.channels(group.units[int(index)] for index in going)
        small, silent = copy.deepcopy(model), copy.deepcopy(model)
        cut(small, plan_of(model, removed))
        silence(silent, plan_of(model, removed))
        with torch.no_grad():
            assert torch.allclose(small(x), silent(x), atol=1e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_no_channel_is_in_two_units_and_units_of_a_group_are_alike(name: str) -> None:
    model = model_of(name)
    groups, _ = find_groups(model, example(SHAPES[name]), root=ROOT)
    units = [unit for group in groups for unit in group.units]
    assert sum(len(unit) for unit in units) == len(frozenset().union(*units))
    for group in groups:
        assert len({tuple(sorted((name, side) for name, side, _ in unit)) for unit in group.units}) == 1


@pytest.mark.parametrize("name", SHAPES)
def test_the_outputs_of_the_network_are_protected(name: str) -> None:
    model = model_of(name)
    _, protected = find_groups(model, example(SHAPES[name]), root=ROOT)
    assert reasons(protected)["embed" if name == "MobileFaceNet" else "head"] == "makes the network's output"


def test_a_hard_coded_view_protects_one_layer_and_names_the_line() -> None:
    groups, protected = find_groups(model_of("HardView"), example((3, 8, 8)), root=ROOT)
    assert {group.name for group in groups} == {"a.0", "b.0"}
    line = next(
        n
        for n, text in enumerate((ROOT / "nets.py").read_text().splitlines(), 1)
        if "self.width * 16)" in text and "view" in text
    )
    assert f"nets.py:{line}" in reasons(protected)["c.0"]


def test_a_padded_shortcut_protects_the_residual_stream_alone() -> None:
    model = model_of("ResNet20")
    groups, protected = find_groups(model, example((3, 8, 8)), root=ROOT)
    assert [group.name for group in groups] == [f"blocks.{i}.a.0" for i in range(9)]
    assert "stem.0" in reasons(protected)


def test_a_convolution_shortcut_leaves_nothing_protected_but_the_output() -> None:
    torch.manual_seed(0)
    model = nets.ResNet20(option="conv", blocks=1).eval()
    groups, protected = find_groups(model, example((3, 8, 8)), root=ROOT)
    assert set(reasons(protected)) == {"head"}
    assert {layer for group in groups for layer in group.layers} == {
        name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)
    }


def test_a_channel_shuffle_protects_what_is_shuffled() -> None:
    groups, protected = find_groups(model_of("ShuffleNet"), example((3, 8, 8)), root=ROOT)
    assert {"stem.0", "units.0.branch.5", "units.1.branch.5"} <= set(reasons(protected))
    assert {"last.0", "last.3", "units.0.branch.0"} <= {group.name for group in groups}


def test_a_mean_over_channels_is_noticed() -> None:
    groups, protected = find_groups(model_of("ChannelMean"), example((3, 8, 8)), root=ROOT)
    assert [group.name for group in groups] == ["a"]
    assert "outside of its layers" in reasons(protected)["b"]


def test_grouped_convolutions_and_group_norms_lose_one_channel_of_each_group() -> None:
    model = model_of("Grouped")
    groups, _ = find_groups(model, example((3, 8, 8)), root=ROOT)
    widths = {group.name: (len(group.units), group.width) for group in groups}
    assert widths == {"stem": (32, 1), "a.0": (8, 4), "b.0": (8, 4)}
    norms, _ = find_groups(model_of("Norms"), example((3, 8, 8)), root=ROOT)
    assert {group.name: group.width for group in norms}["a"] == 4


def test_frozen_parameters_and_no_grad_make_no_difference() -> None:
    model = model_of("Plain")
    expected = find_groups(model, example((3, 8, 8)), root=ROOT)
    frozen = copy.deepcopy(model).requires_grad_(False)
    with torch.no_grad():
        assert find_groups(frozen, example((3, 8, 8)), root=ROOT) == expected
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_dead_weights_hide_no_mistake() -> None:
    model = model_of("ChannelMean")
    torch.nn.init.zeros_(model.b.weight)
    torch.nn.init.zeros_(model.b.bias)
    groups, _ = find_groups(model, example((3, 8, 8)), root=ROOT)
    assert [group.name for group in groups] == ["a"]


def test_tied_layers_are_protected() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(8, 8) for _ in range(3))
            self.b.weight = self.a.weight
            self.head = nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.c(torch.relu(self.b(torch.relu(self.a(x)))))))

    groups, protected = find_groups(Tied(), torch.randn(2, 8))
    assert [group.name for group in groups] == ["c"]
    assert "shares its weights" in reasons(protected)["a"]


@pytest.mark.parametrize("pattern", ["features.0", "features", "feat*", "features.0*"])
def test_keep_protects_a_layer_and_all_inside(pattern: str) -> None:
    groups, protected = find_groups(model_of("Plain"), example((3, 8, 8)), keep=(pattern,), root=ROOT)
    assert "features.0" not in {group.name for group in groups}
    assert reasons(protected)["features.0"] == "named in keep"
    assert "hidden" in {group.name for group in groups}


def test_keep_of_a_single_layer_may_be_written_with_a_star_inside() -> None:
    groups, _ = find_groups(model_of("Plain"), example((3, 8, 8)), keep=("hidden.*",), root=ROOT)
    assert "hidden" not in {group.name for group in groups}


def test_keep_that_matches_nothing_suggests_a_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'hidden'"):
        find_groups(model_of("Plain"), example((3, 8, 8)), keep=("hiden",), root=ROOT)


def test_a_network_that_cannot_be_traced_is_a_clear_error() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch.is_grad_enabled():
                raise RuntimeError("not with gradients")
            return self.layer(x)

    with pytest.raises(StageError, match="cannot be traced for pruning: RuntimeError: not with gradients"):
        find_groups(Fails(), torch.randn(2, 4))


def test_a_wrong_wiring_of_the_right_shape_is_found() -> None:
    model = model_of("Plain")
    x = example((3, 8, 8))
    group = next(group for group in find_groups(model, x, root=ROOT)[0] if group.name == "features.0")
    right = about_half(group)
    wrong = frozenset(
        (n, s, (i + 1) % channels(model.get_submodule(n), s) if n == "features.3" else i) for n, s, i in right
    )
    trial = Trial(model, x, ROOT)
    assert trial.why_not(right) == ""
    assert "wrong ones" in trial.why_not(wrong)
