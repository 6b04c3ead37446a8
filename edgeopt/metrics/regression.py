"""Regression: how far the outputs are from the targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class MeanAbsoluteError:
    """Mean of |output − target| over samples and outputs, in the unit of the target."""

    name: str = "mae"
    unit: str = ""
    better: Literal["lower", "higher"] = "lower"

    def hits(self, outputs: Array, labels: Array) -> None:
        """Not a share."""

    def compute(self, outputs: Array, labels: Array) -> float:
        """Mean over all elements.

        Raises:
            ValueError: Outputs (N, K) and targets (N,) or (N, K) do not fit.
        """
        flat, targets = outputs.reshape(len(outputs), -1), labels.reshape(len(labels), -1)
        if flat.shape != targets.shape:
            raise ValueError(f"needs as many targets as outputs, got {targets.shape} and {flat.shape}")
        return float(np.abs(flat.astype(np.float64) - targets).mean())


PLUGINS = (MeanAbsoluteError(),)
