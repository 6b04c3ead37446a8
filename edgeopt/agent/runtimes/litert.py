"""LiteRT (formerly TensorFlow Lite) on the CPU.

With all optimisations the operators go to XNNPACK as far as it has them, and the others to the built-in kernels. With
none, all go to the reference kernels, which say what the file means. On quantized files the two differ by a few units
in the last place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import affine, tflite_file  # noqa: TID252  relative, so that a zipapp works
from . import Layer, Options, Port, RuntimeMemory, fill

#: It opens `.tflite` files; there is none that does next to nothing for timing what a call costs.
READS_ONNX = False


def version() -> str:
    import ai_edge_litert

    return str(ai_edge_litert.__version__)


def open(path: str, options: Options) -> LitertModel:
    return LitertModel(path, options)


class _Interpreter:
    """An interpreter with its own tensors; a batch of another size makes it allocate them anew."""

    def __init__(self, path: str, options: Options) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        # From memory: the interpreter's message about a file that it cannot open does not say why.
        self._interpreter: Any = Interpreter(
            model_content=Path(path).read_bytes(),
            num_threads=options.threads,
            experimental_op_resolver_type=OpResolverType.AUTO
            if options.optimization == "all"
            else OpResolverType.BUILTIN_REF,
        )
        self._interpreter.allocate_tensors()
        self._inputs = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        self._codings = [affine.of(details) for details in self._inputs]
        self._buffers: list[npt.NDArray[Any]] = []
        self.inputs = tuple(map(_port, self._inputs))
        self.run = self._interpreter.invoke

    def load(self, inputs: Sequence[npt.NDArray[Any]]) -> None:
        if (fresh := fill(self.inputs, self._buffers, inputs)) is not None:
            self._buffers = fresh
            for details, buffer in zip(self._inputs, fresh, strict=True):
                self._interpreter.resize_tensor_input(details["index"], buffer.shape)
            self._interpreter.allocate_tensors()
        for details, coding, buffer in zip(self._inputs, self._codings, self._buffers, strict=True):
            self._interpreter.set_tensor(details["index"], coding.encode(buffer))

    def fetch(self) -> list[npt.NDArray[Any]]:
        return [affine.of(one).decode(self._interpreter.get_tensor(one["index"])) for one in self._outputs]


class LitertModel(_Interpreter):
    """One interpreter for each stream. Invoking it releases Python's lock."""

    def __init__(self, path: str, options: Options) -> None:
        super().__init__(path, options)
        self._path = path
        self.outputs = tuple(map(_port, self._outputs))
        self.lanes = (self, *(_Interpreter(path, options) for _ in range(options.streams - 1)))
        self.threads = options.threads  # the interpreter does not report them back
        self._kernels = "builtin" if options.optimization == "all" else "reference"
        delegates = self._delegates()
        self.settings: dict[str, Any] = {
            "streams": options.streams,
            "kernels": "XNNPACK" if delegates else self._kernels,
            "delegates": len(delegates),
            "coded": {port.name: coding.dtype for port, coding in self._coded()},
        }

    def _coded(self) -> list[tuple[Port, affine.Affine]]:
        ports = zip((*self.inputs, *self.outputs), (*self._inputs, *self._outputs), strict=True)
        found = [(port, affine.of(details)) for port, details in ports]
        return [(port, coding) for port, coding in found if not coding.plain]

    def _delegates(self) -> list[dict[str, Any]]:
        nodes = self._interpreter._get_ops_details()  # there is no public way to ask which operators were delegated
        return [node for node in nodes if node["op_name"] == "DELEGATE"]

    def layers(self, inputs: Sequence[npt.NDArray[Any]]) -> list[Layer]:
        """Without times: the interpreter does not measure its operators from Python."""
        graph = tflite_file.read(Path(self._path).read_bytes())
        delegated = tflite_file.delegated(graph, self._delegates())
        return [
            Layer(name, one.op, (name,), one.precision, "CPU", "XNNPACK" if one.name in delegated else self._kernels)
            for name, one in tflite_file.named(graph)
        ]

    def memory(self, inputs: Sequence[npt.NDArray[Any]]) -> RuntimeMemory:
        return RuntimeMemory(None, "LiteRT's interpreter does not tell the memory of a model")

    def close(self) -> None:
        self.lanes = ()
        self._interpreter = None
        self.run = None


def _port(details: dict[str, Any]) -> Port:
    shape = details["shape_signature"] if len(details["shape_signature"]) else details["shape"]
    sizes = tuple(None if size < 0 else int(size) for size in np.asarray(shape))
    return Port(details["name"], sizes, affine.of(details).outside)
