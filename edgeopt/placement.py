"""Where and how a compiled network computes: operators and multiply-accumulates by processor and precision.

Everything here is read from a layer map, which says of each compiled layer the nodes of the float ONNX model that it
computes, and from the multiply-accumulates (MACs) of those nodes. A node that no layer names may have been folded into
another, or may run anywhere: its MACs are unmapped, and never count as done on the processor that was meant.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from edgeopt.measure import Measurement, exact

#: Metrics of a placement and their units. In all of them lower is better.
METRICS: Mapping[str, str] = {"fallback_macs": "1", "fallback_operators": "1"}

# Types of compiled layers as the runtimes call them, in lower case: ONNX (operator specification), OpenVINO's execution
# graph (ov::exec_model_info::LAYER_TYPE), TensorRT's engine inspector, TensorFlow Lite's BuiltinOperator, QNN's op
# definitions.
_QUANTIZATIONS = frozenset(
    {"quantizelinear", "dequantizelinear", "dynamicquantizelinear", "fakequantize", "fake_quant", "quantize",
     "dequantize", "requantize"}
)  # fmt: skip
#: These only change how a tensor lies in memory, whoever put them there.
_MOVES = frozenset({"reorder", "reorderinput", "reorderoutput", "reformat", "copy", "memcpyfromhost", "memcpytohost"})
#: These do so too, but a network may also have them itself: they count where they stand for none of its nodes.
_MOVES_IF_ADDED = frozenset({"transpose", "cast", "convert", "permute", "shuffle", "reshape", "noop"})
#: Ends of the names of the nodes that quantizing puts into an ONNX model.
_QUANTIZING = ("QuantizeLinear", "DequantizeLinear")
_INTEGERS = frozenset({"i4", "u4", "i8", "u8", "i16", "u16", "i32", "u32"})
#: Types of layers that multiply and accumulate. A "Convert" is no convolution.
_HEAVY = re.compile(r"conv(?!ert)|gemm|mat_?mul|fully_?connected|innerproduct|lstm|gru|rnn|einsum|attention")
#: Kernels that say in their name that they compute in float, whatever the precision of their input.
_FLOAT_KERNELS = ("_f32", "_fp32", "_f16", "_fp16", "_bf16")


@dataclass(frozen=True)
class Node:
    """A node of the float ONNX model with its multiply-accumulates."""

    name: str
    macs: int


@dataclass(frozen=True)
class Placed:
    """A compiled layer that a reader should know of.

    Attributes:
        precision: In which it computes.
        macs: Of the nodes that it computes; None if they are not known.
        why: Why it is where it is, as far as the toolkit says.
        source: Nodes of the float ONNX model.
    """

    name: str
    op: str
    device: str
    precision: str
    macs: int | None
    why: str
    source: tuple[str, ...]


@dataclass(frozen=True)
class Placement:
    """Where and how a compiled network computes.

    Attributes:
        processor: Where it should run.
        operators: Processor -> precision -> number of compiled layers.
        macs: Processor -> precision -> MACs of the nodes that those layers compute; empty if they are not known.
        total_macs: Of the whole network; None if the shapes of a node are not known.
        source_nodes: Number of nodes of the float ONNX model.
        unmapped_nodes: How many of them no layer names: folded, or unknown.
        unmapped: Those of them that have MACs.
        fallbacks: Layers on another processor.
        unfused: Quantizations and dequantizations that remain as layers of their own.
        reformats: Layers that only move or convert data between others.
        in_float: Layers with MACs that compute in float although INT8 was asked for.
        untraced: Those of the fallbacks that must have MACs, by their type, and name no node of the network.
    """

    processor: str
    operators: Mapping[str, Mapping[str, int]]
    macs: Mapping[str, Mapping[str, int]]
    total_macs: int | None
    source_nodes: int
    unmapped_nodes: int
    unmapped: tuple[Node, ...] = ()
    fallbacks: tuple[Placed, ...] = ()
    unfused: tuple[Placed, ...] = ()
    reformats: tuple[Placed, ...] = ()
    in_float: tuple[Placed, ...] = ()
    untraced: tuple[Placed, ...] = ()

    @property
    def layers(self) -> int:
        """Number of compiled layers."""
        return sum(sum(counts.values()) for counts in self.operators.values())

    @property
    def unmapped_macs(self) -> int:
        """MACs of nodes that no layer names."""
        return sum(node.macs for node in self.unmapped)

    @property
    def fallback_macs(self) -> int:
        """MACs that are known to be done elsewhere."""
        return sum(sum(macs.values()) for device, macs in self.macs.items() if device != self.processor)

    def measurements(self) -> tuple[Measurement, ...]:
        """``fallback_macs`` and ``fallback_operators``, shares of 0..1 that are not done on the processor.

        If some MACs are unmapped, the share of MACs lies in an interval, for certain: from those known to be elsewhere
        to these and the unmapped ones together. Its upper end is the value; it is 1 if a layer elsewhere must have MACs
        and names no node: these may be anyone's.
        """
        return self._fallback_macs(), self._fallback_operators()

    def _fallback_macs(self) -> Measurement:
        if not self.layers:
            return _unknown("fallback_macs", "the toolkit does not tell its layers")
        if self.total_macs is None:
            return _unknown("fallback_macs", "the shapes of some nodes are not known, so neither are their MACs")
        if not self.total_macs:
            return _unknown("fallback_macs", "the network has no multiply-accumulates")
        if self.unmapped_macs == self.total_macs:
            return _unknown("fallback_macs", "no compiled layer names a node of the network that has MACs")
        low = self.fallback_macs / self.total_macs
        high = (self.fallback_macs + self.unmapped_macs) / self.total_macs
        if self.untraced:
            names = ", ".join(f"{_named(layer)} on {layer.device}" for layer in self.untraced)
            high, why = 1.0, f"which nodes of the network they compute is not known: {names}"
        elif self.unmapped:
            why = f"no compiled layer names {_count(len(self.unmapped), 'node')} with {_share(high - low)} of the MACs"
        else:
            return exact("fallback_macs", low, "1")
        return replace(exact("fallback_macs", high, "1", why), interval=(low, high), confidence=1.0)

    def _fallback_operators(self) -> Measurement:
        if not self.layers:
            return _unknown("fallback_operators", "the toolkit does not tell its layers")
        return exact("fallback_operators", len(self.fallbacks) / self.layers, "1")

    def notes(self) -> tuple[str, ...]:
        """A sentence for every fallback, and one for all that computes in float although INT8 was asked for."""
        found = [f"{_named(layer)} runs on {layer.device}, not {self.processor}{self._of_macs(layer)}"
                 f"{f': {layer.why}' if layer.why else ''}" for layer in self.fallbacks]  # fmt: skip
        if self.in_float:
            names = ", ".join(f"{_named(layer)}{self._of_macs(layer)}" for layer in self.in_float)
            found.append(f"in float although INT8 was asked for: {names}")
        if self.unmapped:
            names = ", ".join(node.name for node in self.unmapped)
            found.append(f"no compiled layer names {names}: folded into another, or unknown where it runs")
        return tuple(found)

    def _of_macs(self, layer: Placed) -> str:
        if not layer.macs or not self.total_macs:
            return ""
        return f", {_share(layer.macs / self.total_macs)} of the MACs"

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        lists = {
            name: tuple(Placed(**{**item, "source": tuple(item["source"])}) for item in data[name])
            for name in ("fallbacks", "unfused", "reformats", "in_float", "untraced")
            if name in data
        }
        return cls(**{**data, **lists, "unmapped": tuple(Node(**node) for node in data["unmapped"])})


def of(
    layers: Sequence[Mapping[str, Any]], macs: Mapping[str, int | None], processor: str, *, asked: str = "float"
) -> Placement:
    """The placement of a compiled network.

    A node may be named by several layers, such as the tiles of a convolution, or its kernel and a reformat before it.
    Its MACs then belong to the least favourable one that computes: first one on another processor, then one in float.
    Layers that only move or quantize have none.

    Args:
        layers: The layer map: ``name``, ``op``, ``source`` (nodes of the float ONNX model), ``precision``, ``device``,
            ``exec`` and perhaps ``why`` of each compiled layer.
        macs: Of every node of the float ONNX model, as :func:`edgeopt.macs.per_node` gives them.
        processor: Where the layers should run, such as ``NPU``.
        asked: The precision that was asked for; ``int8`` makes heavy layers in float worth telling.
    """
    owner = _owners(layers, macs, processor)
    of_layer: Counter[int] = Counter()
    for node, number in owner.items():
        of_layer[number] += macs.get(node) or 0
    known = all(count is not None for count in macs.values())
    operators: dict[str, Counter[str]] = {}
    placed_macs: dict[str, Counter[str]] = {}
    for number, layer in enumerate(layers):
        operators.setdefault(layer["device"], Counter())[_computes_in(layer)] += 1
        if known and of_layer[number]:
            placed_macs.setdefault(layer["device"], Counter())[_computes_in(layer)] += of_layer[number]

    def chosen(numbers: Sequence[int]) -> tuple[Placed, ...]:
        return tuple(_placed(layers[number], of_layer[number] if known else None) for number in numbers)

    every = range(len(layers))
    elsewhere = [n for n in every if layers[n]["device"] != processor]
    missing = [node for node in macs if node not in owner]
    return Placement(
        processor=processor,
        operators=_sorted(operators),
        macs=_sorted(placed_macs),
        total_macs=sum(count or 0 for count in macs.values()) if known else None,
        source_nodes=len(macs),
        unmapped_nodes=len(missing),
        unmapped=tuple(Node(node, count) for node in missing if (count := macs[node])),
        fallbacks=chosen(elsewhere),
        unfused=chosen([n for n in every if _quantizes(layers[n])]),
        reformats=chosen([n for n in every if _moves(layers[n])]),
        in_float=chosen(
            [n for n in every if asked == "int8" and of_layer[n] and _computes_in(layers[n]) not in _INTEGERS]
        ),
        untraced=chosen(
            [n for n in elsewhere if _HEAVY.search(_type(layers[n])) and macs.keys().isdisjoint(layers[n]["source"])]
        ),
    )


def _owners(layers: Sequence[Mapping[str, Any]], macs: Mapping[str, int | None], processor: str) -> dict[str, int]:
    """Node -> the number of the layer that its MACs belong to; an idle one computes no node that has any."""

    def rank(number: int) -> tuple[bool, bool, int]:
        return layers[number]["device"] == processor, _computes_in(layers[number]) in _INTEGERS, number

    owner: dict[str, int] = {}
    for number, layer in enumerate(layers):
        idle = _moves(layer) or _quantizes(layer)
        for node in layer["source"]:
            if idle and macs.get(node) != 0:
                continue
            owner[node] = min(owner.get(node, number), number, key=rank)
    return owner


def _type(layer: Mapping[str, Any]) -> str:
    return str(layer["op"]).lower()


def _quantizes(layer: Mapping[str, Any]) -> bool:
    """Whether it does nothing else; a compiler may have put several such nodes into one kernel of its own making."""
    source = layer["source"]
    return _type(layer) in _QUANTIZATIONS or (bool(source) and all(name.endswith(_QUANTIZING) for name in source))


def _moves(layer: Mapping[str, Any]) -> bool:
    kind = _type(layer)
    return kind in _MOVES or (kind in _MOVES_IF_ADDED and not layer["source"])


def _computes_in(layer: Mapping[str, Any]) -> str:
    """The layer's precision, or that of its kernel, if this says that it computes in float."""
    kernel = str(layer.get("exec", "")).lower()
    found = next((suffix for suffix in _FLOAT_KERNELS if kernel.endswith(suffix)), "")
    return found.removeprefix("_").replace("fp", "f") or str(layer["precision"])


def _placed(layer: Mapping[str, Any], macs: int | None) -> Placed:
    return Placed(
        name=layer["name"],
        op=layer["op"],
        device=layer["device"],
        precision=_computes_in(layer),
        macs=macs,
        why=layer.get("why", ""),
        source=tuple(layer["source"]),
    )


def _sorted(counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    return {device: dict(sorted(counts[device].items())) for device in sorted(counts)}


def _named(layer: Placed) -> str:
    return f"{layer.op} {layer.name}" if layer.name else layer.op


def _share(value: float) -> str:
    return f"{100 * value:.3g} %"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _unknown(metric: str, why: str) -> Measurement:
    return replace(exact(metric, 0.0, "1", why), value=None, n=0)
