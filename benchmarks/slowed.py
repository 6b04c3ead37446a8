"""A small network, and slower editions of it whose true ratio is known: one operation gets more to compute.

The operation has no weights, so that what it costs does not depend on what lies in the caches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from edgeopt.access import local
from edgeopt.measure import Candidate
from edgeopt.protocol import Protocol
from edgeopt.session import WARMUP, inputs_digest
from edgeopt.sessions import Schedule, Sessions

RUNTIME = "onnxruntime"
INPUTS = [np.random.default_rng(0).standard_normal((16, 3, 24, 24), dtype=np.float32)]
PROTOCOL = Protocol(runtimes=(RUNTIME,), min_runs=30, percentile=90, inputs=inputs_digest(INPUTS), **WARMUP)
MACHINE = "this machine"

_SIDE, _CHANNELS = 24, 16
_LEAST, _MOST = 64, _CHANNELS * _SIDE * _SIDE
_GRID = (64, 1024, 3072, 6144, 9216)
_CALIBRATING_SESSIONS = 6


def network(path: Path, extra: int = _LEAST) -> Path:
    """Four convolutions of 16 channels on (1, 3, 24, 24), and four sines in a row of ``extra`` of the last values."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(np.array(values, dtype), name)
        for name, values, dtype in (("from", [0], int), ("to", [extra], int), ("axis", [1], int), ("zero", 0, "f"))
    ]
    nodes, last = [], "image"
    for index in range(4):
        before = 3 if index == 0 else _CHANNELS
        kernel = random.normal(size=(_CHANNELS, before, 3, 3)) / np.sqrt(9 * before)
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"kernel{index}"))
        nodes.append(helper.make_node("Conv", [last, f"kernel{index}"], [f"conv{index}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"conv{index}"], [f"relu{index}"]))
        last = f"relu{index}"
    nodes += [
        helper.make_node("Flatten", [last], ["all"]),
        helper.make_node("Slice", ["all", "from", "to", "axis"], ["some"]),
        *(helper.make_node("Sin", [a], [b]) for a, b in pairwise(("some", "sin1", "sin2", "sin3", "sines"))),
        helper.make_node("ReduceSum", ["sines", "axis"], ["sum"]),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Add", ["flat", "nothing"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, _SIDE, _SIDE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, _CHANNELS])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def calibrated(folder: Path, ratios: Sequence[float], say: Callable[[str], None]) -> tuple[Path, Mapping[float, Path]]:
    """The network, and one edition per wanted ratio of latencies, found by timing on this machine.

    Latency grows linearly with the values: a first guess from a grid is corrected twice by its own ratio.
    """
    base = network(folder / "base.onnx")
    say("calibrating the slower editions")
    grid = _ratios(base, {f"{count}": network(folder / f"grid{count}.onnx", count) for count in _GRID}, seed=0)
    slope = float(np.polyfit(_GRID, [grid[f"{count}"] for count in _GRID], 1)[0])
    extra = {ratio: _clipped(_LEAST + (ratio - 1) / slope) for ratio in ratios}
    for attempt in (1, 2):
        files = {f"{ratio}": network(folder / f"slower{ratio}.onnx", count) for ratio, count in extra.items()}
        for ratio, found in _ratios(base, files, seed=1000 * attempt).items():
            wanted = float(ratio)
            extra[wanted] = _clipped(extra[wanted] + (wanted - found) / slope)
    return base, {ratio: network(folder / f"slower{ratio}.onnx", count) for ratio, count in extra.items()}


def _clipped(count: float) -> int:
    return int(np.clip(round(count), _LEAST, _MOST))


def _ratios(base: Path, files: Mapping[str, Path], seed: int) -> dict[str, float]:
    """Latency over that of the network, by name."""
    timed = sessions({"base": base, **files}, Schedule.of(1.2, 1.2))
    for number in range(_CALIBRATING_SESSIONS):
        with local.start() as agent:
            timed.add(agent, INPUTS, seed + number)
    return {name: float(timed.ratio(name, "base").value or np.nan) for name in files}


def sessions(files: Mapping[str, Path], schedule: Schedule) -> Sessions:
    """Empty sessions of some files by name."""
    return Sessions([Candidate(name, RUNTIME, str(file)) for name, file in files.items()], PROTOCOL, schedule, MACHINE)
