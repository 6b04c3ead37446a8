from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fidelity

pytest.importorskip("openvino")


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_processes_take_turns_and_both_run_in_the_end() -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(sleeper) as first, subprocess.Popen(sleeper) as second:
        seen: list[tuple[str, str]] = []

        def look() -> bool:
            seen.append((state(first.pid), state(second.pid)))
            return len(seen) > 3

        fidelity._alternate(first.pid, second.pid, look)
        time.sleep(0.1)
        assert all((one == "T") != (other == "T") for one, other in seen[1:])
        assert "T" not in (state(first.pid), state(second.pid))
        first.kill()
        second.kill()


def test_claims_are_on_the_way_of_timing_that_is_furthest_off() -> None:
    rows = [
        {"model": "long", "timed": "alone", "ratio": 0.96},
        {"model": "long", "timed": "with the empty model", "ratio": 1.03},
        {"model": "short", "timed": "alone", "ratio": 1.01},
        {"model": "short", "timed": "with the empty model", "ratio": 1.02},
    ]
    found = [
        (claim.claim.rpartition("(")[2], round(claim.value or 0, 9), claim.holds) for claim in fidelity._claims(rows)
    ]
    assert found == [("long)", 0.04, False), ("short)", 0.02, True)]


def test_both_run_on_one_cpu_for_as_long_as_they_are_timed() -> None:
    allowed = os.sched_getaffinity(0)
    for number in range(3):
        with fidelity._on_one_cpu(number):
            assert os.sched_getaffinity(0) == {sorted(allowed)[number % len(allowed)]}
    assert os.sched_getaffinity(0) == allowed


def test_both_tools_time_the_same_file(tmp_path: Path) -> None:
    file = fidelity._network(tmp_path / "net.xml", 4, 16)
    np.save(tmp_path / "input.npy", fidelity._input(file))
    pair = fidelity._take_turns(file, tmp_path / "input.npy", fidelity._WAYS["with the empty model"], 2)
    assert pair.runs >= 20
    assert pair.empty_ms > 0
    assert pair.benchmark_app_ms > 0
    assert pair.agent_ms > 0
