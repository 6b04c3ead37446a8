"""A stand-in of the CUDA driver and of the Python package ``tensorrt``, so far as running an engine needs them.

Memory is this process's own. An engine doubles its input and adds one. A stream computes what is put into it at once,
unless a graph is being captured: then it computes when the graph is launched. Synthetic, from the documented API.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np


class Driver:
    """The calls of ``libcuda.so.1`` that :mod:`edgeopt.agent.cuda` and :mod:`edgeopt.agent.gpu` use."""

    def __init__(self, *, capability: tuple[int, int] = (8, 7), graphs: bool = True) -> None:
        self.capability, self.graphs = capability, graphs
        self.memory: dict[int, Any] = {}
        self.captured: list[Callable[[], None]] | None = None
        self.executables: dict[int, list[Callable[[], None]]] = {}
        self.calls: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("cu"):
            object.__getattribute__(self, "calls").append(name)
        return object.__getattribute__(self, name)

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return 0

    def cuDeviceGet(self, device: Any, number: int) -> int:  # noqa: N802
        device._obj.value = number
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802
        name.value = b"Fake GPU"
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = dict(zip((75, 76), self.capability, strict=True))[attribute]
        return 0

    def cuDevicePrimaryCtxSetFlags_v2(self, device: Any, flags: int) -> int:  # noqa: N802
        assert flags == 1  # spin
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:  # noqa: N802
        context._obj.value = 1
        return 0

    def cuCtxSetCurrent(self, context: Any) -> int:  # noqa: N802
        return 0

    def cuMemAlloc_v2(self, address: Any, size: Any) -> int:  # noqa: N802
        block = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(block)
        self.memory[address._obj.value] = block
        return 0

    def cuMemsetD8_v2(self, address: Any, value: Any, size: Any) -> int:  # noqa: N802
        ctypes.memset(address.value, value.value, size.value)
        return 0

    def cuMemFree_v2(self, address: Any) -> int:  # noqa: N802
        return 0 if self.memory.pop(address.value, None) is not None else 1

    def cuMemcpyHtoD_v2(self, to: Any, source: Any, size: Any) -> int:  # noqa: N802
        ctypes.memmove(to.value, source.value, size.value)
        return 0

    def cuMemcpyDtoH_v2(self, to: Any, source: Any, size: Any) -> int:  # noqa: N802
        ctypes.memmove(to.value, source.value, size.value)
        return 0

    def cuStreamCreate(self, stream: Any, flags: int) -> int:  # noqa: N802
        stream._obj.value = 77
        return 0

    def cuStreamSynchronize(self, stream: Any) -> int:  # noqa: N802
        return 0

    def cuStreamBeginCapture_v2(self, stream: Any, mode: int) -> int:  # noqa: N802
        self.captured = []
        return 0

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> int:  # noqa: N802
        recorded, self.captured = self.captured, None
        if not self.graphs:
            return 901  # CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
        graph._obj.value = 500
        self.executables[900 + len(self.executables)] = recorded or []
        return 0

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, flags: Any) -> int:  # noqa: N802
        executable._obj.value = max(self.executables)
        return 0

    def cuGraphDestroy(self, graph: Any) -> int:  # noqa: N802
        return 0

    def cuGraphLaunch(self, executable: Any, stream: Any) -> int:  # noqa: N802
        for work in self.executables[executable.value]:
            work()
        return 0

    def enqueue(self, work: Callable[[], None]) -> bool:
        if self.captured is None:
            work()
        else:
            self.captured.append(work)
        return True


def tensorrt(driver: Driver, shape: tuple[int, ...], version: str = "10.13.0.35") -> ModuleType:
    """The package, whose engines have an input ``x`` and an output ``y`` of float32."""
    trt = ModuleType("tensorrt")
    trt.__version__ = version  # type: ignore[attr-defined]

    class ILogger:
        def __init__(self) -> None: ...

    class IProfiler:
        def __init__(self) -> None: ...

    class Context:
        def __init__(self) -> None:
            self.addresses: dict[str, int] = {}
            self.profiler: Any = None

        def set_tensor_address(self, name: str, address: int) -> bool:
            self.addresses[name] = address
            return True

        def execute_async_v3(self, stream: int) -> bool:
            assert stream == 77

            def work() -> None:
                size = int(np.prod(shape))
                x, y = (
                    np.ctypeslib.as_array(ctypes.cast(self.addresses[name], ctypes.POINTER(ctypes.c_float)), (size,))
                    for name in ("x", "y")
                )
                y[:] = 2 * x + 1
                if self.profiler:
                    self.profiler.report_layer_time("double + add", 0.25)

            return driver.enqueue(work)

    class Inspector:
        execution_context: Any = None

        def get_engine_information(self, form: str) -> str:
            assert form == "json"
            layer = {"Name": "double + add", "LayerType": "kgen", "Inputs": [{"Name": "x", "DataType": "Float"}],
                     "Metadata": "[ONNX Layer: double]\x1f[ONNX Layer: add]"}  # fmt: skip
            return json.dumps({"Layers": [layer], "I/O Tensors": [{"Name": "x"}, {"Name": "y"}]})

    class Engine:
        num_io_tensors = 2
        device_memory_size_v2 = 3 * 2**20

        def get_tensor_name(self, index: int) -> str:
            return "xy"[index]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return shape

        def create_execution_context(self) -> Context:
            return Context()

        def create_engine_inspector(self) -> Inspector:
            return Inspector()

    class Severity:
        name = "ERROR"

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            if plan.endswith(b"broken"):
                self.logger.log(Severity, "magic tag does not match")
                self.logger.log(Severity, "CUDA initialization failure with error 35, cudaErrorInsufficientDriver")
                return None
            return Engine()

    class LayerInformationFormat:
        JSON = "json"

    for thing in (ILogger, IProfiler, Runtime, LayerInformationFormat):
        setattr(trt, thing.__name__, thing)
    return trt
