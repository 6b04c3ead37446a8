from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from edgeopt.agent import cgroup

Plant = Callable[[Mapping[str, str]], Path]


V2 = {"proc/self/cgroup": "0::/slice/job"}
V1 = {"proc/self/cgroup": "4:memory:/job\n3:cpu,cpuacct:/job\n0::/"}


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert cgroup.cpu_limit(tmp_path) is None
    assert cgroup.memory_limit_mib(tmp_path) is None
    assert cgroup.throttled(tmp_path) is None


def test_version_2_takes_the_strictest_group_and_adds_up_what_was_throttled(plant: Plant) -> None:
    group = "sys/fs/cgroup/slice"
    root = plant(
        {
            **V2,
            f"{group}/job/cpu.max": "max 100000",
            f"{group}/job/memory.max": str(512 << 20),
            f"{group}/job/cpu.stat": "usage_usec 9\nnr_periods 5\nnr_throttled 2\nthrottled_usec 300000",
            f"{group}/cpu.max": "150000 100000",
            f"{group}/memory.max": "max",
            f"{group}/cpu.stat": "usage_usec 9\nnr_periods 5\nnr_throttled 1\nthrottled_usec 200000",
        },
    )
    assert cgroup.cpu_limit(root) == 1.5
    assert cgroup.memory_limit_mib(root) == 512
    assert cgroup.throttled(root) == (3, pytest.approx(0.5))


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_version_1(plant: Plant, mount: str) -> None:
    root = plant(
        {
            **V1,
            f"sys/fs/cgroup/{mount}/job/cpu.cfs_quota_us": "50000",
            f"sys/fs/cgroup/{mount}/job/cpu.cfs_period_us": "100000",
            f"sys/fs/cgroup/{mount}/job/cpu.stat": "nr_periods 5\nnr_throttled 2\nthrottled_time 300000000",
            f"sys/fs/cgroup/{mount}/cpu.cfs_quota_us": "-1",
            f"sys/fs/cgroup/{mount}/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(256 << 20),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        },
    )
    assert cgroup.cpu_limit(root) == 0.5
    assert cgroup.memory_limit_mib(root) == 256
    assert cgroup.throttled(root) == (2, pytest.approx(0.3))


def test_a_container_sees_its_own_group_at_the_top(plant: Plant) -> None:
    root = plant({"proc/self/cgroup": "0::/outside/of/the/mount", "sys/fs/cgroup/cpu.max": "200000 100000"})
    assert cgroup.cpu_limit(root) == 2


def test_no_limit_is_none_and_not_a_large_number(plant: Plant) -> None:
    root = plant(
        {
            **V1,
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        },
    )
    assert cgroup.cpu_limit(root) is None
    assert cgroup.memory_limit_mib(root) is None
