from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from edgeopt.agent.condition import Condition, disturbances, read
from edgeopt.agent.machine import allowed_cpus

Plant = Callable[[Mapping[str, str]], Path]


CPU = f"sys/devices/system/cpu/cpu{min(allowed_cpus(), default=0)}"
HERTZ = os.sysconf("SC_CLK_TCK")


def test_this_machine_is_readable() -> None:
    first, second = read(), read()
    assert second.at_s >= first.at_s
    assert second.own_s >= first.own_s
    assert Condition(**asdict(first)) == first


def test_what_is_not_readable_is_none(tmp_path: Path) -> None:
    found = asdict(read(tmp_path))
    of_the_process = {"at_s", "load_1_min", "own_s", "involuntary_switches"}
    assert {name for name, value in found.items() if value is not None} == of_the_process


def test_reading_a_bare_machine(plant: Plant) -> None:
    root = plant(
        {
            f"{CPU}/cpufreq/scaling_governor": "powersave",
            f"{CPU}/cpufreq/scaling_cur_freq": "1200000",
            f"{CPU}/cpufreq/scaling_max_freq": "3400000",
            f"{CPU}/cpufreq/scaling_min_freq": "800000",
            f"{CPU}/thermal_throttle/core_throttle_count": "3",
            f"{CPU}/thermal_throttle/package_throttle_count": "4",
            # user nice system idle iowait irq softirq steal guest guest_nice
            "proc/stat": f"cpu  {10 * HERTZ} {HERTZ} {2 * HERTZ} 999 888 {HERTZ} {HERTZ} {7 * HERTZ} 777 666\n"
            "cpu0 1 1 1 1 1 1 1 1 1 1\ncpu1 1 1 1 1 1 1 1 1 1 1\nintr 5",
            "proc/self/task/11/schedstat": "5 2000000000 7",
            "proc/self/task/12/schedstat": "5 500000000 7",
            "proc/pressure/cpu": "some avg10=0.10 avg60=0.20 avg300=0.30 total=2500000\nfull avg10=0.00 total=0",
            "proc/self/cgroup": "0::/",
            "sys/fs/cgroup/cpu.stat": "nr_throttled 6\nthrottled_usec 1500000",
            "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp",
            "sys/class/thermal/thermal_zone0/temp": "61500",
            "sys/class/thermal/thermal_zone1/type": "broken",
            "sys/class/hwmon/hwmon2/name": "coretemp",
            "sys/class/hwmon/hwmon2/temp1_input": "-2000",
            "sys/class/hwmon/hwmon2/temp1_label": "Core 0",
        },
    )
    found = read(root)
    assert found.governors == ["powersave"]
    assert (found.mhz, found.max_mhz, found.min_mhz) == ([1200.0], [3400.0], [800.0])
    assert found.throttle_events == 7
    assert (found.busy_s, found.steal_s, found.cpus) == (15.0, 7.0, 2)
    assert found.waiting_s == 2.5
    assert found.pressure_s == 2.5
    assert (found.limited_count, found.limited_s) == (6, 1.5)
    assert found.temperatures_c == {"thermal_zone0 x86_pkg_temp": 61.5, "hwmon2 coretemp Core 0": -2.0}


#: ten seconds on two CPUs, one of which was ours
BEFORE = Condition(
    at_s=100.0,
    governors=["performance"],
    mhz=[3000.0, 1200.0],
    max_mhz=[3400.0, 3400.0],
    load_1_min=1.0,
    cpus=2,
    busy_s=50.0,
    steal_s=1.0,
    own_s=5.0,
    waiting_s=0.5,
    involuntary_switches=100,
    throttle_events=0,
    limited_count=0,
    limited_s=0.0,
)
QUIET: dict[str, Any] = {"at_s": 110.0, "busy_s": 60.5, "own_s": 15.0, "waiting_s": 0.6, "involuntary_switches": 150}


def test_a_quiet_machine_is_not_disturbed() -> None:
    assert disturbances(BEFORE, replace(BEFORE, **QUIET)) == []


def test_what_is_not_readable_disturbs_nothing() -> None:
    assert disturbances(Condition(1.0), Condition(2.0)) == []


@pytest.mark.parametrize(
    ("after", "sentence"),
    [
        ({"busy_s": 67.6}, "other processes took 38% of the CPU time while timing"),
        ({"waiting_s": 1.7}, "the process that timed waited for a CPU for 12% of the time"),
        ({"steal_s": 1.5}, "the hypervisor took 0.5 CPU seconds away in 10.0 s"),
        ({"involuntary_switches": 900}, "the process that timed was interrupted 80 times a second"),
        ({"governors": ["powersave"]}, "governor changed from performance to powersave"),
        ({"mhz": [1200.0, 2600.0]}, "the fastest CPU went from 3000 to 2600 MHz"),
        ({"max_mhz": [2000.0, 2000.0]}, "the highest permitted frequency went from 3400 to 2000 MHz"),
        ({"throttle_events": 3}, "slowed down for their heat 3 times"),
        ({"limited_count": 4, "limited_s": 0.25}, "CPU limit stopped the process 4 times, for 0.25 s"),
        ({"at_s": 99.0}, "the clock went backwards"),
    ],
)
def test_each_disturbance_has_its_sentence(after: dict[str, Any], sentence: str) -> None:
    (found,) = disturbances(BEFORE, replace(BEFORE, **{**QUIET, **after}))
    assert sentence in found


@pytest.mark.parametrize(
    "after",
    [
        {"busy_s": 64.9},  # 24.5 % of the CPU time
        {"waiting_s": 0.99},
        {"steal_s": 1.19},
        {"involuntary_switches": 590},
        {"mhz": [1200.0, 2710.0]},  # the fastest changed place, and lost less than a tenth
        {"load_1_min": 9.0},  # of the last minute, not of the timing
    ],
)
def test_below_its_threshold_nothing_is_a_disturbance(after: dict[str, Any]) -> None:
    assert disturbances(BEFORE, replace(BEFORE, **{**QUIET, **after})) == []


def test_rounding_of_the_accounting_is_no_disturbance() -> None:
    short = {**QUIET, "at_s": 100.1, "busy_s": 50.15, "own_s": 5.1, "waiting_s": 0.52, "involuntary_switches": 102}
    assert disturbances(BEFORE, replace(BEFORE, **short)) == []
