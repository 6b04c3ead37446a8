"""The ledger: one metric at every point of the chain, and the step at which it got worst."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgeopt.report import wording
from edgeopt.report.wording import Quantity

if TYPE_CHECKING:
    from edgeopt.record import LedgerRecord, RunRecord

_ALWAYS_SHARED = frozenset({"trained", "exported"})  # stages of every run, compressed or not


@dataclass(frozen=True)
class LedgerRow:
    """One point with the point before it in its chain.

    Attributes:
        place: Target and candidate or runtime, such as ``cpu · openvino-int8-pruned``; empty if it is for all.
        before: ``None`` at the start of the chain.
    """

    place: str
    record: LedgerRecord
    before: LedgerRecord | None

    @property
    def label(self) -> str:
        """Stage and place on one line."""
        return f"{self.record.stage} · {self.place}" if self.place else self.record.stage

    @property
    def quantity(self) -> Quantity:
        """The value with its interval."""
        unit = wording.unit_of(self.record.metric, self.record.unit)
        shown = wording.number(self.record.value, unit), wording.interval(self.record.interval, unit)
        return Quantity(*shown, wording.METHOD_WORDS[self.record.method])

    @property
    def against(self) -> str:
        """Stage of the point before; empty at the start of the chain, like ``change``."""
        return self.before.stage if self.before else ""

    @property
    def change(self) -> str:
        """Against the point before, with its sign."""
        unit = wording.unit_of(self.record.metric, self.record.unit)
        return wording.change(self.record.value - self.before.value, unit) if self.before else ""

    @property
    def loss(self) -> float:
        """How much worse it is than the point before; negative if it is better."""
        gain = self.record.value - self.before.value if self.before else 0.0
        return gain if self.record.better == "lower" else -gain

    @property
    def beyond_intervals(self) -> bool:
        """Whether its interval and that of the point before do not touch; without intervals, whether they differ."""
        if self.before is None:
            return False
        (low, high), (low_before, high_before) = (p.interval or (p.value, p.value) for p in (self.record, self.before))
        above = low is not None and high_before is not None and low > high_before
        below = high is not None and low_before is not None and high < low_before
        return above or below


@dataclass(frozen=True)
class Chain:
    """The points of one metric on the way to a compiled candidate, from the trained model on."""

    target: str
    candidate: str
    shipped: bool
    rows: tuple[LedgerRow, ...]

    @property
    def drop(self) -> LedgerRow | None:
        """The step at which the metric got worse most; ``None`` if it never did."""
        worst = max(self.rows, key=lambda row: row.loss)
        return worst if worst.loss > wording.ROUNDING else None


def rows(record: RunRecord) -> Mapping[str, tuple[LedgerRow, ...]]:
    """Metric -> its points in the order of the chain."""
    unpruned = {(name, c.id) for name, target in record.targets.items() for c in target.candidates if not c.pruned}
    by_metric: dict[str, list[LedgerRecord]] = {}
    for point in record.ledger:
        by_metric.setdefault(point.metric, []).append(point)
    return {metric: tuple(_rows(points, unpruned)) for metric, points in by_metric.items()}


def _rows(points: list[LedgerRecord], unpruned: set[tuple[str, str]]) -> Iterator[LedgerRow]:
    compressed = any(p.target is None and p.stage not in _ALWAYS_SHARED for p in points)
    for index, point in enumerate(points):
        skips = compressed and (point.target, point.candidate) in unpruned  # the shared points are not its own
        earlier = [p for p in points[:index] if _precedes(p, point) and (not skips or p.stage == "trained")]
        place = " · ".join(part for part in (point.target, point.candidate or point.runtime) if part)
        yield LedgerRow(place, point, earlier[-1] if earlier else None)


def _precedes(earlier: LedgerRecord, point: LedgerRecord) -> bool:
    """Whether ``earlier`` lies on the chain that led to ``point``: it is shared or of the same branch."""
    same_branch = all(
        getattr(earlier, part) in (None, getattr(point, part)) for part in ("target", "runtime", "candidate")
    )
    return same_branch and earlier.stage != point.stage


def chains(record: RunRecord, metric_rows: Sequence[LedgerRow]) -> tuple[Chain, ...]:
    """The chain of every candidate that the rows of one metric end in; those of what ships come last.

    Points that no candidate follows, as on a target that could not be served, are a chain of their own.
    """
    row_of = {id(row.record): row for row in metric_rows}
    led_on = {id(row.before) for row in metric_rows}
    found = []
    for row in metric_rows:
        if id(row.record) in led_on:
            continue
        way = [row]
        while way[-1].before is not None:
            way.append(row_of[id(way[-1].before)])
        target, candidate = row.record.target or "", row.record.candidate or ""
        entry = record.targets.get(target)
        shipped = entry is not None and bool(candidate) and entry.shipped == candidate
        found.append(Chain(target, candidate, shipped, tuple(reversed(way))))
    return tuple(sorted(found, key=lambda chain: chain.shipped))


def worst_drop(found: Sequence[Chain]) -> LedgerRow | None:
    """The largest loss of one step on the way to anything that ships, or to anything at all if nothing ships."""
    ship = [chain for chain in found if chain.shipped] or found
    drops = [drop for chain in ship if (drop := chain.drop)]
    return max(drops, key=lambda row: row.loss, default=None)


def where(metric: str, found: Sequence[Chain]) -> str:
    """What the metric lost from the trained model to what ships, and where, in words."""
    ship = [chain for chain in found if chain.shipped] or found
    if not ship:
        return ""
    worst = max(ship, key=_loss_in_all)
    first, last = worst.rows[0].record, worst.rows[-1].record
    unit = wording.unit_of(metric, first.unit)
    ends = f"{_end(worst.rows[0])} ({first.stage}) to {_end(worst.rows[-1])}"
    change = wording.change(last.value - first.value, unit)
    text = f"{metric} goes from {ends} ({worst.rows[-1].label}), a change of {change}"
    text += f", the worst of the {len(ship)} that ship." if len(ship) > 1 else "."
    drop = worst_drop(found)
    if drop is None:
        return f"{text} No step made it worse."
    clearly = "beyond" if drop.beyond_intervals else "within"
    text += f" The largest loss of one step is at {drop.label}: {drop.change}, {clearly} the intervals"
    chain = next(chain for chain in reversed(ship) if drop in chain.rows)
    return f"{text}{', and later steps regain it.' if _loss_in_all(chain) < drop.loss / 2 else '.'}"


def labels(found: Sequence[Chain]) -> str:
    """Which points were not taken on a device, in words; empty if all were."""
    places: dict[str, dict[str, None]] = {}
    for record in (row.record for chain in found for row in chain.rows):
        if word := wording.METHOD_WORDS[record.method]:
            places.setdefault(word, {})[record.target or record.stage] = None
    return " ".join(f"{word}, not taken on the device: {', '.join(names)}." for word, names in places.items())


def _end(row: LedgerRow) -> str:
    """The value with its label, without its interval."""
    return str(replace(row.quantity, interval=""))


def _loss_in_all(chain: Chain) -> float:
    first, last = chain.rows[0].record, chain.rows[-1].record
    return last.value - first.value if first.better == "lower" else first.value - last.value
