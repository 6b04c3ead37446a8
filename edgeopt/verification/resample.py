"""Error rates of resampled identities: the bootstrap that knows that the pairs of a person hang together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from edgeopt.verification.scores import Scores

Floats = npt.NDArray[np.float64]

RESAMPLES = 1000


class Point(NamedTuple):
    """A point on the curve of every resample: (B,) each, and whether all of them reach it."""

    far: Floats
    frr: Floats
    threshold: Floats
    reached: bool


@dataclass(frozen=True, eq=False)
class Curves:
    """FAR and FRR of every resample at falling thresholds.

    Identities are drawn with replacement, as many as there are; one that was drawn w times counts w-fold. A genuine
    pair has the weight of its identity, an impostor pair the product of both. The same seed and number of identities
    give the same draws, so that two models that saw the same people can be compared resample by resample.

    Sources: the vertex bootstrap of Snijders and Borgatti (Non-parametric standard errors and tests for network
    statistics, Connections 22, 1999) for impostor pairs, which belong to two identities; the subsets bootstrap of
    Bolle, Ratha and Pankanti (Error analysis of pattern recognition systems, Computer Vision and Image Understanding
    93, 2004) for genuine ones. Bolle et al. resample impostor pairs by one identity only, and miss the other one.

    Attributes:
        thresholds: (G,) float32, falling.
        far, frr: (G, B) of every resample.
    """

    thresholds: npt.NDArray[np.float32]
    far: Floats
    frr: Floats

    @classmethod
    def of(cls, scores: Scores, thresholds: npt.NDArray[np.float32], seed: int, resamples: int = RESAMPLES) -> Curves:
        """The rates at some thresholds.

        Args:
            scores: Of all pairs.
            thresholds: (G,) falling. The work grows with the number of impostor pairs above the last one.
            seed: Of the draws.
            resamples: B.
        """
        people = scores.trials.people
        weights = draws(people, resamples, seed)
        impostors = scores.trials.impostor_weight(weights)
        genuine = scores.trials.genuine @ weights
        fine = (impostors > 0) & (genuine > 0)  # all draws but for a handful of identities
        if not fine.all():
            weights, impostors, genuine = np.ascontiguousarray(weights[:, fine]), impostors[fine], genuine[fine]
        return cls(
            thresholds,
            _accepted(scores, thresholds, weights) / impostors,
            _rejected(scores, thresholds, weights) / genuine,
        )

    def at(self, point: float | Literal["eer"]) -> Point:
        """Where the FAR of each resample is ``point``, or equal to its FRR; on straight lines between thresholds."""
        rising = self.far - (self.frr if point == "eer" else point)
        step = np.clip((rising <= 0).sum(axis=0) - 1, 0, len(rising) - 2)
        low, high = (np.take_along_axis(rising, rows[None], axis=0)[0] for rows in (step, step + 1))
        share = np.clip(-low / np.where(high > low, high - low, 1.0), 0.0, 1.0)

        def between(rows: Floats) -> Floats:
            first, second = (np.take_along_axis(rows, at[None], axis=0)[0] for at in (step, step + 1))
            return np.asarray(first + share * (second - first))

        thresholds = np.broadcast_to(self.thresholds[:, None].astype(np.float64), rising.shape)
        return Point(between(self.far), between(self.frr), between(thresholds), bool((rising[-1] >= 0).all()))


def draws(people: int, resamples: int, seed: int) -> npt.NDArray[np.float32]:
    """(people, B) how often each identity is drawn."""
    drawn = np.random.default_rng(seed).integers(people, size=(resamples, people))
    drawn += people * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * people).reshape(resamples, people)
    return counts.T.astype(np.float32, order="C")


def _accepted(scores: Scores, thresholds: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]) -> Floats:
    """(G, B) weight of the impostor pairs at or above each threshold."""
    from scipy import sparse

    one, other = scores.accepted_impostors(float(thresholds[-1]))
    ends = [scores.false_accepts(float(threshold)) for threshold in thresholds]
    sums = np.zeros((len(thresholds), weights.shape[1]))
    for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        new = slice(start, end)
        people, row = np.unique(one[new], return_inverse=True)
        counts = np.ones(len(row), np.float32)  # whole numbers: the sums are exact
        matrix = sparse.coo_array((counts, (row, other[new])), shape=(len(people), len(weights))).tocsr()
        sums[number] = np.einsum("ib,ib->b", matrix @ weights, weights[people])
    return np.cumsum(sums, axis=0)


def _rejected(scores: Scores, thresholds: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]) -> Floats:
    """(G, B) weight of the genuine pairs below each threshold."""
    people = scores.rejected_genuine(float(thresholds[0]))
    ends = [scores.false_rejects(float(threshold)) for threshold in thresholds]
    counts = np.zeros((len(thresholds), len(weights)), np.float32)
    for number, (start, end) in enumerate(zip([*ends[1:], 0], ends, strict=True)):
        counts[number] = np.bincount(people[start:end], minlength=len(weights))
    return np.cumsum((counts @ weights)[::-1], axis=0, dtype=np.float64)[::-1]
