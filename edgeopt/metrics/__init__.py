"""Accuracy metrics: one file, one family. A metric says what it is, and how sure the samples make it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self, cast, get_args

import numpy as np
import numpy.typing as npt

from edgeopt import reference, registry, statistics
from edgeopt.artifact import digest_of, file_digest
from edgeopt.data import Split
from edgeopt.errors import ConfigError, EdgeoptError
from edgeopt.measure import Measurement
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


def build(spec: MetricSpec) -> Metric | None:
    """The built-in or installed metric of a recipe with its parameters; ``None`` for one that the user wrote.

    Raises:
        registry.UnknownPlugin: There is none of that name.
        ValueError: A parameter is unknown or wrong, and the message starts with its name; or the metric is unfit, or
            cannot be called so.
    """
    if spec.factory is not None:
        why = _label_problem(spec.name)
        made = None
    else:
        made = _with_parameters(spec)
        why = unfit(made)
    if why:
        raise ValueError(f"{spec.name}: {why}")
    return made


def _with_parameters(spec: MetricSpec) -> Metric:
    import pydantic

    plain: Any = registry.find("metrics", spec.name)
    if not spec.args:
        return cast(Metric, plain)
    if not dataclasses.is_dataclass(plain):
        raise ValueError(f"{next(iter(spec.args))}: {spec.name} has no parameters")
    known = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain) if field.init}
    for name in spec.args:
        if name not in known:
            raise ValueError(f"{name}: {spec.name} has no such parameter{registry.hint(name, known)}")
    try:
        made: Metric = pydantic.TypeAdapter[Any](type(plain)).validate_python({**known, **spec.args})
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{first['loc'][0] if first['loc'] else spec.name}: {first['msg']}") from error
    return made


def unfit(made: object) -> str:
    """Why something is no metric that numbers can be taken of; empty if it is one."""
    if not isinstance(made, Metric):
        return f"it is a {type(made).__name__}, not an edgeopt.metrics.Metric"
    for attribute, allowed in (("better", get_args(Better)), ("fitted_on", ("", "own", "baseline"))):
        if (value := getattr(made, attribute)) not in allowed:
            return f"its `{attribute}` is {value!r}, not one of {', '.join(map(repr, allowed))}"
    return _label_problem(made.label)


def _label_problem(label: object) -> str:
    """Why nothing can be called so: the names of sets, drops and ratios are made of those of metrics."""
    if not isinstance(label, str) or not label:
        return f"it is called {label!r}, which is no name"
    if "[" in label or "]" in label:
        return f"it would be called {label!r}: '[' and ']' are for the evaluation set, as in 'acer[worst]'"
    for suffix in (" drop", " ratio"):
        if label.endswith(suffix):
            return f"it would be called {label!r}: names that end in {suffix!r} are for changes from the baseline"
    return ""


def label(spec: MetricSpec) -> str:
    """What the metric of a recipe is called, found without running the user's code."""
    built = build(spec)
    return spec.name if built is None else built.label


def source(spec: MetricSpec, root: Path) -> str:
    """What tells one version of the code behind a number from another, found without running the user's code.

    Raises:
        ConfigError: The user's module cannot be found or parsed.
    """
    return digest_of([_source(), foreign_source(spec, root)])


def foreign_source(spec: MetricSpec, root: Path) -> str:
    """Digest of the user's code, or release of an installed plug-in; empty for what is built in.

    Raises:
        ConfigError: The user's module cannot be found or parsed.
    """
    return reference.source_digest(spec.factory, root) if spec.factory else registry.release("metrics", spec.name)


@functools.cache
def _source() -> str:
    """Digest of the modules of edgeopt that compute the numbers."""
    package = Path(__file__).parents[1]
    files = sorted(file for part in ("metrics", "verification", "statistics") for file in (package / part).glob("*.py"))
    return digest_of({file.relative_to(package).as_posix(): file_digest(file) for file in files})


def with_companions(specs: Sequence[MetricSpec]) -> tuple[MetricSpec, ...]:
    """The metrics of a recipe, and after them those that they bring along; what cannot be built brings none."""
    known: dict[str, MetricSpec] = {}
    brought: list[MetricSpec] = []
    for spec in specs:
        with contextlib.suppress(registry.UnknownPlugin, ValueError):
            built = build(spec)
            known[spec.name if built is None else built.label] = spec
            brought += built.companions if built else ()
    for spec in brought:
        known.setdefault(label(spec), spec)
    return (*specs, *(spec for spec in known.values() if spec not in specs))


