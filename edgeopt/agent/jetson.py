"""A Jetson's own view of itself: ``tegrastats`` (power, memory, heat, GPU clock), ``nvpmodel`` and ``jetson_clocks``.

Sources: *Jetson Linux Developer Guide*, the pages *tegrastats Utility* and *Platform Power and Performance*; the lines
in the tests are in the formats of JetPack 4 to 7. Not run by us on a board.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from . import AgentError
from .child import Child

_INTERVAL_MS = 100
_LIMIT_S = 5.0
#: tegrastats that says nothing for so long has stopped: its last reading no longer stands
_SILENCE_S = 2.0
_LIMITS = ("min_freq", "max_freq")
#: a sensor that is switched off reads this or less
_OFF_C = -200.0

_RAM = re.compile(r"\bRAM (\d+)/(\d+)MB")
#: JetPack 7 writes no load: ``GR3D_FREQ @[1574,1574,1574]``
_GPU = re.compile(r"\bGR3D_FREQ (?:\d+%)?@\[?(\d+)")
_GPU_LOAD = re.compile(r"\bGR3D_FREQ (\d+)%")
_TEMPERATURE = re.compile(r"\b([A-Za-z][\w.-]*)@(-?\d+(?:\.\d+)?)C\b")
#: instantaneous, average, and by JetPack 7 highest; JetPack 4 writes no unit; one may read below zero by its offset
_RAIL = re.compile(
    r"\b([A-Z][A-Z0-9_]+) (-?\d+)(?:mW)?(?:/-?\d+(?:mW)?){1,2}(?=\s|$)|\b([A-Z][A-Z0-9_]+) (-?\d+)mW(?=\s|$)"
)
_MODE = re.compile(r"NV Power Mode: *(\S+)")
_CLOCK = re.compile(r"^GPU MinFreq=(\d+) MaxFreq=(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Stats:
    """One line of ``tegrastats``; what it does not hold is None or empty.

    Attributes:
        memory_used_mib, memory_mib: Of the board: the CPU and the GPU share it.
        gpu_mhz: Clock of the GPU.
        gpu_load: Share of time in which the GPU was busy.
        temperatures_c: By the sensor's name; without those that are switched off.
        rails_mw: Instantaneous power, by the rail's name.
    """

    memory_used_mib: int | None
    memory_mib: int | None
    gpu_mhz: int | None
    gpu_load: float | None
    temperatures_c: Mapping[str, float]
    rails_mw: Mapping[str, int]


def parse(line: str) -> Stats:
    """Reads a line of ``tegrastats``, of any board."""
    ram, gpu, load = _RAM.search(line), _GPU.search(line), _GPU_LOAD.search(line)
    temperatures = {name: float(value) for name, value in _TEMPERATURE.findall(line)}
    rails = {(a or b): int(x or y) for a, x, b, y in _RAIL.findall(line)}
    return Stats(
        memory_used_mib=int(ram[1]) if ram else None,
        memory_mib=int(ram[2]) if ram else None,
        gpu_mhz=int(gpu[1]) if gpu else None,
        gpu_load=int(load[1]) / 100 if load else None,
        temperatures_c={name: value for name, value in temperatures.items() if value > _OFF_C},
        rails_mw=rails,
    )


def read() -> Stats | None:
    """The board now; None where there is no ``tegrastats``, or it says nothing. Takes about 0.1 s."""
    command = _tegrastats()
    if not command:
        return None
    try:
        with Meter(command) as meter:
            return meter.latest(_LIMIT_S)
    except AgentError:
        return None


def power_mode() -> str:
    """As ``nvpmodel -q`` names it, like ``15W``; empty if it does not say."""
    found = _MODE.search(_said("nvpmodel", "-q"))
    return found[1] if found else ""


def clocks_locked(root: Path = Path("/")) -> bool | None:
    """Whether the GPU's clock is held, as ``jetson_clocks`` does it; None if not known.

    ``jetson_clocks --show`` needs root. Without it the kernel's devfreq tells the same of the GPU.
    """
    limits = _CLOCK.findall(_said("jetson_clocks", "--show"))
    if not limits:
        folders = [folder for folder in sorted((root / "sys/class/devfreq").glob("*")) if _is_gpu(folder.name)]
        with contextlib.suppress(OSError):
            limits = [tuple((folder / name).read_text().strip() for name in _LIMITS) for folder in folders]
    return all(low == high for low, high in limits) if limits else None


class Meter:
    """Adds up the power of some rails while ``tegrastats`` runs beside; a context manager, which ends it.

    It looks like a counter of :mod:`edgeopt.agent.energy`. Every reading of a rail stands until the next one, 0.1 s
    later: windows shorter than a second mean little.

    Args:
        command: Path of ``tegrastats``.
        rails: Names of those that add up to the device's power.
    """

    range_uj = 0  # it never starts again from zero

    def __init__(self, command: str, rails: Sequence[str] = ()) -> None:
        self.name = " + ".join(rails)
        self._rails = tuple(rails)
        self._changed = threading.Condition()
        self._stats: Stats | None = None
        self._used_uj = 0.0
        self._since = perf_counter()
        self._failed = ""
        self._child = Child([command, "--interval", str(_INTERVAL_MS)])
        threading.Thread(target=self._follow, daemon=True).start()

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._child.end()

    def latest(self, limit_s: float = _LIMIT_S) -> Stats:
        """The last line; waits for the first one.

        Raises:
            AgentError: ``tegrastats`` ended, or said nothing in time, or nothing any more.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stats or self._failed, limit_s)
            if self._stats is None and not self._failed:
                raise AgentError(f"tegrastats said nothing in {limit_s:g} s")
            self._note_silence(perf_counter())
            if self._stats is None or self._failed:
                raise AgentError(f"tegrastats {self._failed}")
            return self._stats

    def read_uj(self) -> int:
        """Energy since the beginning.

        Raises:
            AgentError: ``tegrastats`` ended, or was silent for so long that its readings do not add up.
        """
        self.latest()
        with self._changed:
            return round(self._used_uj + self._power_mw() * (perf_counter() - self._since) * 1e3)

    def _follow(self) -> None:
        with self._child.output as lines, contextlib.suppress(ValueError):  # closed while it was read
            for line in lines:
                stats, now = parse(line.decode(errors="replace")), perf_counter()
                with self._changed:
                    self._note_silence(now)
                    self._used_uj += self._power_mw() * (now - self._since) * 1e3
                    self._stats, self._since = stats, now
                    self._changed.notify_all()
        with self._changed:
            self._failed = self._failed or "ended"
            self._changed.notify_all()

    def _note_silence(self, now: float) -> None:
        """A gap once is a gap for good: what was used in it is not known."""
        if self._stats and not self._failed and now - self._since > _SILENCE_S:
            self._failed = f"said nothing for {now - self._since:.1f} s"

    def _power_mw(self) -> int:
        return sum(self._stats.rails_mw.get(rail, 0) for rail in self._rails) if self._stats else 0


