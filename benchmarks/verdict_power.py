"""How often a comparison is right: equal models called different, and a true slow-down of 5 % found.

Groups of models are timed in sessions, as `edgeopt bench` does: fourteen copies of one network make seven pairs that
are equal, five copies of an edition that is 5 % slower make five pairs that are not. Every pair is judged at the looks
of its schedule, and the first decision counts. A session gives each model 0.125 s, less than the 0.5 s of a target's
default, and there are at most 10 sessions instead of 20, so that the figures are on the pessimistic side.

The same rounds are judged the way other tools do: the means of 20 runs after 10 warm-ups, and the means of all rounds
of a group, up to 3 s. Such tools name no threshold: a difference is called where the means differ by more than 2.5 %,
halfway between no difference and 5 %, which suits them best. Unlike theirs, these rounds are interleaved and, for the
second, spread over several openings, which flatters them too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.commands import say
from benchmarks.frame import Claim, Options, Result, Row, main
from benchmarks.slowed import INPUTS, calibrated, sessions
from edgeopt.access import local
from edgeopt.session import Nanoseconds
from edgeopt.sessions import Outcome, Schedule, Sessions
from edgeopt.statistics import proportion_interval

_TRUE = 1.05
_SCHEDULE = Schedule.of(0.5, 1.25)
_HALFWAY = 0.025
_EQUAL = (("a1", "a1 (again)"), *((f"a{i}", f"a{i + 1}") for i in range(2, 14, 2)))
_SLOWER = tuple((f"s{i}", f"a{2 * i}") for i in range(1, 6))
_OURS, _FEW, _MEAN = "edgeopt", "10 warm-ups + 20 runs, mean", "mean of up to 3 s"


def power(options: Options) -> Result:
    """29 groups make 203 pairs of equal models; quick: 2."""
    found: dict[tuple[str, str], Counter[str]] = {}
    ratios: list[float] = []
    with TemporaryDirectory(prefix="edgeopt-power-") as folder:
        base, slower = calibrated(Path(folder), [_TRUE], say)
        files = {f"a{i}": base for i in range(1, 14)} | {f"s{i}": slower[_TRUE] for i in range(1, 6)}
        groups = 2 if options.quick else 29
        for number in range(groups):
            say(f"verdict_power: group {number + 1} of {groups}")
            timed = sessions(files, _SCHEDULE)
            for method, truth, outcome in _judged(timed, 1000 * number):
                found.setdefault((method, truth), Counter())[outcome] += 1
            ratios += [float(timed.ratio(*pair).value or np.nan) for pair in _SLOWER]
    rows: list[Row] = [_row(method, truth, counts) for (method, truth), counts in found.items()]
    wrong = 100 * _share(found[_OURS, "equal"], "faster", "slower")
    right = 100 * _share(found[_OURS, "5 % slower"], "slower")
    rows.append({"method": "the slower edition takes", "ratio": float(np.median(ratios))})
    claims = [
        Claim("equal models called different, percent of pairs", wrong, 1.0),
        Claim("a true slow-down of 5 % found, percent of pairs", right, 95.0, "at least"),
    ]
    return Result(claims, rows)


def _judged(timed: Sessions, seed: int) -> Iterator[tuple[str, str, Outcome]]:
    """Times one group until every pair is decided, or to the last look; (method, truth, outcome) of every pair."""
    pairs = dict.fromkeys(_EQUAL, "equal") | dict.fromkeys(_SLOWER, "5 % slower")
    decided: dict[tuple[str, str], Outcome] = {}
    for count in timed.schedule.looks:
        while len(timed.done) < count:
            with local.start() as agent:
                timed.add(agent, INPUTS, seed + len(timed.done))
        for pair in pairs.keys() - decided.keys():
            if (outcome := timed.outcome(timed.ratio(*pair))) != "undecided":
                decided[pair] = outcome
        if decided.keys() == pairs.keys():
            break
    few = timed.done[0].pace_ns
    for (first, second), truth in pairs.items():
        yield _OURS, truth, decided.get((first, second), "undecided")
        yield _FEW, truth, _by_means(few[first][10:30], few[second][10:30])
        yield _MEAN, truth, _by_means(_up_to_3_s(timed.pace_ns(first)), _up_to_3_s(timed.pace_ns(second)))


def _up_to_3_s(series_ns: Nanoseconds) -> Nanoseconds:
    return series_ns[: int(np.searchsorted(np.cumsum(series_ns), 3e9)) + 1]


def _by_means(first: Nanoseconds, second: Nanoseconds) -> Outcome:
    ratio = float(first.mean() / second.mean())
    return "slower" if ratio > 1 + _HALFWAY else "faster" if ratio < 1 / (1 + _HALFWAY) else "same"


def _share(counts: Counter[str], *outcomes: str) -> float:
    return sum(counts[outcome] for outcome in outcomes) / counts.total()


def _row(method: str, truth: str, counts: Counter[str]) -> Row:
    called = "slower", "faster"
    wrong = called if truth == "equal" else ("faster", "same")
    total = counts.total()
    low, high = proportion_interval(sum(counts[outcome] for outcome in wrong), total).interval
    return {
        "method": method,
        "truth": truth,
        "pairs": total,
        **{outcome: counts[outcome] for outcome in (*called, "same", "undecided")},
        "wrong_percent": 100 * _share(counts, *wrong),
        "wrong_low": None if low is None else 100 * low,
        "wrong_high": None if high is None else 100 * high,
    }


if __name__ == "__main__":
    main("verdict_power", __doc__ or "", power)
