"""The analytic MAC count against the counted one, and the search against all choices there are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from edgeopt.checkpoint import example, layer_macs, macs
from edgeopt.stages.prune import mac_count
from edgeopt.surgery import cut
from edgeopt.surgery.coupling import Group, plan_of
from edgeopt.surgery.trial import find_groups
from edgeopt.surgery.widths import MacCount, levels, search, worth
from tests import nets
from tests.compression import ROOT, SHAPES


@pytest.mark.parametrize("name", SHAPES)
def test_macs_of_a_choice_are_those_of_the_cut_network(name: str) -> None:
    shape = SHAPES[name]
    generator = np.random.default_rng(0)
    torch.manual_seed(0)
    model = getattr(nets, name)().eval()
    groups, _ = find_groups(model, example(shape), root=ROOT)
    count = mac_count(model, layer_macs(model, shape), groups)
    assert count([len(group.units) for group in groups]) == macs(model, shape)
    kept = [int(generator.integers(1, len(group.units) + 1)) for group in groups]
    removed = [group.channels(group.units[number:]) for group, number in zip(groups, kept, strict=True)]
    cut(model, plan_of(model, frozenset().union(*removed)))
    assert count(kept) == pytest.approx(macs(model, shape), abs=0.5)


def chain(widths: list[int], spatial: list[int]) -> tuple[MacCount, list[Group]]:
    """3x3 convolutions of these widths, one after the other; the first input and the last output are fixed."""
    groups = []
    for number, width in enumerate(widths):
        units = [frozenset({(f"l{number}", "out", i), (f"l{number + 1}", "in", i)}) for i in range(width)]
        groups.append(Group(f"l{number}", (f"l{number}",), tuple(units)))
    sides = [3, *widths, 10]
    layers = {
        f"l{n}": (sides[n] * sides[n + 1] * 9 * spatial[n], sides[n + 1], sides[n]) for n in range(len(sides) - 1)
    }
    return MacCount.of(layers, frozenset(), groups), groups


@pytest.mark.parametrize("seed", range(30))
def test_the_search_gets_there_whenever_any_choice_does(seed: int) -> None:
    random = np.random.default_rng(seed)
    depth = int(random.integers(1, 5))
    widths = [int(width) for width in random.integers(9, 70, depth)]
    count, groups = chain(widths, [int(area) for area in random.integers(1, 64, depth + 1)])
    multiple = int(random.choice([1, 4, 8, 16]))
    allowed = [levels(group, multiple, whole=False) for group in groups]
    values = [worth(g, random.random(len(g.units)), k) for g, k in zip(groups, allowed, strict=True)]
    if multiple == 1:
        allowed, values = [a[::5] for a in allowed], [v[::5] for v in values]
    target = float(random.uniform(0.15, 0.95)) * float(count(widths))
    choices = np.array(list(itertools.product(*allowed)))
    every = count(choices)
    chosen = float(count(search(count, allowed, values, target, 0.03)))
    within = every[(every >= 0.97 * target) & (every <= 1.03 * target)]
    if len(within):
        assert 0.97 * target <= chosen <= 1.03 * target
    elif (every <= target).any():
        assert chosen == every[every <= target].max()
    else:
        assert chosen == every.min()


def test_unimportant_channels_go_first_and_no_layer_is_gutted() -> None:
    count, groups = chain([32, 32, 32], [16, 16, 16, 16])
    scores = [np.ones(32), np.r_[np.full(16, 1e-3), np.ones(16)], np.ones(32)]
    allowed = [levels(group, 4, whole=False) for group in groups]
    values = [worth(*each) for each in zip(groups, scores, allowed, strict=True)]
    kept = search(count, allowed, values, 0.5 * float(count([32, 32, 32])), 0.03)
    assert kept[1] == 16
    assert kept[[0, 2]].min() >= 24


def test_equal_importance_gives_even_widths() -> None:
    count, groups = chain([64] * 4, [16] * 5)
    allowed = [levels(group, 8, whole=False) for group in groups]
    values = [worth(g, np.ones(64), k) for g, k in zip(groups, allowed, strict=True)]
    kept = search(count, allowed, values, 0.5 * float(count([64] * 4)), 0.03)
    assert kept.max() - kept.min() <= 16


def test_allowed_widths_are_multiples_and_at_least_an_eighth() -> None:
    _, (group,) = chain([100], [1, 1])
    assert levels(group, 8, whole=False).tolist() == list(range(16, 97, 8))
    assert levels(group, 8, whole=True).tolist() == [*range(16, 97, 8), 100]
    assert levels(group, 1, whole=False).min() == 13
    assert levels(group, 128, whole=False).tolist() == [100]


def test_units_of_several_channels_keep_to_the_multiple_too() -> None:
    units = tuple(frozenset(("g", "out", 4 * u + i) for i in range(4)) for u in range(8))
    assert levels(Group("g", ("g",), units), 8, whole=False).tolist() == [2, 4, 6, 8]
