"""What a verdict costs: wall seconds until two models are told apart, by how far they truly lie apart.

Default seconds of a target (2 to 10 per model), sessions as in `edgeopt bench`: starting agents, opening, warming up
and the copy that shows the noise are included; memory, energy and the reports are not.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.commands import say
from benchmarks.frame import Claim, Options, Result, Row, main
from benchmarks.slowed import INPUTS, calibrated, sessions
from edgeopt.access import local
from edgeopt.sessions import Schedule, sample

_RATIOS = (1.02, 1.05, 1.1, 1.2, 1.5)
_SCHEDULE = Schedule.of(2.0, 10.0)


def cost(options: Options) -> Result:
    """Nine comparisons of each difference; quick: 2."""
    rows: list[Row] = []
    with TemporaryDirectory(prefix="edgeopt-cost-") as folder:
        base, slower = calibrated(Path(folder), _RATIOS, say)
        for ratio in _RATIOS:
            seconds, counts, outcomes, found = [], [], [], []
            for number in range(2 if options.quick else 9):
                say(f"verdict_cost: {ratio - 1:.0%} slower, comparison {number + 1}")
                timed = sessions({"base": base, "slower": slower[ratio]}, _SCHEDULE)
                began = time.monotonic()
                sample(
                    local.start,
                    timed,
                    INPUTS,
                    seed=100 * number,
                    decided=lambda timed=timed: timed.outcome(timed.ratio("slower", "base")) != "undecided",  # type: ignore[misc]
                )
                seconds.append(time.monotonic() - began)
                counts.append(len(timed.done))
                outcomes.append(timed.outcome(timed.ratio("slower", "base")))
                found.append(float(timed.ratio("slower", "base").value or np.nan))
            rows.append(
                {
                    "wanted": ratio,
                    "measured": float(np.median(found)),
                    "comparisons": len(seconds),
                    "seconds_median": float(np.median(seconds)),
                    "seconds_max": max(seconds),
                    "sessions_median": float(np.median(counts)),
                    "slower": outcomes.count("slower"),
                    "same": outcomes.count("same"),
                    "undecided": outcomes.count("undecided"),
                    "faster": outcomes.count("faster"),
                }
            )
    clear = [row for row in rows if float(row["wanted"] or 0) >= 1.1]
    claims = [
        Claim(
            "seconds until a difference of 10 % or more is decided, the slowest comparison",
            max(float(row["seconds_max"] or np.inf) for row in clear),
            20.0,
        ),
        Claim(
            "differences of 10 % or more that were decided right, percent",
            100 * sum(int(row["slower"] or 0) for row in clear) / sum(int(row["comparisons"] or 0) for row in clear),
            100.0,
            "at least",
        ),
    ]
    return Result(claims, rows)


if __name__ == "__main__":
    main("verdict_cost", __doc__ or "", cost)
