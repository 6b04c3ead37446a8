"""LiteRT on the host: the ``.tflite`` file as it is, with all that XNNPACK and the reference kernels make of it.

LiteRT prepares a model on the device when it is opened, so that there is nothing to compile ahead.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeopt import tflite
from edgeopt.agent import tflite_file
from edgeopt.artifact import Artifact
from edgeopt.backends import Backend, Compiled, Request, Scheme, StandIn
from edgeopt.target import Target
from edgeopt.tflite import names

_FILE = "model.tflite"
#: Random raw samples for which the two kinds of kernels are compared.
_SAMPLES = 8
#: Ratio of signal to difference below which the two kinds do not compute the same network: a tenth of the amplitude.
_ALIKE_DB = 20.0
#: Units in the last place of a quantized output that are rounding, however small the output is.
_ROUNDING = 2


class Litert(Backend):
    """Puts all buffers inside the flatbuffer, which every reader of the format understands.

    XNNPACK's integer kernels are not bit-exact with the reference kernels, which define what a quantized file means.
    Both run here, and a note says how far they are apart.
    """

    name = "litert"
    consumes = frozenset({"tflite", "tflite-int8"})
    produces = "litert-model"
    tools = ("ai-edge-litert",)
    without_device = "simulate"

    def scheme(self, target: Target) -> Scheme:
        """Full INT8, ranges by minimum and maximum."""
        return Scheme("ai_edge")

    def compile(self, artifact: Artifact, request: Request, out: Path) -> Compiled:
        """Write ``model.tflite``."""
        content = tflite.inlined(artifact.path(_FILE).read_bytes())
        (out / _FILE).write_bytes(content)
        graph = tflite_file.read(content)
        samples = _random(artifact, request)
        agent = request.host("")
        results = {}
        for optimization in ("all", "none"):
            name = f"compile {out.name} {optimization}"
            agent.open(name, self.name, str(out / _FILE), threads=request.threads, optimization=optimization)
            try:
                results[optimization] = agent.infer(name, [samples], batch=request.batch)
                if optimization == "all":
                    layers = agent.layers(name, [samples[: request.batch]])
            finally:
                agent.close(name)
        difference = _difference(graph, results["all"], results["none"])
        return Compiled(
            file=_FILE,
            origin=names.origin(graph, artifact.meta["outputs"]),
            notes=(difference,),
            layers=tuple(layers),
            stand_in=StandIn(self.name, _FILE, "LiteRT with XNNPACK on this machine, not on the device"),
            facts={"kernels": difference},
        )


def _random(artifact: Artifact, request: Request) -> npt.NDArray[np.generic]:
    """Raw samples over the whole range of an integer type, or standard normal ones."""
    raw = artifact.meta["input"]
    generator = np.random.default_rng(request.seed)
    shape = (-(-_SAMPLES // request.batch) * request.batch, *raw["shape"])
    if raw["dtype"] == "float32":
        return generator.standard_normal(shape, dtype=np.float32)
    limits = np.iinfo(raw["dtype"])
    return generator.integers(limits.min, limits.max, shape, dtype=raw["dtype"], endpoint=True)


def _difference(
    graph: tflite_file.Graph, fast: list[npt.NDArray[np.generic]], reference: list[npt.NDArray[np.generic]]
) -> str:
    """``XNNPACK and reference kernels: 56 % identical, max 7 LSB`` of the outputs for random samples.

    It is a warning if the worst output of the two differs by more than rounding does.
    """
    steps, identical, largest, ratios_db = [], [], 0.0, [math.inf]
    for output, one, other in zip(graph.outputs, fast, reference, strict=True):
        wanted = other.astype(np.float64)
        apart = np.abs(one.astype(np.float64) - wanted)
        identical.append(float((apart == 0).mean()))
        farthest = float(apart.max(initial=0))
        if output.scales:
            steps.append(round(farthest / output.scales[0]))
        else:
            largest = float(np.maximum(largest, farthest))
        if apart.any() and not (output.scales and steps[-1] <= _ROUNDING):
            with np.errstate(divide="ignore"):
                ratios_db.append(float(10 * np.log10((wanted**2).sum() / (apart**2).sum())))
    far = f"max {max(steps)} LSB" if steps else f"max {largest:.1e}"
    share = f"{100 * float(np.mean(identical)):.0f} %"
    told = f"XNNPACK and reference kernels on {len(fast[0])} random samples: {share} of the outputs identical, {far}"
    worst_db = float(np.min(ratios_db))
    if worst_db >= _ALIKE_DB:
        return told
    return (
        "WARNING: XNNPACK does not compute what the file says. Its outputs are only "
        f"{worst_db:.0f} dB above their difference from the reference kernels ({told}). A device with other kernels "
        "gives other results than those judged here"
    )


PLUGINS = (Litert(),)
