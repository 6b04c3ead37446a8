"""What the metrics of verification have in common: who is compared with whom, and the scores."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from edgeopt.metrics import Metric, NotMeasurable, sharing
from edgeopt.recipe import MetricSpec
from edgeopt.statistics import smallest_proportion, trials_needed
from edgeopt.verification import Design, Scores, Similarity, TooFew, prepare

Array = npt.NDArray[Any]
Share = Annotated[float, Field(gt=0, lt=1)]
#: A false accept rate, or where the false reject rate equals it.
Far = Share | Literal["eer"]


@dataclass(frozen=True)
class Verification(Metric):
    """What all have in common.

    Attributes:
        similarity: ``cosine``, or ``l2`` for minus the Euclidean distance.
        template: Column; samples with equal values are compared as one, by the mean of their embeddings.
        probe: Column of booleans; enrolled samples (false) are compared with probes (true) only, and templates are made
            of enrolled samples only.
    """

    similarity: Similarity = "cosine"
    template: str = ""
    probe: str = ""
    labels = "identity"

    @property
    def comparison(self) -> Mapping[str, str]:  # type: ignore[override]
        """Who is compared with whom, and how."""
        return {"template": self.template, "probe": self.probe, "similarity": self.similarity}

    def truth(self, columns: Mapping[str, Array]) -> Design:
        """Who is compared with whom.

        Raises:
            KeyError: A column is not there.
            ValueError: One is not (N,), or ``probe`` not boolean.
        """
        given = [columns[name] if name else None for name in (self.labels, self.template, self.probe)]
        for name, values in zip((self.labels, self.template, self.probe), given, strict=True):
            if values is not None and values.ndim != 1:
                raise ValueError(f"needs one {name} for each sample, got {list(values.shape)}")
        identity, template, probe = given
        assert identity is not None
        if probe is not None and not np.isin(probe, (0, 1)).all():
            raise ValueError(f"needs true or false of each sample in {self.probe!r}")
        return Design(identity, template, None if probe is None else probe.astype(bool), columns.get("pairs"))

    def require(self, labels: Design, *, fitting: bool) -> None:
        """See that there are genuine and impostor pairs, and enough of them."""
        with measurable():
            trials = prepare(np.ones((len(labels), 1)), labels, "l2")
        self.enough(trials.count - int(trials.genuine.sum()))

    def remark(self, outputs: Array, labels: Design) -> str:
        """The threshold, and how many pairs and people there are."""
        scores = self.scores(outputs, labels)
        pairs = f"{scores.impostor_count:,} impostor and {scores.genuine_count:,} genuine pairs"
        return "; ".join(filter(None, [self.note, f"{pairs} of {scores.trials.people} identities"]))

    @property
    def asked(self) -> Far | None:
        """Where the threshold is, if the metric has one."""
        return None

    def enough(self, impostors: int) -> None:
        """Refuse a false accept rate that the impostor pairs cannot resolve."""
        far = self.asked
        if isinstance(far, float) and impostors < (needed := trials_needed(far)):
            raise NotMeasurable(
                f"a FAR of {plain(far)} needs at least {needed:,} impostor pairs (rule of three), there are "
                f"{impostors:,}" + (f", enough for {smallest_proportion(impostors):.2g}" if impostors else "")
            )

    def scores(self, outputs: Array, labels: Design) -> Scores:
        content = hashlib.sha256(np.ascontiguousarray(outputs).data).digest()
        key = ("scores", content, outputs.dtype.str, outputs.shape, labels.digest, self.similarity)
        with measurable():
            return sharing.once(key, lambda: Scores.of(outputs, labels, self.similarity))


def transfers(metric: Verification, far: Far) -> tuple[MetricSpec, ...]:
    """What is always taken beside a metric of the kind, at the same point and of the same comparisons."""
    same = {f.name: getattr(metric, f.name) for f in fields(Verification) if getattr(metric, f.name) != f.default}
    return tuple(MetricSpec(name=name, args={"far": far, **same}) for name in ("far_at", "frr_at", "threshold"))


def guards(far: Far) -> tuple[str, ...]:
    """What shows how many impostors get in at a point, with the threshold that production keeps or a new one."""
    return tuple(f"far@{whose}={plain(far)}" for whose in ("float", "own"))


def plain(number: Far | None) -> str:
    """As people write it: 0.00001, not 1e-05."""
    return number if isinstance(number, str) else np.format_float_positional(number or 0.0, trim="-")


def point(far: Far | None) -> str:
    return "EER" if far == "eer" else f"FAR {plain(far)}"


@contextlib.contextmanager
def measurable() -> Iterator[None]:
    try:
        yield
    except TooFew as error:
        raise NotMeasurable(str(error)) from error
