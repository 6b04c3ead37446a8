"""Builds a TensorRT engine on the device: with its Python package, or with its ``trtexec``.

An engine runs only on the kind of GPU, and with the version of TensorRT, that built it: that is why it is built there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from .. import AgentError, gpu, trtexec  # noqa: TID252  relative, so that a zipapp works
from ..engine_file import EngineFile  # noqa: TID252
from ..runtimes import Port  # noqa: TID252
from ..trt_build import build as build_in_process  # noqa: TID252
from ..trtexec import building, flags  # noqa: TID252
from ..trtexec.building import Made  # noqa: TID252
from . import report


def build(files: Mapping[str, Path], options: dict[str, Any], out: Path) -> Mapping[str, Any]:
    """Writes ``model.engine``, ``model.json`` beside it, and logs and exported files under ``aside``.

    Args:
        files: ``model.onnx``, with static shapes.
        options: ``kind`` (``float``, ``fp16``, ``int8``), ``arch`` (what the GPU must be; empty for any), ``tool``
            (``auto``, ``python``, ``trtexec``), ``typing`` (``auto``, ``strong``, ``weak``), ``workspace_mib``,
            ``optimization_level``, ``tf32``, ``dla_core``, ``gpu_fallback``; ``inputs`` and ``outputs`` of the ONNX as
            fields of :class:`edgeopt.agent.runtimes.Port`.
        out: Folder to write to.

    Returns:
        Facts of the build and its layers. If ``trtexec`` fails, ``failed`` says why and the log is among the files.

    Raises:
        AgentError: There is no TensorRT here, or not the GPU that is asked for, or the model is refused.
    """
    onnx, plan, aside = files["model.onnx"], out / "model.engine", out / "aside"
    aside.mkdir()
    _require_gpu(options["arch"], found.arch if (found := gpu.first()) else "")
    module, tool = _tools(options["tool"])
    version = flags.parsed_release(module.__version__) if module else tool.version  # type: ignore[union-attr]
    typing = flags.typing(options["typing"], version, dla=options["dla_core"] is not None)
    cache = _timing_cache(version)
    kept = aside / "timing.cache"
    if cache.is_file():
        kept.write_bytes(cache.read_bytes())
    report(f"building with {'the Python package' if module else tool} {flags.written(version)}, {typing}ly typed")
    try:
        arguments = {
            "kind": options["kind"],
            "typing": typing,
            "options": options,
            "timing_cache": kept,
            "aside": aside,
        }
        if module:
            made = build_in_process(module, onnx, plan, **arguments)
        else:
            made = building.build(tool, onnx, plan, told=report, **arguments)  # type: ignore[arg-type]
    except trtexec.Failed as error:
        plan.unlink(missing_ok=True)
        return {"failed": str(error)}
    _require_gpu(options["arch"], made.arch)
    _keep(kept, cache)
    inputs, outputs = (
        tuple(Port(port["name"], tuple(port["shape"]), port["dtype"]) for port in options[way])
        for way in ("inputs", "outputs")
    )
    used = "python" if module else "trtexec"
    engine = EngineFile(
        tensorrt=flags.written(version),
        arch=made.arch,
        gpu=made.gpu,
        tool=used,
        typing=typing,
        cuda_graph=made.cuda_graph,
        dla_core=options["dla_core"],
        inputs=inputs,
        outputs=outputs,
        reasons=made.reasons,
    )
    engine.write(plan)
    return {**_facts(engine, made), "layers": [asdict(layer) for layer in made.layers]}


def _tools(asked: str) -> tuple[ModuleType | None, trtexec.Tool | None]:
    """The Python package, or else the command-line tool."""
    why = []
    if asked in ("auto", "python"):
        try:
            import tensorrt

            return tensorrt, None
        except ImportError as error:
            why.append(str(error))
    if asked in ("auto", "trtexec"):
        try:
            return None, trtexec.find()
        except ImportError as error:
            why.append(str(error))
    raise AgentError(f"this device has no TensorRT that can be used: {'; '.join(why)}")


def _require_gpu(asked: str, found: str) -> None:
    if asked and found and asked != found:
        raise AgentError(f"the target says that the GPU is {asked}, the device says {found}: correct device.arch")


def _facts(engine: EngineFile, made: Made) -> dict[str, Any]:
    known = {
        "tensorrt": engine.tensorrt,
        "tool": engine.tool,
        "typing": engine.typing,
        "cuda_graph": engine.cuda_graph,
        "arch": engine.arch,
        "gpu": engine.gpu,
        "dla_core": engine.dla_core,
        "weights_bytes": made.weights_bytes,
        "activation_bytes": made.activation_bytes,
    }
    return {name: value for name, value in known.items() if value not in (None, "")}


def _timing_cache(version: flags.Version) -> Path:
    """Measured kernel times of this device, which make later builds faster: one file per version of TensorRT."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "edgeopt" / f"tensorrt-{flags.written(version)}.timing"


def _keep(made: Path, cache: Path) -> None:
    """Renamed into place, so that a build beside this one never reads half a file."""
    if not made.is_file():
        return
    content = made.read_bytes()
    partial = cache.with_name(f"{cache.name}.{hashlib.sha256(content).hexdigest()[:12]}.{os.getpid()}")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(cache)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        report(f"the timing cache cannot be kept for later builds: {error}")
