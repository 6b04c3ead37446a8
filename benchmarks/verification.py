"""Verification on ten million pairs: seconds, memory, agreement with scikit-learn, and how often intervals cover.

The embeddings are made up: a direction per person and noise, whose size differs from person to person.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.frame import ROOT, Claim, Options, Result, Row, main
from edgeopt.metrics import sharing
from edgeopt.verification import Design

_SIZE = 512
_FARS = (0.01, 0.001, 0.0001)
#: Of the simulation of coverage: people, samples of each, numbers of an embedding.
_PEOPLE, _EACH, _SMALL = 100, 4, 16

Array = npt.NDArray[Any]


def embeddings(
    people: int, each: int, size: int, seed: int, noise: float = 1.0, alike: float = 0.0
) -> tuple[Array, Array]:
    """(N, size) float32 and the identity (N,) of each, for N = people × each; ``alike`` moves some to one side."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((people, 1, size))
    if alike:
        centres[:, :, 0] += alike * np.exp(0.4 * random.standard_normal((people, 1)))
    own = noise * np.exp(0.3 * random.standard_normal((people, 1, 1)))
    found = centres + own * random.standard_normal((people, each, size))
    return found.reshape(-1, size).astype(np.float32), np.repeat(np.arange(people), each)


def full_set(people: int) -> Row:
    """All metrics of an optimised model with intervals, drops from the float baseline, and thresholds of ``select``."""
    from edgeopt import metrics
    from edgeopt.recipe import MetricSpec

    specs = [MetricSpec(name="eer"), *(MetricSpec(name="tar", args={"far": far}) for far in _FARS)]
    listed = [metrics.build(spec) for spec in metrics.with_companions(specs)]
    data = {name: embeddings(people, 3, _SIZE, seed, noise=2.0) for seed, name in enumerate(("select", "evaluate"))}
    random = np.random.default_rng(9)
    worse = {
        name: x + 0.3 * random.standard_normal(x.shape, np.float32) + np.float32(0.15) for name, (x, _) in data.items()
    }
    values, drops = [], []
    cpu = time.process_time()
    seconds = {"values": 0.0, "drops": 0.0}
    with sharing.sharing():
        for metric in filter(None, listed):
            select, evaluate = (metric.truth({"identity": identity}) for _, identity in data.values())
            start = time.perf_counter()
            before = metric.fit(data["select"][0], select) if metric.fitted_on else metric
            after = metric.fit(worse["select"], select) if metric.fitted_on == "own" else before
            settings: dict[str, Any] = {"confidence": 0.95, "seed": 0}
            values.append(metrics.score(after, worse["evaluate"], evaluate, **settings))
            middle = time.perf_counter()
            drops.append(metrics.drop(after, before, worse["evaluate"], data["evaluate"][0], evaluate, **settings))
            seconds["values"] += middle - start
            seconds["drops"] += time.perf_counter() - middle
    missing = [m.metric for m in [*values, *drops] if m.value is None or m.interval in (None, (None, None))]
    if missing:
        raise RuntimeError(f"not measured: {missing}")
    count = 3 * people
    return {
        "case": "full set",
        "pairs": count * (count - 1) // 2,
        "metrics": len(values),
        "seconds": round(seconds["values"], 1),
        "with drops": round(sum(seconds.values()), 1),
        "CPU seconds with drops": round(time.process_time() - cpu, 1),
        "peak MiB": round(_peak_mib()),
        "eer": next(m.value for m in values if m.metric == "eer"),
        "far@float=0.001": next(m.value for m in values if m.metric == "far@float=0.001"),
    }


def against_scikit_learn(people: int) -> Row:
    """The largest difference of any rate from those of ``roc_curve``."""
    from sklearn.metrics import roc_curve

    from edgeopt.verification import Scores

    x, identity = embeddings(people, 3, 64, 3, noise=1.5)
    scores = Scores.of(x, Design(identity))
    vectors = x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    one, other = np.triu_indices(len(x), 1)
    cosines = np.concatenate(
        [
            np.einsum("md,md->m", vectors[one[i : i + 100_000]], vectors[other[i : i + 100_000]])
            for i in range(0, len(one), 100_000)
        ]
    ).astype(np.float32)
    false, true, _ = roc_curve(identity[one] == identity[other], cosines, drop_intermediate=False)
    differences = [
        abs(1 - scores.frr(scores.threshold(far)) - true[np.searchsorted(false, far, side="right") - 1])
        for far in _FARS
    ]
    place = int(np.flatnonzero(false >= 1 - true)[0])
    (f0, f1), (r0, r1) = false[place - 1 : place + 1], 1 - true[place - 1 : place + 1]
    differences.append(abs(scores.equal_error().rate - (f0 + (f1 - f0) * (r0 - f0) / (r0 - f0 + f1 - r1))))
    return {"case": "scikit-learn", "pairs": len(one), "largest difference": max(differences)}


