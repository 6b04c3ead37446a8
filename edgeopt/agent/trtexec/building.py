"""Builds an engine with the device's own ``trtexec``."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ..runtimes import Layer  # noqa: TID252  relative, so that a zipapp works
from . import Tool, exports, flags, run

_LIMIT_S = 3600.0
_GPU = re.compile(r"Selected Device: (.+)")
_CAPABILITY = re.compile(r"Compute Capability: (\d+)\.(\d+)")
_BYTES = re.compile(r"Total (Weights|Activation) Memory: (\d+)")
#: how TensorRT says that a layer cannot run on a DLA core; the reason may stand in a line before, with the layer's name
_SWITCHED = re.compile(r"\[W\] \[TRT\] (?:Layer ')?(?P<name>.+?)'?(?: \(\w+\))?: (?P<why>.*?)\.? Switching this layer")
_REASON = re.compile(r"\[W\] \[TRT\] (?P<name>\S+): (?P<why>.*\bDLA\b.*?)\.?\s*$", re.MULTILINE)
_ON_GPU = re.compile(r"\[TRT\] \[GpuLayer\] (?:[A-Z_]+: )?(?P<name>.+?)\s*$")
#: how it says that it launches every kernel by itself, although a graph is asked for
NO_GRAPH = re.compile(r"not permitted under CUDA graph capture|--useCudaGraph flag has been ignored")
_COPY = "copies between the DLA core and the GPU"


class Made(NamedTuple):
    """What a build gave, beside the files.

    Attributes:
        layers: None if they have to be asked where the engine is opened.
        gpu, arch: Of the builder.
        cuda_graph: Whether a run can be captured.
        reasons: Why layers cannot run on the DLA core, by the name of the layer.
        weights_bytes, activation_bytes: As the log tells them.
    """

    layers: tuple[Layer, ...]
    gpu: str
    arch: str
    cuda_graph: bool
    reasons: Mapping[str, str]
    weights_bytes: int | None
    activation_bytes: int | None


def build(
    tool: Tool,
    onnx: Path,
    plan: Path,
    *,
    kind: str,
    typing: str,
    options: Mapping[str, Any],
    timing_cache: Path,
    aside: Path,
    told: Callable[[str], None],
) -> Made:
    """Builds ``plan`` from ``onnx`` and profiles it once.

    Args:
        tool: Of the device.
        onnx: With static shapes.
        plan: Where the engine goes.
        kind: ``float``, ``fp16`` or ``int8``: what the ONNX holds.
        typing: ``strong`` or ``weak``.
        options: ``workspace_mib``, ``optimization_level``, ``tf32``, ``dla_core``, ``gpu_fallback``; None where
            TensorRT decides.
        timing_cache: Read and written.
        aside: Folder for the log and the exported files.
        told: Called with the lines of the log that say how far it is.

    Raises:
        AgentError: The tool fails (:class:`edgeopt.agent.trtexec.Failed`), or writes what it should not.
    """
    layers_file, profile_file = aside / "layers.json", aside / "profile.json"
    dla = [f"--useDLACore={options['dla_core']}"] if options["dla_core"] is not None else []
    said = run(
        tool,
        [
            f"--onnx={onnx}",
            f"--saveEngine={plan}",
            "--profilingVerbosity=detailed",
            f"--exportLayerInfo={layers_file}",
            f"--exportProfile={profile_file}",
            f"--timingCacheFile={timing_cache}",
            *_pools(options),
            *_typed(tool, kind, typing),
            *dla,
            *(["--allowGPUFallback"] if dla and options["gpu_fallback"] else []),
            *flags.conditions(tool.version, cuda_graph=True),
            f"--exportTimes={aside / 'times.json'}",
            "--percentile=50,90,95,99",
            "--warmUp=200",
            "--duration=1",
        ],
        aside / "build.log",
        _LIMIT_S,
        lambda line: told(line) if "[I]" in line and ("Building" in line or "Engine" in line) else None,
    )
    info = exports.layer_info(layers_file.read_text(encoding="utf-8", errors="surrogateescape"), layers_file.name)
    layers = exports.with_times(info.layers, exports.profile(profile_file))
    why = reasons(said) if dla else {}
    gpu, capability = _GPU.search(said), _CAPABILITY.search(said)
    memory = memory_bytes(said)
    return Made(
        placed(layers, why, on_gpu(said)) if dla else layers,
        gpu[1].strip() if gpu else "",
        f"sm_{capability[1]}{capability[2]}" if capability else "",
        not NO_GRAPH.search(said),
        why,
        memory.get("Weights"),
        memory.get("Activation"),
    )


def memory_bytes(said: str) -> dict[str, int]:
    """``Weights`` and ``Activation``, as the log of a build tells them at its end."""
    return {what: int(count) for what, count in _BYTES.findall(said)}


def reasons(said: str) -> dict[str, str]:
    """Why layers do not run on the DLA core, by name, as the log of a build tells it."""
    found = {match["name"]: match["why"] for match in _SWITCHED.finditer(said)}
    return found | {match["name"]: match["why"] for match in _REASON.finditer(said) if "Switching" not in match["why"]}


def on_gpu(said: str) -> set[str]:
    """Names of the layers that the log of a build lists as those of the GPU."""
    return {match["name"] for line in said.splitlines() if (match := _ON_GPU.search(line))}


def placed(layers: Sequence[Layer], reasons: Mapping[str, str], on_gpu: Collection[str] = ()) -> tuple[Layer, ...]:
    """The layers of an engine for a DLA core: those on the GPU with the reason that the builder gave, if it did."""

    def why(layer: Layer) -> str:
        if layer.op == "Reformat" or layer.name.startswith("Reformatting CopyNode"):
            return _COPY
        given = [reasons[name] for name in (layer.name, *layer.source) if name in reasons]
        return given[0] if given else "not supported on the DLA core"

    return tuple(
        replace(layer, device="GPU", why=why(layer))
        if layer.device != "DLA" or layer.name in on_gpu
        else replace(layer, device="DLA")
        for layer in layers
    )


def _pools(options: Mapping[str, Any]) -> list[str]:
    pools = [f"--memPoolSize=workspace:{options['workspace_mib']}"] if options["workspace_mib"] else []
    level = options["optimization_level"]
    levels = [f"--builderOptimizationLevel={level}"] if level is not None else []
    return [*pools, *levels, *([] if options["tf32"] else ["--noTF32"])]


def _typed(tool: Tool, kind: str, typing: str) -> list[str]:
    if typing == "weak":
        return list(flags.precision(kind))
    return ["--stronglyTyped"] if flags.has(tool.version, "--stronglyTyped") else []
