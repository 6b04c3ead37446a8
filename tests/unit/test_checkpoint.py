"""A checkpoint gives the same network back, in another process too, or says why it cannot."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeopt import checkpoint
from edgeopt.errors import ConfigError, StageError
from edgeopt.surgery import Kept, Plan, cut
from edgeopt.surgery.coupling import plan_of
from tests import nets
from tests.compression import ROOT, SHAPES, artifact, context, network

META = {"factory": "nets:Plain", "args": {}, "input": {"shape": [3, 8, 8]}}
PLAN = Plan({"features.0": Kept(out=(1, 4, 5)), "features.1": Kept(out=(1, 4, 5)), "features.3": Kept(into=(1, 4, 5))})


def pruned() -> nn.Module:
    torch.manual_seed(3)
    model = nets.Plain().eval()
    cut(model, PLAN)
    return model


def test_a_fresh_process_computes_the_same(tmp_path: Path) -> None:
    model = pruned()
    checkpoint.save(model, PLAN, META, tmp_path)
    x = checkpoint.example((3, 8, 8))
    np.save(tmp_path / "x.npy", x.numpy())
    code = (
        "import sys, pathlib, numpy, torch; from edgeopt import checkpoint; folder = pathlib.Path(sys.argv[1]);"
        "model = checkpoint.read(folder, pathlib.Path(sys.argv[2]));"
        "numpy.save(folder / 'y.npy', model(torch.from_numpy(numpy.load(folder / 'x.npy'))).detach().numpy());"
        "sys.exit('torch_pruning' in sys.modules)"
    )
    package = Path(checkpoint.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code, str(tmp_path), str(ROOT)], check=True, cwd=package)
    assert np.abs(np.load(tmp_path / "y.npy") - model(x).detach().numpy()).max() <= 1e-6


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        checkpoint.save(pruned(), PLAN, META, tmp_path / name)
        files.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert files[0] == files[1]


def test_tensors_that_are_views_or_tied_are_written_whole(tmp_path: Path) -> None:
    model = pruned()
    with torch.no_grad():
        model.head.weight = nn.Parameter(torch.randn(24, 4).T)
        model.head.bias = nn.Parameter(torch.randn(8)[::2])
    checkpoint.save(model, PLAN, META, tmp_path)
    again = checkpoint.read(tmp_path, ROOT)
    assert torch.equal(again.head.weight, model.head.weight)
    assert torch.equal(again.head.bias, model.head.bias)


def test_a_reused_module_survives(tmp_path: Path) -> None:
    source = network("Scaled", tmp_path)
    model = checkpoint.load(source, ROOT)
    groups = [("stem", "out"), ("gamma", "out"), ("twice", "in"), ("twice", "out"), ("wide", "in")]
    plan = plan_of(model, [(name, side, index) for name, side in groups for index in (2, 3, 9)])
    cut(model, plan)
    ctx = context(tmp_path)
    checkpoint.save(model, plan, source.meta, ctx.out)
    x = checkpoint.example(SHAPES["Scaled"])
    assert torch.equal(checkpoint.read(ctx.out, ROOT)(x), model(x))


def test_meta_counts_the_model_that_was_written(tmp_path: Path) -> None:
    meta = checkpoint.save(pruned(), PLAN, META, tmp_path)
    assert meta["params"] == sum(p.numel() for p in pruned().parameters())
    assert meta["macs"] == (64 * 3 * 9 * 3) + (16 * 3 * 9 * 32) + 32 * 16 * 24 + 24 * 4
    assert meta["plan"] == PLAN.digest
    assert meta["factory"] == META["factory"]


def test_changed_source_is_noticed(tmp_path: Path) -> None:
    source = network("Plain", tmp_path)
    stale = replace(source, meta={**source.meta, "source_digest": "0" * 64})
    with pytest.raises(StageError, match="source has changed"):
        checkpoint.load(stale, ROOT)


def test_a_factory_that_builds_something_else_each_time_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "fickle.py").write_text(
        "import torch, pathlib\n"
        "def build():\n"
        "    state = pathlib.Path(__file__).with_name('count')\n"
        "    count = int(state.read_text()) + 1 if state.exists() else 1\n"
        "    state.write_text(str(count))\n"
        "    return torch.nn.Linear(3, count)\n"
    )
    model = checkpoint.build("fickle:build", {}, tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    checkpoint.save(model, Plan({}), {"factory": "fickle:build", "args": {}, "input": {"shape": [3]}}, out)
    with pytest.raises(StageError, match="must build the same network"):
        checkpoint.read(out, tmp_path)


def test_building_leaves_the_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = checkpoint.build("nets:Plain", {}, ROOT)
    assert torch.equal(torch.rand(3), expected)
    second = checkpoint.build("nets:Plain", {"width": 16}, ROOT)
    assert torch.equal(first.head.weight, second.head.weight)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("    raise KeyError('width')", ["raised KeyError", "model.py:2"]),
        ("    return 3", ["returned an int, not a torch.nn.Module"]),
        ("    return None", ["returned a NoneType"]),
    ],
)
def test_a_factory_that_fails_is_the_users_mistake(tmp_path: Path, body: str, words: list[str]) -> None:
    (tmp_path / "model.py").write_text(f"def build():\n{body}\n")
    with pytest.raises(ConfigError) as caught:
        checkpoint.build("model:build", {}, tmp_path)
    for word in words:
        assert word in str(caught.value)


def test_wrong_arguments_are_shown() -> None:
    with pytest.raises(ConfigError, match=r"nets:Plain\(wdith=8\) raised TypeError"):
        checkpoint.build("nets:Plain", {"wdith": 8}, ROOT)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (3, 10, 10), 100 * 8 * 3 * 9),
        (nn.Conv2d(8, 8, 3, groups=8), (8, 10, 10), 64 * 8 * 9),
        (nn.Conv2d(8, 16, 1, groups=4, stride=2), (8, 10, 10), 25 * 16 * 2),
        (nn.Conv1d(4, 6, 5), (4, 20), 16 * 6 * 4 * 5),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (4, 5, 5), 25 * 4 * 6 * 4),
        (nn.Linear(7, 5), (7,), 35),
        (nn.Linear(7, 5), (11, 7), 11 * 35),
    ],
)
def test_macs_in_closed_form(layer: nn.Module, shape: tuple[int, ...], expected: int) -> None:
    assert checkpoint.macs(layer, shape) == expected


def test_a_layer_used_twice_counts_twice() -> None:
    assert checkpoint.layer_macs(nets.Scaled(), (3, 8, 8))["twice"] == 2 * 64 * 16 * 16 * 9


def test_counting_leaves_the_mode_as_it_was() -> None:
    model = nets.Plain().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    checkpoint.macs(model, (3, 8, 8))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_artifact_of_a_checkpoint_is_stable(tmp_path: Path) -> None:
    assert network("Plain", tmp_path / "a").digest == network("Plain", tmp_path / "b").digest
    ctx = context(tmp_path)
    meta = checkpoint.save(pruned(), PLAN, META, ctx.out)
    from edgeopt.stage import StageOutput

    assert checkpoint.plan(artifact(StageOutput("torch", meta), ctx)) == PLAN
