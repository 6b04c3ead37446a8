"""The chart of a model that verifies: false rejects against false accepts, and where production's threshold lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgeopt.report import facts
from edgeopt.report.svg import ACCENT, MUTED, OTHER, svg

if TYPE_CHECKING:
    from edgeopt.record import CandidateRecord, TargetRecord

_TICKS = (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95)
_RANGE = (1e-6, 0.99)


def error_rates(target: TargetRecord, chart_id: str) -> str:
    """The DET curves of all candidates, each with the point at which production would run if it kept its threshold.

    Both axes are stretched by the normal quantile, so that normal scores give straight lines: Martin et al., The DET
    curve in assessment of detection task performance, Eurospeech 1997.

    Returns:
        The SVG, empty if the candidates do not verify.
    """
    baseline = facts.baseline_of(target)
    drawn = [c for c in target.candidates if c.roc and baseline is not None and c.runtime == baseline.runtime]
    if not drawn:
        return ""
    from scipy.special import ndtri  # takes a third of a second

    def stretched(rates: Any) -> npt.NDArray[np.float64]:
        return np.asarray(ndtri(np.clip(np.asarray(rates, np.float64), *_RANGE)))

    def draw(axes: Any) -> None:
        lowest = 1.0
        for candidate in drawn:
            look: dict[str, Any] = {"color": MUTED, "linewidth": 1}
            if candidate.baseline:
                look = {"color": OTHER, "linestyle": (0, (5, 2)), "zorder": 3}
            if candidate.id == target.shipped:
                look = {"color": ACCENT, "linewidth": 2.2, "zorder": 4}
            far, frr = (np.array(candidate.roc[name]) for name in ("far", "frr"))
            seen = far > 0
            lowest = min(lowest, far[seen].min(initial=1.0))
            axes.plot(stretched(far[seen]), stretched(frr[seen]), **look)
            if (point := _production(candidate)) is not None:
                axes.plot(*stretched(point), marker="D" if candidate.id == target.shipped else "o", **look)
        for axis, low in ((axes.xaxis, lowest), (axes.yaxis, 1e-3)):
            ticks = [tick for tick in _TICKS if tick >= low]
            axis.set_ticks(stretched(ticks), [f"{100 * tick:g} %" for tick in ticks])
        axes.set_xlim(*stretched([lowest, 0.5]))
        axes.set_ylim(*stretched([1e-3, 0.95]))
        axes.tick_params("x", labelsize=9)
        axes.set_xlabel("impostors accepted")
        axes.set_ylabel("genuine rejected")

    points = [(c, point) for c in drawn if (point := _production(c)) is not None]
    spoken = "; ".join(f"{c.id} {100 * far:.3g} % and {100 * frr:.3g} %{_label(c)}" for c, (far, frr) in points)
    label = "Genuine pairs rejected against impostors accepted"
    label = f"{label}; at the float model's threshold {spoken}" if spoken else label
    return svg(draw, label, chart_id, kind="error rates")


def simulated(target: TargetRecord) -> str:
    """Whose error rates were not taken on the device, in words; empty if all were."""
    names = ", ".join(c.id for c in target.candidates if c.roc and _label(c))
    return f"SIMULATED, not taken on the device: {names}." if names else ""


def _label(candidate: CandidateRecord) -> str:
    """Of all outputs of a candidate, for they are had in one way."""
    return " (SIMULATED)" if any(m.method == "simulated" for m in candidate.selection) else ""


def _production(candidate: CandidateRecord) -> tuple[float, float] | None:
    """FAR and FRR at the float model's threshold, of the first point at which both were measured."""
    for m in candidate.measurements:
        if m.metric.startswith("far@float=") and not m.metric.endswith(" drop") and m.value is not None:
            frr = candidate.measurement(f"frr{m.metric.removeprefix('far')}")
            if frr is not None and frr.value is not None:
                return m.value, frr.value
    return None
