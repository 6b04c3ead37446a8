"""How a run's recipe defines a metric. Two metrics of one label need not be the same one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgeopt import metrics, registry
from edgeopt.recipe import MetricSpec
from edgeopt.record import RunRecord


@dataclass(frozen=True)
class Definition:
    """A metric of a recipe.

    Attributes:
        spec: As the recipe says it.
        built: With its defaults filled in; ``None`` if the user wrote it.
        code: What tells one version of code that is not edgeopt's from another; empty if the record does not say.
    """

    spec: MetricSpec
    built: metrics.Metric | None
    code: str = ""

    @property
    def fitted(self) -> bool:
        """Whether a threshold was fixed on ``select``. Of the user's own nobody knows without running it."""
        return self.built is not None and bool(self.built.fitted_on)

    def differs(self, other: Definition) -> bool:
        """Whether the two compute something else; a default that is written out changes nothing."""
        if self.built is not None and other.built is not None:
            return self.built != other.built
        return (self.spec.factory, self.spec.args) != (other.spec.factory, other.spec.args)


def find(record: RunRecord, metric: str) -> Definition | None:
    """The definition of a measured metric, also of one set of the data, such as ``top1[indoor]``.

    ``None`` if the record does not hold it: it is of before, or the metric is not installed.
    """
    label = metric.removesuffix(" drop").partition("[")[0]
    code = record.provenance.get("metrics", {}).get(label, "")
    return next((replace(found, code=code) for name, found in _known(record.recipe.values) if name == label), None)


def _known(values: Mapping[str, Any]) -> Iterator[tuple[str, Definition]]:
    """Label and definition of every metric, and of those that they bring along."""
    import pydantic

    specs = []
    for raw in values.get("metrics", ()):
        try:
            specs.append(MetricSpec.model_validate(raw))
        except pydantic.ValidationError:
            continue
    for spec in metrics.with_companions(specs):
        try:
            built = metrics.build(spec)
        except (registry.UnknownPlugin, ValueError):
            continue
        yield spec.name if built is None else built.label, Definition(spec, built)
