"""What the control groups of this process allow it, and how often they stopped it. Linux only; versions 1 and 2.

Sources: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max, cpu.stat, memory.max) and
https://docs.kernel.org/scheduler/sched-bwc.html (the same of version 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

#: version 1 writes "no limit" as the largest multiple of a page
_NO_LIMIT = 2**60


class Throttled(NamedTuple):
    """How often, and for how many seconds in all, the groups of this process ran into their CPU limit."""

    times: int
    seconds: float


def cpu_limit(root: Path = Path("/")) -> float | None:
    """CPUs that this process may use on average, the strictest of its groups; None without a limit."""
    limits = []
    for folder in _folders("cpu", root):
        words = _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        if len(words) == 2 and words[0].isdigit():  # otherwise "max", or -1
            limits.append(int(words[0]) / int(words[1]))
    return min(limits, default=None)


def memory_limit_mib(root: Path = Path("/")) -> float | None:
    """Memory that this process may use, the strictest of its groups; None without a limit."""
    texts = [
        "".join(_words(folder / name))
        for folder in _folders("memory", root)
        for name in ("memory.max", "memory.limit_in_bytes")
    ]
    return min((int(text) / 2**20 for text in texts if text.isdigit() and int(text) < _NO_LIMIT), default=None)


def throttled(root: Path = Path("/")) -> Throttled | None:
    """Since the groups exist; None if that is not readable."""
    found = None
    for folder in _folders("cpu", root):
        words = _words(folder / "cpu.stat")
        stat = dict(zip(words[::2], words[1::2], strict=False))
        if "nr_throttled" in stat:
            ns = int(stat.get("throttled_usec", "0")) * 1000 or int(stat.get("throttled_time", "0"))
            before = found or Throttled(0, 0.0)
            found = Throttled(before.times + int(stat["nr_throttled"]), before.seconds + ns / 1e9)
    return found


def _folders(controller: str, root: Path) -> Iterator[Path]:
    """The groups of this process, from its own up to the topmost that is mounted.

    A container may see a path that its mount does not have; what is there is then the container's own.
    """
    mounted = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        tops = [mounted / controllers, mounted / controller] if controllers else [mounted / "unified", mounted]
        top = next((folder for folder in tops if folder.is_dir()), None)
        if top:
            inside = PurePosixPath(path.lstrip("/"))
            yield from (folder for one in (inside, *inside.parents) if (folder := top / one).is_dir())


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
