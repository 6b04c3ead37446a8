"""All comparisons of a design, numbered, and their scores, a block at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Similarity = Literal["cosine", "l2"]

#: Comparisons in a block.
_BLOCK = 1 << 20


class Trials(ABC):
    """All comparisons, numbered; each has a score and two people.

    Attributes:
        people: How many identities there are; they are numbered from 0.
        count: Comparisons.
    """

    people: int
    count: int

    @abstractmethod
    def blocks(self) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]:
        """Scores (M,), and which are of genuine pairs, in the order of their numbers."""

    @abstractmethod
    def at(self, numbers: Array) -> tuple[Array, Array]:
        """The two people of some comparisons, (M,) each."""

    @property
    @abstractmethod
    def genuine(self) -> Floats:
        """(people,) genuine pairs of each identity."""

    @property
    @abstractmethod
    def impostors(self) -> Floats:
        """(people,) impostor pairs that each identity takes part in."""

    @abstractmethod
    def between(self, one: Array, other: Array) -> Floats:
        """(M,) comparisons of two people that are not the same."""

    @property
    @abstractmethod
    def squares(self) -> float:
        """The sum of the squares of :meth:`between` over all pairs of people."""

    @abstractmethod
    def impostor_weight(self, weights: Array) -> Floats:
        """(B,) the sum over impostor pairs of the product of both people's weights (people, B)."""


def _to_scores(dots: Floats, first: Floats | None, second: Floats | None) -> npt.NDArray[np.float32]:
    """Scores of dot products; for distances the squared lengths are given.

    float32 hides the rounding of the matrix product, which depends on where in a block a pair lies: equal embeddings
    have equal scores.
    """
    if first is not None and second is not None:
        dots = -np.sqrt(np.maximum(first + second - 2 * dots, 0))
    return dots.astype(np.float32)


class Grid(Trials):
    """Rows against columns, or every sample against every other once."""

    def __init__(
        self, vectors: Floats, person: Array, rows: Array, columns: Array | None, similarity: Similarity, people: int
    ) -> None:
        self._once = columns is None
        columns = rows if columns is None else columns
        self._left, self._right = vectors[rows], vectors[columns]
        self._people = person[rows], person[columns]
        self._lengths = [np.einsum("nd,nd->n", v, v) for v in (self._left, self._right)] if similarity == "l2" else None
        self._of = [np.bincount(p, minlength=people).astype(np.float64) for p in self._people]
        self._share = 0.5 if self._once else 1.0  # of the comparisons that rows × columns would give
        widths = np.arange(len(rows))[::-1] if self._once else np.full(len(rows), len(columns))
        self._starts = np.concatenate([[0], np.cumsum(widths)])
        self.people, self.count = people, int(self._starts[-1])

    def blocks(self) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]:
        rows = max(1, _BLOCK // max(1, len(self._right)))
        for start in range(0, len(self._left), rows):
            block = slice(start, start + rows)
            right = slice(start if self._once else 0, None)
            dots = self._left[block] @ self._right[right].T
            lengths = (self._lengths[0][block, None], self._lengths[1][right]) if self._lengths else (None, None)
            scores = _to_scores(dots, *lengths)
            genuine = self._people[0][block, None] == self._people[1][right]
            if self._once:
                later = np.arange(scores.shape[1]) > np.arange(scores.shape[0])[:, None]
                yield scores[later], genuine[later]
            else:
                yield scores.ravel(), genuine.ravel()

    def at(self, numbers: Array) -> tuple[Array, Array]:
        rows = np.searchsorted(self._starts, numbers, side="right") - 1
        columns = numbers - self._starts[rows] + (rows + 1 if self._once else 0)
        return self._people[0][rows], self._people[1][columns]

    @property
    def genuine(self) -> Floats:
        rows, columns = self._of
        found: Floats = rows * (rows - 1) / 2 if self._once else rows * columns
        return found

    @property
    def impostors(self) -> Floats:
        rows, columns = self._of
        found: Floats = self._share * (rows * (columns.sum() - columns) + columns * (rows.sum() - rows))
        return found

    def between(self, one: Array, other: Array) -> Floats:
        rows, columns = self._of
        return self._share * (rows[one] * columns[other] + rows[other] * columns[one])

    @property
    def squares(self) -> float:
        rows, columns = self._of
        everyone = 2 * (rows @ rows) * (columns @ columns) + 2 * (rows @ columns) ** 2
        return float(self._share**2 * (everyone - 4 * ((rows * columns) ** 2).sum()) / 2)

    def impostor_weight(self, weights: Array) -> Floats:
        rows, columns = (of @ weights for of in self._of)
        of_one: Floats = (self._of[0] * self._of[1]) @ weights.astype(np.float64) ** 2
        return self._share * (rows * columns - of_one)


class Listed(Trials):
    """A list of pairs."""

    def __init__(self, vectors: Floats, person: Array, pairs: Array, similarity: Similarity, people: int) -> None:
        self._vectors, self._pairs = vectors, pairs
        self._lengths = np.einsum("nd,nd->n", vectors, vectors) if similarity == "l2" else None
        ends = person[pairs]
        self._ends = np.sort(ends, axis=1)
        self._genuine = ends[:, 0] == ends[:, 1]
        self.people, self.count = people, len(pairs)

    def blocks(self) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]:
        step = max(1, _BLOCK * 8 // self._vectors.shape[1])
        for start in range(0, self.count, step):
            one, other = self._pairs[start : start + step].T
            dots = np.einsum("md,md->m", self._vectors[one], self._vectors[other])
            lengths = (None, None) if self._lengths is None else (self._lengths[one], self._lengths[other])
            yield _to_scores(dots, *lengths), self._genuine[start : start + step]

    def at(self, numbers: Array) -> tuple[Array, Array]:
        ends = self._ends[numbers]
        return ends[:, 0], ends[:, 1]

    @property
    def genuine(self) -> Floats:
        return np.bincount(self._ends[self._genuine, 0], minlength=self.people).astype(np.float64)

    @property
    def impostors(self) -> Floats:
        return np.bincount(self._ends[~self._genuine].ravel(), minlength=self.people).astype(np.float64)

    def between(self, one: Array, other: Array) -> Floats:
        codes, counts = self._counts
        wanted = np.minimum(one, other).astype(np.int64) * self.people + np.maximum(one, other)
        places = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
        return np.where(codes[places] == wanted, counts[places], 0.0)

    @property
    def squares(self) -> float:
        return float((self._counts[1] ** 2).sum())

    def impostor_weight(self, weights: Array) -> Floats:
        from scipy import sparse

        codes, counts = self._counts
        one, other = np.divmod(codes, self.people)
        matrix = sparse.csr_array((counts, (one, other)), shape=(self.people, self.people))
        total: Floats = np.einsum("ib,ib->b", matrix @ weights.astype(np.float64), weights)
        return total

    @cached_property
    def _counts(self) -> tuple[Array, Floats]:
        """Comparisons of each two people: code and number."""
        ends = self._ends[~self._genuine].astype(np.int64)
        codes, counts = np.unique(ends[:, 0] * self.people + ends[:, 1], return_counts=True)
        return codes, counts.astype(np.float64)