def meter(rails: Sequence[str]) -> Meter | None:
    """A running meter of these rails; None where there is no ``tegrastats``.

    Raises:
        AgentError: No rails are named, or the board does not have them; it says which ones there are.
    """
    command = _tegrastats()
    if not command:
        return None
    with Meter(command) as trial:
        known = trial.latest().rails_mw
    listed = ", ".join(known) or "none"
    if not rails:
        raise AgentError(
            f"the target names no power rails: give those that add up in device.rails; there are: {listed}"
        )
    missing = [rail for rail in rails if rail not in known]
    if missing:
        raise AgentError(f"this board has no power rail {', '.join(missing)} (device.rails); there are: {listed}")
    return Meter(command, rails)


def _tegrastats() -> str | None:
    return shutil.which("tegrastats")


def _is_gpu(name: str) -> bool:
    """As the GPU is called below /sys/class/devfreq: ``17000000.gpu``, ``17000000.gv11b``, ``gpu-gpc-0`` …"""
    return "gpu" in name or name.endswith((".gv11b", ".gp10b", ".ga10b"))


def _said(command: str, *arguments: str) -> str:
    """What a command prints; empty if it is not there, fails, or hangs."""
    path = shutil.which(command)
    if not path:
        return ""
    try:
        status, said = Child([path, *arguments]).said(_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said if status == 0 else ""
