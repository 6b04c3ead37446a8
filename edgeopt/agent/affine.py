"""Integers that stand for real numbers: ``real = scale * (integer - zero_point)``.

What a device feeds and reads are the integers. The agent does the conversion around a run, which is not timed.
Source: https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Affine:
    """How the values of a tensor are coded.

    Attributes:
        dtype: Numpy's name of the type that is stored.
        scale: 0 where the values are not coded.
    """

    dtype: str
    scale: float = 0.0
    zero_point: int = 0

    @property
    def plain(self) -> bool:
        """The stored values are the real ones, as those of raw pixels are."""
        return self.scale == 0 or (self.scale == 1 and self.zero_point == 0)

    @property
    def outside(self) -> str:
        """Type that a user of the model sees."""
        return self.dtype if self.plain else "float32"

    def encode(self, values: Array) -> Array:
        """Real values as they are stored: rounded to the nearest, and clipped."""
        if self.plain:
            return values
        limits = np.iinfo(self.dtype)
        codes = np.round(values.astype(np.float64) / self.scale) + self.zero_point
        return np.clip(codes, limits.min, limits.max).astype(self.dtype)

    def decode(self, codes: Array) -> Array:
        """Stored values as real ones."""
        if self.plain:
            return codes
        return ((codes.astype(np.float64) - self.zero_point) * self.scale).astype(np.float32)


def of(details: dict[str, Any]) -> Affine:
    """From the details that an interpreter gives of an input or output, which has one scale for all values."""
    parameters = details["quantization_parameters"]
    scales, zeros = list(parameters["scales"]), list(parameters["zero_points"])
    dtype = np.dtype(details["dtype"])
    if not scales or dtype.kind not in "iu":
        return Affine(dtype.name)
    return Affine(dtype.name, float(scales[0]), int(zeros[0]) if zeros else 0)
