"""A small network, and slower editions of it whose true ratio is known: one matrix product is made larger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgeopt.access import local
from edgeopt.measure import Candidate
from edgeopt.protocol import Protocol
from edgeopt.sessions import WARMUP, Schedule, Sessions, inputs_digest

RUNTIME = "onnxruntime"
INPUTS = [np.random.default_rng(0).standard_normal((16, 3, 24, 24), dtype=np.float32)]
PROTOCOL = Protocol(runtimes=(RUNTIME,), min_runs=30, percentile=90, inputs=inputs_digest(INPUTS), **WARMUP)
MACHINE = "this machine"

_LEAST = 64
_GRID = (64, 1024, 4096, 12288)
_CALIBRATING_SESSIONS = 6


def network(path: Path, extra: int = _LEAST) -> Path:
    """Four convolutions of 16 channels on (1, 3, 24, 24), and a residual pair of matrix products ``extra`` wide."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    nodes, weights, channels, last = [], [], 16, "image"
    for index in range(4):
        before = 3 if index == 0 else channels
        kernel = random.normal(size=(channels, before, 3, 3)) / np.sqrt(9 * before)
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"kernel{index}"))
        nodes.append(helper.make_node("Conv", [last, f"kernel{index}"], [f"conv{index}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"conv{index}"], [f"relu{index}"]))
        last = f"relu{index}"
    wide = random.normal(size=(channels, extra)).astype(np.float32)
    weights += [numpy_helper.from_array(wide, "wide"), numpy_helper.from_array(np.zeros_like(wide.T), "narrow")]
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "wide"], ["widened"]),
        helper.make_node("Relu", ["widened"], ["kept"]),
        helper.make_node("MatMul", ["kept", "narrow"], ["narrowed"]),
        helper.make_node("Add", ["flat", "narrowed"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 24, 24])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, channels])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def calibrated(folder: Path, ratios: Sequence[float], say: Callable[[str], None]) -> tuple[Path, Mapping[float, Path]]:
    """The network, and one edition per wanted ratio of latencies, found by timing on this machine.

    Latency grows linearly with the width: a first guess from a grid of widths is corrected twice by its own ratio.
    """
    base = network(folder / "base.onnx")
    say("calibrating the slower editions")
    grid = _ratios(base, {f"{extra}": network(folder / f"grid{extra}.onnx", extra) for extra in _GRID}, seed=0)
    slope = float(np.polyfit(_GRID, [grid[f"{extra}"] for extra in _GRID], 1)[0])
    widths = {ratio: max(_LEAST, round(_LEAST + (ratio - 1) / slope)) for ratio in ratios}
    for attempt in (1, 2):
        files = {f"{ratio}": network(folder / f"slower{ratio}.onnx", width) for ratio, width in widths.items()}
        for ratio, found in _ratios(base, files, seed=1000 * attempt).items():
            wanted = float(ratio)
            widths[wanted] = max(_LEAST, round(widths[wanted] + (wanted - found) / slope))
    return base, {ratio: network(folder / f"slower{ratio}.onnx", width) for ratio, width in widths.items()}


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
