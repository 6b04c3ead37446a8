"""What sort of number a metric is: this decides how two of it are compared, and what they must have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from edgeopt import placement
from edgeopt.compare import definition
from edgeopt.measure import Measurement
from edgeopt.record import RunRecord

#: A resource is compared by its ratio: a measurement of the device, a size, or a figure of a toolkit. A share is the
#: part of the network that is not done where it should be. A quality is of the outputs, on samples of data.
Kind = Literal["resource", "share", "quality"]

#: The largest of the samples: it has no interval, and so none that could make up for a tolerance.
EXTREME = "max_abs_error"
#: It is of the decisions of some metric, which its remark names.
_OF_DECISIONS = "decision_agreement"
#: Units of what the device measures and toolkits tell; a metric of a recipe may have one of them too.
_UNITS = frozenset({"ms", "MiB", "mJ", "cycles"})


def of(metric: str, sides: Sequence[Measurement | None], records: Sequence[RunRecord]) -> Kind:
    """The kind of a metric that is known as ``sides`` in two runs."""
    if metric in placement.METRICS:
        return "share"
    known = [side for side in sides if side is not None]
    if any(side.protocol for side in known):
        return "resource"
    if any(definition.find(record, metric) for record in records):
        return "quality"
    return "resource" if any(map(_is_figure, known)) else "quality"


def _is_figure(measurement: Measurement) -> bool:
    """Whether it is of the file or the device; what a metric computes is of samples."""
    return (
        (measurement.n == 1 and is_exact(measurement))
        or measurement.unit in _UNITS
        or measurement.metric.startswith("size_")
    )


def is_exact(measurement: Measurement) -> bool:
    """Whether it has no noise, as a size has none, nor a toolkit's lower bound of what it knows a part of."""
    bound = measurement.n == 1 and measurement.interval == (measurement.value, None)
    return not measurement.protocol and (measurement.interval is None or bound)


def assumptions(measurement: Measurement, kind: Kind) -> str:
    """What must be the same in both runs, as its remark says it: how a toolkit came by the number.

    A figure's whole remark: toolkit, version, accelerator, memory mode. Of others the end of it, which says how they
    were had, such as the simulator of the outputs; what is before that may be of the network.
    """
    if measurement.metric == _OF_DECISIONS:
        return measurement.why
    if measurement.method == "measured":
        return ""
    return measurement.why if kind == "resource" else measurement.why.rpartition("; ")[2]
