"""The charts of the report; marks differ in shape as well as in colour, and the page explains them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgeopt.report import facts
from edgeopt.report import ledger as ledgers
from edgeopt.report.ledger import Chain
from edgeopt.report.svg import ACCENT, ALERT, INK, MUTED, OTHER, svg
from edgeopt.report.wording import METHOD_WORDS, clean

if TYPE_CHECKING:
    from edgeopt.measure import Measurement
    from edgeopt.record import Interval, TargetRecord

_LONGEST_NAME = 40  # letters
_CURVE_POINTS = 160  # of one ECDF; more cannot be seen at this size
_TAIL = 0.995  # the ECDF is drawn up to this quantile, or one slow sample would flatten all the rest
_LETTER_SHARE = 0.04  # of the width of the axes: one letter
_NS_PER_MS = 1e6
_BARS_UP_TO = 6  # unlike chains of a ledger; more error bars could not be told apart
_SPREAD = 0.3  # of the chains around their stage, in stages

#: Kind of a mark -> how it looks. The page's legend shows the same shapes.
_MARKS: dict[str, dict[str, Any]] = {
    "other": {"marker": "o", "color": MUTED, "markersize": 6, "zorder": 3},
    "baseline": {"marker": "s", "color": OTHER, "markersize": 6.5, "zorder": 4},
    "ships": {"marker": "D", "color": ACCENT, "markersize": 8, "zorder": 5},
}


class _Point(NamedTuple):
    """``how`` is how its less real number was had; empty if both were measured."""

    letter: str
    kind: str
    how: str
    x: float
    y: float
    x_interval: Interval | None
    y_interval: Interval | None


def tradeoff(target: TargetRecord, metric: str, chart_id: str) -> str:
    """Accuracy against median latency of every candidate with error bars, and the Pareto front.

    Returns:
        The SVG, empty if fewer than two candidates have both numbers.
    """
    points, lower_is_better = [], False
    for row in facts.candidate_rows(target):
        latency, accuracy = row.record.measurement(facts.LATENCY), row.record.measurement(metric)
        if latency and accuracy and latency.value is not None and accuracy.value is not None:
            kind = "ships" if row.shipped else "baseline" if row.record.baseline else "other"
            intervals = latency.interval, accuracy.interval
            points.append(_Point(row.letter, kind, _how(latency, accuracy), latency.value, accuracy.value, *intervals))
            lower_is_better = accuracy.better == "lower"
    if len(points) < 2:
        return ""
    front = pareto_front([(p.x, p.y if lower_is_better else -p.y) for p in points])

    def draw(axes: Any) -> None:
        for (kind, look), real in product(_MARKS.items(), (True, False)):
            if chosen := [p for p in points if p.kind == kind and (not p.how) == real]:
                xs, ys = [p.x for p in chosen], [p.y for p in chosen]
                bars = {
                    "xerr": _sides(xs, [p.x_interval for p in chosen]),
                    "yerr": _sides(ys, [p.y_interval for p in chosen]),
                }
                hollow = {} if real else {"markerfacecolor": "none", "markeredgewidth": 1.6}
                axes.errorbar(xs, ys, **bars, **look, **hollow, linestyle="", elinewidth=1.2)
        best = [points[i] for i in front]
        look = {"color": INK, "linewidth": 1.4, "linestyle": (0, (4, 3)), "drawstyle": "steps-post"}
        axes.plot([p.x for p in best], [p.y for p in best], **look, zorder=2)
        axes.margins(0.12, 0.12)
        axes.set_xlim(left=0)
        for near in _neighbours(points, *(np.ptp(limits) for limits in (axes.get_xlim(), axes.get_ylim()))):
            letters = " ".join(f"{p.letter} {p.how}".rstrip() for p in near)
            last = near[-1]
            inwards = bool(last.how) and last.x > np.mean(axes.get_xlim())  # a word would reach out of the chart
            side: dict[str, Any] = {"xytext": (-8, 6), "ha": "right"} if inwards else {"xytext": (8, 6)}
            axes.annotate(letters, (last.x, last.y), textcoords="offset points", **side)
        axes.set_xlabel("median latency in ms, less is better")
        axes.set_ylabel(_short(metric))
        axes.ticklabel_format(useOffset=False)
        _few_ticks(axes.xaxis)
        _few_ticks(axes.yaxis)

    spoken = ", ".join(points[i].letter for i in front)
    unreal = {p.letter: f" ({p.how})" for p in points if p.how}
    names = "; ".join(
        f"{row.letter} {row.record.id}{unreal.get(row.letter, '')}" for row in facts.candidate_rows(target)
    )
    return svg(draw, f"{metric} against median latency: {names}. Pareto front: {spoken}.", chart_id, kind="tradeoff")


def _how(*numbers: Measurement) -> str:
    """The word for the less real of the numbers of a point."""
    words = [METHOD_WORDS[number.method] for number in numbers]
    return next((word for word in ("ESTIMATED", "SIMULATED") if word in words), "")


def _neighbours(points: Sequence[_Point], width: float, height: float) -> list[list[_Point]]:
    """Points whose letters would overlap, from the fastest on, given the size of the axes in units of the data."""
    groups: list[list[_Point]] = []
    for p in sorted(points, key=lambda p: p.x):
        last = groups[-1][-1] if groups else None
        if last and p.x - last.x < _LETTER_SHARE * width and abs(p.y - last.y) < 2 * _LETTER_SHARE * height:
            groups[-1].append(p)
        else:
            groups.append([p])
    return groups


def pareto_front(costs: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats in both costs, in the order of the first.

    A point beats another if it is no worse in either cost and better in one.
    """
    order = sorted(range(len(costs)), key=lambda i: costs[i])
    front: list[int] = []
    for i in order:
        if not front or costs[i][1] < costs[front[-1]][1] or costs[i] == costs[front[-1]]:
            front.append(i)
    return front


