"""Whether the agent's p50 is that of OpenVINO's own `benchmark_app`, for the same file, input and settings.

Both run synchronously with one stream and one thread, float32 precision and no pinning, on inputs that are in place
before the clock starts: benchmark_app's default for static shapes, and what the agent does. Both take the reading of
`InferRequest.latency`, inside of OpenVINO's Python binding. benchmark_app prints two decimals; its latencies are taken
from its own loop in full, unchanged otherwise.

A busy machine changes from second to second, and its CPUs differ. So both run on one CPU, another one in the next
round, for the same time, and take turns: while one is timed, the other is stopped (SIGSTOP), for a tenth of a second
each. A stop spoils one sample of many, which a median does not see. The agent is timed in three ways: the model alone,
as benchmark_app does; with the near-empty model that shows what the call costs, as it does by default; and among three
copies of the model, as a contest of candidates does. The claims are on the median ratio of the rounds of the way that
is furthest off.

``--data FILE.xml`` adds a model of static shape to the two small networks that are made on the spot, such as the file
that `edgeopt compile recipes/digits` ships.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.commands import say
from benchmarks.frame import Claim, Options, Result, Row, main
from edgeopt.access import Limits, local
from edgeopt.statistics import percentile_interval

#: Runs benchmark_app in this process and writes the latencies that it took, in ms, to the file named last.
_BENCHMARK_APP = """
import json, sys
sys.modules["openvino_telemetry"] = None
from openvino.tools.benchmark import benchmark, main
file, inner = sys.argv.pop(), benchmark.Benchmark.sync_inference
def sync_inference(self, request, data_queue):
    found = inner(self, request, data_queue)
    with open(file, "w") as out:
        json.dump(found[0], out)
    return found
benchmark.Benchmark.sync_inference = sync_inference
main.main()
"""


class _Way(NamedTuple):
    copies: int
    empty: bool


#: how the agent times: copies of the model, and whether the near-empty model is timed as well
_WAYS = {"alone": _Way(1, False), "with the empty model": _Way(1, True), "among three copies": _Way(3, False)}
_TURN_S = 0.1


def fidelity(options: Options) -> Result:
    """Rounds of both tools, for each model."""
    rows: list[Row] = []
    with TemporaryDirectory(prefix="edgeopt-fidelity-") as temporary:
        folder = Path(temporary)
        files = {
            "8 x 32 x 32 CNN": _network(folder / "small.xml", 8, 32),
            "32 x 96 x 96 CNN": _network(folder / "large.xml", 32, 96),
        }
        if options.data.suffix == ".xml":
            files[options.data.stem] = options.data
        for name, file in files.items():
            rows += _compare(name, file, folder, rounds=2 if options.quick else 12, seconds=10 if options.quick else 15)
    return Result(list(_claims(rows)), rows)


def _claims(rows: Sequence[Mapping[str, Any]]) -> Iterator[Claim]:
    """One for each model, whatever else is timed with it."""
    apart: dict[str, float] = {}
    for row in rows:
        apart[row["model"]] = max(apart.get(row["model"], 0.0), abs(row["ratio"] - 1))
    for model, distance in apart.items():
        yield Claim(
            f"distance of the agent's p50 from benchmark_app's, timed in any of the ways ({model})", distance, 0.03
        )


def _compare(name: str, file: Path, folder: Path, *, rounds: int, seconds: float) -> list[Row]:
    sample = _input(file)
    inputs = folder / "input.npy"
    np.save(inputs, sample)
    pairs: dict[str, list[_Pair]] = {what: [] for what in _WAYS}
    for number in range(rounds):
        say(f"fidelity: {name}, round {number + 1} of {rounds}")
        for what in random.sample(list(_WAYS), len(_WAYS)):
            with _on_one_cpu(number):
                pairs[what].append(_take_turns(file, inputs, _WAYS[what], seconds))
    return [_row(name, what, series) for what, series in pairs.items()]


def _row(model: str, timed: str, pairs: Sequence[_Pair]) -> Row:
    ratio = percentile_interval([pair.agent_ms / pair.benchmark_app_ms for pair in pairs], 0.5)
    row: dict[str, Any] = {
        "model": model,
        "timed": timed,
        "rounds": len(pairs),
        "runs": sum(pair.runs for pair in pairs),
        "agent_p50_ms": median(pair.agent_ms for pair in pairs),
        "benchmark_app_p50_ms": median(pair.benchmark_app_ms for pair in pairs),
        "ratio": median(pair.agent_ms / pair.benchmark_app_ms for pair in pairs),
        "ratio_low": ratio.interval[0],
        "ratio_high": ratio.interval[1],
    }
    if _WAYS[timed].empty:
        row["call_p50_ms"] = median(pair.empty_ms for pair in pairs)
    return row


class _Pair(NamedTuple):
    """The medians of one round, and the agent's number of runs; ``empty_ms`` is NaN if it was not timed."""

    agent_ms: float
    benchmark_app_ms: float
    empty_ms: float
    runs: int


