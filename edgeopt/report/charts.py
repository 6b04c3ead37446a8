"""Charts as inline SVG, drawn by matplotlib.

The same data give the same bytes. Colours are CSS variables, so a chart follows the light or dark scheme of the page,
and marks differ in shape as well as in colour.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgeopt.report import facts
from edgeopt.report.facts import CandidateRow, LedgerRow
from edgeopt.report.wording import clean

if TYPE_CHECKING:
    from edgeopt.measure import Measurement
    from edgeopt.record import Interval, TargetRecord

_INK, _MUTED, _GRID, _ACCENT, _OTHER = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _GRID: "var(--line)",
    _ACCENT: "var(--accent)",
    _OTHER: "var(--second)",
}
_WIDTH, _RIGHT, _BOTTOM = 5.4, 0.15, 0.5  # inches
_LETTER = 0.072  # mean width of a letter of an axis label, in inches
_LONGEST_NAME = 40  # letters
_CURVE_POINTS = 240  # of one ECDF; more cannot be seen at this size
_TAIL = 0.995  # the ECDF is drawn up to this quantile, or one slow sample would flatten all the rest
_NS_PER_MS = 1e6
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _MUTED,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
}
_MARKS: dict[str, dict[str, Any]] = {
    "ships": {"fmt": "D", "color": _ACCENT, "markersize": 8},
    "float baseline": {"fmt": "s", "color": _OTHER, "markersize": 6.5},
    "other candidate": {"fmt": "o", "color": _MUTED, "markersize": 6},
}


def tradeoff(target: TargetRecord, metric: str, chart_id: str) -> str:
    """Accuracy against median latency of every candidate, with error bars; the shipped one is marked.

    Returns:
        The SVG, empty if fewer than two candidates have both numbers.
    """
    points = []
    for row in facts.candidate_rows(target):
        latency, accuracy = row.record.measurement(facts.LATENCY), row.record.measurement(metric)
        if latency and accuracy and latency.value is not None and accuracy.value is not None:
            points.append((row, latency, accuracy))
    if len(points) < 2:
        return ""

    def draw(axes: Any) -> None:
        for row, latency, accuracy in points:
            axes.errorbar(
                latency.value,
                accuracy.value,
                xerr=_whiskers(latency),
                yerr=_whiskers(accuracy),
                **_mark(row),
                elinewidth=1,
                capsize=2.5,
            )
            axes.annotate(
                row.letter,
                (latency.value, accuracy.value),
                xytext=(7, 5),
                textcoords="offset points",
                fontweight="bold" if row.shipped else "normal",
            )
        axes.margins(0.12, 0.12)
        axes.set_xlim(left=0)
        axes.set_xlabel("median latency in ms, less is better")
        axes.set_ylabel(_short(metric))
        axes.ticklabel_format(useOffset=False)
        _legend_once(axes)

    names = "; ".join(f"{row.letter} {row.record.id}" for row, _, _ in points)
    return _svg(draw, f"{metric} against median latency: {names}", chart_id, 3.2)


def _mark(row: CandidateRow) -> dict[str, Any]:
    label = "ships" if row.shipped else "float baseline" if row.record.baseline else "other candidate"
    return {"label": label, "zorder": 4 if row.shipped else 3, **_MARKS[label]}


def _legend_once(axes: Any) -> None:
    by_label = {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    labels = [label for label in _MARKS if label in by_label]
    axes.legend(
        [by_label[label] for label in labels],
        labels,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(labels),
        borderaxespad=0.2,
        handletextpad=0.4,
        columnspacing=1.2,
    )


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
    curves = [(name, np.sort(samples[name]) / _NS_PER_MS) for name in dict.fromkeys((baseline, shipped))
              if len(samples.get(name, ()))]  # fmt: skip
    if not curves:
        return ""

    def draw(axes: Any) -> None:
        for name, sorted_ms in curves:
            ships = name == shipped
            probabilities = np.linspace(0, _TAIL, _CURVE_POINTS)
            axes.plot(
                np.quantile(sorted_ms, probabilities, method="inverted_cdf"),
                probabilities,
                color=_ACCENT if ships else _OTHER,
                linewidth=2 if ships else 1.6,
                linestyle="-" if ships else (0, (5, 2)),
                label=f"{_short(name)} ({'ships' if ships else 'float baseline'})",
                drawstyle="steps-post",
            )
        axes.set_ylim(0, 1)
        axes.set_yticks((0, 0.25, 0.5, 0.75, 0.9, 1))
        axes.set_xlabel("latency in ms, less is better")
        axes.set_ylabel("share of inferences")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)

    medians = "; ".join(f"{name} median {np.median(values):.3g} ms" for name, values in curves)
    return _svg(draw, f"Distribution of the latency: {medians}", chart_id, 3.2)


def ledger(metric: str, rows: Sequence[LedgerRow], chart_id: str) -> str:
    """One metric at every point of the chain with its interval, from top to bottom.

    Returns:
        The SVG, empty if there are no points.
    """
    if not rows:
        return ""

    labels = [_two_lines(row.label) for row in rows]

    def draw(axes: Any) -> None:
        places = range(len(rows))
        values = [row.record.value for row in rows]
        axes.axvline(values[0], color=_MUTED, linewidth=1, linestyle=(0, (2, 2)))
        for place, row in zip(places, rows, strict=True):
            final = row.record.candidate is not None
            axes.errorbar(
                row.record.value,
                place,
                xerr=_sides(row.record.value, row.record.interval),
                fmt="D" if final else "o",
                color=_ACCENT if final else _OTHER,
                markersize=5.5,
                elinewidth=1.2,
                capsize=2.5,
            )
        axes.set_yticks(places, labels)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0, labelcolor=_INK, labelsize=9)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=5)
        axes.ticklabel_format(axis="x", useOffset=False)
        axes.set_xlabel(_short(metric) + (" (dotted: trained)" if rows[0].record.stage == "trained" else ""))

    spoken = "; ".join(f"{row.label} {row.quantity.value}" for row in rows)
    left = 0.2 + _LETTER * max(len(line) for label in labels for line in label.split("\n"))
    return _svg(draw, f"{metric} by stage: {spoken}", chart_id, 0.6 + 0.34 * len(rows), left, top=0.1)


def _two_lines(label: str) -> str:
    return "\n".join(_short(part) for part in label.rsplit(" · ", 1)) if len(label) > 24 else clean(label)


def _short(name: str) -> str:
    text = clean(name)
    return text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"


def _whiskers(measurement: Measurement) -> npt.NDArray[np.float64] | None:
    assert measurement.value is not None
    return _sides(measurement.value, measurement.interval)


def _sides(value: float, interval: Interval | None) -> npt.NDArray[np.float64] | None:
    """Lengths of the error bar, (2, 1); a side that the data cannot bound has none."""
    if interval is None:
        return None
    low, high = (value if bound is None else bound for bound in interval)
    return np.array([[max(0.0, value - low)], [max(0.0, high - value)]])


def _svg(
    draw: Callable[[Any], None], label: str, chart_id: str, height: float, left: float = 0.8, top: float = 0.55
) -> str:
    """Draw on fresh axes and return an ``<svg>`` element that can stand in a page beside others.

    Sizes are in inches. The margins are fixed, because fitting them would draw everything twice, and with other fonts
    than the reader's.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's browser has its own fonts
        matplotlib.rcdefaults()  # whatever the user's matplotlibrc says, the report is the same
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": chart_id})
        figure = Figure(figsize=(_WIDTH, height))
        width_share, height_share = 1 - (left + _RIGHT) / _WIDTH, 1 - (top + _BOTTOM) / height
        draw(figure.add_axes((left / _WIDTH, _BOTTOM / height, width_share, height_share)))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), label, chart_id)


def _inline(document: str, label: str, chart_id: str) -> str:
    """A stand-alone SVG document as an element of a page: unique ids, the page's fonts and colours, short numbers."""
    opening, body = document[document.index("<svg") :].split(">", 1)
    box = re.search(r'viewBox="[^"]+"', opening)
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", body, flags=re.DOTALL)
    used = set(re.findall(r"#(\w+)[\")]", body))

    def restyle(tag: re.Match[str]) -> str:
        text = re.sub(r' id="([^"]+)"', lambda m: f' id="{chart_id}-{m[1]}"' if m[1] in used else "", tag[0])
        text = re.sub(r'(url\(#|href="#)', rf"\g<1>{chart_id}-", text)
        text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
        text = re.sub(r"\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}", text)
        return re.sub("|".join(_VARIABLES), lambda m: _VARIABLES[m[0]], text)

    body = re.sub(r"<[^>]+>", restyle, body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    return f'<svg role="img" aria-label="{escape(clean(label))}" {box[0] if box else ""}>{body.strip()}'