def coverage(repeats: int, seed: int = 0) -> list[Row]:
    """How often 95 % intervals hold the value of the whole population, for new people each time.

    Where a threshold is given, also of people of whom some are easily taken for others, at FARs of about 0.01, 0.001
    and 0.0001, and of the drop to a model that adds noise to each embedding and moves all of them.
    """
    from edgeopt.metrics.threshold import FalseAcceptsAt
    from edgeopt.metrics.verification import EqualErrorRate, TrueAcceptRate

    unlike, alike = "people of unlike noise", "people, some of whom are alike"
    curve = (EqualErrorRate(), TrueAcceptRate(far=0.01))
    return [
        *_coverage(unlike, 0.0, curve, max(100, repeats // 4), seed),  # each resamples a thousand times
        *_coverage(unlike, 0.0, tuple(FalseAcceptsAt(threshold=at) for at in (0.56, 0.69, 0.78)), repeats, seed),
        *_coverage(alike, 1.2, tuple(FalseAcceptsAt(threshold=at) for at in (0.63, 0.74, 0.82)), repeats, seed),
    ]


def _coverage(people: str, alike: float, cases: tuple[Any, ...], repeats: int, seed: int) -> Iterator[Row]:
    """Of each metric, and of its drop if its threshold is given."""
    drops = [metric for metric in cases if metric.fitted_on == "" and metric.name == "far_at"]

    def values(number: int, count: int) -> tuple[Any, Array, Array]:
        x, identity = embeddings(count, _EACH, _SMALL, number, alike=alike)
        random = np.random.default_rng([number, 1])
        return Design(identity), x, x + 0.3 * random.standard_normal(x.shape, np.float32) + np.float32(0.15)

    truths: dict[str, list[float]] = {}
    for number in range(200):
        design, before, after = values(seed + 10**6 + number, 2 * _PEOPLE)
        with sharing.sharing():
            for metric in cases:
                truths.setdefault(metric.label, []).append(metric.compute(before, design))
            for metric in drops:
                drop = metric.compute(before, design) - metric.compute(after, design)
                truths.setdefault(f"drop of {metric.label}", []).append(drop)
    held = dict.fromkeys(truths, 0)
    for number in range(repeats):
        design, before, after = values(seed + number, _PEOPLE)
        with sharing.sharing():
            for metric in cases:
                found = metric.interval(before, design, confidence=0.95, seed=number)
                held[metric.label] += _within(found, truths[metric.label])
            for metric in drops:
                found = metric.drop_interval(after, before, design, metric, confidence=0.95, seed=number)
                held[f"drop of {metric.label}"] += _within(found, truths[f"drop of {metric.label}"])
    for label, hits in held.items():
        yield {
            "case": f"coverage of {label}",
            "people": people,
            "value": float(np.mean(truths[label])),
            "pairs": _pairs(_PEOPLE * _EACH),
            "simulations": repeats,
            "nominal": 0.95,
            "coverage": float(hits / repeats),
        }


def _within(interval: tuple[float | None, float | None], truths: list[float]) -> bool:
    low, high = interval
    assert low is not None
    assert high is not None
    return low <= np.mean(truths) <= high


def _pairs(samples: int) -> int:
    return samples * (samples - 1) // 2


def _peak_mib() -> float:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def benchmark(options: Options) -> Result:
    """Ten million pairs in a process of its own, so that its peak is its own."""
    script = (
        "import json, sys; from benchmarks import verification as v; print(json.dumps(v.full_set(int(sys.argv[1]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "1492"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=900
    )
    full = json.loads(done.stdout.splitlines()[-1])
    same = against_scikit_learn(400 if options.quick else 1492)
    covers = coverage(100 if options.quick else 2000)
    rates = [float(row["coverage"] or 0) for row in covers]
    claims = [
        Claim("seconds for EER, TAR at 3 FARs and what becomes of their thresholds, 10⁷ pairs", full["seconds"], 30),
        Claim("peak memory of that and of the drops, MiB", full["peak MiB"], 1024),
        Claim("largest difference from scikit-learn", float(same["largest difference"] or 0), 1e-9),
        Claim("coverage of 95 % intervals, the lowest", min(rates), 0.93, "at least"),
        Claim("coverage of 95 % intervals, the highest", max(rates), 0.97),
    ]
    return Result(claims, [full, same, *covers])


if __name__ == "__main__":
    main("verification", __doc__, benchmark)
