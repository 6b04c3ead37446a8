"""Builds a TensorRT engine in this process, with the Python package of 10.x or 11.x, or TensorRT-RTX, which is alike.

What a version can do is asked with ``hasattr``, not by its number. A build needs no context of its own; what the
engine's layers are is asked where it is opened. Source: the TensorRT Python API reference. Run by us with TensorRT-RTX
1.7 only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from . import AgentError, gpu
from .trtexec import flags
from .trtexec.building import Made, memory_bytes, reasons

_SHOWN = 8
_LETTERS = {"INTERNAL_ERROR": "F", "ERROR": "E", "WARNING": "W", "INFO": "I", "VERBOSE": "V"}
#: without a GPU every error is followed by this one, which explains nothing
_MISLEADING = re.compile(
    r"cudaError(InsufficientDriver|NoDevice)|CUDA driver version is insufficient|Error Code 35|error 35"
)


def build(
    trt: ModuleType,
    onnx: Path,
    plan: Path,
    *,
    kind: str,
    typing: str,
    options: Mapping[str, Any],
    timing_cache: Path,
    aside: Path,
) -> Made:
    """Builds ``plan`` from ``onnx``; the arguments are those of :func:`edgeopt.agent.trtexec.building.build`.

    Raises:
        AgentError: TensorRT refuses the model, or cannot do what the options ask for; with its own words.
    """
    lines: list[str] = []
    logger = collecting_logger(trt, lines)
    try:
        builder = trt.Builder(logger)
        network = builder.create_network(_network_flags(trt, typing))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(onnx.read_bytes()):
            found = (parser.get_error(index) for index in range(parser.num_errors))
            raise AgentError(_refused([f"{error.node_name() or 'the model'}: {error.desc()}" for error in found]))
        config = builder.create_builder_config()
        _configure(trt, config, kind, typing, options)
        _read_cache(config, timing_cache)
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise AgentError(_refused(errors(lines)))
        plan.write_bytes(bytes(engine))
        if (cache := config.get_timing_cache()) is not None:
            timing_cache.write_bytes(bytes(cache.serialize()))
    finally:
        (aside / "build.log").write_text("\n".join(lines) + "\n", encoding="utf-8")
    memory = memory_bytes("\n".join(lines))
    found_gpu = gpu.first()
    return Made(
        layers=(),
        gpu=found_gpu.name if found_gpu else "",
        arch=found_gpu.arch if found_gpu else "",
        cuda_graph=True,
        reasons={} if options["dla_core"] is None else reasons("\n".join(lines)),
        weights_bytes=memory.get("Weights"),
        activation_bytes=memory.get("Activation"),
    )


def collecting_logger(trt: ModuleType, lines: list[str]) -> Any:
    """A logger of TensorRT that adds ``[E] [TRT] message`` to ``lines``, as ``trtexec`` writes it."""

    class Collecting(trt.ILogger):  # type: ignore[misc, name-defined]  # of a module that is not known here
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if not _MISLEADING.search(message):
                lines.append(f"[{_LETTERS.get(severity.name, '?')}] [TRT] {message}")

    return Collecting()


def errors(lines: Sequence[str]) -> list[str]:
    """What a collecting logger heard of errors."""
    return [line[len("[E] [TRT] ") :] for line in lines if line.startswith(("[E]", "[F]"))]


def _network_flags(trt: ModuleType, typing: str) -> int:
    known = trt.NetworkDefinitionCreationFlag
    wanted = ["STRONGLY_TYPED"] if typing == "strong" else []
    if not hasattr(known, "STRONGLY_TYPED"):  # before 10.0 the batch had to be asked for as well
        wanted.append("EXPLICIT_BATCH")
    return sum(1 << int(getattr(known, name)) for name in wanted if hasattr(known, name))


def _configure(trt: ModuleType, config: Any, kind: str, typing: str, options: Mapping[str, Any]) -> None:
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options["workspace_mib"]:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options["workspace_mib"] << 20)
    if options["optimization_level"] is not None:
        config.builder_optimization_level = options["optimization_level"]
    if not options["tf32"]:
        config.clear_flag(trt.BuilderFlag.TF32)
    for name in flags.precision(kind) if typing == "weak" else ():
        _set(trt, config, name.removeprefix("--").upper())
    if options["dla_core"] is not None:
        if not hasattr(trt, "DeviceType"):
            raise AgentError(f"{trt.__name__} {trt.__version__} knows no DLA core: leave dla_core out")
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options["dla_core"]
        if options["gpu_fallback"]:
            _set(trt, config, "GPU_FALLBACK")


def _set(trt: ModuleType, config: Any, flag: str) -> None:
    if not hasattr(trt.BuilderFlag, flag):
        raise AgentError(f"{trt.__name__} {trt.__version__} has no builder flag {flag}")
    config.set_flag(getattr(trt.BuilderFlag, flag))


def _read_cache(config: Any, file: Path) -> None:
    """What is no timing cache of this version is replaced by an empty one."""
    cache = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _refused(reasons: list[str]) -> str:
    shown = "\n".join(reasons[:_SHOWN]) or "it gives no reason"
    more = f"\nand {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
    return f"TensorRT refuses the model:\n{shown}{more}"
