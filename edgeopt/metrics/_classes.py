"""What metrics of a classifier share: which outputs and labels fit, and the softmax."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def check(outputs: Array, labels: Array, least_outputs: int) -> None:
    """See that outputs are (N, K) with at least that many columns, and labels (N,) class numbers below K.

    One output stands for two classes.

    Raises:
        ValueError: They are not.
    """
    if outputs.ndim != 2 or labels.ndim != 1 or len(outputs) != len(labels) or not len(labels):
        raise ValueError(f"needs outputs (N, K) and labels (N,), got {outputs.shape} and {labels.shape}")
    if outputs.shape[1] < least_outputs:
        raise ValueError(f"needs at least {least_outputs} outputs, there are {outputs.shape[1]}")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"needs class numbers as labels, got {labels.dtype}")
    highest = max(outputs.shape[1], 2) - 1
    if not 0 <= labels.min() <= labels.max() <= highest:
        raise ValueError(f"needs labels 0 to {highest}, got {labels.min()} to {labels.max()}")


def refuse_nan(outputs: Array) -> None:
    """For a metric in which a NaN would count as some answer.

    Raises:
        ValueError: There is one.
    """
    if np.isnan(outputs).any():
        raise ValueError("the outputs hold NaN")


def log_softmax(outputs: Array) -> npt.NDArray[np.float64]:
    """(N, K) logarithms of the softmax over the columns, without overflow."""
    shifted = outputs.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted
