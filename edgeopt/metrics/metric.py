"""What a metric is, and what keeps something from being one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from edgeopt import statistics
from edgeopt.recipe import MetricSpec
from edgeopt.statistics import Interval

Array = npt.NDArray[Any]
Better = Literal["lower", "higher"]

#: The column of :meth:`Metric.truth` that holds the float baseline's outputs on the same samples.
BASELINE = "baseline"


class NotMeasurable(Exception):
    """The samples cannot support this number, such as a false accept rate that needs more pairs; says why."""


class Metric(ABC):
    """A metric over the outputs of a network; the base of the built-in ones and of a user's own.

    A subclass needs ``name`` and :meth:`compute`; everything else has a default. Its parameters are the fields of a
    frozen dataclass, or the arguments of its constructor.

    Attributes:
        name: As recipes write it.
        unit: ``1`` for a ratio.
        better: Which direction is better.
        labels: The column of the split that :meth:`compute` takes as labels: ``labels``, a column such as
            ``identity``, or ``baseline`` for the float baseline's outputs, to measure parity.
        fitted_on: Whose outputs on ``select`` :meth:`fit` sees before anything is computed: the model's ``own``, or the
            float ``baseline``'s, as for a threshold that production keeps. Empty: nobody's.
        note: What a reader must know of the number, such as the threshold that it was taken at.
        companions: Metrics that are always taken beside it, so that nobody can forget them.
        comparison: Parameters that the label does not show. Metrics of a recipe that are called the same agree in them.
        guards: Labels; a recipe that compresses must have a gate on one of them, for this number alone hides what
            they show.
    """

    name: str
    unit: str = "1"
    better: Better = "higher"
    labels: str = "labels"
    fitted_on: Literal["", "own", "baseline"] = ""
    note: str = ""
    companions: tuple[MetricSpec, ...] = ()
    comparison: Mapping[str, str] = MappingProxyType({})
    guards: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What the number is called in gates and reports: the name, and the parameters that matter."""
        return self.name

    @property
    def needs_baseline(self) -> bool:
        """Whether the number is defined only beside the float baseline."""
        return self.labels == BASELINE or self.fitted_on == "baseline"

    @abstractmethod
    def compute(self, outputs: Array, labels: Any) -> float:
        """The value over all samples.

        Args:
            outputs: (N, ...) float32, as the network gives them.
            labels: What :meth:`truth` returned, by default (N,) or (N, K).

        Raises:
            ValueError: Outputs and labels do not fit this metric.
            NotMeasurable: The samples cannot support the number.
        """

    def truth(self, columns: Mapping[str, Array]) -> Any:
        """What :meth:`compute` takes as labels, from the columns of a split, ``labels`` among them.

        Raises:
            KeyError: The split lacks a column.
        """
        return columns[self.labels]

    def fit(self, outputs: Array, labels: Any) -> Self:
        """The metric with its threshold fixed on other samples; see ``fitted_on``."""
        return self

    def require(self, labels: Any, *, fitting: bool) -> None:  # noqa: B027 (most metrics need nothing)
        """See, before any network runs, that the samples can support the number, or with ``fitting`` its threshold.

        Raises:
            NotMeasurable: They cannot, whatever the outputs are.
        """

    def remark(self, outputs: Array, labels: Any) -> str:
        """What a reader must know of the number as taken on these samples; by default the ``note``."""
        return self.note

    def hits(self, outputs: Array, labels: Any) -> npt.NDArray[np.bool_] | None:
        """(N,) whether each sample counts as right, if the metric is the share of those; else ``None``."""
        return None

    def decisions(self, outputs: Array) -> Array | None:
        """(N,) what the product would decide on each sample, for the samples whose decision flipped; else ``None``."""
        return None

    def right(self, outputs: Array, labels: Any) -> npt.NDArray[np.bool_] | None:
        """(N,) whether each of the :meth:`decisions` is right; ``None`` if that is not known."""
        return self.hits(outputs, labels)

    def roc(self, outputs: Array, labels: Any) -> Mapping[str, list[float]]:
        """``threshold``, ``far`` and ``frr`` at about a hundred falling thresholds, for charts; empty if it has none.

        Raises:
            NotMeasurable: As in :meth:`compute`.
        """
        return {}

    def strata(self, labels: Any) -> Array | None:
        """(N,) classes within which the bootstrap draws, for a metric that is not defined without one of them."""
        return None

    def interval(self, outputs: Array, labels: Any, *, confidence: float, seed: int) -> Interval:
        """Of the value: exact for a share of samples, else the bootstrap over samples. ``None``: no bound is known."""
        hits = self.hits(outputs, labels)
        if hits is not None:
            return statistics.proportion_interval(int(hits.sum()), len(hits), confidence).interval
        return statistics.bootstrap_interval(
            self.compute, outputs, labels, confidence=confidence, seed=seed, strata=self.strata(labels)
        ).interval

    def drop_interval(
        self, outputs: Array, baseline: Array, labels: Any, reference: Self, *, confidence: float, seed: int
    ) -> Interval:
        """Of how much lower the value is than that of ``reference``, this metric as fitted for the baseline.

        Both saw the same samples, so that what hits both cancels.
        """
        hits, reference_hits = self.hits(outputs, labels), reference.hits(baseline, labels)
        if hits is not None and reference_hits is not None:
            return statistics.paired_proportion_difference(reference_hits, hits, confidence).interval
        return statistics.paired_bootstrap_interval(
            reference.compute,
            baseline,
            outputs,
            labels,
            compute_b=self.compute,
            confidence=confidence,
            seed=seed,
            strata=self.strata(labels),
        ).interval


def unfit(made: object) -> str:
    """Why something is no metric that numbers can be taken of; empty if it is one."""
    if not isinstance(made, Metric):
        return f"it is a {type(made).__name__}, not an edgeopt.metrics.Metric"
    for attribute, allowed in (("better", get_args(Better)), ("fitted_on", ("", "own", "baseline"))):
        if (value := getattr(made, attribute)) not in allowed:
            return f"its `{attribute}` is {value!r}, not one of {', '.join(map(repr, allowed))}"
    return label_problem(made.label)


def label_problem(label: object) -> str:
    """Why nothing can be called so: the names of sets, drops and ratios are made of those of metrics."""
    if not isinstance(label, str) or not label:
        return f"it is called {label!r}, which is no name"
    if "[" in label or "]" in label:
        return f"it would be called {label!r}: '[' and ']' are for the evaluation set, as in 'acer[worst]'"
    for suffix in (" drop", " ratio"):
        if label.endswith(suffix):
            return f"it would be called {label!r}: names that end in {suffix!r} are for changes from the baseline"
    return ""
