"""What it costs to reach a device over ssh: a real sshd on loopback against a process of this machine.

Each round has three sessions in a shuffled order: one over ssh and two of local agents, of which the second shows what
is noise. A session is that of a target's measuring: a fresh agent, opening, warming up, 0.7 timed seconds, its end.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.commands import say
from benchmarks.frame import Claim, Options, Result, Row, main
from benchmarks.slowed import INPUTS, RUNTIME, network
from edgeopt.access import Connection, Limits
from edgeopt.access.connection import Local
from edgeopt.session import WARMUP
from edgeopt.statistics import session_ratio
from tests.sshd import Sshd

_LIMITS = Limits(min_runs=30, min_seconds=0.7, max_seconds=0.7, **WARMUP)
_MIB = 2**20


def reach(options: Options) -> Result:
    """30 rounds; quick: 8."""
    count = 8 if options.quick else 30
    kinds = ("local", "ssh", "local again")
    cost_s: dict[str, list[float]] = {kind: [] for kind in kinds}
    p50_ms: dict[str, list[float]] = {kind: [] for kind in kinds}
    with TemporaryDirectory(prefix="edgeopt-access-") as name:
        folder = Path(name)
        os.environ["EDGEOPT_LOCK_FOLDER"] = name
        model = network(folder / "network.onnx")
        model.with_suffix(".bin").write_bytes(np.random.default_rng(0).bytes(20 * _MIB))
        (folder / "sshd").mkdir()
        server = Sshd(folder / "sshd", sys.executable)
        server.start()
        try:
            with server.connect() as device, Local() as here:
                began = time.monotonic()
                device.facts()
                first_s = time.monotonic() - began
                began = time.monotonic()
                with device.start() as agent:
                    agent.open("m", RUNTIME, str(model))
                upload_s = time.monotonic() - began
                ways: dict[str, Connection] = {"local": here, "ssh": device, "local again": here}
                for number in range(count):
                    say(f"access: round {number + 1} of {count}")
                    for kind in random.Random(number).sample(kinds, len(kinds)):
                        seconds, p50 = _session(ways[kind], model, number)
                        cost_s[kind].append(seconds)
                        p50_ms[kind].append(p50)
                began = time.monotonic()
                device.close()
                close_s = time.monotonic() - began
        finally:
            server.down()
    rows: list[Row] = [
        {
            "way": kind,
            "sessions": count,
            "session_cost_s_median": float(np.median(cost_s[kind])),
            "session_cost_s_max": max(cost_s[kind]),
            "p50_ms_median": float(np.median(p50_ms[kind])),
            **_against_local(p50_ms[kind], p50_ms["local"]),
        }
        for kind in kinds
    ]
    rows.append({"way": "ssh: connecting, the first agent and its facts", "seconds": first_s})
    rows.append({"way": "ssh: sending 20 MiB and opening", "seconds": upload_s})
    rows.append({"way": "ssh: leaving", "seconds": close_s})
    added_s = float(np.median(np.subtract(cost_s["ssh"], cost_s["local"])))
    claims = [
        Claim("seconds that a measuring session over ssh costs more than a local one, median", added_s, 2.0),
        Claim(
            "effect of ssh on the measured p50, percent, median over pairs of sessions",
            100 * abs(_median_ratio(p50_ms["ssh"], p50_ms["local"]) - 1),
            2.0,
        ),
    ]
    return Result(claims, rows)


def _session(way: Connection, model: Path, seed: int) -> tuple[float, float]:
    """Seconds around warming up and timing, and the p50 in ms."""
    began = time.monotonic()
    with way.start() as agent:
        agent.open("m", RUNTIME, str(model))
        timing = agent.time(["m"], INPUTS, _LIMITS, seed=seed)
    return time.monotonic() - began - timing.seconds, float(np.median(timing.samples_ns["m"])) / 1e6


def _median_ratio(times: Sequence[float], base: Sequence[float]) -> float:
    return float(np.median(np.divide(times, base)))


def _against_local(times: Sequence[float], base: Sequence[float]) -> dict[str, float | None]:
    """The ratio of the p50, and Student's interval of its mean over the pairs."""
    if times is base:
        return {}
    low, high = session_ratio(np.log(np.divide(times, base)).tolist(), 0.95).interval
    return {"p50_ratio_median": _median_ratio(times, base), "mean_ratio_low": low, "mean_ratio_high": high}


if __name__ == "__main__":
    main("access", __doc__ or "", reach)
