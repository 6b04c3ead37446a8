"""All gates of a run together: the matrix targets × gates, and how many verdicts may be wrong by chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt.report import wording

if TYPE_CHECKING:
    from edgeopt.record import RunRecord, TargetRecord, VerdictRecord

_WORST_FIRST = ("fail", "inconclusive", "not_measured", "waived", "pass")


def names(record: RunRecord) -> tuple[str, ...]:
    """All gates of all targets, in the order in which they first occur."""
    return tuple(dict.fromkeys(gate.gate for target in record.targets.values() for gate in target.verdicts))


def verdict_of(target: TargetRecord, gate: str) -> VerdictRecord | None:
    """The verdict on ``gate``, the worst if several have that name; ``None`` if the target has no such gate."""
    found = (v for v in target.verdicts if v.gate == gate)
    return min(found, key=lambda verdict: _WORST_FIRST.index(verdict.outcome), default=None)


def no_verdict(target: TargetRecord) -> str:
    """What stands where a target has no verdict on a gate of the run."""
    return wording.NOT_SERVED if target.error else "no gate"


def common_limit(record: RunRecord, gate: str) -> str:
    """The threshold of ``gate`` if all targets that have it share it, else empty."""
    limits = {wording.limit(v) for target in record.targets.values() if (v := verdict_of(target, gate))}
    return limits.pop() if len(limits) == 1 else ""


def tally(*targets: TargetRecord) -> str:
    """How many gates there are and how they ended, such as ``9 gates: 7 ✓ pass, 2 ✗ FAIL``; empty without gates."""
    outcomes = [gate.outcome for target in targets for gate in target.verdicts]
    ends = [f"{outcomes.count(o)} {wording.verdict(o)}" for o in wording.VERDICT_WORDS if o in outcomes]
    return f"{wording.count(len(outcomes), 'gate')}: {', '.join(ends)}" if outcomes else ""


@dataclass(frozen=True)
class Family:
    """The gates of one target that are judged on an interval: exact numbers cannot be wrong by chance.

    Attributes:
        confidence: With which each interval holds the true number, all looks together.
        looks: How often the data were looked at, at most.
    """

    target: str
    gates: int
    confidence: float
    looks: int

    @property
    def wrong(self) -> float:
        """Upper bound of the mean number of verdicts that chance makes wrong (linearity of the expectation)."""
        return self.gates * (1 - self.confidence)


def families(record: RunRecord) -> tuple[Family, ...]:
    """One per target that has gates with an interval."""
    found = (_family(name, target) for name, target in record.targets.items())
    return tuple(family for family in found if family.gates)


def _family(name: str, target: TargetRecord) -> Family:
    gates = sum(gate.interval is not None for gate in target.verdicts)
    level = float(target.family.get("level", 0.95))
    looks = int(target.family.get("looks", target.protocol.get("looks", 1)))
    return Family(name, gates, max(level, 1 - level), looks)


def by_chance(record: RunRecord) -> str:
    """How many wrong verdicts to expect by chance, in words; empty if no gate has an interval."""
    found = families(record)
    if not found:
        return ""
    gates, wrong = sum(family.gates for family in found), sum(family.wrong for family in found)
    levels = " or ".join(f"{100 * level:.3g} %" for level in sorted({family.confidence for family in found}))
    looks = max(family.looks for family in found)
    at = f"{levels} confidence each" + (f", all looks together (at most {looks})" if looks > 1 else "")
    rarely = f", or one in {1 / wrong:.2g} runs like this one" if 0 < wrong < 1 else ""
    return (
        f"{wording.count(gates, 'gate')} with error bars, judged at {at}. Even if every true number lay at its limit, "
        f"chance alone would make at most {wrong:.2g} of these verdicts wrong on average{rarely}."
    )
