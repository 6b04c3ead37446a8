"""The state of the device before and after timing, and whether something disturbed what was timed between them.

Linux shows it in /proc and /sys; what cannot be read is None, never zero. Sources: the kernel's documentation of
/proc/stat, /proc/PID/schedstat, cpufreq, thermal zones, hwmon and pressure stall information,
https://docs.kernel.org/admin-guide/ and https://docs.kernel.org/accounting/psi.html.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import cgroup, jetson
from .machine import allowed_cpus, text

#: other processes took at least this share of all CPU time: they evict caches and take memory bandwidth and turbo
OTHERS_SHARE = 0.25
#: the process was ready to run and waited for a CPU for at least this share of the time: it is in the samples directly
WAITING_SHARE = 0.05
#: the hypervisor took at least this many CPU seconds per second away from the machine
STEAL_SHARE = 0.02
#: the process was put aside this often per second, although it wanted to go on
SWITCHES_PER_S = 50.0
#: the fastest CPU, or the highest frequency that is permitted, lost at least this share
FREQUENCY_LOSS = 0.10
#: accounted CPU time below this is rounding (the kernel counts it in steps of up to 10 ms)
LEAST_SECONDS = 0.1


@dataclass(frozen=True)
class Condition:
    """The state of the device at one moment. None: not readable here.

    Attributes:
        at_s: Monotonic time.
        governors: Frequency governor of each CPU that the process may use.
        mhz: Current frequency of each of them.
        max_mhz: The highest that is permitted at the moment, of each.
        min_mhz: The lowest that is permitted, of each.
        load_1_min: Load average of the machine.
        cpus: CPUs of the machine that are online.
        busy_s: CPU seconds of all processes since the machine started.
        steal_s: CPU seconds that the hypervisor gave to others since then.
        own_s: CPU seconds of this process, and of the tools that it ran and that have ended.
        waiting_s: Seconds for which threads of this process were ready to run and waited for a CPU.
        involuntary_switches: How often this process was put aside.
        pressure_s: Seconds in which anything on the machine waited for a CPU.
        throttle_events: Times that CPUs were slowed down for their heat.
        limited_count, limited_s: Times, and seconds, that the container's CPU limit stopped this process.
        temperatures_c: By the name of the sensor.
        power_mode: Of a Jetson, as ``nvpmodel`` names it.
        clocks_locked: Whether a Jetson's GPU clock is held.
        gpu_mhz: Its current frequency.
        memory_used_mib: Of a Jetson's memory, which the CPU and the GPU share.
        over_current_events: Times that a Jetson slowed down because its supply was overloaded.
    """

    at_s: float
    governors: Sequence[str] | None = None
    mhz: Sequence[float] | None = None
    max_mhz: Sequence[float] | None = None
    min_mhz: Sequence[float] | None = None
    load_1_min: float | None = None
    cpus: int | None = None
    busy_s: float | None = None
    steal_s: float | None = None
    own_s: float | None = None
    waiting_s: float | None = None
    involuntary_switches: int | None = None
    pressure_s: float | None = None
    throttle_events: int | None = None
    limited_count: int | None = None
    limited_s: float | None = None
    temperatures_c: Mapping[str, float] | None = None
    power_mode: str | None = None
    clocks_locked: bool | None = None
    gpu_mhz: float | None = None
    memory_used_mib: int | None = None
    over_current_events: int | None = None


def read(root: Path = Path("/")) -> Condition:
    """The state now."""
    cpus = [root / f"sys/devices/system/cpu/cpu{number}" for number in allowed_cpus()]
    busy_s, steal_s, count = _cpu_time(root)
    limited = cgroup.throttled(root)
    stats = jetson.read()
    return Condition(
        at_s=time.monotonic(),
        governors=[found for cpu in cpus if (found := text(cpu / "cpufreq/scaling_governor"))] or None,
        mhz=_mhz(cpus, "cur"),
        max_mhz=_mhz(cpus, "max"),
        min_mhz=_mhz(cpus, "min"),
        load_1_min=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        cpus=count,
        busy_s=busy_s,
        steal_s=steal_s,
        own_s=time.process_time() + _children_s(),
        waiting_s=_waiting_s(root),
        involuntary_switches=_involuntary_switches(),
        pressure_s=_pressure_s(root),
        throttle_events=_throttle_events(cpus),
        limited_count=limited.times if limited else None,
        limited_s=limited.seconds if limited else None,
        temperatures_c={**_temperatures_c(root), **(stats.temperatures_c if stats else {})} or None,
        power_mode=jetson.power_mode() or None,
        clocks_locked=jetson.clocks_locked(root) if stats else None,
        gpu_mhz=stats.gpu_mhz if stats else None,
        memory_used_mib=stats.memory_used_mib if stats else None,
        over_current_events=_over_current_events(root),
    )


def disturbances(before: Condition, after: Condition) -> list[str]:
    """What disturbed timing between two readings of one process: a sentence each, none if nothing was seen.

    The thresholds are the constants of this module. What was not readable cannot be seen.
    """
    seconds = after.at_s - before.at_s
    if seconds <= 0:
        return ["the clock went backwards while timing"]
    found = []

    busy, own = _grown(before.busy_s, after.busy_s), _grown(before.own_s, after.own_s)
    if busy is not None and own is not None and after.cpus:
        others = busy - own
        share = others / (seconds * after.cpus)
        if share >= OTHERS_SHARE and others >= LEAST_SECONDS:
            found.append(f"other processes took {share:.0%} of the CPU time while timing")
    waiting = _grown(before.waiting_s, after.waiting_s)
    if waiting is not None and waiting >= max(LEAST_SECONDS, WAITING_SHARE * seconds):
        found.append(f"the process that timed waited for a CPU for {waiting / seconds:.0%} of the time")
    steal = _grown(before.steal_s, after.steal_s)
    if steal is not None and steal >= max(LEAST_SECONDS, STEAL_SHARE * seconds):
        found.append(f"the hypervisor took {steal:.1f} CPU seconds away in {seconds:.1f} s")
    switches = _grown(before.involuntary_switches, after.involuntary_switches)
    if switches is not None and switches / seconds >= SWITCHES_PER_S:
        found.append(f"the process that timed was interrupted {switches / seconds:.0f} times a second")

    if before.governors != after.governors:
        found.append(
            f"the frequency governor changed from {_names(before.governors)} to {_names(after.governors)} while timing"
        )
    for what, old, new in (
        ("the fastest CPU went", before.mhz, after.mhz),
        ("the highest permitted frequency went", before.max_mhz, after.max_mhz),
    ):
        if old and new and max(new) <= (1 - FREQUENCY_LOSS) * max(old):
            found.append(f"{what} from {max(old):.0f} to {max(new):.0f} MHz while timing")
    events = _grown(before.throttle_events, after.throttle_events)
    if events:
        found.append(f"CPUs were slowed down for their heat {events:.0f} times while timing")
    limited = _grown(before.limited_count, after.limited_count)
    if limited:
        lost = _grown(before.limited_s, after.limited_s) or 0.0
        found.append(f"the container's CPU limit stopped the process {limited:.0f} times, for {lost:.2f} s, in timing")
    return found + _of_jetson(before, after)


def _of_jetson(before: Condition, after: Condition) -> list[str]:
    """An idle GPU slows down by itself, unless its clock is held: only then a lower frequency means that it had to."""
    found = []
    if before.power_mode != after.power_mode:
        found.append(f"the power mode changed from {before.power_mode} to {after.power_mode} while timing")
    if before.clocks_locked != after.clocks_locked:
        found.append(f"the GPU's clock was {'released' if before.clocks_locked else 'locked'} while timing")
    elif before.clocks_locked and _slower(before.gpu_mhz, after.gpu_mhz):
        found.append(f"the GPU went from {before.gpu_mhz:.0f} to {after.gpu_mhz:.0f} MHz while timing")
    events = _grown(before.over_current_events, after.over_current_events)
    if events:
        found.append(f"the board slowed down {events:.0f} times while timing, because its supply was overloaded")
    return found


def _slower(before_mhz: float | None, after_mhz: float | None) -> bool:
    return before_mhz is not None and after_mhz is not None and after_mhz <= (1 - FREQUENCY_LOSS) * before_mhz


def _grown(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _names(governors: Sequence[str] | None) -> str:
    return "/".join(sorted(set(governors or ["unknown"])))


def _mhz(cpus: Sequence[Path], which: str) -> list[float] | None:
    texts = (text(cpu / f"cpufreq/scaling_{which}_freq") for cpu in cpus)
    return [int(khz) / 1000 for khz in texts if khz and khz.isdigit()] or None


def _cpu_time(root: Path) -> tuple[float | None, float | None, int | None]:
    """Busy and stolen CPU seconds of the machine, and the number of its CPUs, from /proc/stat.

    Its columns are user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice; guests are in user.
    """
    lines = (text(root / "proc/stat") or "").splitlines()
    if not lines:
        return None, None, None
    ticks = [int(word) for word in lines[0].split()[1:]]
    per_s = os.sysconf("SC_CLK_TCK")
    count = sum(line.startswith("cpu") for line in lines) - 1
    steal_s = ticks[7] / per_s if len(ticks) > 7 else None
    return sum(ticks[:3] + ticks[5:7]) / per_s, steal_s, count


def _waiting_s(root: Path) -> float | None:
    """The second number of schedstat is the time on a run queue, in ns; one file per thread."""
    found = [text(folder / "schedstat") for folder in (root / "proc/self/task").glob("*")]
    waits = [int(numbers.split()[1]) for numbers in found if numbers]
    return sum(waits) / 1e9 if waits else None


def _involuntary_switches() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _pressure_s(root: Path) -> float | None:
    for line in (text(root / "proc/pressure/cpu") or "").splitlines():
        kind, *fields = line.split()
        if kind == "some":
            return int(dict(field.split("=") for field in fields)["total"]) / 1e6
    return None


def _throttle_events(cpus: Sequence[Path]) -> int | None:
    counts = [text(cpu / f"thermal_throttle/{kind}_throttle_count") for cpu in cpus for kind in ("core", "package")]
    known = [int(count) for count in counts if count]
    return sum(known) if known else None


def _children_s() -> float:
    spent = os.times()
    return spent.children_user + spent.children_system


def _over_current_events(root: Path) -> int | None:
    """Source: *Jetson Linux Developer Guide*, over-current throttling: ``hwmon*/oc*_event_cnt``."""
    counts = [text(file) for file in (root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")]
    known = [int(count) for count in counts if count and count.isdigit()]
    return sum(known) if known else None


def _temperatures_c(root: Path) -> dict[str, float]:
    """Sensors give thousandths of a degree; some can be listed but not read."""
    sensors = {
        f"{zone.name} {text(zone / 'type') or ''}".strip(): zone / "temp"
        for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    }
    for sensor in sorted((root / "sys/class/hwmon").glob("hwmon*/temp*_input")):
        chip, number = text(sensor.parent / "name") or sensor.parent.name, sensor.name.removesuffix("_input")
        label = text(sensor.with_name(f"{number}_label")) or number
        sensors[f"{sensor.parent.name} {chip} {label}"] = sensor
    values = {name: text(sensor) for name, sensor in sensors.items()}
    return {name: int(value) / 1000 for name, value in values.items() if value and value.lstrip("-").isdigit()}
