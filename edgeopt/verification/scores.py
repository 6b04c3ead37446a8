"""Exact error rates: the scores of all pairs in order, eight bytes each.

A score and the number of its comparison are packed into one 64-bit number whose order is that of the scores, worst
error first: the highest impostor, the lowest genuine pair. Sorting such numbers is fast, and the tail that decides on
error rates says which people it is made of.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from edgeopt.verification.pairs import Design, TooFew, prepare
from edgeopt.verification.resample import Curves, Point
from edgeopt.verification.trials import Array, Similarity, Trials

Codes = npt.NDArray[np.uint64]
_ALL = 0xFFFFFFFF
#: Thresholds of the curves: neighbours differ by a few per cent of the accepted impostors, far less than resamples do.
_POINTS = 300


class EqualError(NamedTuple):
    """Where FAR and FRR meet."""

    rate: float
    threshold: float


class Roc(NamedTuple):
    """Points of the curve, from strict to lenient thresholds: (M,) each."""

    threshold: npt.NDArray[np.float32]
    far: npt.NDArray[np.float64]
    frr: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of one set of comparisons.

    Attributes:
        trials: The comparisons.
        impostor: (M,) codes of impostor pairs, the highest score first.
        genuine: (M,) codes of genuine pairs, the lowest score first.
        impostor_count, genuine_count: How many there are; of more than :attr:`LIMIT` only the worst are kept.
    """

    #: Codes that are kept of either kind: 240 MB.
    LIMIT = 30_000_000

    trials: Trials
    impostor: Codes
    genuine: Codes
    impostor_count: int
    genuine_count: int
    _curves: dict[int, tuple[float, Curves]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, embeddings: Array, design: Design, similarity: Similarity = "cosine") -> Scores:
        """Compare embeddings (N, D); see :func:`~edgeopt.verification.pairs.prepare`, also for what is raised."""
        trials = prepare(embeddings, design, similarity)
        impostor, genuine = _Worst(cls.LIMIT), _Worst(cls.LIMIT)
        done = 0
        for scores, same in trials.blocks():
            numbers = np.arange(done, done + len(scores), dtype=np.uint64)
            done += len(scores)
            keys = _keys(scores)
            genuine.add(keys[same].astype(np.uint64) << np.uint64(32) | numbers[same])
            impostor.add((~keys[~same]).astype(np.uint64) << np.uint64(32) | numbers[~same])
        return cls(trials, impostor.sorted(), genuine.sorted(), impostor.count, genuine.count)

    def false_accepts(self, threshold: float) -> int:
        """Impostor pairs that score at or above the threshold.

        Raises:
            TooFew: They reach beyond what is kept.
        """
        return self._accepted(_key(threshold))

    def false_rejects(self, threshold: float) -> int:
        """Genuine pairs that score below the threshold.

        Raises:
            TooFew: They reach beyond what is kept.
        """
        return self._rejected(_key(threshold))

    def far(self, threshold: float) -> float:
        """The false accept rate at a threshold."""
        return self.false_accepts(threshold) / self.impostor_count

    def frr(self, threshold: float) -> float:
        """The false reject rate at a threshold."""
        return self.false_rejects(threshold) / self.genuine_count

    def threshold(self, far: float) -> float:
        """The lowest threshold whose FAR is at most ``far``: the next number above the first impostor too many.

        Raises:
            TooFew: It lies beyond what is kept.
        """
        allowed = int(round(far * self.impostor_count, 6))
        if allowed >= self.impostor_count:
            return -float(np.inf)
        if allowed >= len(self.impostor):
            raise _beyond(self.impostor, self.impostor_count)
        return float(np.nextafter(self.impostor_scores(slice(allowed, allowed + 1))[0], np.float32(np.inf)))

    def equal_error(self) -> EqualError:
        """The equal error rate, on the straight line between the two points of the ROC that enclose it."""

        def strict(key: int) -> bool:
            return self._accepted(key) / self.impostor_count < self._rejected(key) / self.genuine_count

        key = bisect_left(range(_key(np.inf)), True, key=strict)
        far, frr = ([f(k) / n for k in (key, key - 1)] for f, n in self._rates())
        above, below = frr[0] - far[0], far[1] - frr[1]
        rate = far[0] + (far[1] - far[0]) * above / (above + below)
        return EqualError(rate, float(_scores(np.array([key - 1], np.uint32))[0]))

    def roc(self, points: int = 200) -> Roc:
        """The curve at numbers of accepted impostors that grow by the same factor each: for charts, ROC and DET."""
        thresholds = self.grid(self._kept, points)
        far = np.array([self.far(t) for t in thresholds])
        frr = np.array([self.frr(t) for t in thresholds])
        return Roc(thresholds, far, frr)

    def grid(self, depth: float, points: int = _POINTS) -> npt.NDArray[np.float32]:
        """Falling thresholds, the first above all impostors, the last with a FAR of ``depth`` or somewhat more.

        A deeper grid begins with a shallower one.

        Raises:
            TooFew: It lies beyond what is kept.
        """
        ranks = np.unique(np.geomspace(1, self.impostor_count, points).round().astype(np.int64))
        if depth > self._kept:
            raise _beyond(self.impostor, self.impostor_count)
        ranks = ranks[: int(np.searchsorted(ranks, depth * self.impostor_count)) + 1]
        levels = self.impostor_scores(ranks[ranks <= self._kept * self.impostor_count] - 1)
        top = np.nextafter(levels[:1], np.float32(np.inf))
        return np.unique(np.concatenate([top, levels]))[::-1]

    def resampled(self, point: float | Literal["eer"], seed: int) -> Point:
        """Where each resample of the identities has a FAR of ``point``, or an FRR equal to it.

        Raises:
            TooFew: That lies beyond what is kept.
        """
        depth = 2 * (self.equal_error().rate if point == "eer" else point)
        while True:
            found = self._curves_to(depth, seed).at(point)
            if found.reached or depth >= 1:
                return found
            depth *= 2

    def _curves_to(self, depth: float, seed: int) -> Curves:
        """Down to a FAR of ``depth`` or deeper; kept for the next who asks."""
        known, curves = self._curves.get(seed, (0.0, None))
        if curves is None or known < depth:
            curves = Curves.of(self, self.grid(depth), seed)
            self._curves[seed] = depth, curves
        return curves

    @property
    def _kept(self) -> float:
        """Down to which FAR the scores are kept, ties or not."""
        return 1.0 if len(self.impostor) == self.impostor_count else 0.99 * len(self.impostor) / self.impostor_count

    def impostor_scores(self, at: Any) -> npt.NDArray[np.float32]:
        """Scores of impostor pairs by their rank, 0 the highest."""
        return _scores(~(self.impostor[at] >> np.uint64(32)).astype(np.uint32))

    def genuine_scores(self, at: Any) -> npt.NDArray[np.float32]:
        """Scores of genuine pairs by their rank, 0 the lowest."""
        return _scores((self.genuine[at] >> np.uint64(32)).astype(np.uint32))

    def errors(self, kind: Literal["far", "frr"], threshold: float) -> npt.NDArray[np.int64]:
        """Numbers of the falsely accepted, or falsely rejected, comparisons, the worst first."""
        if kind == "far":
            return _numbers(self.impostor[: self.false_accepts(threshold)])
        return _numbers(self.genuine[: self.false_rejects(threshold)])

    def accepted_impostors(self, threshold: float) -> tuple[Array, Array]:
        """The two people of every falsely accepted pair, the highest score first."""
        return self.trials.at(self.errors("far", threshold))

    def rejected_genuine(self, threshold: float) -> Array:
        """The identity of every falsely rejected pair, the lowest score first."""
        return self.trials.at(self.errors("frr", threshold))[0]

    def _rates(self) -> tuple[Any, Any]:
        return (self._accepted, self.impostor_count), (self._rejected, self.genuine_count)

    def _accepted(self, key: int) -> int:
        return _before(self.impostor, (_ALL - key + 1) << 32, self.impostor_count)

    def _rejected(self, key: int) -> int:
        return _before(self.genuine, key << 32, self.genuine_count)


