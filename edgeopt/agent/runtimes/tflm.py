"""TensorFlow Lite for Microcontrollers, built for this machine: what a microcontroller's program does with a file.

Its kernels are the reference ones, and its results those of a microcontroller with the same kernels; its speed says
nothing about any device.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt

from .. import AgentError, affine, tflite_file  # noqa: TID252  relative, so that a zipapp works
from . import Lane, Layer, Options, Port, RuntimeMemory, fill

_TOTAL = re.compile(r"Arena allocation total (\d+) bytes")
#: Bytes of an arena that is surely large enough: at least, and for each tensor and operator.
_LEAST, _KEPT = 1 << 20, 1 << 12

#: It opens `.tflite` files; there is none that does next to nothing for timing what a call costs.
READS_ONNX = False


def version() -> str:
    from importlib.metadata import version as distribution_version

    import tflite_micro  # noqa: F401  says whether it can be loaded

    return distribution_version("tflite-micro")


def open(path: str, options: Options) -> TflmModel:
    return TflmModel(path)


class TflmModel:
    """An interpreter; one thread, one stream.

    Attributes:
        arena_bytes: What it takes of its tensor arena, as it reports.
    """

    threads = 1

    def __init__(self, path: str) -> None:
        from tflite_micro.python.tflite_micro.runtime import Interpreter

        content = Path(path).read_bytes()
        self._graph = tflite_file.read(content)
        if outside := [tensor.name for tensor in self._graph.tensors if tensor.outside]:
            raise AgentError(
                f"the values of {len(outside)} tensors lie behind the flatbuffer, where TFLM does not look: it would "
                f"read wrong weights and say nothing; {outside[0]} is the first"
            )
        said: list[str] = []
        try:
            with _heard(said):
                self._interpreter: Any = Interpreter.from_bytes(content, arena_size=_bound(self._graph))
                self._interpreter.invoke()  # an operator may refuse its types only when it runs
        except RuntimeError as error:
            raise AgentError(f"TFLM cannot run this model: {' / '.join(said[:3]) or error}") from error
        self.arena_bytes = _used(self._interpreter)
        counts = range(len(self._graph.inputs)), range(len(self._graph.outputs))
        inputs, outputs = self._interpreter.get_input_details, self._interpreter.get_output_details
        self._codings = [affine.of(inputs(index)) for index in counts[0]]
        self._decodings = [affine.of(outputs(index)) for index in counts[1]]
        self.inputs = tuple(map(_port, self._graph.inputs, self._codings))
        self.outputs = tuple(map(_port, self._graph.outputs, self._decodings))
        self.lanes: tuple[Lane, ...] = (self,)
        self.settings: dict[str, Any] = {"streams": 1, "arena_bytes": self.arena_bytes, "kernels": "reference"}
        self._buffers: list[npt.NDArray[Any]] = []
        self.run = self._interpreter.invoke

    def load(self, inputs: Sequence[npt.NDArray[Any]]) -> None:
        self._buffers = fill(self.inputs, self._buffers, inputs) or self._buffers
        for index, (coding, buffer) in enumerate(zip(self._codings, self._buffers, strict=True)):
            self._interpreter.set_input(coding.encode(buffer), index)

    def fetch(self) -> list[npt.NDArray[Any]]:
        return [
            coding.decode(self._interpreter.get_output(index).copy()) for index, coding in enumerate(self._decodings)
        ]

    def layers(self, inputs: Sequence[npt.NDArray[Any]]) -> list[Layer]:
        return [
            Layer(name, one.op, (name,), one.precision, "CPU", "reference")
            for name, one in tflite_file.named(self._graph)
        ]

    def memory(self, inputs: Sequence[npt.NDArray[Any]]) -> RuntimeMemory:
        return RuntimeMemory(self.arena_bytes / 2**20, "of the tensor arena, as TFLM built for this machine reports")

    def close(self) -> None:
        self.lanes = ()
        self._interpreter = None
        self.run = None


def _bound(graph: tflite_file.Graph) -> int:
    """Bytes of an arena in which everything that the model computes has room beside all that TFLM keeps about it.

    An arena that is too small is not always refused: the interpreter may also end the process.
    """
    values = sum(tensor.bytes for tensor in graph.tensors if not tensor.constant)
    return 2 * values + _KEPT * (len(graph.tensors) + len(graph.operators)) + _LEAST


def _used(interpreter: Any) -> int:
    """Bytes of the arena that were taken.

    Raises:
        AgentError: TFLM does not say.
    """
    said: list[str] = []
    with _heard(said):
        interpreter.print_allocations()
    if not (found := _TOTAL.search("\n".join(said))):
        raise AgentError(f"TFLM does not say how much of its arena it uses: {' / '.join(said[:3])!r}")
    return int(found[1])


@contextmanager
def _heard(lines: list[str]) -> Iterator[None]:
    """Adds what is written to the standard error of the process meanwhile: TFLM says nowhere else what is wrong."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines += [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]


def _port(tensor: tflite_file.Tensor, coding: affine.Affine) -> Port:
    return Port(tensor.name, tuple(None if size < 0 else size for size in tensor.shape), coding.outside)
