"""How often a nominal 95 % interval holds the true value, by simulation.

Latencies: as they ship, over 6, 10 or 20 sessions of 300 rounds whose openings are off by 0.5 %. They are independent
and heavy-tailed (lognormal, Pareto), bimodal (independent, and in dwells as of a clock rate), and drifting (a lognormal
level that is forgotten after 1/300 of the series, or after 1/60: slowly). The column `independent` is the plain
order-statistic interval of all rounds; `passes wrongly` is how often the whole interval lies below the truth, so that a
gate at the truth would pass: 2.5 % if both sides miss alike. Ratios: two models in sessions; there `independent` is the
bootstrap within one session. Metrics: samples drawn anew from a population. A coverage counted in n simulations has a
standard error of sqrt(0.95 × 0.05 / n): 0.5 % for 2000. The lowest and the highest of many rows are extremes of that
noise; so a latency whose coverage comes near an edge of what is claimed is simulated anew, five times as often, and
what that finds is its row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from benchmarks import verification
from benchmarks.commands import say
from benchmarks.frame import Claim, Options, Result, Row, main
from edgeopt import statistics
from edgeopt.statistics import Interval

Array = npt.NDArray[np.float64]
Generate = Callable[[np.random.Generator, int], Array]

_SESSIONS = (6, 10, 20)
_ROUNDS = 300
_OPENING = 0.005
_QUANTILES = (0.5, 0.9, 0.99)
#: a coverage in percent that is not within these is near an edge, and that many times the simulations tell it better
_CLEAR = (93.75, 96.25)
_AGAIN = 5
_RARE = ("drop of far@threshold=0.78", "drop of far@threshold=0.82")
#: samples that fix the true quantile of a kind to a small part of an interval's width
_POPULATION = 8_000_000


def coverage(options: Options) -> Result:
    """2000 simulations of every row, and 10 000 where that comes near an edge; quick: a tenth."""
    count = 200 if options.quick else 2000
    rows = [*_latencies(count), *_ratios(count), *_metrics(count), *_verification(count)]
    wrong = [float(row["passes_wrongly_percent"]) for row in rows if row["passes_wrongly_percent"] is not None]
    claims = []
    for what, some in (
        ("a 95 % interval", [row for row in rows if not _is_rare(row)]),
        ("one of a FAR's drop to or from very few accepts", [row for row in rows if _is_rare(row)]),
    ):
        held = [float(row["coverage_percent"] or 0) for row in some]
        claims += [
            Claim(f"lowest coverage of {what}, percent", min(held), 93.0, "at least"),
            Claim(f"highest coverage of {what}, percent", max(held), 97.0),
        ]
    claims.append(Claim("a latency's interval wholly below the truth, at most, percent", max(wrong), 5.0))
    return Result(claims, rows)


def _latencies(count: int) -> Iterator[Row]:
    random = np.random.default_rng(0)
    for name, generate in _KINDS.items():
        truths = np.quantile(np.concatenate([*_sessions(random, generate, _POPULATION // _ROUNDS)]), _QUANTILES)
        for number in _SESSIONS:
            say(f"coverage: {name}, {number} sessions")
            wanted, rows = dict(zip(_QUANTILES, truths, strict=True)), {}
            for draws in (count, _AGAIN * count):
                rows |= _simulated(random, name, number, wanted, draws)
                near = (q for q in wanted if not _CLEAR[0] <= float(rows[q]["coverage_percent"] or 0) <= _CLEAR[1])
                wanted = {q: wanted[q] for q in near}
            yield from rows.values()


def _simulated(
    random: np.random.Generator, kind: str, number: int, truths: Mapping[float, float], count: int
) -> dict[float, Row]:
    """Rows by quantile."""
    found: dict[float, list[tuple[bool, bool, bool]]] = {q: [] for q in truths}
    for _ in range(count if truths else 0):
        sessions = _sessions(random, _KINDS[kind], number)
        everything = sessions.ravel()
        for q, truth in truths.items():
            interval = statistics.session_percentile_interval(list(sessions), q).interval
            plain = statistics.percentile_interval(everything, q).interval
            below = interval[1] is not None and interval[1] < truth
            found[q].append((_holds(interval, truth), _holds(plain, truth), below))
    return {
        q: _row(f"p{100 * q:g} of {number} sessions", kind, count, *map(sum, zip(*hits, strict=True)))
        for q, hits in found.items()
    }


def _sessions(random: np.random.Generator, generate: Generate, number: int) -> Array:
    """(number, rounds): one series, and openings on top."""
    openings = np.exp(_OPENING * random.normal(size=(number, 1)))
    return openings * _series(random, generate, number).reshape(number, _ROUNDS)


def _series(random: np.random.Generator, generate: Generate, number: int) -> Array:
    """(number × rounds,); of very many, in parts, since what drifts remembers a share of the series."""
    part = max(_SESSIONS)
    if number <= part:
        return generate(random, number * _ROUNDS)
    return np.concatenate([generate(random, part * _ROUNDS) for _ in range(math.ceil(number / part))])[
        : number * _ROUNDS
    ]


def _ratios(count: int) -> Iterator[Row]:
    """Six sessions of 300 rounds; the true ratio is 1.05, and an opening is off by 0.5 %."""
    random = np.random.default_rng(1)
    for name, generate in _KINDS.items():
        held = plain = 0
        for _ in range(count):
            sessions = []
            for _ in range(6):
                common = generate(random, _ROUNDS)
                first, second = (
                    common * np.exp(random.normal(0, 0.02, _ROUNDS) + random.normal(0, _OPENING)) for _ in "ab"
                )
                sessions.append((1.05 * first, second))
            logs = [statistics.paired_log_ratio(*session) for session in sessions]
            held += _holds(statistics.session_ratio(logs).interval, 1.05)
            plain += _holds(statistics.ratio_interval(*sessions[0], resamples=200).interval, 1.05)
        yield _row("ratio over sessions", name, count, held, plain)


def _metrics(count: int) -> Iterator[Row]:
    """500 samples of a population, on which one model is right for 90 %, the other for 89 %, often on the same."""
    random = np.random.default_rng(2)
    population = random.random((2, 200_000))
    before, after = population[0] < 0.9, np.where(population[1] < 0.9, population[0] < 0.9, population[1] < 0.98)
    truth, lost = float(after.mean()), float(before.mean() - after.mean())
    held = dict.fromkeys(("top1, exact", "top1, Wilson", "drop of top1"), 0)
    for _ in range(count):
        rows = random.integers(len(before), size=500)
        right = int(after[rows].sum())
        held["top1, exact"] += _holds(statistics.proportion_interval(right, 500).interval, truth)
        held["top1, Wilson"] += _holds(statistics.wilson_interval(right, 500).interval, truth)
        difference = statistics.paired_proportion_difference(before[rows], after[rows])
        held["drop of top1"] += _holds(difference.interval, lost)
    for name, hits in held.items():
        yield _row(name, "resampled", count, hits)


def _verification(count: int) -> Iterator[Row]:
    """Error rates of embeddings, drawn anew by identity; see :mod:`benchmarks.verification`."""
    say("coverage: verification")
    for row in verification.coverage(count):
        held = round(float(row["coverage"] or 0) * int(row["simulations"] or 0))
        yield _row(
            str(row["case"]).removeprefix("coverage of "), str(row["people"]), int(row["simulations"] or 0), held
        )


def _is_rare(row: Row) -> bool:
    """Whether it is the drop of a FAR near 0.0001: a few accepts of thousands of pairs, whose count moves in steps."""
    return str(row["interval"]) in _RARE


def _row(estimate: str, kind: str, count: int, held: int, plain: int | None = None, below: int | None = None) -> Row:
    return {
        "interval": estimate,
        "samples": kind,
        "simulations": count,
        "coverage_percent": float(100 * held / count),
        "passes_wrongly_percent": None if below is None else float(100 * below / count),
        "independent_percent": None if plain is None else float(100 * plain / count),
    }


def _holds(interval: Interval, truth: float) -> bool:
    """A bound that is not known excludes nothing."""
    low, high = interval
    return (low is None or low <= truth) and (high is None or truth <= high)


def _remembering(random: np.random.Generator, count: int, length: float) -> Array:
    """Standard normal, with a correlation that falls to 1/e within ``length`` samples."""
    from scipy.signal import lfilter

    keep = math.exp(-1 / length)
    shocks = random.normal(size=count) * math.sqrt(1 - keep**2)
    return np.asarray(lfilter([1], [1, -keep], shocks, zi=[keep * random.normal()])[0])


def _bimodal(random: np.random.Generator, slow: npt.NDArray[np.bool_]) -> Array:
    return np.where(slow, 1.6, 1.0) * np.exp(0.04 * random.normal(size=len(slow)))


def _drifting(random: np.random.Generator, count: int, share: float) -> Array:
    return np.exp(0.05 * _remembering(random, count, share * count) + 0.05 * random.normal(size=count))


_KINDS: dict[str, Generate] = {
    "lognormal": lambda random, n: np.exp(0.3 * random.normal(size=n)),
    "heavy-tailed (Pareto 1.5)": lambda random, n: 1 + 0.1 * random.pareto(1.5, n),
    "bimodal": lambda random, n: _bimodal(random, random.random(n) < 0.3),
    "bimodal, in dwells": lambda random, n: _bimodal(random, _remembering(random, n, n / 150) > 0.5244),
    "drifting": lambda random, n: _drifting(random, n, 1 / 300),
    "drifting slowly": lambda random, n: _drifting(random, n, 1 / 60),
}


if __name__ == "__main__":
    main("coverage", __doc__ or "", coverage)