class _Worst:
    """The smallest codes of a stream."""

    def __init__(self, limit: int) -> None:
        self.count = 0
        self._limit, self._parts, self._held = limit, [np.empty(0, np.uint64)], 0

    def add(self, codes: Codes) -> None:
        self.count += len(codes)
        self._parts.append(codes)
        self._held += len(codes)
        if self._held > 1.5 * self._limit:
            self._parts = [self._kept()]
            self._held = len(self._parts[0])

    def sorted(self) -> Codes:
        codes = self._kept()
        self._parts = []
        codes.sort()
        return codes

    def _kept(self) -> Codes:
        codes = np.concatenate(self._parts)
        if len(codes) <= self._limit:
            return codes
        codes.partition(self._limit - 1)
        return codes[: self._limit].copy()


def _before(codes: Codes, code: int, count: int) -> int:
    found = len(codes) if code > 0xFFFFFFFFFFFFFFFF else int(np.searchsorted(codes, np.uint64(code)))
    if found == len(codes) < count:
        raise _beyond(codes, count)
    return found


def _beyond(codes: Codes, count: int) -> TooFew:
    return TooFew(f"more than {len(codes):,} errors of {count:,} comparisons; give a shorter list of `pairs`")


def _numbers(codes: Codes) -> npt.NDArray[np.int64]:
    return (codes & np.uint64(_ALL)).astype(np.int64)


def _keys(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Whole numbers in the order of the scores: the sign bit is flipped, and for negative scores all other bits too."""
    bits = (scores + np.float32(0)).view(np.uint32)  # -0 becomes 0
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _scores(keys: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    return np.where(keys >> 31, keys & np.uint32(_ALL >> 1), ~keys).astype(np.uint32).view(np.float32)


def _key(threshold: float) -> int:
    """Of the lowest float32 that is at or above the threshold."""
    nearest = np.float32(threshold)
    if nearest < threshold:
        nearest = np.nextafter(nearest, np.float32(np.inf))
    return int(_keys(np.array([nearest], np.float32))[0])
