"""Made-up embeddings of made-up people."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def people(count: int, each: int, *, noise: float = 0.9, size: int = 16, seed: int = 0) -> tuple[Array, Array]:
    """Embeddings (N, size) float32 around a direction per person, and identities (N,)."""
    random = np.random.default_rng(seed)
    centres = np.repeat(random.standard_normal((count, size)), each, axis=0)
    return (centres + noise * random.standard_normal(centres.shape)).astype(np.float32), np.repeat(
        [f"p{number:04d}" for number in range(count)], each
    )


def cosines(embeddings: Array, one: Array, other: Array) -> Array:
    """Of pairs of rows, as float32."""
    vectors = embeddings.astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.einsum("md,md->m", vectors[one], vectors[other]).astype(np.float32)
