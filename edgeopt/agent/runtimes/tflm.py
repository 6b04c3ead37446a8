"""TensorFlow Lite for Microcontrollers, built for this machine: what a microcontroller's program does with a file.

Its kernels are the reference ones, and its results those of a microcontroller with the same kernels; its speed says
nothing about any device.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from .. import AgentError, affine, tflite_file  # noqa: TID252  relative, so that a zipapp works
from . import Lane, Layer, Options, Port, RuntimeMemory, fill

#: The tensor arena is searched for between these, in bytes, to this step.
_SMALLEST, _LARGEST, _STEP = 1 << 10, 1 << 29, 16


def version() -> str:
    from importlib.metadata import version as distribution_version

    import tflite_micro  # noqa: F401  says whether it can be loaded

    return distribution_version("tflite-micro")


def open(path: str, options: Options) -> TflmModel:
    return TflmModel(path)


class TflmModel:
    """An interpreter with the smallest tensor arena that the model works in; one thread, one stream."""

    threads = 1

    def __init__(self, path: str) -> None:
        content = Path(path).read_bytes()
        self._graph = tflite_file.read(content)
        if outside := [tensor.name for tensor in self._graph.tensors if tensor.outside]:
            raise AgentError(
                f"the values of {len(outside)} tensors lie behind the flatbuffer, where TFLM does not look: it would "
                f"read wrong weights and say nothing; {outside[0]} is the first"
            )
        self.arena_bytes = _smallest_arena(content)
        self._interpreter: Any = _interpreter(content, self.arena_bytes)
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
        return RuntimeMemory(self.arena_bytes / 2**20, "smallest tensor arena that the model works in, on this machine")

    def close(self) -> None:
        self.lanes = ()
        self._interpreter = None
        self.run = None


def _interpreter(content: bytes, arena_bytes: int) -> Any:
    from tflite_micro.python.tflite_micro.runtime import Interpreter

    return Interpreter.from_bytes(content, arena_size=arena_bytes)


def _smallest_arena(content: bytes) -> int:
    """In bytes: doubled until the model can be prepared, then halved between the last two.

    Raises:
        AgentError: It cannot be prepared in any.
    """

    def works(size: int) -> bool:
        try:
            _interpreter(content, size)
        except RuntimeError:
            return False
        return True

    enough = _SMALLEST
    while not works(enough):
        if enough >= _LARGEST:
            raise AgentError("TFLM cannot prepare this model: it lacks an operator, see the log for which")
        enough *= 2
    too_little = enough // 2
    while enough - too_little > _STEP:
        middle = (enough + too_little) // 2 // _STEP * _STEP
        enough, too_little = (middle, too_little) if works(middle) else (enough, middle)
    return enough


def _port(tensor: tflite_file.Tensor, coding: affine.Affine) -> Port:
    return Port(tensor.name, tuple(None if size < 0 else size for size in tensor.shape), coding.outside)