def clash(spec: MetricSpec, listed: Sequence[MetricSpec]) -> str:
    """Why a metric, or one that it brings along, cannot be taken beside the ``listed`` ones; empty if it can.

    Raises:
        registry.UnknownPlugin, ValueError: As :func:`build`.
    """
    built = build(spec)
    for brought in map(build, built.companions if built else ()):
        assert brought is not None
        for other in listed:
            with contextlib.suppress(registry.UnknownPlugin, ValueError):
                if label(other) != brought.label:
                    continue
                taken = build(other)
                if taken is None:
                    return f"{label(spec)} brings {brought.label} along, which is the name of a metric of your own"
                unlike = [name for name, value in brought.comparison.items() if taken.comparison.get(name) != value]
                if unlike:
                    return (
                        f"{label(spec)} brings {brought.label} along, which is also taken with another "
                        f"{' and '.join(unlike)}: give all that compare at this point the same "
                        f"{', '.join(brought.comparison)}"
                    )
    return ""


def guards(specs: Sequence[MetricSpec]) -> tuple[str, ...]:
    """Labels of metrics of the recipe, one of which has to be gated if it compresses; empty if none has to.

    A metric whose own threshold comes from elsewhere is asked only if no other one says where the product works.
    """
    built = [made for spec in specs if (made := _buildable(spec))]
    asked = [metric for metric in built if metric.guards and not metric.fitted_on] or built
    wanted = dict.fromkeys(label for metric in asked for label in metric.guards)
    return tuple(metric.label for metric in built if metric.label in wanted) or tuple(wanted)


def _buildable(spec: MetricSpec) -> Metric | None:
    try:
        return build(spec)
    except (registry.UnknownPlugin, ValueError):  # a problem by itself
        return None


def load(spec: MetricSpec, root: Path) -> Metric:
    """The metric of a recipe; a user's own is imported from beside it.

    Raises:
        ConfigError: The user's class cannot be made, or is no metric.
    """
    built = build(spec)
    if built is not None:
        return built
    assert spec.factory is not None
    make = reference.resolve(spec.factory, root)
    try:
        made = make(**spec.args)
    except Exception as error:
        place = reference.user_frame(error, root) or "metrics"
        raise ConfigError(f"{spec.factory} raised {type(error).__name__}: {error}", where=place) from error
    if not isinstance(made, Metric):
        raise ConfigError(
            f"{spec.factory} gives a {type(made).__name__}, not a metric",
            where="metrics",
            fix="derive the class from edgeopt.metrics.Metric",
        )
    if why := unfit(made):
        raise ConfigError(f"{spec.factory}: {why}", where="metrics")
    if made.label != spec.name:
        raise ConfigError(
            f"the recipe calls {spec.factory} {spec.name!r}, it calls itself {made.label!r}",
            where="metrics",
            fix=f"write {{factory: {spec.factory!r}, name: {made.label!r}}} in the recipe",
        )
    return made


@contextlib.contextmanager
def blamed(metric: Metric, root: Path) -> Iterator[None]:
    """What a metric raises within becomes an error that says which metric, and where in the user's own code.

    Raises:
        ConfigError: It refused its samples, or the user's own code raised anything at all.
    """
    try:
        yield
    except EdgeoptError:
        raise
    except Exception as error:
        place = reference.user_frame(error, root)
        if isinstance(error, ValueError | NotMeasurable):
            raise ConfigError(f"{metric.label}: {error}", where=place or "metrics") from error
        if not place:
            raise
        raise ConfigError(f"{metric.label} raised {type(error).__name__}: {error}", where=place) from error


