"""TensorRT on an NVIDIA GPU: with its Python package where there is one, else with ``trtexec``.

Engines are built by the toolchain of the same name and opened with what it wrote beside them. The Python way was not
run by us: it is tested against stand-ins of TensorRT and of the CUDA driver.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import AgentError, cuda, gpu, trtexec  # noqa: TID252  relative, so that a zipapp works
from ..engine_file import EngineFile  # noqa: TID252
from ..trt_build import collecting_logger, errors  # noqa: TID252
from ..trtexec import exports, flags  # noqa: TID252
from ..trtexec.building import placed  # noqa: TID252
from ..trtexec.model import TrtexecModel  # noqa: TID252
from . import Layer, Model, Options, Port, RuntimeMemory, fill

_PROFILED_RUNS = 10

#: what its call costs cannot be timed with an ONNX file, which it does not open
READS_ONNX = False


def version() -> str:
    """Like ``10.3.0``, or ``10.3.0 (trtexec)`` where there is no Python package; times of the two are not comparable.

    Raises:
        ImportError: There is neither.
    """
    try:
        import tensorrt
    except ImportError as error:
        try:
            return f"{flags.written(trtexec.find().version)} (trtexec)"
        except ImportError as second:
            raise ImportError(f"{error}; and {second}") from second
    return flags.written(flags.parsed_release(tensorrt.__version__))


def open(path: str, options: Options) -> Model:
    """Opens an engine.

    Raises:
        AgentError: It was built by another version or for another GPU, or TensorRT refuses it.
    """
    if options.optimization != "all":
        raise AgentError("an engine is optimised already: tensorrt has no optimization 'none'")
    plan = Path(path)
    engine = EngineFile.beside(plan)
    found = gpu.first()
    engine.require(plan, version(), found.arch if found else "")
    try:
        import tensorrt
    except ImportError:
        return TrtexecModel(trtexec.find(), plan, engine, options)
    return TensorrtModel(tensorrt, plan, engine, options)


class _Lane:
    """An execution context with its stream and its buffers; a captured graph is replayed where that is possible."""

    def __init__(self, device: cuda.Cuda, engine: Any, inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> None:
        self._device = device
        self.inputs, self.outputs = inputs, outputs
        self._context: Any = engine.create_execution_context()
        self._stream = device.stream()
        self._buffers, self._results = _zeros(inputs), _zeros(outputs)
        arrays = [*self._buffers, *self._results]
        self._addresses = [device.allocate(array.nbytes) for array in arrays]
        for port, address in zip((*inputs, *outputs), self._addresses, strict=True):
            self._context.set_tensor_address(port.name, address)
        if not self._enqueue():
            raise AgentError("TensorRT cannot start the engine")
        device.wait(self._stream)
        self.graph = device.capture(self._stream, self._enqueue)

    def load(self, inputs: Sequence[npt.NDArray[Any]]) -> None:
        fill(self.inputs, self._buffers, inputs)
        for buffer, address in zip(self._buffers, self._addresses, strict=False):
            self._device.upload(address, buffer)

    def run(self) -> None:
        if self.graph:
            self._device.launch(self.graph, self._stream)
        else:
            self._enqueue()
        self._device.wait(self._stream)

    def fetch(self) -> list[npt.NDArray[Any]]:
        for result, address in zip(self._results, self._addresses[len(self.inputs) :], strict=True):
            self._device.download(address, result)
        return [result.copy() for result in self._results]

    def run_in(self, context: Any, times: int) -> None:
        """Runs on the same buffers in another context, launch by launch."""
        for port, address in zip((*self.inputs, *self.outputs), self._addresses, strict=True):
            context.set_tensor_address(port.name, address)
        for _ in range(times):
            context.execute_async_v3(self._stream)
            self._device.wait(self._stream)

    def close(self) -> None:
        self._context = None
        for address in self._addresses:
            self._device.free(address)
        self._addresses = []

    def _enqueue(self) -> bool:
        return bool(self._context.execute_async_v3(self._stream))


def _zeros(ports: Sequence[Port]) -> list[npt.NDArray[Any]]:
    """Arrays for ports, whose shapes are static in an engine."""
    return [np.zeros([size or 0 for size in port.shape], port.dtype) for port in ports]


class TensorrtModel:
    """An engine in this process. Only the GPU's work and its launch are timed: copying is not."""

    def __init__(self, trt: ModuleType, plan: Path, engine: EngineFile, options: Options) -> None:
        self._trt, self._file = trt, engine
        self._lines: list[str] = []
        self._runtime: Any = trt.Runtime(collecting_logger(trt, self._lines))
        if engine.dla_core is not None:
            self._runtime.DLA_core = engine.dla_core
        device = cuda.primary()
        self._engine: Any = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if self._engine is None:
            raise AgentError(f"TensorRT refuses {plan.name}: {'; '.join(errors(self._lines)) or 'it gives no reason'}")
        self._require_ports((*engine.inputs, *engine.outputs))
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.threads = options.threads  # of the CPU: it only launches
        made = [_Lane(device, self._engine, self.inputs, self.outputs) for _ in range(options.streams)]
        self.lanes: Sequence[_Lane] = made
        self._first = made[0]
        graph = all(lane.graph is not None for lane in made)
        self.settings: dict[str, Any] = {
            "tool": f"Python package {trt.__version__}",
            "conditions": {**engine.conditions("spin wait"), "cuda_graph": graph},
        }
        self.load, self.run, self.fetch = self._first.load, self._first.run, self._first.fetch

    def layers(self, inputs: Sequence[npt.NDArray[Any]]) -> list[Layer]:
        self.load(inputs)
        context = self._engine.create_execution_context()
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = context
        text = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        times_ms = self._profiled(context)
        medians = {name: statistics.median(values) for name, values in times_ms.items()}
        timed = exports.with_times(exports.layer_info(text).layers, medians)
        return list(timed if self._file.dla_core is None else placed(timed, self._file.reasons))

    def memory(self, inputs: Sequence[npt.NDArray[Any]]) -> RuntimeMemory:
        size = getattr(self._engine, "device_memory_size_v2", None) or getattr(self._engine, "device_memory_size", None)
        if size is None:
            return RuntimeMemory(None, "this version of TensorRT does not say")
        return RuntimeMemory(int(size) / 2**20, "activations of one execution context on the GPU, without the weights")

    def close(self) -> None:
        for lane in self.lanes:
            lane.close()
        self.lanes = ()
        self._engine = self._runtime = None

    def _profiled(self, context: Any) -> dict[str, list[float]]:
        """ms of every run of every layer, by name."""
        times_ms: dict[str, list[float]] = {}

        class Profiler(self._trt.IProfiler):  # type: ignore[misc, name-defined]  # of a module that is not known here
            def __init__(self) -> None:
                super().__init__()

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                times_ms.setdefault(layer_name, []).append(ms)

        context.profiler = Profiler()
        self._first.run_in(context, _PROFILED_RUNS)
        return times_ms

    def _require_ports(self, ports: Sequence[Port]) -> None:
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        if sorted(names) != sorted(port.name for port in ports):
            raise AgentError(f"the engine has the tensors {', '.join(names)}, and not those that stand beside it")
        for port in ports:
            shape = tuple(self._engine.get_tensor_shape(port.name))
            if shape != port.shape:
                raise AgentError(f"{port.name} of the engine has the shape {shape}, and not {port.shape}")
