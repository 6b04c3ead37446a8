"""Samples whose decision flipped."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeopt import flip
from edgeopt.artifact import Artifact
from edgeopt.data import Split
from edgeopt.flip import flips


def scores(folder: Path, name: str, decisions: np.ndarray, right: np.ndarray | None = None) -> Artifact:
    root = folder / name
    root.mkdir()
    known = np.full(len(decisions), -1, np.int8) if right is None else right.astype(np.int8)
    np.save(root / "decisions.npy", decisions, allow_pickle=False)
    np.save(root / "right.npy", known, allow_pickle=False)
    return Artifact("scores", name, root, {"decisions.npy": "", "right.npy": ""}, {})


def split(count: int, shape: tuple[int, ...] = (8, 8, 3), labels: bool = True) -> Split:
    samples = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    return Split("evaluate", samples, np.arange(count) % 3 if labels else None, "")


def _shown(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def test_which_flipped_and_who_was_right(tmp_path):
    labels = np.array([0, 1, 2, 0, 1])
    was, now = np.array([0, 1, 0, 1, 1]), np.array([0, 2, 2, 2, 1])
    before, after = scores(tmp_path, "a", was, was == labels), scores(tmp_path, "b", now, now == labels)
    found = flips(before, after, split(5), private=False)
    assert [(one.sample, one.label, one.before, one.after, one.right) for one in found] == [
        (1, "1", "1", "2", "before"),
        (2, "2", "0", "2", "after"),
        (3, "0", "1", "2", "neither"),
    ]


def test_a_sample_that_both_get_right_is_not_lost(tmp_path):
    right = np.ones(2, np.int8)
    before, after = scores(tmp_path, "a", np.array([0, 1]), right), scores(tmp_path, "b", np.array([0, 2]), right)
    assert [one.right for one in flips(before, after, split(2), private=False)] == ["unknown"]


def test_a_model_against_itself_flips_nothing(tmp_path):
    same = scores(tmp_path, "a", np.arange(5))
    assert flips(same, same, split(5), private=False) == ()


def test_words_and_no_labels(tmp_path):
    before = scores(tmp_path, "a", np.array(["attack", "bonafide"]))
    after = scores(tmp_path, "b", np.array(["bonafide", "bonafide"]))
    (one,) = flips(before, after, split(2, labels=False), private=False)
    assert (one.before, one.after, one.label, one.right) == ("attack", "bonafide", "", "unknown")


@pytest.mark.parametrize("missing", ["before", "after"])
def test_where_nothing_is_decided_nothing_flips(tmp_path, missing):
    one, none = scores(tmp_path, "a", np.arange(3)), Artifact("scores", "", tmp_path, {}, {})
    pair = (none, one) if missing == "before" else (one, none)
    assert flips(*pair, split(3), private=False) == ()


@pytest.mark.parametrize("shape", [(8, 8, 3), (8, 8, 1), (300, 200, 3)])
def test_an_image_is_a_small_png(tmp_path, shape):
    before, after = scores(tmp_path, "a", np.zeros(2)), scores(tmp_path, "b", np.array([0, 1]))
    data = split(2, shape)
    (one,) = flips(before, after, data, private=False)
    kind, _, content = one.image.partition(",")
    assert kind == "data:image/png;base64"
    shown = Image.open(io.BytesIO(base64.b64decode(content)))
    assert max(shown.size) <= 96
    if max(shape) == 8:
        expected = data.samples[1] if shape[2] == 3 else data.samples[1][:, :, 0]
        np.testing.assert_array_equal(np.asarray(shown), expected)


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 3)])
@pytest.mark.parametrize("scale", [1 / 255, 1.0])
def test_floats_in_a_known_range_are_shown_as_their_pixels(shape, scale):
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    pixels[0, 0] = 255
    np.testing.assert_array_equal(_shown(flip._image((pixels * scale).astype(np.float32))), pixels.squeeze())


def test_transparency_is_kept():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    np.testing.assert_array_equal(_shown(flip._image(pixels)), pixels)


@pytest.mark.parametrize("value", [-0.5, 300.0, np.nan])
def test_floats_in_an_unknown_range_are_not_shown(value):
    sample = np.zeros((8, 8, 3), np.float32)
    sample[0, 0, 0] = value
    assert flip._image(sample) == ""


@pytest.mark.parametrize("sample", [np.zeros((8, 8, 4), np.float32), np.zeros((8, 8, 3), np.int16)])
def test_other_kinds_of_numbers_are_not_shown(sample):
    assert flip._image(sample) == ""


@pytest.mark.parametrize("shape", [(40,), (8, 8), (8, 8, 5)])
def test_what_is_no_image_is_not_shown(tmp_path, shape):
    before, after = scores(tmp_path, "a", np.zeros(2)), scores(tmp_path, "b", np.ones(2))
    assert {one.image for one in flips(before, after, split(2, shape), private=False)} == {""}


def test_private_data_are_never_shown(tmp_path):
    before, after = scores(tmp_path, "a", np.zeros(2)), scores(tmp_path, "b", np.ones(2))
    found = flips(before, after, split(2), private=True)
    assert len(found) == 2
    assert {one.image for one in found} == {""}


def test_only_the_first_ones_have_an_image(tmp_path):
    count = flip.LISTED + 5
    before, after = scores(tmp_path, "a", np.zeros(count)), scores(tmp_path, "b", np.ones(count))
    found = flips(before, after, split(count), private=False)
    assert len(found) == count
    assert [bool(one.image) for one in found] == [True] * flip.LISTED + [False] * 5