def check_split(metric: Metric, split: Split, of_set: str = "", *, fitting: bool = False) -> None:
    """See that a split, or a set of it, has what the metric needs, or with ``fitting`` what its threshold needs.

    Raises:
        ConfigError: It lacks a column, or samples of some kind.
        ValueError: A column holds what the metric does not know.
    """
    where = f"data.{split.name}" + (f".sets.{of_set}" if of_set else "")
    rows = split.sets()[of_set] if of_set else None
    truth = split.truth(rows)
    count = len(split) if rows is None else len(rows)
    try:
        labels = metric.truth({BASELINE: np.empty((count, 0), np.float32), **truth})
    except KeyError as error:
        name = error.args[0]
        if name in truth:  # the metric's own doing
            raise
        raise ConfigError(
            f"{metric.label} needs {name!r} of every sample; there are: {', '.join(truth) or 'none'}",
            where=where,
            fix=f'return (samples, labels, {{"{name}": ...}}) from the loader, or put an array {name!r} into the .npz',
        ) from error
    try:
        metric.require(labels, fitting=fitting)
    except NotMeasurable as error:
        raise ConfigError(f"{metric.label} cannot be measured: {error}", where=where) from error


def score(metric: Metric, outputs: Array, labels: Any, *, confidence: float, seed: int) -> Measurement:
    """The metric with its interval.

    Args:
        metric: Fitted, if it needs to be.
        outputs: (N, ...) float32.
        labels: What :meth:`Metric.truth` gave for the same samples.
        confidence: Of the interval.
        seed: Of a bootstrap.

    Raises:
        ValueError: Outputs and labels do not fit the metric.
    """
    try:
        value = _finite(metric.compute(outputs, labels))
        interval = _bounds(metric.interval(outputs, labels, confidence=confidence, seed=seed))
        why = metric.remark(outputs, labels)
    except NotMeasurable as error:
        return measurement(metric, metric.label, None, None, len(outputs), confidence, why=str(error))
    return measurement(metric, metric.label, value, interval, len(outputs), confidence, why=why)


def drop(
    metric: Metric, reference: Metric, outputs: Array, baseline: Array, labels: Any, *, confidence: float, seed: int
) -> Measurement:
    """How much worse than the baseline on the same samples: above zero is worse, whatever direction the metric has.

    Args:
        metric: As fitted for the model.
        reference: The same metric as fitted for the baseline.
        outputs, baseline: (N, ...) float32 each.
        labels: As in :func:`score`.
        confidence, seed: As in :func:`score`.
    """
    name = f"{metric.label} drop"
    try:
        sign = 1.0 if metric.better == "higher" else -1.0
        value = sign * (_finite(reference.compute(baseline, labels)) - _finite(metric.compute(outputs, labels))) + 0.0
        low, high = _bounds(
            metric.drop_interval(outputs, baseline, labels, reference, confidence=confidence, seed=seed)
        )
    except NotMeasurable as error:
        return measurement(metric, name, None, None, len(outputs), confidence, better="lower", why=str(error))
    if sign < 0:
        low, high = None if high is None else -high, None if low is None else -low
    why = _disagreement(reference.hits(baseline, labels), metric.hits(outputs, labels))
    return measurement(metric, name, value, (low, high), len(outputs), confidence, better="lower", why=why)


def _disagreement(before: Array | None, after: Array | None) -> str:
    """Samples that were right before and are not, and the other way round, with the test of both being as many."""
    if before is None or after is None or (before == after).all():
        return ""
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    return f"{lost} samples lost and {won} won; exact McNemar p = {statistics.mcnemar_exact(before, after):.2g}"


def _finite(value: Any, what: str = "value") -> float:
    """A user's own metric may give any number, also one of numpy's, or none at all."""
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"its {what} is a {type(value).__name__}, not a number") from error
    if not math.isfinite(number):
        raise NotMeasurable(f"its {what} is {number}")
    return number


def _bounds(interval: Any) -> Interval:
    """As :func:`_finite`; no interval means that no bound is known, which no gate passes."""
    if interval is None:
        return None, None
    try:
        low, high = (None if bound is None else _finite(bound, "bound") for bound in interval)
    except TypeError as error:
        raise ValueError(f"its interval is a {type(interval).__name__}, not two bounds") from error
    if low is not None and high is not None and low > high:
        raise ValueError(f"its interval is upside down: {low} to {high}")
    return low, high


def measurement(
    metric: Metric,
    name: str,
    value: float | None,
    interval: Interval | None,
    count: int,
    confidence: float,
    *,
    better: Better | None = None,
    why: str = "",
) -> Measurement:
    """A measurement of a metric; it does not depend on a machine or a measuring protocol."""
    return Measurement(
        metric=name,
        value=value,
        unit=metric.unit,
        better=better or metric.better,
        interval=interval,
        n=count,
        method="measured",
        protocol="",
        machine="",
        confidence=confidence,
        why=why,
    )