def distribution(samples: Mapping[str, npt.NDArray[np.int64]], baseline: str, shipped: str, chart_id: str) -> str:
    """Empirical distribution functions of the latencies of the float baseline and of what ships.

    Args:
        samples: Candidate id -> raw latencies, (n,) int64 ns.
        baseline: Id of the float baseline.
        shipped: Id of the shipped candidate; may be the same.
        chart_id: Unique in the page.

    Returns:
        The SVG, empty if there are no samples.
    """
    shares = np.linspace(0, _TAIL, _CURVE_POINTS)
    curves = []
    for name in dict.fromkeys((baseline, shipped)):
        if count := len(samples.get(name, ())):
            ranks = np.maximum(np.ceil(shares * count).astype(int) - 1, 0)  # the inverse of the empirical distribution
            curves.append((name, np.sort(samples[name])[ranks] / _NS_PER_MS))
    if not curves:
        return ""

    def draw(axes: Any) -> None:
        for name, quantiles_ms in curves:
            look = (
                {"color": ACCENT, "linewidth": 2.2} if name == shipped else {"color": OTHER, "linestyle": (0, (5, 2))}
            )
            axes.plot(quantiles_ms, shares, drawstyle="steps-post", **look)
        axes.set_ylim(0, 1)
        axes.set_yticks((0, 0.25, 0.5, 0.75, 0.9, 1))
        axes.set_xlabel("latency in ms, less is better")
        axes.set_ylabel("share of inferences")
        _few_ticks(axes.xaxis)

    middle = int(np.searchsorted(shares, 0.5))
    medians = "; ".join(f"{name} median {quantiles_ms[middle]:.3g} ms" for name, quantiles_ms in curves)
    return svg(draw, f"Distribution of the latency: {medians}", chart_id, kind="distribution")


