"""Parity: how far the outputs of a compiled network lie from those of the float network that it was made from.

These are metrics whose labels are the outputs of the float ONNX model on the same samples, run without optimisations.
Top-1 hardly moves between errors of the logits of 0.4 and of 2.4; these numbers show the difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeopt.metrics import BASELINE, Metric, NotMeasurable
from edgeopt.metrics.embedding import EmbeddingCosine, NeighbourFlips
from edgeopt.statistics import Interval, bootstrap_interval, proportion_interval

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

#: Outputs are float32: rounding to nearest moves each by up to 2^-24 of itself (IEEE 754-2019, binary32). An error
#: below that is no error of the network, so a ratio above this says nothing more, and equal outputs have a finite one.
SQNR_LIMIT_DB = 20 * math.log10(2**24)

#: Every parity metric and its direction.
METRICS: Mapping[str, Literal["lower", "higher"]] = {
    "sqnr_db": "higher",
    "output_cosine": "higher",
    "output_cosine_p1": "higher",
    "max_abs_error": "lower",
    "decision_agreement": "higher",
}


@dataclass(frozen=True)
class Sqnr(Metric):
    """Ratio of signal to quantization noise in decibels: ``10 log10(Σ reference² / Σ (reference - output)²)``.

    The sums go over all samples and outputs, so that a sample counts by its power. Source: Lin, Talathi and
    Annapureddy, Fixed point quantization of deep convolutional networks, ICML 2016, section 3.
    """

    name = "sqnr_db"
    unit = "dB"
    labels = BASELINE

    def compute(self, outputs: Array, labels: Array) -> float:
        """In dB, at most :data:`SQNR_LIMIT_DB`.

        Raises:
            NotMeasurable: All reference outputs are zero.
        """
        return _decibels(_powers(outputs, labels))

    def interval(self, outputs: Array, labels: Array, *, confidence: float, seed: int) -> Interval:
        """By the bootstrap over samples."""
        powers = _powers(outputs, labels)
        return bootstrap_interval(
            lambda rows, _: _decibels(rows), powers, powers, confidence=confidence, seed=seed
        ).interval

    def remark(self, outputs: Array, labels: Array) -> str:
        """That the limit is reached, if it is."""
        reached = self.compute(outputs, labels) >= SQNR_LIMIT_DB
        return "equal to within the rounding of float32, above which the ratio means nothing" if reached else ""


@dataclass(frozen=True)
class OutputCosine(EmbeddingCosine):
    """Cosine of the outputs of each sample with those of the reference: the mean, or the worst hundredth."""

    name = "output_cosine"

    def compute(self, outputs: Array, labels: Array) -> float:
        """As of embeddings; outputs of any shape are taken as one vector per sample."""
        return super().compute(*_vectors(outputs, labels))

    def interval(self, outputs: Array, labels: Array, *, confidence: float, seed: int) -> Interval:
        """As of embeddings."""
        return super().interval(*_vectors(outputs, labels), confidence=confidence, seed=seed)


@dataclass(frozen=True)
class MaxAbsError(Metric):
    """The largest difference of any output on any sample; other samples may show a larger one."""

    name = "max_abs_error"
    better = "lower"
    labels = BASELINE

    def compute(self, outputs: Array, labels: Array) -> float:
        """In the unit of the outputs."""
        return float(np.abs(labels.astype(np.float64) - outputs).max())

    def remark(self, outputs: Array, labels: Array) -> str:
        """What it is to be compared with."""
        return f"the largest output of the float network is {np.abs(labels).max():.4g}"


@dataclass(frozen=True)
class DecisionAgreement(Metric):
    """Share of samples on which both networks decide alike, by the first metric of the recipe that decides.

    Attributes:
        decider: With its threshold fixed on the reference; None if no metric decides on single samples.
        nearest: Whether the outputs are embeddings, for which the nearest neighbour among the samples stands in.
    """

    decider: Metric | None = None
    nearest: bool = False
    name = "decision_agreement"
    labels = BASELINE

    def compute(self, outputs: Array, labels: Array) -> float:
        """The share, 0..1.

        Raises:
            NotMeasurable: Nothing decides on single samples.
        """
        return float(self.hits(outputs, labels).mean())

    def hits(self, outputs: Array, labels: Array) -> npt.NDArray[np.bool_]:
        """(N,) whether both decide alike."""
        own = self.decider.decisions(outputs) if self.decider else None
        reference = self.decider.decisions(labels) if self.decider else None
        if own is not None and reference is not None:
            alike: npt.NDArray[np.bool_] = own == reference
            return alike
        if not self.nearest:
            raise NotMeasurable("no metric of the recipe decides on single samples")
        return ~NeighbourFlips().flipped(outputs, labels)

    def interval(self, outputs: Array, labels: Array, *, confidence: float, seed: int) -> Interval:
        """Exact for a share of samples."""
        hits = self.hits(outputs, labels)
        return proportion_interval(int(hits.sum()), len(hits), confidence).interval

    def remark(self, outputs: Array, labels: Array) -> str:
        """What is compared."""
        if self.decider and self.decider.decisions(labels) is not None:
            return f"decisions of {self.decider.label}"
        return f"nearest neighbours among {len(labels)} embeddings"


def metrics(decider: Metric | None, nearest: bool) -> tuple[Metric, ...]:
    """All parity metrics; the arguments are those of :class:`DecisionAgreement`."""
    return (Sqnr(), OutputCosine(), OutputCosine(1.0), MaxAbsError(), DecisionAgreement(decider, nearest))


def _powers(outputs: Array, reference: Array) -> Floats:
    """(N, 2): the power of the reference and of the error of each sample."""
    exact = reference.astype(np.float64)
    per_sample = (exact, exact - outputs)
    return np.stack([np.square(part.reshape(len(part), -1)).sum(axis=1) for part in per_sample], axis=1)


def _decibels(powers: Floats) -> float:
    signal, noise = powers.sum(axis=0)
    if signal == 0:
        raise NotMeasurable("all outputs of the float network are zero")
    return min(SQNR_LIMIT_DB, 10 * math.log10(signal / noise)) if noise else SQNR_LIMIT_DB


def _vectors(outputs: Array, reference: Array) -> tuple[Array, Array]:
    flat = outputs.reshape(len(outputs), -1), reference.reshape(len(reference), -1)
    if flat[1].shape[1] == 1:
        raise NotMeasurable(
            "the network has one output, and the cosine of two numbers is only whether they agree in sign"
        )
    return flat
