"""What every estimate is, and what all of them ask of their input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]] | npt.NDArray[np.integer[Any]] | Sequence[float]
Interval = tuple[float | None, float | None]


class Estimate(NamedTuple):
    """A value and its (low, high) bounds; a bound is None where the data cannot support one."""

    value: float
    interval: Interval


def rank(n: int, q: float) -> int:
    """⌈nq⌉, at least 1; the product is rounded first, for 100 × 0.07 is 7.000000000000001 in floats."""
    return max(1, math.ceil(round(n * q, 9)))


def quantile(samples: npt.NDArray[np.float64], q: float) -> float:
    """The nearest-rank quantile: the ⌈nq⌉-th smallest sample."""
    position = rank(len(samples), q) - 1
    return float(np.partition(samples, position)[position])


def series(samples: Floats, name: str) -> npt.NDArray[np.float64]:
    """``samples`` as (n,) float64.

    Raises:
        ValueError: Not a series, empty, or not finite.
    """
    array = np.asarray(samples, dtype=np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"{name} must be a non-empty series of finite numbers, not of shape {array.shape}")
    return array


def positive_pair(a: Floats, b: Floats) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Two interleaved series of positive numbers.

    Raises:
        ValueError: Unlike lengths, or a number that is not positive.
    """
    first, second = series(a, "a"), series(b, "b")
    if len(first) != len(second):
        raise ValueError(f"interleaved series have the same length, not {len(first)} and {len(second)}")
    if min(first.min(), second.min()) <= 0:
        raise ValueError("a ratio needs positive samples")
    return first, second


def require_fractions(**values: float) -> None:
    """Each lies between 0 and 1, or ValueError."""
    for name, value in values.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie between 0 and 1, not {value}")


def between(values: npt.NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """The central part of ``values``, by linear interpolation."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