def ledger(metric: str, chains: Sequence[Chain], chart_id: str) -> str:
    """One metric by stage: a line for every way through the stages, and the largest loss marked.

    Returns:
        The SVG, empty if there are no points.
    """
    if not chains:
        return ""
    stages = _in_order(chains)
    drop = ledgers.worst_drop(chains)
    lines = _lines(chains, stages)

    def draw(axes: Any) -> None:
        for ships, color, width in ((False, MUTED, 1), (True, ACCENT, 1.8)):
            ways = [line for line in lines if line.chain.shipped == ships]
            if not ways:
                continue
            axes.plot(*_broken(ways), color=color, linewidth=width, zorder=3 if ships else 2)
            axes.plot(
                [line.xs[-1] for line in ways],
                [line.ys[-1] for line in ways],
                linestyle="",
                **_MARKS["ships" if ships else "other"] | {"markersize": 6},
            )
            barred = [line for line in ways if len(lines) <= _BARS_UP_TO or drop in line.chain.rows]
            xs, ys = _broken(barred)
            intervals = [i for line in barred for i in (*(row.record.interval for row in line.chain.rows), None)]
            axes.errorbar(xs, ys, yerr=_sides(ys, intervals), color=color, linestyle="", elinewidth=1.1)
        marked = next((line for line in reversed(lines) if drop in line.chain.rows), None)
        if drop and marked:
            place = marked.chain.rows.index(drop)
            at = (marked.xs[place], marked.ys[place])
            axes.plot(*at, "o", markersize=14, markerfacecolor="none", color=ALERT, markeredgewidth=2, zorder=6)
            look = {"textcoords": "offset points", "color": ALERT, "fontweight": "bold"}
            ends = at[0] > len(stages) - 1.5  # beside the last stage there is no room on the right
            axes.annotate(drop.change, at, xytext=(-12 if ends else 12, -4), ha="right" if ends else "left", **look)
        axes.set_xticks(range(len(stages)), [_short(stage) for stage in stages])
        axes.set_xlim(-0.4, len(stages) - 0.4)
        axes.margins(y=0.15)
        axes.tick_params(axis="x", labelcolor=INK, labelsize=11, rotation=20 if len(stages) > 5 else 0)
        axes.grid(visible=False, axis="x")
        axes.ticklabel_format(axis="y", useOffset=False)
        _few_ticks(axes.yaxis)
        axes.set_ylabel(_short(metric))

    return svg(draw, f"{metric} by stage. {ledgers.where(metric, chains)}", chart_id, kind="ledger")


class _Line(NamedTuple):
    chain: Chain
    xs: list[float]
    ys: list[float]


def _lines(chains: Sequence[Chain], stages: Sequence[str]) -> list[_Line]:
    """One line for all chains with the same values; apart from each other where they are of single targets."""
    unlike: dict[tuple[tuple[str, float], ...], Chain] = {}
    for chain in chains:  # what ships comes last, and stands for its equals
        unlike[tuple((row.record.stage, row.record.value) for row in chain.rows)] = chain
    shifts = np.linspace(-_SPREAD / 2, _SPREAD / 2, len(unlike)) if len(unlike) > 1 else [0.0]
    return [
        _Line(
            chain,
            [stages.index(row.record.stage) + (float(shift) if row.record.target else 0.0) for row in chain.rows],
            [row.record.value for row in chain.rows],
        )
        for shift, chain in zip(shifts, unlike.values(), strict=True)
    ]


def _broken(lines: Sequence[_Line]) -> tuple[list[float], list[float]]:
    """The coordinates of all lines as one that is broken between them, which is drawn far faster."""
    xs = [x for line in lines for x in (*line.xs, np.nan)]
    return xs, [y for line in lines for y in (*line.ys, np.nan)]


def _in_order(chains: Sequence[Chain]) -> list[str]:
    """All stages; one that only some chains pass comes where those have it."""
    longest = max(chains, key=lambda chain: len(chain.rows))
    return list(dict.fromkeys(row.record.stage for chain in (longest, *chains) for row in chain.rows))


def _few_ticks(axis: Any) -> None:
    """At most six round numbers within the limits; matplotlib takes twice as long if it looks for them itself."""
    from matplotlib.ticker import MaxNLocator

    low, high = sorted(axis.get_view_interval())
    axis.set_ticks(
        [tick for tick in MaxNLocator(5, steps=(1, 2, 2.5, 5, 10)).tick_values(low, high) if low <= tick <= high]
    )


def _short(name: str) -> str:
    text = clean(name)
    return text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"


def _sides(values: Sequence[float], intervals: Sequence[Interval | None]) -> npt.NDArray[np.float64]:
    """Lengths of error bars, (2, n), below and above; NaN, which is not drawn, where the data cannot bound a side."""
    bounds = [interval or (None, None) for interval in intervals]
    below = [np.nan if low is None else max(0.0, v - low) for v, (low, _) in zip(values, bounds, strict=True)]
    above = [np.nan if high is None else max(0.0, high - v) for v, (_, high) in zip(values, bounds, strict=True)]
    return np.array([below, above])
