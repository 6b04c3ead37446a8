"""Reads what ``trtexec`` exports: times, profile, layer information, outputs.

The formats are those of ``sampleReporting.cpp`` of NVIDIA's TensorRT repository (8.6 to 10.x) and of the pages *Engine
Inspector* and *Migrating IEngineInspector Usage from TensorRT 10.x to 11.x* of the TensorRT documentation. Names are
written without escaping, and numbers may be ``nan``, so that two of the files can be invalid JSON: these two are read
by their layout. Whatever is cut off or not as documented is an error that names the file and the place.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import AgentError  # noqa: TID252  relative, so that a zipapp works
from ..runtimes import Layer, Port  # noqa: TID252

_NUMBER = r"[-+]?(?:nan|inf|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
_COUNT = re.compile(r'\s*\[\s*\{\s*"count"\s*:\s*(\d+)\s*\}')
_PROFILED = re.compile(
    rf'\s*,\s*\{{\s*"name"\s*:\s*"(?P<name>.*?)",\s*"timeMs"\s*:\s*{_NUMBER},\s*"averageMs"\s*:\s*(?P<average>{_NUMBER})'
    rf'(?:,\s*"medianMs"\s*:\s*(?P<median>{_NUMBER}))?,\s*"percentage"\s*:\s*{_NUMBER}\s*\}}(?=\s*(?:,\s*\{{|\]\s*\Z))',
    re.DOTALL,
)
_OUTPUT = re.compile(
    r'\s*,?\s*\{\s*"name"\s*:\s*"(?P<name>.*?)"\s*,\s*"dimensions"\s*:\s*"(?P<dimensions>[\dx]*)"\s*,'
    r'\s*"values"\s*:\s*\[(?P<values>[^\]]*)\]\s*\}',
    re.DOTALL,
)
#: between the sources of a fused layer: unit and record separator
_SEPARATORS = re.compile("[\x1e\x1f]")
_SOURCE = re.compile(r"\[ONNX Layer: (.*)\]", re.DOTALL)
_FOREIGN = re.compile(r"^\{ForeignNode\[(.*)\]\}$", re.DOTALL)

#: numbers as TensorRT spells them in ``Format/Datatype`` (10.x) or ``DataType`` (11.x), the longer words first
_PRECISIONS = (
    ("BFloat16", "bf16"), ("BF16", "bf16"), ("FP32", "f32"), ("Float", "f32"), ("FP16", "f16"), ("Half", "f16"),
    ("FP8", "f8"), ("UInt8", "u8"), ("Int8", "i8"), ("Int64", "i64"), ("Int32", "i32"), ("Int4", "i4"),
    ("Bool", "bool"),
)  # fmt: skip


class Times(NamedTuple):
    """Of every timed run, in ms; (runs,). Warm-ups are not in the file.

    Attributes:
        latency: Copying in, computing, copying out; with transfers off it is what the GPU computed.
        compute: On the GPU.
    """

    latency: npt.NDArray[np.float64]
    compute: npt.NDArray[np.float64]


def times(file: Path) -> Times:
    """Reads ``--exportTimes``.

    Raises:
        AgentError: It is cut off, has no runs, or is not as documented.
    """
    runs = _json(file)
    if not isinstance(runs, list) or not runs:
        raise AgentError(f"{file.name} holds no timed run")
    try:
        latency, compute = (np.array([run[key] for run in runs], float) for key in ("latencyMs", "computeMs"))
    except (KeyError, TypeError, ValueError) as error:
        raise AgentError(f"{file.name} is not what trtexec writes: no {error} in a run") from error
    for key, series in (("latencyMs", latency), ("computeMs", compute)):
        wrong = np.flatnonzero(~(np.isfinite(series) & (series > 0)))
        if len(wrong):
            raise AgentError(f"{file.name}: run {wrong[0]} took no time, or no finite one: {key} is {series[wrong[0]]}")
    return Times(latency, compute)


def percentile(samples: Sequence[float] | npt.NDArray[np.float64], percent: float) -> float:
    """The percentile by trtexec's own rule: element ``n - 1 - int((1 - p/100) n)`` of the ascending samples.

    Ours is the ⌈p/100 · n⌉-th smallest sample, which is the same element: n − ⌊n − x⌋ = ⌈x⌉. Where ``p/100 · n`` is an
    integer, trtexec may be off by one, because it computes with 32-bit floats.
    """
    ascending = np.sort(np.asarray(samples, float))
    excluded = int((np.float32(1) - np.float32(percent) / np.float32(100)) * np.float32(len(ascending)))
    return float(ascending[max(len(ascending) - 1 - excluded, 0)])


def profile(file: Path) -> dict[str, float]:
    """Reads ``--exportProfile``.

    Returns:
        Median ms (8.x before medians: the mean) of each layer, by its name as it stands in the file.

    Raises:
        AgentError: It is cut off or not as documented.
    """
    text = _text(file)
    head = _COUNT.match(text)
    if not head:
        raise _broken(file, text, 0)
    found: dict[str, float] = {}
    place = head.end()
    while entry := _PROFILED.match(text, place):
        if math.isfinite(ms := float(entry["median"] or entry["average"])):  # a layer that never ran has none
            found[entry["name"]] = ms
        place = entry.end()
    if text[place:].strip() != "]":
        raise _broken(file, text, place)
    return found


class LayerInfo(NamedTuple):
    """What ``--exportLayerInfo`` says.

    Attributes:
        layers: In the order of execution, with no times.
        tensors: Names of the inputs and outputs of the engine.
        detailed: Whether the engine was built with detailed profiling; if not, layers have no more than a name.
    """

    layers: tuple[Layer, ...]
    tensors: tuple[str, ...]
    detailed: bool


def layer_info(text: str, file: str = "layer information") -> LayerInfo:
    """Reads ``--exportLayerInfo``, or the engine information of ``IEngineInspector`` as JSON, which is the same.

    Both ``Bindings`` (10.x, names) and ``I/O Tensors`` (11.x, objects) are read; so are layers that are bare names.

    Raises:
        AgentError: It is cut off or not as documented.
    """
    raw = _loads(text, file)
    if not isinstance(raw, dict) or not isinstance(raw.get("Layers"), list):
        raise AgentError(f'{file} is not what TensorRT writes: it has no "Layers"')
    ports = raw.get("I/O Tensors") or raw.get("Bindings") or []
    return LayerInfo(
        tuple(map(_layer, raw["Layers"])),
        tuple(port["Name"] if isinstance(port, dict) else str(port) for port in ports),
        all(isinstance(layer, dict) for layer in raw["Layers"]),
    )


def outputs(file: Path, ports: Sequence[Port]) -> list[npt.NDArray[Any]]:
    """Reads ``--exportOutput``. Floats have six significant digits there.

    Args:
        file: The file.
        ports: The outputs of the engine, with static shapes.

    Returns:
        One array per port, in its dtype.

    Raises:
        AgentError: It is cut off, or the outputs are not those of ``ports``.
    """
    text = _text(file)
    found: dict[str, npt.NDArray[Any]] = {}
    start = re.match(r"\s*\[", text)
    place = start.end() if start else 0
    while entry := _OUTPUT.match(text, place):
        shape = tuple(int(size) for size in entry["dimensions"].split("x") if size)
        words = [word for word in entry["values"].split(",") if word.strip()]
        if len(words) != math.prod(shape):
            raise AgentError(f"{file.name}: {entry['name']} has {len(words)} values for the shape {list(shape)}")
        found[entry["name"]] = np.array([float(word) for word in words]).reshape(shape)
        place = entry.end()
    if not start or text[place:].strip() != "]":
        raise _broken(file, text, place)
    missing = [port.name for port in ports if port.name not in found]
    if missing:
        raise AgentError(f"{file.name} lacks the outputs {', '.join(missing)}; it has {', '.join(found) or 'none'}")
    return [found[port.name].astype(port.dtype) for port in ports]


def with_times(layers: Sequence[Layer], times_ms: dict[str, float]) -> tuple[Layer, ...]:
    """The layers with their times from a profile, where it has them: by the name, escaped or not."""
    return tuple(
        Layer(**{**vars(layer), "time_us": None if (ms := _time(layer.name, times_ms)) is None else ms * 1e3})
        for layer in layers
    )


def _time(name: str, times_ms: dict[str, float]) -> float | None:
    return times_ms.get(name, times_ms.get(json.dumps(name, ensure_ascii=False)[1:-1]))


def _layer(raw: Any) -> Layer:
    if not isinstance(raw, dict):
        return Layer(str(raw), "", _name_parts(str(raw)), "", "GPU", "")
    name = str(raw.get("Name", ""))
    kind = str(raw.get("LayerType", ""))
    tensors = [*raw.get("Inputs", []), *raw.get("Outputs", [])]
    kernel = raw.get("TacticName") or raw.get("ParameterType") or kind
    return Layer(
        name=name,
        op=kind,
        source=sources(str(raw.get("Metadata", ""))) or _name_parts(name),
        precision=_precision(tensors[0]) if tensors else "",
        device="DLA" if "DLA" in kind.upper() or (_FOREIGN.match(name) and "myelin" not in kind.lower()) else "GPU",
        exec=str(kernel),
    )


def sources(metadata: str) -> tuple[str, ...]:
    """Names of the ONNX nodes in a layer's ``Metadata``: ``[ONNX Layer: a]\\x1f[ONNX Layer: b]``."""
    found = (_SOURCE.fullmatch(part) for part in _SEPARATORS.split(metadata))
    return tuple(dict.fromkeys(match[1] for match in found if match))


