"""Parity of embeddings: how far an optimised model's differ from the float baseline's, whatever they are used for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from edgeopt.metrics import BASELINE, Metric, NotMeasurable
from edgeopt.statistics import Interval, bootstrap_interval, percentile_interval, proportion_interval

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

#: Samples whose pairs are ranked.
_RANKED = 1000
_RESAMPLES = 1000
#: Comparisons in a block.
_BLOCK = 1 << 22


@dataclass(frozen=True)
class EmbeddingCosine(Metric):
    """Cosine of each embedding with that of the float baseline: the mean, or a low percentile.

    Attributes:
        percentile: In (0, 100), such as 1 for the worst hundredth; left out, the mean.
    """

    percentile: Annotated[float, Field(gt=0, lt=100)] | None = None
    name = "embedding_cosine"
    labels = BASELINE

    @property
    def label(self) -> str:
        """``embedding_cosine``, or ``embedding_cosine_p1``."""
        return self.name if self.percentile is None else f"{self.name}_p{self.percentile:g}"

    def compute(self, outputs: Array, labels: Array) -> float:
        """The mean, or the nearest-rank percentile, -1..1."""
        return self._of(_cosines(outputs, labels))

    def interval(self, outputs: Array, labels: Array, *, confidence: float, seed: int) -> Interval:
        """Of the mean by the bootstrap over samples, of a percentile between two order statistics."""
        cosines = _cosines(outputs, labels)
        if self.percentile is None:
            return bootstrap_interval(
                lambda values, _: float(values.mean()), cosines, cosines, confidence=confidence, seed=seed
            ).interval
        return percentile_interval(cosines, self.percentile / 100, confidence).interval

    def _of(self, cosines: Floats) -> float:
        if self.percentile is None:
            return float(cosines.mean())
        return percentile_interval(cosines, self.percentile / 100).value


@dataclass(frozen=True)
class RankAgreement(Metric):
    """Spearman's rank correlation of the cosines of all pairs of samples with those of the float baseline.

    At 1 both order all pairs alike, so that each threshold of the one has an equal of the other. Of more than 1000
    samples it is taken on 1000, drawn with a fixed seed.
    """

    name = "rank_agreement"
    labels = BASELINE

    def compute(self, outputs: Array, labels: Array) -> float:
        """The correlation, -1..1."""
        own, baseline = (_centred_ranks(_some(values)) for values in _pair(outputs, labels))
        return float((own * baseline).sum() / np.sqrt((own**2).sum() * (baseline**2).sum()))

    def interval(self, outputs: Array, labels: Array, *, confidence: float, seed: int) -> Interval:
        """By the bootstrap over samples; a pair has the product of the weights of both, the ranks stay as they are."""
        own, baseline = (_centred_ranks(_some(values)) for values in _pair(outputs, labels))
        count = len(own)
        random = np.random.default_rng(seed)
        weights = random.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES).T.astype(np.float64)

        def moment(values: Floats) -> Floats:
            summed: Floats = np.einsum("nb,nb->b", weights, values @ weights)
            return summed

        apart = 1.0 - np.eye(count)
        pairs = moment(apart)
        means = [moment(ranks) / pairs for ranks in (own, baseline)]
        products = [(own, baseline), (own, own), (baseline, baseline)]
        which = [(0, 1), (0, 0), (1, 1)]
        both, first, second = (
            moment(a * b) / pairs - means[i] * means[j] for (a, b), (i, j) in zip(products, which, strict=True)
        )
        low, high = np.quantile(both / np.sqrt(first * second), [(1 - confidence) / 2, (1 + confidence) / 2])
        value = self.compute(outputs, labels)
        return min(float(low), value), max(float(high), value)


@dataclass(frozen=True)
class NeighbourFlips(Metric):
    """Share of samples whose nearest neighbour among the other samples, by cosine, is not the float baseline's."""

    name = "neighbour_flips"
    better = "lower"
    labels = BASELINE

    def compute(self, outputs: Array, labels: Array) -> float:
        """The share, 0..1."""
        return float(self.flipped(outputs, labels).mean())

    def interval(self, outputs: Array, labels: Array, *, confidence: float, seed: int) -> Interval:
        """Exact for a share of samples."""
        flipped = self.flipped(outputs, labels)
        return proportion_interval(int(flipped.sum()), len(flipped), confidence).interval

    def flipped(self, outputs: Array, labels: Array) -> npt.NDArray[np.bool_]:
        """(N,) whether the nearest neighbour is another one; one that is as near as the nearest one is no flip."""
        own, baseline = (_directions(values) for values in _pair(outputs, labels))
        flipped = np.empty(len(own), bool)
        step = max(1, _BLOCK // len(own))
        for start in range(0, len(own), step):
            rows = np.arange(start, min(start + step, len(own)))
            near = []
            for vectors in (own, baseline):
                cosines = (vectors[rows] @ vectors.T).astype(np.float32)
                cosines[rows - start, rows] = -np.inf
                near.append(cosines)
            choice = near[1].argmax(axis=1)
            flipped[rows] = near[0][rows - start, choice] < near[0].max(axis=1)
        return flipped


def _pair(outputs: Array, labels: Array) -> tuple[Array, Array]:
    if outputs.ndim != 2 or outputs.shape != labels.shape:
        raise ValueError(f"needs embeddings (N, D) of both models, got {outputs.shape} and {labels.shape}")
    if len(outputs) < 3:
        raise NotMeasurable(f"{len(outputs)} samples say nothing about neighbours and ranks")
    return outputs, labels


def _directions(embeddings: Array) -> Floats:
    vectors = embeddings.astype(np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (norms > 0).all():
        row = int(np.argmin(norms > 0))
        raise NotMeasurable(f"the embedding of sample {row} has zero norm, so no direction to compare")
    return np.asarray(vectors / norms)


def _cosines(outputs: Array, labels: Array) -> Floats:
    own, baseline = (_directions(values) for values in _pair(outputs, labels))
    cosines: Floats = np.einsum("nd,nd->n", own, baseline)
    return np.clip(cosines, -1.0, 1.0)


def _some(embeddings: Array) -> Array:
    if len(embeddings) <= _RANKED:
        return embeddings
    return embeddings[np.sort(np.random.default_rng(0).choice(len(embeddings), _RANKED, replace=False))]


def _centred_ranks(embeddings: Array) -> Floats:
    """(N, N) symmetric: ranks of the cosines of all pairs, equal ones sharing a rank, less their mean; 0 within one.

    Raises:
        NotMeasurable: All pairs are alike.
    """
    from scipy.stats import rankdata

    vectors = _directions(embeddings)
    one, other = np.triu_indices(len(vectors), 1)
    ranks = rankdata((vectors @ vectors.T).astype(np.float32)[one, other])
    ranks -= ranks.mean()
    if not ranks.any():
        raise NotMeasurable("all embeddings are alike, so that no pair is nearer than another")
    square = np.zeros((len(vectors), len(vectors)))
    square[one, other] = square[other, one] = ranks
    return square


PLUGINS = (EmbeddingCosine(), RankAgreement(), NeighbourFlips())
