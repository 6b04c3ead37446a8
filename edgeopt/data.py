"""The user's data: opened splits, their digests, and the checks that keep a wrong split out of a verdict."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Split:
    """One split of the data, opened.

    Attributes:
        name: ``train``, ``calibrate``, ``select`` or ``evaluate``.
        samples: Raw samples as the device feeds them, (N, *raw shape), such as (N, H, W, C) uint8.
        labels: (N,) int64 class numbers, or float targets (N,) or (N, K); ``None`` for unlabelled calibration data.
        digest: sha256 over the content, dtypes and shapes.
    """

    name: str
    samples: Array
    labels: Array | None
    digest: str

    def __len__(self) -> int:
        return len(self.samples)

    def batches(self, size: int) -> Iterator[tuple[Array, Array | None]]:
        """``(samples, labels)`` in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            stop = start + size
            yield self.samples[start:stop], None if self.labels is None else self.labels[start:stop]
