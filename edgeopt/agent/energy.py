"""Energy per inference from the RAPL counters that Linux shows under /sys/class/powercap, or a Jetson's power rails.

Both cover whole packages or boards: the idle power of the machine and whatever else runs is in the number. RAPL
counters are updated about every millisecond, so that only windows of many milliseconds mean anything; power rails are
read ten times a second, so that their windows are longer.
Source: https://docs.kernel.org/power/powercap/powercap.html; for the rails see :mod:`edgeopt.agent.jetson`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from . import AgentError, jetson
from .blocks import Timed
from .runtimes import Model

#: the shortest window for which power rails mean anything
_RAIL_SECONDS = 1.0


class NoCounters(AgentError):
    """Energy cannot be measured here; the message says why."""


class Counter(Protocol):
    """Something that counts energy up to ``range_uj``, and then starts again from zero."""

    @property
    def name(self) -> str: ...
    @property
    def range_uj(self) -> int: ...
    def read_uj(self) -> int: ...


class Domain(NamedTuple):
    """One counter: its folder, its name, and the energy in µJ at which it starts again from zero."""

    folder: Path
    name: str
    range_uj: int

    def read_uj(self) -> int:
        return int((self.folder / "energy_uj").read_text())


@contextmanager
def counters(rails: Sequence[str]) -> Iterator[tuple[Sequence[Counter], float]]:
    """What counts energy on this device, and the shortest window in seconds for which it means anything.

    Args:
        rails: Of a Jetson, those that add up to its power.

    Raises:
        NoCounters: There is nothing, or the rails are not those of the board.
    """
    try:
        meter = jetson.meter(rails)
    except AgentError as error:
        raise NoCounters(str(error)) from error
    if meter is None:
        yield domains(), 0.0
    else:
        with meter:
            yield [meter], _RAIL_SECONDS


def domains(root: Path = Path("/")) -> list[Domain]:
    """The packages and their memory; cores and graphics are part of a package, the whole platform contains packages.

    Raises:
        NoCounters: There is none, or this user may not read one.
    """
    found = []
    for folder in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
        try:
            name = (folder / "name").read_text().strip()
            if name.startswith(("package", "dram")):
                domain = Domain(folder, name, int((folder / "max_energy_range_uj").read_text()))
                domain.read_uj()
                found.append(domain)
        except PermissionError as error:
            raise NoCounters(
                f"this user may not read {folder.name}/energy_uj (RAPL); Linux lets only root do so by default"
            ) from error
        except (OSError, ValueError) as error:
            raise NoCounters(f"cannot read {folder.name} (RAPL): {error}") from error
    if not found:
        raise NoCounters("this device has no RAPL energy counters in /sys/class/powercap")
    return found


def used_uj(before: int, after: int, range_uj: int) -> int:
    """The difference of two readings, between which the counter started again at most once."""
    return after - before if after >= before else after + range_uj - before


def measure_mj(
    models: Mapping[str, Model],
    batches: Sequence[Sequence[npt.NDArray[Any]]],
    counters: Sequence[Counter],
    *,
    windows: int,
    window_seconds: float,
    seed: int,
) -> dict[str, npt.NDArray[np.float64]]:
    """Runs each model back to back for one window per round, in an order shuffled anew.

    Returns:
        mJ per inference of each window, (windows,) by name.

    Raises:
        NoCounters: The counters do not move.
    """
    order = list(models)
    shuffle = random.Random(seed).shuffle
    series: dict[str, list[float]] = {name: [] for name in order}
    for index in range(windows):
        shuffle(order)
        for name in order:
            model = models[name]
            model.load(batches[index % len(batches)])
            before, after, runs = _window(model, lambda: [counter.read_uj() for counter in counters], window_seconds)
            spent_uj = sum(used_uj(b, a, c.range_uj) for b, a, c in zip(before, after, counters, strict=True))
            if not spent_uj:
                listed = ", ".join(counter.name for counter in counters)
                raise NoCounters(f"the energy counters ({listed}) did not move in {window_seconds:g} s")
            series[name].append(spent_uj / 1e3 / runs)
    return {name: np.array(values) for name, values in series.items()}


def _window(model: Model, read: Callable[[], list[int]], seconds: float) -> tuple[list[int], list[int], int]:
    """Readings before and after one window of back-to-back runs, and how many these were."""
    if isinstance(model, Timed):
        block = model.block(seconds, 1, read)
        return block.before, block.after, block.runs
    runs, end, before = 0, perf_counter() + seconds, read()
    while runs == 0 or perf_counter() < end:
        model.run()
        runs += 1
    return before, read(), runs
