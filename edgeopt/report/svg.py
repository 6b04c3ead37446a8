"""One chart, drawn by matplotlib, as an ``<svg>`` element for a page.

The same data give the same bytes. Colours are CSS variables, so a chart follows the light or dark scheme of the page.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from html import escape
from typing import Any

from edgeopt.report.wording import clean

INK, MUTED, GRID, ACCENT, OTHER, ALERT = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    ACCENT: "var(--accent)",
    OTHER: "var(--second)",
    ALERT: "var(--fail)",
}
# Inches. As wide as a narrow window shows it in its own size, so that its letters are readable there.
_WIDTH, _LEFT, _RIGHT, _BOTTOM, _TOP = 5.0, 0.9, 0.2, 0.65, 0.15
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 12,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.bottom": False,
    "ytick.left": False,
}


def svg(draw: Callable[[Any], None], label: str, chart_id: str, *, kind: str, height: float = 3.1) -> str:
    """Let ``draw`` fill empty axes.

    The margins are fixed, because fitting them would draw everything twice, and with other fonts than the reader's.

    Args:
        draw: Gets the matplotlib axes, with what it set on them the last time: scales, ticks, labels and grid, but no
            data. Making them anew would take as long as all the rest.
        label: What somebody hears who does not see the chart.
        chart_id: Unique in the page.
        kind: Charts of one kind share their axes, and so have to set the same things on them.
        height: In inches.
    """
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's browser has its own fonts
        # whatever the user's matplotlibrc says, the report is the same; these values have been validated
        dict.update(matplotlib.rcParams, {**_settings(), "svg.hashsalt": chart_id})
        axes, buffer = _axes(kind, height), io.StringIO()
        try:
            draw(axes)
            axes.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        finally:
            _empty(axes)
    return _inline(buffer.getvalue(), label, chart_id)


@cache
def _settings() -> Mapping[str, Any]:
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        return dict(matplotlib.rcParams)


@cache
def _axes(kind: str, height: float) -> Any:
    from matplotlib.figure import Figure

    size = (1 - (_LEFT + _RIGHT) / _WIDTH, 1 - (_TOP + _BOTTOM) / height)
    return Figure(figsize=(_WIDTH, height)).add_axes((_LEFT / _WIDTH, _BOTTOM / height, *size))


def _empty(axes: Any) -> None:
    """Takes the data away, and with them what follows from them."""
    from matplotlib.ticker import AutoLocator, ScalarFormatter

    for container in list(axes.containers):
        container.remove()
    for artist in [*axes.lines, *axes.collections, *axes.texts]:
        artist.remove()
    axes.relim()
    axes.autoscale()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(AutoLocator())
        axis.set_major_formatter(ScalarFormatter())


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
