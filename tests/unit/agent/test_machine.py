from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from edgeopt.agent import machine

Plant = Callable[[Mapping[str, str]], Path]


def test_facts_describe_this_machine() -> None:
    facts = machine.facts()
    assert facts["cpu"]
    assert facts["cores"] == len(facts["cpus"]) >= 1
    assert set(facts["flags"]) <= set(machine.INFERENCE_FLAGS)
    assert facts["system"].startswith(("Linux", "Darwin"))


X86 = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Xeon\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_int8 hypervisor",
    "proc/meminfo": "MemTotal:        2048000 kB",
    **{f"sys/devices/system/cpu/cpu{n}/topology/core_id": str(n // 2) for n in range(4)},
    **{f"sys/devices/system/cpu/cpu{n}/topology/physical_package_id": "0" for n in range(4)},
}
ARM = {
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd asimddp asimdhp i8mm\nCPU part\t: 0xd42",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano\0",
}


def test_x86(plant: Plant) -> None:
    facts = machine.facts(plant(X86))
    assert facts["cpu"] == "Xeon"
    assert facts["flags"] == ["avx2", "avx512f", "avx512_vnni", "amx_int8"]
    assert facts["memory_mib"] == 2000
    assert facts["physical_cores"] == 2
    assert facts["virtualization"] == "a hypervisor"
    assert facts["container"] == ""


def test_arm(plant: Plant) -> None:
    facts = machine.facts(plant(ARM))
    assert facts["cpu"] == "NVIDIA Jetson Orin Nano"
    assert facts["flags"] == ["asimddp", "asimdhp", "i8mm"]
    assert facts["physical_cores"] is None  # not readable, not zero
    assert facts["virtualization"] == ""
    assert facts["cpu_limit"] is None


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({}, ""),
        ({".dockerenv": ""}, "docker"),
        ({"run/.containerenv": ""}, "podman"),
        ({"run/systemd/container": "systemd-nspawn"}, "systemd-nspawn"),
        ({"proc/1/cgroup": "0::/kubepods/besteffort/pod1"}, "kubepods"),
        ({"proc/self/cgroup": "1:cpu:/lxc/7"}, "lxc"),
    ],
)
def test_containers(plant: Plant, files: dict[str, str], kind: str) -> None:
    assert machine.facts(plant(files))["container"] == kind


def test_a_virtual_board_names_itself(plant: Plant) -> None:
    board = {"sys/class/dmi/id/sys_vendor": "QEMU", "sys/class/dmi/id/product_name": "Standard PC"}
    assert machine.facts(plant({**X86, **board}))["virtualization"] == "QEMU Standard PC"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind a process")
def test_a_bound_process_has_fewer_cores() -> None:
    cpu = min(os.sched_getaffinity(0))
    script = (
        f"import os; os.sched_setaffinity(0, {{{cpu}}})\n"
        "from edgeopt.agent.machine import facts\n"
        f"assert (facts()['cores'], facts()['cpus']) == (1, [{cpu}])\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_peak_grows_with_what_is_used_and_stays() -> None:
    script = (
        "from edgeopt.agent.machine import memory\n"
        "before = memory()\n"
        "block = bytearray(b'x' * (64 << 20)); del block\n"
        "after = memory()\n"
        "assert after['peak_mib'] >= before['peak_mib'] + 60, (before, after)\n"
        "assert after['current_mib'] < after['peak_mib'] - 30, after\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_memory_that_is_not_readable_is_not_zero(tmp_path: Path) -> None:
    assert machine.memory(tmp_path) == {"peak_mib": None, "current_mib": None}
