"""TensorFlow Lite for Microcontrollers on the host: the INT8 file that the firmware holds, and the memory it takes.

Without a board, TFLM built for this machine stands in: CMSIS-NN, which computes on a Cortex-M, is bit-exact with its
reference kernels (https://github.com/ARM-software/CMSIS-NN, "Supported Framework").
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeopt import tflite
from edgeopt.agent import tflite_file
from edgeopt.artifact import Artifact
from edgeopt.backends import Backend, Compiled, Depth, Figure, Request, Scheme, StandIn
from edgeopt.errors import ConfigError, StageError
from edgeopt.stage import Params
from edgeopt.target import Target
from edgeopt.tflite import micro, names

_FILE = "model.tflite"


class Tflm(Backend):
    """Puts all buffers inside the flatbuffer: TFLM does not look behind it, and would compute with wrong weights."""

    name = "tflm"
    consumes = frozenset({"tflite-int8"})
    produces = "tflm-model"
    tools = ("ai-edge-litert", "tflite-micro")
    precisions = frozenset({"int8"})
    without_device = "simulate"

    def scheme(self, target: Target) -> Scheme:
        """Full INT8, ranges by minimum and maximum."""
        return Scheme("ai_edge")

    def options(self, target: Target) -> Params:
        """There are none.

        Raises:
            ConfigError: The target says one, or that its device is reached.
        """
        if not target.device.access.none:
            where, fix = f"target {target.name}: device", "write `access: none`: the model is built and simulated"
            raise ConfigError("edgeopt does not run models on microcontrollers", where=where, fix=fix)
        return self.parse(target)

    def depth(self, target: Target) -> Depth | None:
        """The same for all targets."""
        return self.without_device

    def compile(self, artifact: Artifact, request: Request, out: Path) -> Compiled:
        """Write ``model.tflite`` and find the size of its tensor arena.

        Raises:
            StageError: The model needs an operator that TFLM does not have.
        """
        content = tflite.inlined(artifact.path(_FILE).read_bytes())
        (out / _FILE).write_bytes(content)
        graph = tflite_file.read(content)
        origin = names.origin(graph, artifact.meta["outputs"])
        agent, name = request.host(""), f"compile {out.name}"
        try:
            opened = agent.open(name, self.name, str(out / _FILE))
        except StageError as error:
            raise micro.refusal(error, micro.culprits(error.what, graph), origin, error.where) from error
        raw = artifact.meta["input"]
        try:
            layers = agent.layers(name, [np.zeros((request.batch, *raw["shape"]), raw["dtype"])])
        finally:
            agent.close(name)
        arena, version = opened.settings["arena_bytes"], self.probe().version
        here = f"TFLM {version} built for this machine"
        why = f"as {here} reports; a 32-bit device keeps less about each tensor, CMSIS-NN may want scratch buffers"
        return Compiled(
            file=_FILE,
            origin=origin,
            layers=tuple(layers),
            stand_in=StandIn(self.name, _FILE, f"{here}, reference kernels"),
            figures=(
                Figure("arena_mib", arena / 2**20, "MiB", "simulated", why),
                Figure("flash_mib", len(content) / 2**20, "MiB", "measured", "size of the model file"),
            ),
            facts={"arena_bytes": arena, "operators": sorted({operator.op for operator in layers})},
        )


PLUGINS = (Tflm(),)
