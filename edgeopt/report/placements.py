"""Where compiled networks run, in the words and rows that every report shares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt.report import wording
from edgeopt.report.wording import clean

if TYPE_CHECKING:
    from edgeopt.placement import Placed, Placement
    from edgeopt.record import CandidateRecord, TargetRecord

NOT_TOLD = "not told by the toolkit"
#: Kinds of :class:`LayerRow` that nobody may overlook.
LOUD = ("fallback", "float, not INT8", "folded or unknown")
_NAMED = 3  # layers that a sentence spells out


@dataclass(frozen=True)
class PlacementRow:
    """The placement of one candidate.

    Attributes:
        operators: Shares of the compiled layers, such as ``NPU i8 92 % (24), CPU f32 7.7 % (2)``.
        macs: Shares of the multiply-accumulates, such as ``NPU i8 98 %, unknown 2 %``.
        fallbacks, in_float, unfused, reformats: How many there are; empty where the toolkit does not tell.
    """

    candidate: str
    shipped: bool
    operators: str
    macs: str
    fallbacks: str = ""
    in_float: str = ""
    unfused: str = ""
    reformats: str = ""


@dataclass(frozen=True)
class LayerRow:
    """A layer of a candidate that a reader should know of."""

    candidate: str
    what: str
    layer: str
    runs: str
    macs: str
    why: str


def rows(target: TargetRecord) -> tuple[PlacementRow, ...]:
    """One for each candidate."""
    return tuple(_row(candidate, candidate.id == target.shipped) for candidate in target.candidates)


def layer_rows(target: TargetRecord) -> tuple[LayerRow, ...]:
    """Every fallback, every heavy layer in float, every quantization left and every reformat, and MACs nobody names."""
    return tuple(row for candidate in target.candidates for row in _layers(candidate))


def sentence(candidate: CandidateRecord | None) -> str:
    """What of it does not run where it should, in one or two sentences; empty if nothing, or if that is not known."""
    found = candidate.placed if candidate else None
    if found is None:
        return ""
    parts = []
    if found.fallbacks:
        heaviest = sorted(found.fallbacks, key=lambda layer: -(layer.macs or 0))
        names = ", ".join(_named(layer) for layer in heaviest[:_NAMED])
        more = f" and {len(heaviest) - _NAMED} more" if len(heaviest) > _NAMED else ""
        known = found.total_macs and not found.untraced
        share = f" with {_share(found.fallback_macs, found.total_macs)} of the MACs" if known else ""
        parts.append(
            f"{len(found.fallbacks)} of {wording.count(found.layers, 'operator')}{share} do not run on the "
            f"{clean(found.processor)}: {names}{more}."
        )
    if found.unmapped:
        share = _share(found.unmapped_macs, found.total_macs)
        parts.append(f"Where {share} of the MACs run is not known, and they do not count as on the {found.processor}.")
    return " ".join(parts)


def _row(candidate: CandidateRecord, shipped: bool) -> PlacementRow:
    found = candidate.placed
    if found is None:
        told = ", ".join(f"{count} × {clean(precision)}" for precision, count in candidate.placement.items())
        return PlacementRow(candidate.id, shipped, told or NOT_TOLD, "")
    return PlacementRow(
        candidate=candidate.id,
        shipped=shipped,
        operators=", ".join(
            f"{clean(device)} {clean(precision)} {_share(count, found.layers)} ({count})"
            for device, precision, count in _flat(found.operators)
        ),
        macs=_macs(found),
        fallbacks=str(len(found.fallbacks)),
        in_float=str(len(found.in_float)),
        unfused=str(len(found.unfused)),
        reformats=str(len(found.reformats)),
    )


def _macs(found: Placement) -> str:
    if not found.total_macs:
        return wording.NOT_MEASURED if found.total_macs is None else "none"
    known = [f"{clean(d)} {clean(p)} {_share(count, found.total_macs)}" for d, p, count in _flat(found.macs)]
    unknown = [f"folded or unknown {_share(found.unmapped_macs, found.total_macs)}"] if found.unmapped_macs else []
    return ", ".join(known + unknown)


def _flat(shares: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str, int]]:
    """The largest first."""
    found = [(device, precision, n) for device, by in shares.items() for precision, n in by.items()]
    return sorted(found, key=lambda share: -share[2])


def _layers(candidate: CandidateRecord) -> Iterator[LayerRow]:
    found = candidate.placed
    if found is None:
        return
    kinds: Sequence[tuple[str, Sequence[Placed]]] = (
        ("fallback", found.fallbacks),
        ("float, not INT8", found.in_float),
        ("Q/DQ not fused", found.unfused),
        ("reformat", found.reformats),
    )
    for what, layers in kinds:
        for layer in layers:
            runs = f"{layer.device} {layer.precision}"
            share = _share(layer.macs, found.total_macs) if layer.macs else ""
            yield LayerRow(candidate.id, what, _named(layer), runs, share, layer.why)
    for node in found.unmapped:
        share = _share(node.macs, found.total_macs)
        yield LayerRow(candidate.id, "folded or unknown", node.name, "", share, "no compiled layer names this node")


def _named(layer: Placed) -> str:
    return clean(f"{layer.op} {layer.name}")


def _share(part: int | None, whole: int | None) -> str:
    if part is None or not whole:
        return ""
    percent = 100 * part / whole
    return f"{percent:.0f} %" if percent == round(percent) or percent >= 99.95 else f"{percent:.2g} %"
