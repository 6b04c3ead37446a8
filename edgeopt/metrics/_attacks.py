"""The score of a presentation attack detector and its threshold, which all of its error rates share.

The column ``attack`` says of every sample which presentation attack instrument species it shows, such as ``print``;
empty or ``bonafide`` is a bona fide presentation.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from edgeopt.metrics import Metric, NotMeasurable
from edgeopt.metrics._classes import log_softmax

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Share = Annotated[float, Field(gt=0, lt=1)]

#: The column, and what it says of a bona fide presentation.
ATTACK = "attack"
BONA_FIDE = "bonafide"
#: Names that somebody may give to a bona fide presentation: as an attack type they would turn the rates around.
_MISLEADING = frozenset(
    {"", BONA_FIDE, "bona fide", "bona_fide", "bona-fide", "genuine", "live", "real", "none", "nan", "normal"}
)


@dataclass(frozen=True)
class AttackDetection(Metric):
    """What the error rates share: the score of a sample, and the threshold.

    At most one of ``threshold``, ``at_apcer`` and ``at_bpcer`` is given. Without any, the threshold is fixed on
    ``select`` where APCER and BPCER are equal (EER). A fixed threshold lies halfway between the two nearest scores.

    Attributes:
        output: Which output is the score; by default the last.
        high: What a high score means.
        softmax: Of several outputs, the score is the softmax of this one. False to take the output as it is; that of
            a network with one output always is.
        threshold: In units of the score. At it, a sample counts as an attack.
        at_apcer: The threshold is fixed on ``select`` where APCER is at most this, with the least BPCER.
        at_bpcer: The threshold is fixed on ``select`` where BPCER is at most this, with the least APCER.
        threshold_of: Whose scores on ``select`` fix it: the model's ``own``, as if production would calibrate anew, or
            the float ``baseline``'s, as if production kept its threshold.
    """

    output: int = -1
    high: Literal["attack", "bonafide"] = "attack"
    softmax: bool = True
    threshold: float | None = None
    at_apcer: Share | None = None
    at_bpcer: Share | None = None
    threshold_of: Literal["own", "baseline"] = "own"
    _fixed: float | None = field(default=None, init=False, repr=False)
    better = "lower"
    labels = ATTACK

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.threshold, self.at_apcer, self.at_bpcer)) > 1:
            raise ValueError("give one of threshold, at_apcer, at_bpcer")
        if self.threshold is not None and self.threshold_of == "baseline":
            raise ValueError("threshold_of says where a threshold is fixed; one is given")

    @property
    def fitted_on(self) -> Literal["", "own", "baseline"]:  # type: ignore[override]
        return "" if self.threshold is not None else self.threshold_of

    @property
    def label(self) -> str:
        """``bpcer``, ``bpcer@apcer=0.01``, ``bpcer@0.5``; with ``@baseline`` at the threshold of the float model."""
        asked = {"": self.threshold, "apcer=": self.at_apcer, "bpcer=": self.at_bpcer}
        at = "".join(f"@{how}{value:g}" for how, value in asked.items() if value is not None)
        return f"{self._subject}{at}{'@baseline' if self.fitted_on == 'baseline' else ''}"

    @property
    def _subject(self) -> str:
        return self.name

    @property
    def note(self) -> str:  # type: ignore[override]
        if self._fixed is None:
            return ""
        how = {"own": " fixed on select", "baseline": " of the float baseline, fixed on select"}.get(self.fitted_on, "")
        return f"threshold {self._fixed:.6g}{how}"

    def truth(self, columns: Mapping[str, Array]) -> Array:
        """(N,) attack type of each sample, empty for a bona fide presentation.

        Raises:
            KeyError: There is no column ``attack``.
            ValueError: It is not text, or calls an attack what sounds bona fide.
        """
        kinds = np.asarray(columns[ATTACK])
        if kinds.dtype.kind != "U" or kinds.ndim != 1:
            raise ValueError(f"needs the attack type of each sample as text, got {kinds.dtype} {list(kinds.shape)}")
        for kind in np.unique(kinds).tolist():
            if kind not in ("", BONA_FIDE) and kind.strip().lower() in _MISLEADING:
                raise ValueError(f"is {kind!r} an attack type? A bona fide presentation is '' or {BONA_FIDE!r}")
        return np.where(kinds == BONA_FIDE, "", kinds)

    def require(self, labels: Array, *, fitting: bool) -> None:
        """See that there are attacks and bona fide presentations, enough of them for the rate that is asked for.

        A rate r can only be seen in at least 3 / r trials: with fewer, not even one without any error shows it (the
        rule of three, Hanley and Lippman-Hand, JAMA 249 (1983)).
        """
        self._require(labels, attacks=True, bona_fide=True)
        if not fitting:
            return
        counts = {kind: int((labels == kind).sum()) for kind in ["", *types_of(labels)]}
        for share, kinds in ((self.at_apcer, list(counts)[1:]), (self.at_bpcer, [""])):
            for kind in kinds:
                if share is not None and counts[kind] < (needed := math.ceil(round(3 / share, 9))):
                    what = f"attacks of type {kind!r}" if kind else "bona fide presentations"
                    raise NotMeasurable(f"a threshold at {share:g} needs {needed} {what}, there are {counts[kind]}")

    def _require(self, labels: Array, *, attacks: bool, bona_fide: bool) -> None:
        if attacks and not (labels != "").any():
            raise NotMeasurable("no sample is an attack")
        if bona_fide and not (labels == "").any():
            raise NotMeasurable("no sample is a bona fide presentation")

    def fit(self, outputs: Array, labels: Array) -> Self:
        """With the threshold fixed on these samples."""
        self.require(labels, fitting=True)
        made = copy.copy(self)
        object.__setattr__(made, "_fixed", self._threshold_on(self._scores(outputs, labels), labels))
        return made

    def decisions(self, outputs: Array) -> Array:
        """(N,) ``attack`` or ``bonafide``."""
        return np.where(self._is_attack(outputs), "attack", BONA_FIDE)

    def right(self, outputs: Array, labels: Array) -> Bools:
        """(N,) whether the decision is right."""
        found: Bools = self._is_attack(outputs, labels) == (labels != "")
        return found

    def strata(self, labels: Array) -> Array:
        """The attack types, and bona fide."""
        return labels

    def _scores(self, outputs: Array, labels: Array | None = None) -> Floats:
        """(N,) rising towards attack."""
        if labels is not None and len(labels) != len(outputs):
            raise ValueError(f"needs the attack type of each sample: {len(labels)} of {len(outputs)}")
        if outputs.ndim != 2 or not -outputs.shape[1] <= self.output < outputs.shape[1]:
            raise ValueError(f"needs outputs (N, K) with an output {self.output}, got {outputs.shape}")
        if not np.isfinite(outputs).all():
            raise ValueError("the outputs hold NaN or infinity")
        logits = self.softmax and outputs.shape[1] > 1
        scores = np.exp(log_softmax(outputs)[:, self.output]) if logits else outputs[:, self.output].astype(np.float64)
        return scores if self.high == "attack" else -scores

    def _threshold_on(self, scores: Floats, labels: Array) -> float:
        """In units of the score."""
        distinct = np.unique(scores)
        middles = distinct[:-1] + np.diff(distinct) / 2
        between = np.where(middles > distinct[:-1], middles, distinct[1:])
        cuts = np.concatenate([distinct[:1], between, np.nextafter(distinct[-1:], np.inf)])
        apcer = np.max([_share_below(cuts, scores[labels == kind]) for kind in types_of(labels)], axis=0)
        bpcer = 1 - _share_below(cuts, scores[labels == ""])
        if self.at_apcer is not None:
            chosen = np.flatnonzero(apcer <= self.at_apcer)[-1]
        elif self.at_bpcer is not None:
            chosen = np.flatnonzero(bpcer <= self.at_bpcer)[0]
        else:
            chosen = np.abs(apcer - bpcer).argmin()
        return float(cuts[chosen]) if self.high == "attack" else -float(cuts[chosen])

    def _is_attack(self, outputs: Array, labels: Array | None = None) -> Bools:
        threshold = self.threshold if self._fixed is None else self._fixed
        if threshold is None:
            raise ValueError("has no threshold yet")
        found: Bools = self._scores(outputs, labels) >= (threshold if self.high == "attack" else -threshold)
        return found


def types_of(labels: Array) -> list[str]:
    """The attack types that there are."""
    return [str(kind) for kind in np.unique(labels) if kind]


def _share_below(cuts: Floats, scores: Floats) -> Floats:
    share: Floats = np.searchsorted(np.sort(scores), cuts, "left") / len(scores)
    return share
