"""The NVIDIA GPU of the device, as its driver names it. No CUDA toolkit is needed, and no context is made.

Source: the CUDA driver API, https://docs.nvidia.com/cuda/cuda-driver-api/; the attributes 75 and 76 are
``CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR`` and ``_MINOR``.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

_MAJOR, _MINOR = 75, 76


class Gpu(NamedTuple):
    """Its name, and its architecture as ``sm_87``."""

    name: str
    arch: str

    def __str__(self) -> str:
        return f"{self.name} ({self.arch})"


def first(driver: Any = None) -> Gpu | None:
    """The first GPU; None if there is none, or no driver.

    Args:
        driver: The loaded driver library; None for the system's.
    """
    if driver is None:
        try:
            driver = ctypes.CDLL("libcuda.so.1")
        except OSError:
            return None
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    major, minor = ctypes.c_int(), ctypes.c_int()
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetName(name, len(name), device)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    )
    return None if failed else Gpu(name.value.decode(errors="replace"), f"sm_{major.value}{minor.value}")
