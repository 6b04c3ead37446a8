"""What every importance criterion must do, built in or added later."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeopt import registry
from edgeopt.pruning import Criterion, GroupWeights, LayerSlice

CRITERIA = list(registry.builtin("criteria").values())


def group(channels: int = 12) -> GroupWeights:
    random = np.random.default_rng(0)
    slices = tuple(
        LayerSlice(
            layer,
            role,  # type: ignore[arg-type]
            random.normal(size=(channels, values)),
            random.normal(size=(channels, values)),
        )
        for layer, role, values in (("a", "out", 27), ("a.norm", "norm", 1), ("a.act", "other", 1), ("b", "in", 90))
    )
    return GroupWeights("a", channels, slices)


@pytest.fixture(params=CRITERIA, ids=lambda criterion: criterion.name)
def criterion(request: pytest.FixtureRequest) -> Criterion:
    found: Criterion = request.param
    return found


def test_there_are_the_criteria_that_recipes_name() -> None:
    assert {"l1", "l2_group", "taylor", "random"} <= {criterion.name for criterion in CRITERIA}


@pytest.mark.parametrize("channels", [1, 2, 64])
def test_one_finite_score_per_channel_not_negative(criterion: Criterion, channels: int) -> None:
    score = criterion.score(group(channels), 0)
    assert score.shape == (channels,)
    assert np.isfinite(score).all()
    assert (score >= 0).all()


def test_the_same_input_and_seed_give_the_same_scores(criterion: Criterion) -> None:
    assert np.array_equal(criterion.score(group(), 3), criterion.score(group(), 3))


def test_the_weights_are_not_changed(criterion: Criterion) -> None:
    given = group()
    before = [(part.weight.copy(), None if part.gradient is None else part.gradient.copy()) for part in given.slices]
    criterion.score(given, 0)
    for part, (weight, gradient) in zip(given.slices, before, strict=True):
        assert np.array_equal(part.weight, weight)
        assert np.array_equal(part.gradient, gradient)  # type: ignore[arg-type]


def test_gradients_are_asked_for_if_they_are_needed(criterion: Criterion) -> None:
    given = group()
    without = replace(given, slices=tuple(replace(part, gradient=None) for part in given.slices))
    if criterion.needs_gradients:
        with pytest.raises(ValueError, match="gradient"):
            criterion.score(without, 0)
    else:
        assert np.array_equal(criterion.score(without, 0), criterion.score(given, 0))


def test_scores_follow_the_channels(criterion: Criterion) -> None:
    if criterion.name == "random":
        assert not np.array_equal(criterion.score(group(), 1), criterion.score(group(), 2))
        return
    given = group()
    order = np.random.default_rng(1).permutation(given.channels)

    def reorder(part: LayerSlice) -> LayerSlice:
        gradient: Any = part.gradient
        return replace(part, weight=part.weight[order], gradient=gradient[order])

    reordered = replace(given, slices=tuple(map(reorder, given.slices)))
    assert np.allclose(criterion.score(reordered, 0), criterion.score(given, 0)[order])


def test_a_channel_of_zeros_is_worth_least(criterion: Criterion) -> None:
    if criterion.name == "random":
        pytest.skip("random scores do not look at weights")
    given = group()
    for part in given.slices:
        part.weight[5] = 0
    score = criterion.score(given, 0)
    assert score.argmin() == 5
    assert score[5] == 0
