"""The criteria on numbers small enough to check by hand, and how weights are arranged for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeopt import registry
from edgeopt.checkpoint import example
from edgeopt.errors import ConfigError, StageError
from edgeopt.pruning import GroupWeights, LayerSlice
from edgeopt.surgery import importance
from edgeopt.surgery.trial import find_groups
from tests import nets
from tests.compression import ROOT, split

GROUP = GroupWeights(
    "a",
    2,
    (
        LayerSlice("a", "out", np.array([[1.0, -2.0], [0.0, 3.0]]), np.array([[0.5, 1.0], [7.0, -1.0]])),
        LayerSlice("a.norm", "norm", np.array([[2.0], [1.0]]), np.array([[1.0], [0.0]])),
        LayerSlice("b", "in", np.array([[-4.0], [0.0]]), np.array([[0.25], [1.0]])),
    ),
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("l1", [1 + 2, 3]),
        ("l2_group", [(1 + 4 + 4 + 16) ** 0.5, (9 + 1) ** 0.5]),
        ("taylor", [0.5 + 2 + 2 + 1, 3]),
    ],
)
def test_by_hand(name: str, expected: list[float]) -> None:
    assert registry.find("criteria", name).score(GROUP, 0) == pytest.approx(expected)


def test_random_scores_differ_between_groups() -> None:
    random = registry.find("criteria", "random")
    other = GroupWeights("b", 2, ())
    assert not np.array_equal(random.score(GROUP, 0), random.score(other, 0))


def test_weights_are_arranged_by_unit() -> None:
    model = nets.MobileFaceNet().eval()
    groups, _ = find_groups(model, example((3, 16, 16)), root=ROOT)
    group = next(group for group in groups if group.name == "blocks.0.body.0")
    arranged = importance.weights_of(model, group)
    assert arranged.slices[0].layer == "blocks.0.body.0"
    by_layer = {(part.layer, part.role): part.weight for part in arranged.slices}
    assert by_layer["blocks.0.body.3", "out"].shape == (32, 9)
    assert by_layer["blocks.0.body.1", "norm"].shape == (32, 1)
    assert by_layer["blocks.0.body.2", "other"].shape == (32, 1)
    weight = model.blocks[0].body[7].weight.detach().double().numpy()[:, :, 0, 0].T
    units = [
        next(index for name, side, index in unit if (name, side) == ("blocks.0.body.7", "in")) for unit in group.units
    ]
    assert np.array_equal(by_layer["blocks.0.body.7", "in"], weight[units])


def test_channels_of_one_unit_share_a_row_and_bare_parameters_count() -> None:
    model = nets.Grouped().eval()
    groups, _ = find_groups(model, example((3, 8, 8)), root=ROOT)
    arranged = importance.weights_of(model, next(group for group in groups if group.name == "b.0"))
    assert arranged.slices[0].weight.shape == (8, 4 * 8 * 9)
    scaled = nets.Scaled().eval()
    (group, _) = find_groups(scaled, example((3, 8, 8)), root=ROOT)[0]
    gamma = next(part for part in importance.weights_of(scaled, group).slices if part.layer == "gamma")
    assert gamma.role == "other"
    assert gamma.weight.tolist() == [[0.5]] * 16


def test_gradients_are_the_mean_over_batches() -> None:
    torch.manual_seed(0)
    model = nets.Plain().eval()
    random = np.random.default_rng(0)
    train = split("train", random.normal(size=(64, 3, 8, 8)).astype(np.float32), random.integers(0, 4, 64))
    found = importance.gradients(model, train, None, batches=2, seed=0, progress=lambda *progress: None)
    outputs = model(torch.from_numpy(train.samples))
    torch.nn.functional.cross_entropy(outputs, torch.from_numpy(train.labels)).backward()
    assert torch.allclose(found["head.weight"], model.head.weight.grad, atol=1e-6)
    assert torch.allclose(found["features.0.weight"], model.features[0].weight.grad, atol=1e-6)


@pytest.mark.parametrize(("labels", "word"), [(None, "the split has none"), (np.full(8, 9), "outside the network's 4")])
def test_gradients_need_labels_that_fit(labels: object, word: str) -> None:
    train = split("train", np.zeros((8, 3, 8, 8), np.float32), labels)
    with pytest.raises(ConfigError, match=word):
        importance.gradients(nets.Plain().eval(), train, None, batches=1, seed=0, progress=lambda *progress: None)


@pytest.mark.parametrize("scores", [np.ones(3), np.full(16, np.nan), np.full(16, -1.0)])
def test_a_criterion_that_gives_nonsense_is_named(scores: np.ndarray) -> None:
    class Nonsense:
        name = "nonsense"
        needs_gradients = False

        def score(self, group: GroupWeights, seed: int) -> np.ndarray:
            return scores

    model = nets.Plain().eval()
    groups, _ = find_groups(model, example((3, 8, 8)), root=ROOT)
    with pytest.raises(StageError, match=r"'nonsense' gave features\.0"):
        importance.scores(Nonsense(), model, groups, 0)
