"""Facts about the device that decide which kernels run and how far numbers can be compared."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

#: the CPU features that decide which INT8 and float kernels a runtime may choose, as Linux spells them
INFERENCE_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


def facts() -> dict[str, Any]:
    """``{"cpu", "flags", "cores", "memory_mib", "system"}``; ``cores`` are those this process may use."""
    cpuinfo = _pairs(Path("/proc/cpuinfo"))
    features = (cpuinfo.get("flags") or cpuinfo.get("Features") or "").split()
    memory_kib = _pairs(Path("/proc/meminfo")).get("MemTotal", "0 kB").split()[0]
    return {
        "cpu": cpuinfo.get("model name") or cpuinfo.get("Model") or platform.processor() or platform.machine(),
        "flags": [flag for flag in INFERENCE_FLAGS if flag in features],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_mib": int(memory_kib) // 1024,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def memory() -> dict[str, float | None]:
    """``{"peak_mib", "current_mib"}``: resident memory of this process (``VmHWM``, ``VmRSS``); None if not known.

    ``VmHWM`` starts at zero with the program; ``getrusage`` would inherit the parent's peak.
    """
    status = _pairs(Path("/proc/self/status"))

    def mib(key: str) -> float | None:
        return int(status[key].split()[0]) / 1024 if key in status else None

    return {"peak_mib": mib("VmHWM"), "current_mib": mib("VmRSS")}


def _pairs(path: Path) -> dict[str, str]:
    """The ``key: value`` lines of a /proc file, the first of each key; empty where there is no such file."""
    pairs: dict[str, str] = {}
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return pairs
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            pairs.setdefault(key.strip(), value.strip())
    return pairs
