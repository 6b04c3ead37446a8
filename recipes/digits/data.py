"""The digits data: 1,797 real handwritten digits from scikit-learn, in four disjoint splits.

scikit-learn bundles the test half of the UCI "Optical Recognition of Handwritten Digits" set as 8x8 images with values
0..16. Here each image is enlarged to 32x32 and scaled to 0..255, so that it looks like what a small camera would give.

The file is read directly, without importing scikit-learn: ``import sklearn.datasets`` alone costs about two seconds,
and these loaders run in every ``edgeopt compile``.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

Split = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]

#: Changing the seed changes every split, and the committed weights and calibration set then no longer belong to them.
SEED = b"edgeopt digits 1"
#: Images per split, in the order in which they are cut. "evaluate" is the largest: it decides how narrow a gate can be.
SIZES = {"train": 650, "calibrate": 128, "select": 420, "evaluate": 599}

CSV_SHA256 = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"


def train() -> Split:
    """650 images that training, pruning and distillation learn from: uint8 (N, 32, 32, 1) and int64 labels (N,)."""
    return _split("train")


def calibrate() -> Split:
    """128 images that set the INT8 ranges; ``calibration_data/digits/make.py`` writes them to a file."""
    return _split("calibrate")


def select() -> Split:
    """420 images on which every decision is taken: the best epoch, and later the best candidate."""
    return _split("select")


def evaluate() -> Split:
    """599 images that only the report and the gates look at."""
    return _split("evaluate")


def _split(name: str) -> Split:
    images, labels = _digits()
    names = list(SIZES)
    start = sum(SIZES[earlier] for earlier in names[: names.index(name)])
    chosen = _order()[start : start + SIZES[name]]
    return enlarge(images[chosen]), labels[chosen]


@cache
def _digits() -> Split:
    """All images as uint8 (1797, 8, 8) with values 0..16, and their labels, in scikit-learn's own order.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
        ValueError: its digits are not those that the weights were trained on.
    """
    package = importlib.util.find_spec("sklearn")  # finds the package, does not import it
    if package is None or package.origin is None:
        raise ModuleNotFoundError(
            "the digits recipe reads the images that scikit-learn bundles; run: pip install scikit-learn"
        )
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    text = gzip.decompress(path.read_bytes())
    if hashlib.sha256(text).hexdigest() != CSV_SHA256:
        raise ValueError(f"{path} is not the digits file that the splits and the weights were made from")
    table = np.loadtxt(text.decode("ascii").splitlines(), delimiter=",", dtype=np.uint8)
    return table[:, :64].reshape(-1, 8, 8), table[:, 64].astype(np.int64)


@cache
def _order() -> npt.NDArray[np.int64]:
    """Sample numbers in an order whose every prefix has all classes in their right proportion.

    Within a class, images are ordered by the hash of the seed and their pixels. No random generator is involved, so no
    version of numpy can change the splits. An image's rank within its class, as a fraction of the class, is then its
    place in the whole order.

    All 1,797 images differ (a test checks it), so disjoint samples are disjoint content.
    """
    images, labels = _digits()
    keys = np.array([hashlib.sha256(SEED + image.tobytes()).hexdigest() for image in images])
    place = np.empty(len(images))
    for label in range(10):
        members = np.flatnonzero(labels == label)
        ranked = members[np.argsort(keys[members])]
        place[ranked] = (np.arange(len(ranked)) + 0.5) / len(ranked)
    return np.lexsort((keys, place))


def enlarge(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Enlarge 8x8 images of 0..16 to raw camera-like images of 0..255, by bilinear interpolation.

    The sampling grid has half-pixel centres and repeats the border, as in OpenCV's ``INTER_LINEAR`` and torch's
    ``interpolate(mode="bilinear", align_corners=False)``. With a factor of four all weights are eighths, so the sums
    are whole numbers below 2**24 and float32 holds them exactly: the result is the same on every machine.

    Args:
        images: uint8 (N, 8, 8), values 0..16.

    Returns:
        uint8 (N, 32, 32, 1), values 0..255.
    """
    eighths = _bilinear_eighths(8, 4)
    sums = eighths @ images.astype(np.float32) @ eighths.T  # 0 .. 16 * 8 * 8
    scaled = np.floor((sums.astype(np.int32) * 255 + 512) / 1024)
    return scaled.astype(np.uint8)[..., np.newaxis]


def _bilinear_eighths(size: int, factor: int) -> npt.NDArray[np.float32]:
    """Weights (size * factor, size) of one bilinear axis, in eighths."""
    centre = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
    distance = np.abs(centre[:, np.newaxis] - np.arange(size))
    return (8 * np.maximum(0, 1 - distance)).astype(np.float32)
