"""The report as one HTML file: no network, no script, readable in light and dark, on paper and on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgeopt.report import alarms, changes, charts, facts, gates, ledger, placements, wording
from edgeopt.report.error_rates import error_rates, simulated

if TYPE_CHECKING:
    from edgeopt.compare import Comparison
    from edgeopt.record import RunRecord, TargetRecord

#: Charts and thumbnails stop when they add up to these, so that the file stays below 5 MB; the tables hold the same
#: numbers and decisions.
MAX_CHART_BYTES = 2_000_000
MAX_IMAGE_BYTES = 1_500_000
#: With more targets than this, those that a reader need not look at are folded.
MAX_OPEN_TARGETS = 4
#: A reason longer than this stands once below the table of changes, not in every row.
MAX_REASON_LETTERS = 120

Samples = Mapping[str, Mapping[str, npt.NDArray[np.int64]]]

_IMAGE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/]+={0,2}")


def render(record: RunRecord, samples: Samples, comparison: Comparison | None = None) -> str:
    """The report.

    Args:
        record: The run.
        samples: Target -> candidate id -> raw latencies, (n,) int64 ns, for the latency distributions.
        comparison: With the previous release.
    """
    import jinja2
    from markupsafe import Markup

    assets = resources.files("edgeopt.report") / "assets"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (assets / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters["seconds"] = wording.seconds
    environment.globals.update(
        alarms=alarms,
        changes=changes,
        facts=facts,
        gates=gates,
        placements=placements,
        wording=wording,
        ledgers=ledger,
        simulated=simulated,
    )
    drawn: dict[tuple[str, str], str] = {}
    budget = MAX_CHART_BYTES
    for key, svg in _charts(record, samples):
        budget -= len(svg.encode())
        if svg and budget >= 0:
            drawn[key] = Markup(svg)  # our own drawing, its texts are escaped
    images = _images(record)
    return environment.get_template("report.html.j2").render(
        record=record,
        comparison=comparison,
        reasons=_long_reasons(comparison),
        decision=wording.decision(record),
        charts=drawn,
        charts_left_out=budget < 0,
        images=images,
        main_accuracy={name: _main_accuracy(target) for name, target in record.targets.items()},
        folded=_folded(record),
        style=Markup((assets / "report.css").read_text(encoding="utf-8")),  # our own file
    )


def _finalize(value: Any) -> Any:
    """Every text that the template prints goes through here; what is HTML already does not change."""
    return wording.clean(value) if type(value) is str else value


def _charts(record: RunRecord, samples: Samples) -> Iterator[tuple[tuple[str, str], str]]:
    """``(kind, metric or target) -> SVG``, the most telling ones first; empty where there is nothing to draw."""
    for number, (metric, rows) in enumerate(ledger.rows(record).items(), 1):
        yield ("ledger", metric), charts.ledger(metric, ledger.chains(record, rows), f"ledger{number}")
    for number, (name, target) in enumerate(record.targets.items(), 1):
        if metric := _main_accuracy(target):
            yield ("tradeoff", name), charts.tradeoff(target, metric, f"tradeoff{number}")
        baseline = facts.baseline_of(target)
        if baseline is not None and target.shipped:
            svg = charts.distribution(samples.get(name, {}), baseline.id, target.shipped, f"distribution{number}")
            yield ("distribution", name), svg
        yield ("error rates", name), error_rates(target, f"errors{number}")


def _main_accuracy(target: TargetRecord) -> str:
    """The first accuracy metric with a gate, else the first accuracy metric, empty if there is none."""
    accuracies = facts.accuracy_metrics(target)
    gated = [gate.metric for gate in target.verdicts if gate.metric in accuracies]
    return next(iter((*gated, *accuracies)), "")


def _images(record: RunRecord) -> dict[tuple[str, int], str]:
    """``(target, sample) -> data URL`` of the thumbnails that fit; anything that is no image in itself is left out."""
    budget, found = MAX_IMAGE_BYTES, {}
    for name, target in record.targets.items():
        for flip in target.flips:
            if _IMAGE.fullmatch(flip.image):
                budget -= len(flip.image)
                if budget >= 0:
                    found[name, flip.sample] = flip.image
    return found


def _long_reasons(comparison: Comparison | None) -> dict[str, int]:
    """Reasons that would swell the table of changes, numbered from 1 in its order."""
    found = changes.ordered(comparison) if comparison else []
    long = dict.fromkeys(change.why for _, change in found if len(change.why) > MAX_REASON_LETTERS)
    return {why: number for number, why in enumerate(long, 1)}


def _folded(record: RunRecord) -> frozenset[str]:
    """Targets that stay folded: those whose gates all pass, and which have no alarm, of a run with many."""
    if len(record.targets) <= MAX_OPEN_TARGETS:
        return frozenset()
    loud = {alarm.target for alarm in alarms.alarms(record)}
    return frozenset(
        name
        for name, target in record.targets.items()
        if not target.error and name not in loud and all(gate.outcome == "pass" for gate in target.verdicts)
    )
