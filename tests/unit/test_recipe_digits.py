"""The digits recipe: its data are what they say, its network has the promised shape, its weights are good."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgeopt import config
from edgeopt.data import open_splits, to_input
from edgeopt.recipe import Recipe

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "digits"
CALIBRATION = ROOT / "calibration_data" / "digits"
SPLITS = ("train", "calibrate", "select", "evaluate")


def load_module(path: Path) -> ModuleType:
    """Import a file under a name of its own, so that no other ``data`` or ``model`` is replaced."""
    spec = importlib.util.spec_from_file_location(f"digits_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data() -> ModuleType:
    return load_module(RECIPE / "data.py")


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    model = load_module(RECIPE / "model.py").digits_resnet(width=32)
    model.load_state_dict(load_file(RECIPE / "weights.safetensors"))
    return model.eval()


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return config.load(RECIPE / "recipe.yaml", Recipe)


def test_splits_are_all_digits_of_scikit_learn_each_once(data):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    expected = data.enlarge(bunch.images.astype(np.uint8))
    ours = [getattr(data, name)() for name in SPLITS]
    samples = np.concatenate([samples for samples, _ in ours])
    labels = np.concatenate([labels for _, labels in ours])

    assert samples.dtype == np.uint8
    assert samples.shape == (1797, 32, 32, 1)
    assert labels.dtype == np.int64
    content = {sample.tobytes(): label for sample, label in zip(samples, labels, strict=True)}
    assert len(content) == 1797, "two images are the same, within a split or across two"
    assert content == {sample.tobytes(): label for sample, label in zip(expected, bunch.target, strict=True)}


@pytest.mark.parametrize("name", SPLITS)
def test_splits_are_stratified(data, name):
    _, labels = getattr(data, name)()
    _, everything = data._digits()
    expected = np.bincount(everything) * len(labels) / len(everything)
    assert np.abs(np.bincount(labels) - expected).max() <= 1


def test_enlarge_is_bilinear_interpolation(data):
    images = np.random.default_rng(0).integers(0, 17, (20, 8, 8), dtype=np.uint8)
    exact = torch.nn.functional.interpolate(
        torch.from_numpy(images)[:, None].double(), scale_factor=4, mode="bilinear", align_corners=False
    )
    ours = torch.from_numpy(data.enlarge(images)).permute(0, 3, 1, 2)
    assert (ours - exact * 255 / 16).abs().max() <= 0.5


def test_enlarge_uses_the_full_range(data):
    assert (data.enlarge(np.full((1, 8, 8), 16, np.uint8)) == 255).all()
    assert (data.enlarge(np.zeros((1, 8, 8), np.uint8)) == 0).all()


def test_loading_does_not_import_scikit_learn():
    code = "import sys, data; data.evaluate(); sys.exit('sklearn' in sys.modules or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=RECIPE, check=True)


def test_missing_scikit_learn_says_how_to_get_it(monkeypatch):
    data = load_module(RECIPE / "data.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install scikit-learn"):
        data.train()


def test_other_digits_are_refused(monkeypatch, tmp_path):
    folder = tmp_path / "datasets" / "data"
    folder.mkdir(parents=True)
    (folder / "digits.csv.gz").write_bytes(gzip.compress(b"0," * 64 + b"0\n"))
    data = load_module(RECIPE / "data.py")
    spec = importlib.util.spec_from_file_location("sklearn", tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ValueError, match="not the digits file"):
        data.train()


def test_calibration_set_is_the_calibrate_split(data):
    samples, labels = data.calibrate()
    with np.load(CALIBRATION / "calibration.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["samples"], samples)
        np.testing.assert_array_equal(archive["labels"], labels)


def test_manifest_describes_the_calibration_set():
    manifest = json.loads((CALIBRATION / "manifest.json").read_text(encoding="utf-8"))
    archive = CALIBRATION / manifest["file"]
    assert manifest["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert manifest["licence"] == "CC-BY-4.0"
    assert (ROOT / manifest["made_by"]).is_file()
    with np.load(archive, allow_pickle=False) as arrays:
        assert manifest["count"] == len(arrays["samples"])
        described = {name: (spec["shape"], spec["dtype"]) for name, spec in manifest["arrays"].items()}
        assert described == {name: (list(arrays[name].shape), str(arrays[name].dtype)) for name in arrays.files}


def test_making_the_calibration_set_again_gives_the_same_bytes(tmp_path):
    code = "import sys, pathlib, make; make.main(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=CALIBRATION, check=True)
    for name in ("calibration.npz", "manifest.json"):
        assert (tmp_path / name).read_bytes() == (CALIBRATION / name).read_bytes(), name


def test_recipe_is_valid_and_its_splits_are_disjoint(recipe):
    assert recipe.preprocess is not None
    splits = open_splits(recipe.data, recipe.preprocess.raw, RECIPE)
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 650,
        "calibrate": 128,
        "select": 420,
        "evaluate": 599,
    }


def test_network_has_the_promised_size_and_structure(network):
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    assert any(conv.groups == conv.in_channels > 1 for conv in convolutions), "no depthwise convolution"
    assert all(conv.out_channels % 16 == 0 for conv in convolutions)
    assert sum(parameter.numel() for parameter in network.parameters()) >= 100_000
    assert (RECIPE / "weights.safetensors").stat().st_size <= 1_000_000


def test_weights_are_accurate_with_the_preprocessing_of_the_recipe(recipe, network, data):
    samples, labels = data.evaluate()
    with torch.no_grad():
        logits = network(torch.from_numpy(to_input(samples, recipe.preprocess)))
    assert logits.shape == (599, 10)
    assert logits.dtype == torch.float32
    assert (logits.argmax(dim=1).numpy() == labels).mean() >= 0.985


def test_training_twice_gives_the_same_bytes_and_learns(tmp_path, monkeypatch):
    """One epoch, on few images: the whole schedule takes minutes."""
    code = (
        "import pathlib, sys, train, data\n"
        "small = lambda split: (split[0][:100], split[1][:100])\n"
        "parts = {name: small(getattr(data, name)()) for name in ('train', 'select', 'evaluate')}\n"
        "[setattr(data, name, lambda part=part: part) for name, part in parts.items()]\n"
        "sys.argv = ['train.py', '--epochs', '1', '--out', sys.argv[1]]\n"
        "train.main()\n"
    )
    outputs = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for output in outputs:
        subprocess.run([sys.executable, "-c", code, str(output)], cwd=RECIPE, check=True, capture_output=True)
    first, second = (output.read_bytes() for output in outputs)
    assert first == second
    assert load_file(outputs[0]).keys() == load_file(RECIPE / "weights.safetensors").keys()
