"""An engine that ``trtexec`` runs, for a device that has no Python bindings of TensorRT. Not run by us on a device."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .. import AgentError  # noqa: TID252  relative, so that a zipapp works
from ..blocks import Block  # noqa: TID252
from ..engine_file import EngineFile  # noqa: TID252
from ..runtimes import Layer, Options, RuntimeMemory, fill  # noqa: TID252
from ..timer import Clock  # noqa: TID252
from . import Tool, exports, flags, run
from .building import NO_GRAPH, placed

T = TypeVar("T")

_WARM_UP_MS = 500
#: what starting, loading the engine and writing the files may take beside the runs
_START_LIMIT_S = 300.0
_EVENT_NS = 500
_WARM_RUNS = re.compile(r"Warmup completed (\d+) queries")
_LOADED = re.compile(r"[Ee]ngine (?:deserialized|loaded) in ([\d.]+) sec")
_SPECIAL = re.compile(r"[':,]")


class TrtexecModel:
    """Runs an engine with the device's ``trtexec``, one process for every batch and for every timed series.

    Outputs have the six digits that ``trtexec`` writes. Times are those of events on the GPU, without copies.
    """

    clock = Clock("GPU events, by trtexec", _EVENT_NS, _EVENT_NS, 0)  # a resolution of 0.5 µs, by the CUDA runtime API

    def __init__(self, tool: Tool, plan: Path, engine: EngineFile, options: Options) -> None:
        if options.streams != 1:
            raise AgentError("several streams need TensorRT's Python package on the device, not only trtexec")
        self._tool, self._plan, self._engine = tool, plan, engine
        self._folder = tempfile.TemporaryDirectory(prefix="edgeopt-trtexec-")
        if _SPECIAL.search(self._folder.name):
            raise AgentError(
                f"trtexec cannot be given files in {self._folder.name}: it splits such a path",
                fix="set TMPDIR on the device to a folder without colons, commas and quotes in its path",
            )
        self._buffers: list[npt.NDArray[Any]] = []
        self._fetched: list[npt.NDArray[Any]] = []
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.threads = options.threads  # of the CPU: it only launches
        self.lanes = (self,)
        self.load_ms: float | None = None
        self.settings: dict[str, Any] = {"tool": str(tool), "conditions": engine.conditions("spin wait")}
        self._pinned = flags.conditions(tool.version, cuda_graph=engine.cuda_graph)

    def load(self, inputs: Sequence[npt.NDArray[Any]]) -> None:
        if (fresh := fill(self.inputs, self._buffers, inputs)) is not None:
            self._buffers = fresh
        for index, buffer in enumerate(self._buffers):
            buffer.tofile(self._path(f"input{index}.bin"))

    def run(self) -> None:
        """One inference, in a process of its own: not what is timed."""
        output = self._path("output.json")
        output.unlink(missing_ok=True)
        self._run([*self._inputs(), *flags.transfers(self._tool.version), f"--exportOutput={output}", *_runs(0, 1, 0)])
        self._fetched = exports.outputs(output, self.outputs)

    def fetch(self) -> list[npt.NDArray[Any]]:
        return [array.copy() for array in self._fetched]

    def block(self, seconds: float, runs: int, read: Callable[[], T]) -> Block[T]:
        """A timed series on the loaded inputs.

        The readings are taken when ``trtexec`` says that inference starts, and that it has ended.

        Raises:
            AgentError: It fails, says or writes what the versions known here do not, or ignores the CUDA graph.
        """
        times = self._path("times.json")
        times.unlink(missing_ok=True)
        readings: list[T] = []

        def told(line: str) -> None:
            if ("Starting inference" in line and not readings) or ("Warmup completed" in line and len(readings) == 1):
                readings.append(read())

        said = self._run(
            [
                *(self._inputs() if self._buffers else []),
                *self._pinned,
                f"--exportTimes={times}",
                "--percentile=50,90,95,99",
                *_runs(_WARM_UP_MS, runs, max(1, math.ceil(seconds))),
            ],
            told,
            2 * seconds + _START_LIMIT_S,
        )
        if len(readings) != 2:
            raise AgentError(f"{self._tool} does not say when inference starts and ends, as the versions known here do")
        if self._engine.cuda_graph and NO_GRAPH.search(said):
            raise AgentError(
                f"{self._tool} timed the engine without the CUDA graph that could be captured when it was built",
                fix="build it with this tool: `tool: trtexec`",
            )
        samples = exports.times(times).compute
        warm = _WARM_RUNS.search(said)
        return Block(
            np.maximum(np.rint(samples * 1e6), 1).astype(np.int64),
            len(samples) + (int(warm[1]) if warm else 0),
            *readings,
        )

    def layers(self, inputs: Sequence[npt.NDArray[Any]]) -> list[Layer]:
        layers, profile = self._path("layers.json"), self._path("profile.json")
        self.load(inputs)
        self._run(
            [
                *self._inputs(),
                *self._pinned,
                "--profilingVerbosity=detailed",
                f"--exportLayerInfo={layers}",
                f"--exportProfile={profile}",
                *_runs(_WARM_UP_MS, 10, 1),
            ]
        )
        info = exports.layer_info(layers.read_text(encoding="utf-8", errors="surrogateescape"), layers.name)
        timed = exports.with_times(info.layers, exports.profile(profile))
        return list(timed if self._engine.dla_core is None else placed(timed, self._engine.reasons))

    def memory(self, inputs: Sequence[npt.NDArray[Any]]) -> RuntimeMemory:
        return RuntimeMemory(None, "trtexec does not say how much memory an engine takes")

    def close(self) -> None:
        self._folder.cleanup()

    def _run(
        self, arguments: list[str], told: Callable[[str], None] | None = None, limit_s: float = _START_LIMIT_S
    ) -> str:
        core = self._engine.dla_core
        dla = [f"--useDLACore={core}"] if core is not None else []
        said = run(self._tool, [f"--loadEngine={self._plan}", *dla, *arguments], self._path("run.log"), limit_s, told)
        loaded = _LOADED.search(said)
        self.load_ms = float(loaded[1]) * 1e3 if loaded else self.load_ms
        return said

    def _inputs(self) -> list[str]:
        if not self.inputs:
            return []
        named = ",".join(f"{_quoted(port.name)}:{self._path(f'input{i}.bin')}" for i, port in enumerate(self.inputs))
        return [f"--loadInputs={named}"]

    def _path(self, name: str) -> Path:
        return Path(self._folder.name) / name


def _quoted(name: str) -> str:
    """A tensor's name inside ``--loadInputs``, whose grammar knows single quotes but no escapes."""
    if "'" in name:
        raise AgentError(f"trtexec cannot be given the input {name!r}: a name with a quote has no way to be written")
    return f"'{name}'" if _SPECIAL.search(name) else name


def _runs(warm_up_ms: int, runs: int, seconds: int) -> list[str]:
    return [f"--warmUp={warm_up_ms}", f"--iterations={runs}", f"--duration={seconds}"]