def _take_turns(file: Path, inputs: Path, way: _Way, seconds: float) -> _Pair:
    """Times with both for as many seconds of wall time, of which each gets half."""
    latencies = inputs.with_name("latencies.json")
    settings = {"-m": file, "-i": inputs, "-d": "CPU", "-api": "sync", "-hint": "none", "-nstreams": 1, "-nthreads": 1}
    settings |= {"-infer_precision": "f32", "-pin": "NO", "-ip": _SHORT[np.load(inputs).dtype.name]}
    settings |= {"-t": math.ceil(seconds)}
    command = [sys.executable, "-c", _BENCHMARK_APP, *(str(word) for pair in settings.items() for word in pair)]
    batch = [np.load(inputs)]
    names = [f"copy {number}" for number in range(way.copies)]
    limits = Limits(20, 0.5, 20, seconds - 1, seconds, warmup_max_seconds=1.0)
    with (
        local.start() as agent,
        subprocess.Popen(
            [*command, str(latencies)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as reference,
        ThreadPoolExecutor() as beside,
    ):
        for name in names:
            agent.open(name, "openvino", str(file))
        pid = agent.probe().pid
        assert reference.stdout
        said = []
        for line in reference.stdout:
            said.append(line)
            if line.startswith("[Step 10/11]"):
                break
        timing = beside.submit(agent.time, names, batch, limits, seed=0, batch=len(batch[0]), call_overhead=way.empty)
        rest = beside.submit(reference.stdout.read)
        _alternate(pid, reference.pid, lambda: timing.done() or rest.done())
        said.append(rest.result())
        if reference.wait() or not latencies.exists():
            raise SystemExit(f"benchmark_app failed:\n{''.join(said)[-2000:]}")
        ours = timing.result()
    theirs_ms = json.loads(latencies.read_text())
    latencies.unlink()
    return _Pair(
        agent_ms=float(np.median(ours.samples_ns[names[0]])) / 1e6,
        benchmark_app_ms=float(np.median(theirs_ms)),
        empty_ms=float(np.median(ours.call_overhead_ns["openvino"])) / 1e6 if way.empty else math.nan,
        runs=len(ours.samples_ns[names[0]]),
    )


@contextmanager
def _on_one_cpu(number: int) -> Iterator[None]:
    """This process and those that it starts."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(allowed)[number % len(allowed)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _alternate(first: int, second: int, done: Callable[[], bool]) -> None:
    """Lets two processes run in turns until one of them is done; then both run."""
    try:
        while not done():
            for running, waiting in ((first, second), (second, first)):
                os.kill(waiting, signal.SIGSTOP)
                os.kill(running, signal.SIGCONT)
                time.sleep(_TURN_S)
    finally:
        for process in (first, second):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


_SHORT = {"float32": "f32", "uint8": "u8"}


def _input(file: Path) -> npt.NDArray[Any]:
    """Values for the only input of a model of static shape."""
    with local.start() as agent:
        (port,) = agent.open("model", "openvino", str(file)).inputs
    if None in port.shape or port.dtype not in _SHORT:
        raise SystemExit(f"{file.name}: a model with one static input of {' or '.join(_SHORT)} is wanted, not {port}")
    values = np.random.default_rng(0).integers(0, 256, port.shape)
    return (values / 255).astype(np.float32) if port.dtype == "float32" else values.astype(np.uint8)


def _network(file: Path, width: int, size: int) -> Path:
    """Four convolutions and a mean, from (1, 3, size, size), as an OpenVINO IR."""
    from edgeopt.agent.telemetry import silence

    silence()
    import openvino
    from openvino import opset13 as op

    random_values = np.random.default_rng(0)
    image = op.parameter([1, 3, size, size], np.float32, name="image")
    node, channels = image, 3
    for stride, wider in ((1, 1), (2, 2), (2, 4), (1, 4)):
        weight = random_values.standard_normal((width * wider, channels, 3, 3)) * np.sqrt(2 / (9 * channels))
        constant = op.constant(weight.astype(np.float32))
        node = op.relu(op.convolution(node, constant, [stride] * 2, [1, 1], [1, 1], [1, 1]))
        channels = width * wider
    node = op.reduce_mean(node, op.constant(np.array([2, 3])), False)
    openvino.save_model(openvino.Model([node], [image], "network"), file, compress_to_fp16=False)
    return file


if __name__ == "__main__":
    main("fidelity", __doc__ or "", fidelity)
