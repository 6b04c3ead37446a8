"""Pruning reaches its target on every kind of network, or says what it can reach and why."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edgeopt import checkpoint
from edgeopt.artifact import Artifact
from edgeopt.errors import ConfigError, StageError
from edgeopt.stage import StageOutput
from edgeopt.stages.prune import Prune, PruneParams
from edgeopt.target import Target
from tests.compression import ROOT, SHAPES, artifact, context, network, split


def prune(
    source: Artifact, folder: Path, seed: int = 7, data: Any = None, **params: Any
) -> tuple[Artifact, StageOutput]:
    ctx = context(folder, data=data, seed=seed)
    output = Prune().run({"model": source}, PruneParams(**{"macs_ratio": 0.5, "channel_multiple": 4, **params}), ctx)
    return artifact(output, ctx), output


def widths(found: Artifact) -> dict[str, int]:
    return {name: len(kept.out) for name, kept in checkpoint.plan(found).layers.items() if kept.out is not None}


@pytest.mark.parametrize(
    ("name", "options", "ratio", "multiple"),
    [
        ("Plain", {"width": 32}, 0.5, 4),
        ("HardView", {}, 0.6, 4),
        ("ResNet20", {"width": 16}, 0.5, 4),
        ("ResNet20", {"width": 16, "option": "conv"}, 0.5, 8),
        ("MobileFaceNet", {"width": 32}, 0.5, 8),
        ("DenseNet", {"growth": 12}, 0.5, 1),
        ("ShuffleNet", {}, 0.5, 4),
        ("Grouped", {"width": 64}, 0.5, 4),
        ("Scaled", {"width": 32}, 0.5, 4),
        ("Norms", {"width": 32}, 0.5, 4),
        ("ChannelMean", {"width": 32}, 0.5, 4),
    ],
)
def test_the_ratio_is_reached_within_three_percent(
    name: str, options: dict[str, Any], ratio: float, multiple: int, tmp_path: Path
) -> None:
    source = network(name, tmp_path, **options)
    found, output = prune(source, tmp_path, macs_ratio=ratio, channel_multiple=multiple)
    model = checkpoint.load(found, ROOT)
    reached = checkpoint.macs(model, SHAPES[name]) / source.meta["macs"]
    assert reached == pytest.approx(ratio, rel=0.03)
    assert found.meta["macs_ratio"] == reached
    assert found.meta["params"] < source.meta["params"]
    assert all(width % multiple == 0 for width in widths(found).values()), widths(found)
    x = checkpoint.example(SHAPES[name])
    assert model(x).shape == checkpoint.load(source, ROOT)(x).shape
    assert f"{reached:.3f} of {ratio:g} asked" in output.summary


def test_unimportant_channels_go(tmp_path: Path) -> None:
    source = network("ChannelMean", tmp_path, width=32)
    model = checkpoint.load(source, ROOT)
    weak = [1, 2, 5, 8, 9, 13, 20, 31]
    with torch.no_grad():
        model.a.weight[weak] *= 1e-3
        model.b.weight[:, weak] *= 1e-3
    ctx = context(tmp_path)
    weakened = artifact(
        StageOutput("torch", checkpoint.save(model, checkpoint.plan(source), source.meta, ctx.out)), ctx
    )
    for criterion in ("l1", "l2_group"):
        found, _ = prune(weakened, tmp_path, criterion=criterion, macs_ratio=0.75, channel_multiple=8)
        assert checkpoint.plan(found).layers["a"].out == tuple(i for i in range(32) if i not in weak)


def test_taylor_asks_for_training_data_and_uses_it(tmp_path: Path) -> None:
    stage = Prune()
    assert stage.data(PruneParams(criterion="taylor", macs_ratio=0.5)) == ("train",)
    assert stage.data(PruneParams(criterion="l1", macs_ratio=0.5)) == ()
    random = np.random.default_rng(0)
    train = split("train", random.normal(size=(64, 3, 8, 8)).astype(np.float32), random.integers(0, 4, 64))
    source = network("Plain", tmp_path)
    found, _ = prune(source, tmp_path, criterion="taylor", data={"train": train})
    assert found.meta["macs_ratio"] == pytest.approx(0.5, rel=0.03)


def test_two_runs_give_equal_bytes_and_random_follows_the_seed(tmp_path: Path) -> None:
    source = network("Plain", tmp_path, width=32)
    digests = [prune(source, tmp_path, criterion="random", seed=seed)[0].digest for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_the_input_artefact_is_not_touched(tmp_path: Path) -> None:
    source = network("Plain", tmp_path)
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in source.root.iterdir()}
    prune(source, tmp_path)
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in source.root.iterdir()} == before


def test_pruning_twice_counts_channels_of_the_original(tmp_path: Path) -> None:
    source = network("Plain", tmp_path, width=32)
    once, _ = prune(source, tmp_path, macs_ratio=0.7)
    twice, _ = prune(once, tmp_path, macs_ratio=0.6)
    assert twice.meta["macs"] / source.meta["macs"] == pytest.approx(0.42, rel=0.05)
    for name, kept in checkpoint.plan(twice).layers.items():
        earlier = checkpoint.plan(once).layers.get(name)
        if kept.out is not None and earlier is not None and earlier.out is not None:
            assert set(kept.out) <= set(earlier.out)


def test_kept_layers_keep_their_width(tmp_path: Path) -> None:
    source = network("ResNet20", tmp_path, width=16, option="conv")
    found, output = prune(source, tmp_path, keep=("stem.0", "blocks.?.a"), macs_ratio=0.7)
    assert not [name for name in widths(found) if name.startswith("stem") or ".a." in name]
    assert not output.notes
    with pytest.raises(ConfigError, match="did you mean 'head'"):
        prune(source, tmp_path, keep=("haed",))


def test_a_frozen_model_is_pruned_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "frozen.py").write_text(
        (ROOT / "nets.py").read_text() + "\n\ndef build():\n    return Plain(32).requires_grad_(False)\n"
    )
    from safetensors.torch import save_file

    from edgeopt.stages.load import Load
    from tests.compression import load_params

    model = checkpoint.build("frozen:build", {}, tmp_path)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    ctx = context(tmp_path, root=tmp_path)
    source = artifact(
        Load().run({}, load_params(tmp_path / "w.safetensors", "frozen:build", (3, 8, 8), tmp_path), ctx), ctx
    )
    ctx = context(tmp_path, root=tmp_path)
    with torch.no_grad():
        output = Prune().run({"model": source}, PruneParams(macs_ratio=0.5, channel_multiple=8), ctx)
    assert output.meta["macs_ratio"] == pytest.approx(0.5, rel=0.03)


def test_a_multiple_that_is_too_coarse_gives_the_nearest_below_and_says_so(tmp_path: Path) -> None:
    source = network("ChannelMean", tmp_path, width=32)  # only the first layer can go: 8, 16, 24 or 32
    found, output = prune(source, tmp_path, macs_ratio=0.7, channel_multiple=16)
    assert widths(found) == {"a": 16}
    assert found.meta["macs_ratio"] < 0.7 * 0.97
    assert any("nearest below" in note and "multiples of 16" in note for note in output.notes)


def test_widths_that_are_no_multiples_become_some(tmp_path: Path) -> None:
    source = network("Plain", tmp_path, width=21)
    found, output = prune(source, tmp_path, channel_multiple=8, macs_ratio=0.6)
    assert {name: width % 8 for name, width in widths(found).items() if name.startswith("features")}.keys()
    assert all(width % 8 == 0 for width in widths(found).values())
    assert widths(found)["features.0"] in (8, 16)
    assert not output.notes


def test_protected_layers_are_noted_with_the_line(tmp_path: Path) -> None:
    _, output = prune(network("HardView", tmp_path), tmp_path, macs_ratio=0.6)
    (note,) = output.notes
    assert note.startswith("kept whole: c.0: the network fails without them at")
    assert "nets.py:" in note


def test_an_unreachable_ratio_says_what_is_reachable_and_why(tmp_path: Path) -> None:
    source = network("ResNet20", tmp_path, width=8, blocks=1)
    with pytest.raises(StageError) as caught:
        prune(source, tmp_path, macs_ratio=0.1)
    message = str(caught.value)
    assert "macs_ratio 0.1 cannot be reached" in message
    assert "kept whole: stem.0" in message or "stem.0" in message
    smallest = float(message.split("the smallest is ")[1].split()[0])
    again, _ = prune(source, tmp_path, macs_ratio=np.ceil(smallest * 100) / 100)
    assert again.meta["macs_ratio"] <= np.ceil(smallest * 100) / 100 * 1.03


def test_a_network_that_cannot_be_pruned_at_all_says_so(tmp_path: Path) -> None:
    from tests import compression

    compression.SHAPES["OnlyHardView"] = (3, 8, 8)
    with pytest.raises(StageError) as caught:
        prune(network("OnlyHardView", tmp_path), tmp_path)
    message = str(caught.value)
    assert "the smallest is 1.000" in message
    assert "nets.py:" in message
    assert "flatten(1)" in message
    assert "leave out the prune step" in message


def test_the_multiple_comes_from_the_target_unless_the_recipe_has_one() -> None:
    target = Target.model_validate(
        {"target": 1, "name": "x", "runtime": "openvino", "limits": {"channel_multiple": 16}}
    )
    assert Prune().bind(PruneParams(macs_ratio=0.5), target).channel_multiple == 16
    assert Prune().bind(PruneParams(macs_ratio=0.5, channel_multiple=2), target).channel_multiple == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"macs_ratio": 0.0},
        {"macs_ratio": 1.0},
        {"macs_ratio": "0.5"},
        {"channel_multiple": 0},
        {"ratio": 0.5},
        {"gradient_batches": 0},
    ],
)
def test_parameters_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PruneParams(**{"macs_ratio": 0.5, **wrong})
