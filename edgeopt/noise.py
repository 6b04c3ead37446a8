"""The noise floor: how far two copies of one model lie apart from session to session, as earlier runs saw it here.

One small file per machine and protocol. It says what is normal on this machine: a run that is far noisier was
disturbed, and a difference that is smaller than the floor is not called one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: a difference of two paces below this is not called one, however many samples show it and however quiet the machine is
SMALLEST_EFFECT = 0.01
#: runs that are remembered; the latest ones
_REMEMBERED = 50
#: fewer say nothing about what is normal
_FEWEST = 3
#: copies of one model that lie further apart are no noise floor of a machine that can be measured on
_TOO_FAR = 0.1


@dataclass(frozen=True)
class NoiseFloor:
    """What earlier runs saw.

    Attributes:
        file: Where it is kept; need not exist.
        spreads: Standard deviation, between sessions, of the logarithm of the ratio of two copies; one per run.
    """

    file: Path
    spreads: tuple[float, ...]

    @property
    def typical(self) -> float | None:
        """The median of the spreads; None after fewer than three runs."""
        known = sorted(self.spreads)
        return known[len(known) // 2] if len(known) >= _FEWEST else None

    def remember(self, spread: float) -> None:
        """Add that of one more run, unless it is too far to be a floor.

        A folder that cannot be written is no reason to fail: then nothing is kept.
        """
        if not _is_spread(spread):
            return
        spreads = [*self.spreads, spread][-_REMEMBERED:]
        with suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.file.parent, prefix=f".{self.file.stem}.")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"spreads": spreads}, file)
            Path(name).replace(self.file)


def read(folder: Path, machine: str, protocol: str) -> NoiseFloor:
    """The floor of a machine and the digest of a protocol; empty if there is none yet, or its file is damaged.

    A file that holds a number which no run can have remembered is damaged as a whole.
    """
    file = folder / f"{hashlib.sha256(f'{machine}|{protocol}'.encode()).hexdigest()[:32]}.json"
    try:
        spreads = tuple(float(value) for value in json.loads(file.read_bytes())["spreads"])
    except (OSError, ValueError, OverflowError, KeyError, TypeError):
        spreads = ()
    return NoiseFloor(file, spreads if all(map(_is_spread, spreads)) else ())


def _is_spread(value: float) -> bool:
    return math.isfinite(value) and 0 <= value < _TOO_FAR
