"""What running an engine needs of CUDA, from the driver alone: memory, a stream, a graph. No toolkit, no package.

The primary context is the one that TensorRT uses as well. Its host thread polls for the end of a run (spin wait), so
that what is timed does not depend on how many CPUs there are. Source: the CUDA driver API,
https://docs.nvidia.com/cuda/cuda-driver-api/; constants from ``cuda.h``. Tested against a stand-in of the driver only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from . import AgentError

_SCHED_SPIN = 1
_NON_BLOCKING = 1
_CAPTURE_THREAD_LOCAL = 1


class Cuda:
    """The primary context of the first GPU, current in this thread.

    Args:
        driver: The loaded driver library.

    Raises:
        AgentError: A call of the driver failed.
    """

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        self.call("cuDevicePrimaryCtxSetFlags_v2", device, _SCHED_SPIN)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._context = context
        self.use()

    def use(self) -> None:
        """Makes the context that of the calling thread."""
        self.call("cuCtxSetCurrent", self._context)

    def call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code:
            raise AgentError(f"{name} failed with CUDA error {code}")

    def allocate(self, size: int) -> int:
        """Address of zeroed memory on the GPU."""
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        self.call("cuMemsetD8_v2", address, ctypes.c_ubyte(0), ctypes.c_size_t(max(size, 1)))
        return address.value

    def free(self, address: int) -> None:
        self.call("cuMemFree_v2", ctypes.c_uint64(address))

    def upload(self, address: int, array: npt.NDArray[Any]) -> None:
        self.call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), _pointer(array), ctypes.c_size_t(array.nbytes))

    def download(self, address: int, array: npt.NDArray[Any]) -> None:
        self.call("cuMemcpyDtoH_v2", _pointer(array), ctypes.c_uint64(address), ctypes.c_size_t(array.nbytes))

    def stream(self) -> int:
        handle = ctypes.c_void_p()
        self.call("cuStreamCreate", ctypes.byref(handle), _NON_BLOCKING)
        return int(handle.value or 0)

    def wait(self, stream: int) -> None:
        self.call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def capture(self, stream: int, enqueue: Callable[[], bool]) -> int | None:
        """An executable graph of what ``enqueue`` puts into the stream; None if that cannot be captured."""
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), _CAPTURE_THREAD_LOCAL)
        enqueued = enqueue()
        ended = self._driver.cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(graph))
        if not enqueued or ended or not graph.value:
            return None
        failed = self._driver.cuGraphInstantiateWithFlags(ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        self.call("cuGraphDestroy", graph)
        return None if failed else executable.value

    def launch(self, graph: int, stream: int) -> None:
        self.call("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))


@cache
def primary() -> Cuda:
    """The one of this process.

    Raises:
        AgentError: There is no driver, or no GPU.
    """
    try:
        return Cuda(ctypes.CDLL("libcuda.so.1"))
    except OSError as error:
        raise AgentError(f"there is no NVIDIA driver here: {error}") from error


def _pointer(array: npt.NDArray[Any]) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data if array.size else np.zeros(1).ctypes.data)
