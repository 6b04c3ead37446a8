"""Commands, and the CPU and wall time that they use.

Times are those of whole commands, children included: a tool that hands its work to another process still spends it.
Linux only, for the times are read from ``/proc`` while a command runs.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.frame import ROOT

#: The console script of the environment that runs the benchmark.
EDGEOPT = str(Path(sys.executable).with_name("edgeopt"))
#: Same for every command: one thread, nothing spins, no live display, and Python keeps what it compiled, as it does for
#: users, wherever the benchmark itself was told not to.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "0",
    "ORT_DISABLE_TELEMETRY": "1",
    "PYTHONDONTWRITEBYTECODE": "",
    "TERM": "dumb",
    "COLUMNS": "80",
}
#: Exit codes of `edgeopt compile` that a finished run has, whatever its gates say.
FINISHED = (0, 1, 4)
_TICKS = os.sysconf("SC_CLK_TCK")

T = TypeVar("T")


@dataclass(frozen=True)
class Mark:
    """A line that a command wrote to stderr, and the seconds it had used when it did."""

    line: str
    cpu_s: float
    wall_s: float


@dataclass(frozen=True)
class Spent:
    """What a command used, with its children: CPU seconds (user and system) and wall seconds."""

    cpu_s: float
    wall_s: float
    marks: tuple[Mark, ...] = ()

    def of(self, prefix: str) -> Spent:
        """The part between ``STEP: started`` and ``STEP: done`` of the steps that begin with ``prefix``."""
        cpu_s = wall_s = 0.0
        open_: dict[str, Mark] = {}
        for mark in self.marks:
            step, _, rest = mark.line.partition(": ")
            if rest.startswith("started") and step.startswith(prefix):
                open_[step] = mark
            elif rest.startswith("done") and step in open_:
                cpu_s += mark.cpu_s - open_[step].cpu_s
                wall_s += mark.wall_s - open_.pop(step).wall_s
        return Spent(cpu_s, wall_s)

    def without(self, prefix: str) -> Spent:
        """All but that part."""
        part = self.of(prefix)
        return Spent(self.cpu_s - part.cpu_s, self.wall_s - part.wall_s)


def compile_command(recipe: Path, folder: Path, *more: str) -> list[str]:
    """`edgeopt compile` with its results and its store inside ``folder``."""
    return [EDGEOPT, "compile", str(recipe), "--out", f"{folder}/out", "--cache", f"{folder}/cache", *more]


def record(folder: Path) -> dict[str, Any]:
    """The ``run.json`` of the last :func:`compile_command` in ``folder``."""
    content: dict[str, Any] = json.loads((folder / "out" / "run.json").read_bytes())
    return content


def spend(command: Sequence[str], *, cwd: Path = ROOT, allowed: Sequence[int] = (0,)) -> Spent:
    """Run a command to its end, and say what it used.

    Raises:
        SystemExit: It ended with an exit code that is not among ``allowed``.
    """
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    marks: list[Mark] = []
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            marks.append(Mark(line.rstrip(), _cpu_so_far(process.pid), time.monotonic() - began))
    _, status, usage = os.wait4(process.pid, 0)  # its own time and that of the children that it waited for
    wall_s = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in allowed:
        tail = "\n".join(mark.line for mark in marks[-20:])
        raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}\n{tail}")
    return Spent(usage.ru_utime + usage.ru_stime, wall_s, tuple(marks))


def _cpu_so_far(pid: int) -> float:
    """CPU seconds of a running process and of the children that it waited for (``proc(5)``, fields 14 to 17)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def interleave(things: Mapping[str, Callable[[], T]], rounds: int, seed: int = 0) -> dict[str, list[T]]:
    """Do each thing once per round, in an order shuffled anew, so that drifts of the machine hit all alike."""
    shuffle = random.Random(seed).shuffle
    order = list(things)
    results: dict[str, list[T]] = {name: [] for name in order}
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            results[name].append(things[name]())
    return results


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)