def _name_parts(name: str) -> tuple[str, ...]:
    """Node names that an engine without metadata keeps in a layer's name; none for what TensorRT added."""
    if name.startswith(("Reformatting CopyNode", "__my")):
        return ()
    foreign = _FOREIGN.match(name)
    return tuple(foreign[1].split("...")) if foreign else tuple(name.split(" + "))


def _precision(tensor: Any) -> str:
    said = str(tensor.get("DataType") or tensor.get("Format/Datatype") or "") if isinstance(tensor, dict) else ""
    return next((short for word, short in _PRECISIONS if word in said), "")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise AgentError(f"trtexec wrote no {file.name}: {error.strerror}") from error


def _json(file: Path) -> Any:
    return _loads(_text(file), file.name)


def _loads(text: str, file: str) -> Any:
    try:
        return json.loads(text, strict=False)  # names may hold control characters
    except json.JSONDecodeError as error:
        place = f"{file}:{error.lineno}:{error.colno}"
        raise AgentError(f"{place}: cut off or no JSON ({error.msg}); {len(text)} characters in all") from error


def _broken(file: Path, text: str, place: int) -> AgentError:
    line, column = text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)
    rest = text[place : place + 60].strip()
    return AgentError(f"{file.name}:{line}:{column}: cut off or not what trtexec writes, from {rest!r}")
