"""The report as one HTML file: no network, no script, readable in light and dark, on paper and on a phone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgeopt.report import charts, facts, wording

if TYPE_CHECKING:
    from edgeopt.record import RunRecord, TargetRecord

#: Charts stop when they add up to this, so that the file stays below 1 MB; the tables hold the same numbers.
MAX_CHART_BYTES = 600_000

Samples = Mapping[str, Mapping[str, npt.NDArray[np.int64]]]


def render(record: RunRecord, samples: Samples) -> str:
    """The report.

    Args:
        record: The run.
        samples: Target -> candidate id -> raw latencies, (n,) int64 ns, for the latency distributions.
    """
    import jinja2
    from markupsafe import Markup

    assets = resources.files("edgeopt.report") / "assets"
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters["seconds"] = wording.seconds
    template = environment.from_string((assets / "report.html.j2").read_text(encoding="utf-8"))
    drawn: dict[tuple[str, str], str] = {}
    budget = MAX_CHART_BYTES
    for key, svg in _charts(record, samples):
        budget -= len(svg.encode())
        if svg and budget >= 0:
            drawn[key] = Markup(svg)  # our own drawing, its texts are escaped
    return template.render(
        record=record,
        decision=wording.decision(record),
        facts=facts,
        wording=wording,
        charts=drawn,
        charts_left_out=budget < 0,
        style=Markup((assets / "report.css").read_text(encoding="utf-8")),  # our own file
    )


def _finalize(value: Any) -> Any:
    """Every text that the template prints goes through here; what is HTML already does not change."""
    return wording.clean(value) if type(value) is str else value


def _charts(record: RunRecord, samples: Samples) -> Iterator[tuple[tuple[str, str], str]]:
    """``(kind, metric or target) -> SVG``, the most telling ones first; empty where there is nothing to draw."""
    for number, (metric, rows) in enumerate(facts.ledger(record).items(), 1):
        yield ("ledger", metric), charts.ledger(metric, rows, f"ledger{number}")
    for number, (name, target) in enumerate(record.targets.items(), 1):
        if metric := _main_accuracy(target):
            yield ("tradeoff", name), charts.tradeoff(target, metric, f"tradeoff{number}")
        baseline = facts.baseline_of(target)
        if baseline is not None and target.shipped:
            svg = charts.distribution(samples.get(name, {}), baseline.id, target.shipped, f"distribution{number}")
            yield ("distribution", name), svg


def _main_accuracy(target: TargetRecord) -> str:
    """The first accuracy metric with a gate, else the first accuracy metric, empty if there is none."""
    accuracies = facts.accuracy_metrics(target)
    gated = [gate.metric for gate in target.verdicts if gate.metric in accuracies]
    return next(iter((*gated, *accuracies)), "")
