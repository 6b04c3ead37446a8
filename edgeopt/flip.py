"""Samples whose decision flipped between the float baseline and what ships."""

from __future__ import annotations

import base64
import io
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeopt.artifact import Artifact
from edgeopt.data import Split
from edgeopt.record import FlipRecord

#: Flips that a record lists; more are only counted.
LISTED = 48
_PIXELS = 96

Array = npt.NDArray[Any]


def flips(before: Artifact, after: Artifact, split: Split, *, private: bool) -> tuple[FlipRecord, ...]:
    """The samples that two models decide differently.

    Args:
        before, after: Scores of the float baseline and of what ships.
        split: Of these scores.
        private: Show no sample.

    Returns:
        All of them, in the order of the split; only the first :data:`LISTED` have an image. None if no metric decides
        on single samples.
    """
    if "decisions.npy" not in before.files or "decisions.npy" not in after.files:
        return ()
    (was, was_right), (now, now_right) = map(_decided, (before, after))
    return tuple(
        FlipRecord(
            sample=row,
            label="" if split.labels is None else str(split.labels[row]),
            before=str(was[row]),
            after=str(now[row]),
            right=_right(was_right[row], now_right[row]),
            image="" if private or number >= LISTED else _image(split.samples[row]),
        )
        for number, row in enumerate(np.flatnonzero(was != now).tolist())
    )


def _decided(scores: Artifact) -> tuple[Array, Array]:
    decisions, right = (np.load(scores.path(name), allow_pickle=False) for name in ("decisions.npy", "right.npy"))
    return decisions, right


def _right(before: int, after: int) -> Literal["before", "after", "neither", "unknown"]:
    if before < 0 or after < 0:
        return "unknown"
    if before and after:
        return "unknown"  # both decisions count as right, so nothing is lost or gained
    return "before" if before else "after" if after else "neither"


def _image(sample: Array) -> str:
    """A raw sample (H, W, C) as a PNG in a ``data:`` URL, or nothing if it is no image.

    Images are uint8, grey, RGB or RGBA, and float, grey or RGB, in 0..1 or 0..255.
    """
    if sample.ndim != 3:
        return ""
    channels = sample.shape[2]
    if sample.dtype.kind == "f" and channels in (1, 3):
        sample = _pixels(sample)
    if sample.dtype != np.uint8 or channels not in (1, 3, 4):
        return ""
    from PIL import Image

    picture = Image.fromarray(sample[:, :, 0] if channels == 1 else sample)
    picture.thumbnail((_PIXELS, _PIXELS))
    memory = io.BytesIO()
    picture.save(memory, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(memory.getvalue()).decode()}"


def _pixels(sample: Array) -> Array:
    """Floats in 0..1 or 0..255 as uint8; others, such as normalised ones, as they are: their range is not known."""
    low, high = sample.min(), sample.max()
    if not (low >= 0 and high <= 255):
        return sample
    pixels: Array = np.rint(sample * 255 if high <= 1 else sample).astype(np.uint8)
    return pixels
