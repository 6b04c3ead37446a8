"""Facts about the device that decide which kernels run and how far numbers can be compared."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from . import cgroup, gpu, jetson

#: the CPU features that decide which INT8 and float kernels a runtime may choose, as Linux spells them; ``asimddp`` is
#: Arm's dot product, ``asimdhp`` its half precision
INFERENCE_FLAGS = (
    *("avx2", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx_vnni_int8", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    *("asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2", "svei8mm", "sme"),
)


def facts(root: Path = Path("/")) -> dict[str, Any]:
    """What :class:`edgeopt.access.Machine` holds, as JSON."""
    cpuinfo = pairs(root / "proc/cpuinfo")
    features = (cpuinfo.get("flags") or cpuinfo.get("Features") or "").split()
    memory_kib = pairs(root / "proc/meminfo").get("MemTotal", "0 kB").split()[0]
    cpus = allowed_cpus()
    return {
        "cpu": _cpu(root, cpuinfo),
        "flags": [flag for flag in INFERENCE_FLAGS if flag in features],
        "cores": len(cpus) or os.cpu_count() or 1,
        "memory_mib": int(memory_kib) // 1024,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "physical_cores": _physical_cores(root),
        "cpus": list(cpus),
        "cpu_limit": cgroup.cpu_limit(root),
        "memory_limit_mib": cgroup.memory_limit_mib(root),
        "container": _container(root),
        "virtualization": _virtualization(root, features),
        "gpu": str(gpu.first() or ""),
        "power_mode": jetson.power_mode(),
        "rails": list(board.rails_mw) if (board := jetson.read()) else [],
    }


def allowed_cpus() -> tuple[int, ...]:
    """Numbers of the CPUs that this process may run on; empty where the system does not tell."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def memory(root: Path = Path("/")) -> dict[str, float | None]:
    """``{"peak_mib", "current_mib"}``: resident memory of this process (``VmHWM``, ``VmRSS``); None if not known.

    ``VmHWM`` starts at zero with the program; ``getrusage`` would inherit the parent's peak.
    """
    status = pairs(root / "proc/self/status")

    def mib(key: str) -> float | None:
        return int(status[key].split()[0]) / 1024 if key in status else None

    return {"peak_mib": mib("VmHWM"), "current_mib": mib("VmRSS")}


def pairs(path: Path) -> dict[str, str]:
    """The ``key: value`` lines of a /proc file, the first of each key; empty where there is no such file."""
    found: dict[str, str] = {}
    for line in (text(path) or "").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip(), value.strip())
    return found


def text(path: Path) -> str | None:
    """A small file without surrounding blanks and zero bytes; None if it cannot be read."""
    try:
        return path.read_text(errors="replace").strip(" \n\0")
    except OSError:
        return None


def _cpu(root: Path, cpuinfo: dict[str, str]) -> str:
    """x86 names the processor; boards name themselves in the device tree."""
    names = (cpuinfo.get("model name"), text(root / "proc/device-tree/model"), cpuinfo.get("Model"))
    return next(filter(None, names), "") or platform.processor() or platform.machine()


def _physical_cores(root: Path) -> int | None:
    """Of all processors that are online; None if not known."""
    cores = {
        (text(folder / "physical_package_id"), identity)
        for folder in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/topology")
        if (identity := text(folder / "core_id")) is not None
    }
    return len(cores) or None


def _container(root: Path) -> str:
    """Kind of the container that this process runs in, empty if there is no sign of one."""
    if named := text(root / "run/systemd/container"):
        return named
    if (root / "run/.containerenv").exists():
        return "podman"
    if (root / ".dockerenv").exists():
        return "docker"
    groups = (text(root / "proc/1/cgroup") or "") + (text(root / "proc/self/cgroup") or "")
    return next((kind for kind in ("kubepods", "docker", "containerd", "lxc") if kind in groups), "")


def _virtualization(root: Path, features: list[str]) -> str:
    """The hypervisor, as far as it names itself; empty if there is no sign of one."""
    named = text(root / "sys/hypervisor/type") or text(root / "proc/device-tree/hypervisor/compatible")
    if named:
        return named
    if "hypervisor" not in features:
        return ""
    board = (text(root / f"sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name"))
    return " ".join(filter(None, board)) or "a hypervisor"
