"""Which runtime a file is for, and what it is fed."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt import publish
from edgeopt.access import Opened, Port
from edgeopt.errors import ConfigError

Arrays = list[npt.NDArray[Any]]

_BATCHES = 16
_MOST_BYTES = 32 * 2**20
_NOT_YET = {
    ".engine": "TensorRT, which edgeopt cannot drive yet",
    ".plan": "TensorRT, which edgeopt cannot drive yet",
    ".hef": "the Hailo runtime, which edgeopt cannot drive yet",
    ".rknn": "the Rockchip NPU runtime, which edgeopt cannot drive yet",
}


@dataclass(frozen=True)
class Artefact:
    """A file to be timed.

    Attributes:
        name: Unlike all others.
        runtime: What executes it.
        path: The file that the runtime opens.
        files: All that the device needs.
    """

    name: str
    runtime: str
    path: Path
    files: tuple[Path, ...]


def find(given: Sequence[Path], runtimes: Sequence[str]) -> list[Artefact]:
    """The artefacts at the given places: ``.onnx``, OpenVINO ``.xml``, ``.tflite``, or folders of shipped artefacts.

    Args:
        given: At least one; a place may be given twice.
        runtimes: Those of the target: an ``.onnx`` file goes to ONNX Runtime if it is among them.

    Raises:
        ConfigError: A file is missing, or nothing can time it.
    """
    found: list[Artefact] = []
    short = [path.name for path in given]
    for path in given:
        wanted = path.name if short.count(path.name) == 1 or given.count(path) > 1 else str(path)
        taken = {artefact.name for artefact in found}
        name = wanted if wanted not in taken else f"{wanted} #{given[: len(found)].count(path) + 1}"
        found.append(_artefact(name, path, runtimes))
    return found


def _artefact(name: str, path: Path, runtimes: Sequence[str]) -> Artefact:
    if path.is_dir():
        manifest = publish.read_manifest(path)
        try:
            runtime, file = manifest["meta"]["runtime"], path / manifest["meta"]["file"]
        except KeyError as error:
            fix = "give the folder of a target, such as build/digits/cpu-onnxruntime"
            raise ConfigError("this artefact is not a compiled one", where=str(path), fix=fix) from error
        return Artefact(name, runtime, file, tuple(path / n for n in manifest["files"] if n != "layer_map.json"))
    if not path.is_file():
        raise ConfigError("there is no such file", where=str(path))
    if missing := _NOT_YET.get(path.suffix):
        raise ConfigError(f"not available yet: a {path.suffix} file needs {missing}", where=str(path))
    if path.suffix == ".onnx":
        runtime = next((r for r in ("onnxruntime", "openvino") if r in runtimes), "onnxruntime")
        return Artefact(name, runtime, path, (path,))
    if path.suffix == ".tflite":
        return Artefact(name, "litert", path, (path,))
    if path.suffix == ".xml":
        weights = path.with_suffix(".bin")
        return Artefact(name, "openvino", path, (path, weights) if weights.exists() else (path,))
    raise ConfigError(
        f"nothing here times a {path.suffix or 'nameless'} file",
        where=str(path),
        fix="give .onnx, OpenVINO .xml or .tflite files, or folders of shipped artefacts",
    )


def random_inputs(opened: Mapping[str, Opened], batch: int) -> Arrays:
    """Inputs by the models' own ports, the same at every call: normal floats, all values of 8 bits, else 0 and 1.

    Args:
        opened: The open models by name.
        batch: Samples per inference, which a dynamic first axis is bound to.

    Returns:
        One array (N, …) per input.

    Raises:
        ConfigError: The models do not take the same inputs, or an axis other than the first is dynamic.
    """
    ports = _ports(opened, batch)
    shapes = [[size or 1 for size in port.shape[1:]] for port in ports]  # none is open
    sizes = [np.dtype(port.dtype).itemsize * math.prod(shape) for port, shape in zip(ports, shapes, strict=True)]
    batches = max(1, min(_BATCHES, _MOST_BYTES // max(1, sum(sizes) * batch)))
    random = np.random.default_rng(0)
    return [_random(random, (batches * batch, *shape), port.dtype) for port, shape in zip(ports, shapes, strict=True)]


def read_inputs(path: Path, opened: Mapping[str, Opened], batch: int) -> Arrays:
    """Inputs from an ``.npz`` file, whose arrays (N, …) are named like the models' inputs; a single one needs no name.

    Raises:
        ConfigError: The file cannot be read, or does not fit the models.
    """
    ports = _ports(opened, batch, fixed=False)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, TypeError, AttributeError) as error:
        raise ConfigError(f"no readable .npz file: {error}", where=str(path)) from error
    chosen = list(arrays.values()) if len(arrays) == len(ports) == 1 else [arrays.get(port.name) for port in ports]
    for port, array in zip(ports, chosen, strict=True):
        if array is None:
            known = ", ".join(arrays) or "none"
            raise ConfigError(f"there is no array {port.name!r}; there are: {known}", where=str(path))
        fits = array.ndim == len(port.shape) and all(
            want in (None, have) for want, have in zip(port.shape[1:], array.shape[1:], strict=True)
        )
        if not fits or array.dtype != np.dtype(port.dtype) or not len(array):
            want = f"{port.dtype} (N, {', '.join('?' if n is None else str(n) for n in port.shape[1:])})"
            raise ConfigError(f"{port.name} wants {want}, got {array.dtype} {array.shape}", where=str(path))
    if len({len(array) for array in chosen if array is not None}) != 1:
        raise ConfigError("the arrays have unlike numbers of samples", where=str(path))
    return [array for array in chosen if array is not None]


def _ports(opened: Mapping[str, Opened], batch: int, *, fixed: bool = True) -> Sequence[Port]:
    """The inputs that all models share."""
    (first, model), *others = opened.items()
    for name, other in opened.items():
        for port in other.inputs:
            if not port.shape or (port.shape[0] is not None and port.shape[0] != batch):
                size = port.shape[0] if port.shape else "none"
                fix = f"set measure.batch of the target to {size}" if port.shape else ""
                raise ConfigError(f"the batch of {port.name} is {size}, the target's is {batch}", where=name, fix=fix)
            if fixed and None in port.shape[1:]:
                raise ConfigError(f"the shape of {port.name} is open", where=name, fix="give --inputs FILE.npz")
    for name, other in others:
        if [_kind(port) for port in other.inputs] != [_kind(port) for port in model.inputs]:
            what = f"it does not take the same inputs as {first}: {_listed(other.inputs)}, not {_listed(model.inputs)}"
            raise ConfigError(what, where=name)
    return model.inputs


def _kind(port: Port) -> tuple[Any, ...]:
    return (port.dtype, *port.shape[1:])


def _listed(ports: Sequence[Port]) -> str:
    return ", ".join(f"{p.name} {p.dtype} ({', '.join('?' if n is None else str(n) for n in p.shape)})" for p in ports)


def _random(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return random.standard_normal(shape, dtype=np.float32).astype(kind)
    if kind.itemsize == 1 and kind.kind in "iu":
        info = np.iinfo(kind)
        return random.integers(info.min, info.max, shape, dtype=kind, endpoint=True)
    return random.integers(0, 2, shape).astype(kind)
