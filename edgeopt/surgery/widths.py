"""How many channels each group keeps, so that the network meets a target number of MACs.

Every layer keeps some share of its importance. The search makes the harmonic mean of the shares as large as it can,
under the target: no scale of a layer's weights can bias it, and gutting one layer costs more than trimming several. It
takes the cheapest loss per MAC first, in steps of the channel multiple, and lands near the target by swaps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeopt.surgery.coupling import Group

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: A group keeps at least this share of its channels: below, a layer becomes a bottleneck that fine-tuning cannot mend.
SMALLEST_SHARE = 0.125
#: Bound of time alone: each swap is an improvement, and the first few bring nearly all of it.
_MOST_SWAPS = 40
#: Up to so many combinations of widths are all looked at where the search does not get near the target.
_MOST_STATES = 200_000


@dataclass(frozen=True)
class MacCount:
    """MACs of one sample as a function of the units that each group keeps.

    A layer costs ``scale * outputs * inputs``, where both sides are linear in the kept units, and ``scale`` holds the
    kernel, the positions and the division by ``groups``. For a depthwise layer ``inputs`` is 1.

    Attributes:
        scale: (layers,).
        fixed: (2, layers): channels of either side that no group holds.
        per_unit: (2, layers, groups): channels of either side in one unit.
    """

    scale: Floats
    fixed: Floats
    per_unit: Floats

    @classmethod
    def of(
        cls,
        layers: Mapping[str, tuple[int, int, int]],
        depthwise: frozenset[str],
        groups: Sequence[Group],
    ) -> MacCount:
        """Count for a network.

        Args:
            layers: MACs, output channels and input channels of each layer, uncut.
            depthwise: Names of the layers in which each channel has its own filter.
            groups: The groups that may be cut.
        """
        names = list(layers)
        per_unit = np.zeros((2, len(names), len(groups)))
        for row, name in enumerate(names):
            for column, group in enumerate(groups):
                per_unit[0, row, column] = group.count(name, "out")
                per_unit[1, row, column] = 0 if name in depthwise else group.count(name, "in")
        total = np.array([[out, 1 if name in depthwise else into] for name, (_, out, into) in layers.items()], float).T
        scale = np.array([macs for macs, _, _ in layers.values()], float) / total.prod(axis=0)
        units = np.array([len(group.units) for group in groups], float)
        return cls(scale, total - per_unit @ units, per_unit)

    def __call__(self, kept: npt.ArrayLike) -> Floats:
        """MACs for kept units (..., groups)."""
        outputs, inputs = (np.asarray(kept, float) @ self.per_unit[side].T + self.fixed[side] for side in range(2))
        total: Floats = (outputs * inputs) @ self.scale
        return total


def worth(group: Group, importance: Floats, kept: Ints) -> Floats:
    """What it is worth to keep the ``kept`` most important units: minus one over their share, once for each layer.

    The larger the sum of this over all groups, the larger the harmonic mean of the shares over all layers.

    Args:
        group: The units belong to it.
        importance: (units,), not negative and not all zero.
        kept: Numbers of units.
    """
    best_first = np.cumsum(np.sort(importance)[::-1])
    share = best_first[kept - 1] / best_first[-1]
    value: Floats = -len(group.layers) / np.maximum(share, 1e-12)
    return value


def levels(group: Group, multiple: int, *, whole: bool) -> Ints:
    """Numbers of units that ``group`` may keep, ascending: multiples of ``multiple`` channels, and at least an eighth.

    Args:
        group: To be cut.
        multiple: Of channels.
        whole: Whether all units may stay although they make no multiple. They always may where no multiple is allowed.
    """
    step = math.lcm(multiple, group.width) // group.width
    total = len(group.units)
    smallest = math.ceil(total * SMALLEST_SHARE)
    allowed = [count for count in range(step, total + 1, step) if count >= smallest]
    if not allowed or (whole and allowed[-1] != total):
        allowed.append(total)
    return np.array(allowed, dtype=np.int64)


def search(count: MacCount, allowed: Sequence[Ints], values: Sequence[Floats], target: float, tolerance: float) -> Ints:
    """Choose how many units each group keeps.

    Args:
        count: MACs of a choice.
        allowed: Per group the numbers of units that it may keep, ascending.
        values: Per group what each of these is worth; the sum is made as large as it can be.
        target: MACs to reach.
        tolerance: Relative distance from the target that is near enough.

    Returns:
        (groups,) units kept: at most ``tolerance`` below ``target``; else as much above it; else the nearest below that
        the search finds; else the smallest choice, which is then still above.
    """
    grid = _Grid(count, allowed, values)
    low = target * (1 - tolerance)
    for high in (target, target * (1 + tolerance)):
        state = grid.improve(grid.descend(low, high), low, high)
        if low <= grid.macs(state) <= high:
            return grid.units(state)
    return grid.units(grid.nearest(low, target * (1 + tolerance)))


class _Grid:
    """States are (groups,) positions in the lists of allowed numbers."""

    def __init__(self, count: MacCount, allowed: Sequence[Ints], values: Sequence[Floats]) -> None:
        self._count = count
        self.top = np.array([len(numbers) - 1 for numbers in allowed], dtype=np.int64)
        longest = int(self.top.max(initial=0)) + 1
        self._units = np.array([np.pad(numbers, (0, longest - len(numbers)), "edge") for numbers in allowed])
        self._values = np.array([np.pad(value, (0, longest - len(value)), "edge") for value in values])
        self._columns = np.arange(len(allowed))

    def units(self, states: Ints) -> Ints:
        chosen: Ints = self._units[self._columns, states]
        return chosen

    def macs(self, states: Ints) -> Floats:
        return self._count(self.units(states))

    def value(self, states: Ints) -> Floats:
        total: Floats = self._values[self._columns, states].sum(axis=-1)
        return total

    def neighbours(self, state: Ints, step: int) -> Ints:
        """All states that differ by ``step`` in one group."""
        states: Ints = state + step * np.eye(len(state), dtype=np.int64)
        return states[((states >= 0) & (states <= self.top)).all(axis=1)]

    def descend(self, low: float, high: float) -> Ints:
        """From all channels, the cheapest loss per MAC first, until at most ``high``; never below ``low``."""
        state = self.top
        while self.macs(state) > high:
            steps = self.neighbours(state, -1)
            steps = steps[self.macs(steps) >= low]
            if not len(steps):
                break
            saved = self.macs(state) - self.macs(steps)
            lost = self.value(state) - self.value(steps)
            state = steps[int(np.argmin(lost / np.maximum(saved, 1e-9)))]
        return state

    def improve(self, state: Ints, low: float, high: float) -> Ints:
        """Step or swap while that comes nearer to ``low..high`` or, inside it, keeps more importance."""
        for _ in range(_MOST_SWAPS):
            states = self.around(state)
            outside, value = self.outside(self.macs(states), low, high), self.value(states)
            best = int(np.lexsort((-value, outside))[0])
            if (outside[best], -value[best]) >= (outside[-1], -value[-1] - 1e-9):
                break
            state = states[best]
        return state

    def nearest(self, low: float, high: float) -> Ints:
        """The state with the most MACs up to ``high``: the best of all where they can be counted, else a local one."""
        sizes = self.top + 1
        if float(np.prod(sizes, dtype=float)) <= _MOST_STATES:
            states = np.stack([axis.ravel() for axis in np.indices(tuple(map(int, sizes)))], axis=1)
            macs = self.macs(states)
            inside = np.clip(macs, None, low)  # inside the tolerance, importance decides
            order = np.lexsort((-self.value(states), -inside, macs > high))
            best: Ints = states[int(order[0])]
            return best if macs[order[0]] <= high else states[int(np.argmin(macs))]
        state = np.zeros_like(self.top)
        while True:
            states = self.around(state)
            macs = self.macs(states)
            macs[macs > high] = -1
            best_step = int(np.argmax(macs))
            if macs[best_step] <= macs[-1] or macs[-1] < 0:
                return state
            state = states[best_step]

    def around(self, state: Ints) -> Ints:
        """All states one step, or one step up and one down, away; last the state itself."""
        ups, downs = self.neighbours(state, 1), self.neighbours(state, -1)
        pairs = (ups[:, None] + downs[None] - state).reshape(-1, len(state))
        return np.concatenate([ups, downs, pairs, state[None]])

    @staticmethod
    def outside(macs: Floats, low: float, high: float) -> Floats:
        """Distance from ``low..high``."""
        return np.maximum(np.maximum(low - macs, macs - high), 0)
