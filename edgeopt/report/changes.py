"""The words of a comparison of two runs, shared by all its renderings."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from edgeopt.errors import ExitCode
from edgeopt.report import wording
from edgeopt.report.wording import Decision, clean

if TYPE_CHECKING:
    from edgeopt.compare import Change, Comparison, GateChange, TargetComparison
    from edgeopt.measure import Measurement

RESULT_WORDS = {
    "worse": "worse",
    "better": "better",
    "no_difference": "no difference shown",
    "not_comparable": "not comparable",
}
#: One sign per result, always shown beside the word, never instead of it.
RESULT_SIGNS = {"worse": "✗", "better": "✓", "no_difference": "=", "not_comparable": "?"}
REGRESSION, NO_REGRESSION, CANT_TELL = "REGRESSION", "NO REGRESSION SHOWN", wording.CANT_TELL
ABSENT = "absent"
NOTE = (
    "Brackets hold confidence intervals. Worse and better mean that the whole interval says so; a regression is also "
    "beyond the tolerance. Timings of two days are compared beyond the noise floors of both runs only, and accuracies "
    "as if their samples were independent, which is the cautious side."
)

_DIGEST = re.compile(r"[0-9a-f]{32,}")
_NAMED = 3  # how many items the sentence on top spells out


def result(change: Change) -> str:
    """Sign and word, such as ``✗ REGRESSION``, ``✗ worse, tolerated`` or ``= no difference shown``."""
    word = RESULT_WORDS[change.result]
    if change.result == "worse":
        word = REGRESSION if change.regression else "worse, tolerated"
    return f"{RESULT_SIGNS[change.result]} {word}"


def value(measurement: Measurement | None) -> str:
    """One side, with its interval."""
    return ABSENT if measurement is None else str(wording.quantity(measurement))


def brief(measurement: Measurement | None) -> str:
    """One side, without its interval."""
    return ABSENT if measurement is None else str(replace(wording.quantity(measurement), interval=""))


def effect(change: Change) -> str:
    """The change with its interval, such as ``+8.3 % [+3.1, +12.0]`` or ``-0.0120 [-0.020, -0.004]``."""
    if change.value is None:
        return ""
    unit = wording.unit_of(change.metric, change.unit)
    if change.scale == "ratio":
        number = f"{_percent(change.value)} %"
        bounds = ["?" if bound is None else _percent(bound) for bound in change.interval or ()]
    else:
        number = wording.change(change.value, unit)
        bounds = ["?" if bound is None else wording.change(bound) for bound in change.interval or ()]
    return f"{number} [{', '.join(bounds)}]" if bounds else number


def labelled(change: Change) -> str:
    """The effect, labelled if it was not measured on the device."""
    method = wording.METHOD_WORDS[change.after.method] if change.after else ""
    return ", ".join(filter(None, (effect(change) or "broken", method)))


def _percent(ratio: float) -> str:
    percent = 100 * (ratio - 1)
    text = f"{percent:+.0f}" if abs(percent) >= 100 or not math.isfinite(percent) else f"{percent:+.1f}"
    return text if any(c in "123456789" for c in text) or not math.isfinite(percent) else "0"


def reasons(comparison: TargetComparison) -> list[tuple[Change, str, str]]:
    """Why numbers got worse or could not be compared: a change that has the reason, all its metrics, the reason."""
    found: dict[tuple[str, str], list[Change]] = {}
    for change in comparison.changes:
        if change.result in ("worse", "not_comparable"):
            found.setdefault((result(change), change.why), []).append(change)
    return [(same[0], clean(", ".join(c.metric for c in same)), clean(why)) for (_, why), same in found.items()]


def fact(text: str) -> str:
    """One side of a difference; of a digest its beginning."""
    return text[:12] if _DIGEST.fullmatch(text) else clean(text) or ABSENT


def gate(change: GateChange) -> str:
    """Such as ``limit 3 ms -> 4 ms, LOOSENED; pass -> FAIL``, or that the gate is new or gone."""
    limits = [None if limit is None else f"{limit:.10g}" for limit in (change.limit_before, change.limit_after)]
    outcomes = [None if outcome is None else wording.verdict(outcome) for outcome in (change.before, change.after)]
    if change.limit_before is None:
        return f"new: limit {limits[1]}, {outcomes[1]}"
    if change.limit_after is None:
        return f"GONE: it had the limit {limits[0]}, {outcomes[0]}"
    parts = []
    if change.limit_before != change.limit_after:
        parts.append(f"limit {limits[0]} → {limits[1]}, {'LOOSENED' if change.loosened else 'tightened'}")
    if change.before != change.after:
        parts.append(f"{outcomes[0]} → {outcomes[1]}")
    return "; ".join(parts)


def target(comparison: TargetComparison) -> str:
    """What ships, before and after."""
    before, after = clean(comparison.shipped_before), clean(comparison.shipped_after)
    if comparison.presence == "vanished":
        return f"not in the later run; it shipped {before or 'nothing'}"
    error = f" ({wording.one_line(comparison.error)})" if comparison.error else ""
    if comparison.presence == "new":
        return f"not in the earlier run; it ships {after or 'nothing'}{error}"
    if error:
        what = "LOST: it cannot be served any more" if comparison.lost else "could not be served"
        return f"{what}{error}"
    return f"ships {after}, as before" if before == after else f"ships {after}; before, it was {before}"


def decision(comparison: Comparison) -> Decision:
    """Whether the later run is worse, and why in one sentence."""
    word = {ExitCode.GATE_FAILED: REGRESSION, ExitCode.INCONCLUSIVE: CANT_TELL}.get(
        comparison.exit_code(), NO_REGRESSION
    )
    worse = [f"{clean(c.metric)} on {clean(name)} ({labelled(c)})" for name, c in comparison.regressions]
    reasons = []
    if worse:
        more = f" and {len(worse) - _NAMED} more" if len(worse) > _NAMED else ""
        reasons.append(f"{wording.count(len(worse), 'regression')}: {', '.join(worse[:_NAMED])}{more}")
    for text, names in (
        ("lost", [t.name for t in comparison.targets if t.lost]),
        ("vanished", [t.name for t in comparison.targets if t.presence == "vanished"]),
        ("new", [t.name for t in comparison.targets if t.presence == "new"]),
    ):
        if names:
            reasons.append(f"{text}: {', '.join(map(clean, names))}")
    if loosened := [gate for t in comparison.targets for gate in t.gates if gate.loosened]:
        reasons.append(f"{wording.count(len(loosened), 'gate')} loosened or gone")
    reasons.append(_counted(comparison))
    return Decision(word, "; ".join(reasons)[:1].upper() + "; ".join(reasons)[1:] + ".")


def _counted(comparison: Comparison) -> str:
    total = len(comparison.changes())
    if not total:
        return "there is nothing to compare"
    counts = [f"{len(found)} {word}" for key, word in RESULT_WORDS.items() if (found := comparison.changes(key))]  # type: ignore[arg-type]
    return f"{wording.count(total, 'number')}: {', '.join(counts)}"


def ordered(comparison: Comparison) -> list[tuple[str, Change]]:
    """All changes, what a reader must see first: regressions, then worse, not comparable, better, the others."""
    rank = {"worse": 1, "not_comparable": 2, "better": 3, "no_difference": 4}
    return sorted(comparison.changes(), key=lambda pair: 0 if pair[1].regression else rank[pair[1].result])
