"""The client of an agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from edgeopt.access.channel import Arrays, Channel
from edgeopt.access.results import Built, Energy, Facts, Memory, Opened, Throughput, Timing, paced, parsed
from edgeopt.agent import AgentError, toolchains
from edgeopt.agent.runtimes import Layer, RuntimeMemory
from edgeopt.agent.timer import Limits
from edgeopt.errors import StageError

#: called with what an agent reports while it works: ``{"seconds", "rounds"}`` (time) or ``{"done", "total"}`` (infer)
Progress = Callable[[Mapping[str, float]], None]


class Agent:
    """Client of one agent; a context manager that stops it, at once if the body raised.

    Args:
        channel: To the agent's process.
        bring: Brings a file of the host, and what belongs to it, to the device; returns its path there.

    Every method raises StageError: with the agent's own message if it refuses, or with its last words if it died or
    did not answer in time.
    """

    def __init__(self, channel: Channel, bring: Callable[[str], str] = str) -> None:
        self._channel = channel
        self._bring = bring
        self._call = channel.call
        self._parsing = channel.parsing

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(at_once=error is not None)

    @property
    def stopped(self) -> bool:
        """Whether it was stopped, or ended by itself during a call."""
        return self._channel.stopped

    def stop(self, *, at_once: bool = False) -> None:
        """Ends the agent. Again is harmless."""
        self._channel.stop(at_once=at_once)

    def probe(self, *, limit_s: float | None = None) -> Facts:
        """Facts about the device and the runtimes there."""
        reply, _ = self._call("probe", limit_s=limit_s)
        with self._parsing("probe"):
            return parsed(Facts, reply)

    def open(
        self,
        name: str,
        runtime: str,
        path: str,
        *,
        threads: int = 1,
        streams: int = 1,
        optimization: str = "all",
        limit_s: float | None = None,
    ) -> Opened:
        """Opens an artefact file on the device under ``name``.

        Args:
            name: What the other calls name it by; must be new.
            runtime: ``onnxruntime``, ``openvino`` …
            path: On the host: the ``.onnx`` file, the ``.xml`` of an OpenVINO IR … It is brought to a remote device
                together with the files of the same stem beside it.
            threads: Threads per inference; the call fails if the runtime would use another number.
            streams: Inferences in flight at the same time, for :meth:`throughput`; as for threads.
            optimization: ``all``, or ``none`` for the plain meaning of the file (not every runtime can).
            limit_s: Time limit of the call.
        """
        options = {"threads": threads, "streams": streams, "optimization": optimization}
        reply, _ = self._call(
            "open", name=name, runtime=runtime, path=self._bring(str(path)), options=options, limit_s=limit_s
        )
        with self._parsing("open"):
            return parsed(Opened, {**reply, "name": name})

    def infer(
        self,
        name: str,
        inputs: Arrays,
        *,
        batch: int = 1,
        progress: Progress | None = None,
        limit_s: float | None = None,
    ) -> list[npt.NDArray[Any]]:
        """Outputs for N samples.

        Args:
            name: Of the open model.
            inputs: One array (N, …) per input, in the model's order and dtype.
            batch: Samples per inference; the last batch is filled up on the device and cut again.
            progress: Called with ``{"done", "total"}`` samples.
            limit_s: Time limit of the call.

        Returns:
            One array (N, …) per output.
        """
        _, outputs = self._call("infer", inputs, progress, limit_s, name=name, batch=batch)
        return outputs

    def time(
        self,
        names: Sequence[str],
        inputs: Arrays,
        limits: Limits,
        *,
        seed: int,
        batch: int = 1,
        call_overhead: bool = True,
        progress: Progress | None = None,
        limit_s: float | None = None,
    ) -> Timing:
        """Times open models against each other: each round runs each once, in an order shuffled anew.

        Args:
            names: Of the open models.
            inputs: One array (N, …) per input; the rounds cycle through them in batches.
            limits: When to end.
            seed: Of the shuffles.
            batch: Samples per inference.
            call_overhead: Time what the call of each runtime costs as well, in the same rounds.
            progress: Called about twice a second with ``{"seconds", "rounds"}`` of the timing.
            limit_s: Time limit of the call; by default what ``limits`` allow and a minute.
        """
        arguments = {**_pace(names, limits, seed, batch), "call_overhead": call_overhead}
        reply, series = self._call("time", inputs, progress, limit_s or self._enough(limits), **arguments)
        with self._parsing("time"):
            _expect(series, "i")
            return Timing(
                samples_ns=dict(zip(_named(reply, names), series[: len(names)], strict=True)),
                call_overhead_ns=dict(zip(map(str, reply["call_overhead"]), series[len(names) :], strict=True)),
                **paced(reply),
            )

    def throughput(
        self,
        names: Sequence[str],
        inputs: Arrays,
        limits: Limits,
        *,
        seed: int,
        batch: int = 1,
        window_seconds: float = 0.25,
        progress: Progress | None = None,
        limit_s: float | None = None,
    ) -> Throughput:
        """Keeps all streams of a model busy for a window of time, model after model, in an order shuffled anew.

        Args:
            names: Of models that were opened with the wanted number of streams.
            inputs: As for :meth:`time`.
            limits: When to end; a run is a round of one window each.
            seed: Of the shuffles.
            batch: Samples per inference.
            window_seconds: Of one model; the last inference of each stream is finished and counted.
            progress: As for :meth:`time`.
            limit_s: As for :meth:`time`.
        """
        arguments = {**_pace(names, limits, seed, batch), "window_seconds": window_seconds}
        reply, series = self._call("throughput", inputs, progress, limit_s or self._enough(limits), **arguments)
        with self._parsing("throughput"):
            _expect(series, "i")
            told = _named(reply, names)
            counts, window_ns, latency_ns = (dict(zip(told, series[i::3], strict=True)) for i in range(3))
            return Throughput(counts=counts, window_ns=window_ns, latency_ns=latency_ns, **paced(reply))

    def energy(
        self,
        names: Sequence[str],
        inputs: Arrays,
        *,
        seed: int,
        batch: int = 1,
        windows: int = 6,
        window_seconds: float = 0.5,
        rails: Sequence[str] = (),
        limit_s: float | None = None,
    ) -> Energy:
        """Runs each model back to back for some windows of time and reads the device's energy counters around each.

        Args:
            names: Of the open models; none to ask only whether there is something to read, and why not.
            inputs: As for :meth:`time`.
            seed: Of the order of the models in each round.
            batch: Samples per inference.
            windows: Of each model.
            window_seconds: Length of each, at least; power rails need longer ones than energy counters.
            rails: Power rails that add up to the device's power, where it has no energy counters.
            limit_s: Time limit of the call.
        """
        plan = {
            "names": list(names),
            "seed": seed,
            "batch": batch,
            "windows": windows,
            "window_seconds": window_seconds,
            "rails": list(rails),
        }
        reply, series = self._call("energy", inputs, None, limit_s, **plan)
        with self._parsing("energy"):
            if reply["why"]:
                return Energy({}, "", str(reply["why"]))
            _expect(series, "f")
            return Energy(dict(zip(names, series, strict=True)), str(reply["scope"]), "")

    def layers(self, name: str, inputs: Arrays, *, limit_s: float | None = None) -> list[Layer]:
        """The compiled operations of an open model, profiled on one batch, in the order of execution."""
        reply, _ = self._call("layers", inputs, limit_s=limit_s, name=name)
        with self._parsing("layers"):
            return [parsed(Layer, layer) for layer in reply["layers"]]

    def memory(self, *, limit_s: float | None = None) -> Memory:
        """Resident memory of the agent's process now and at its peak."""
        reply, _ = self._call("memory", limit_s=limit_s)
        with self._parsing("memory"):
            return parsed(Memory, reply)

    def runtime_memory(self, name: str, inputs: Arrays, *, limit_s: float | None = None) -> RuntimeMemory:
        """What the runtime itself says about the memory of an open model, run on one batch.

        The model may be opened once more for it, which adds to the memory of the agent's process.
        """
        reply, _ = self._call("runtime_memory", inputs, limit_s=limit_s, name=name)
        with self._parsing("runtime_memory"):
            return parsed(RuntimeMemory, reply)

    def close(self, name: str, *, limit_s: float | None = None) -> None:
        """Closes an open model."""
        self._call("close", limit_s=limit_s, name=name)

    def build(
        self,
        toolchain: str,
        files: Mapping[str, Path],
        options: Mapping[str, Any],
        *,
        limit_s: float,
        progress: Callable[[str], None] | None = None,
    ) -> Built:
        """Runs a toolchain where the agent runs: ``edgeopt/agent/toolchains/<name>.py``.

        Args:
            toolchain: Its name.
            files: Inputs on the host, by the relative names under which the toolchain gets them.
            options: For the toolchain; plain JSON.
            limit_s: Time limit; building may take many minutes.
            progress: Called with every line that the toolchain reports.
        """

        def tell(report: Mapping[str, Any]) -> None:
            if progress:
                progress(str(report.get("note", "")))

        arguments = {"toolchain": toolchain, "files": list(files), "options": dict(options)}
        contents = [np.fromfile(path, np.uint8) for path in files.values()]
        reply, found = self._call("build", contents, tell, limit_s, **arguments)
        with self._parsing("build"):
            facts = dict(reply["facts"])
            layers = [parsed(Layer, layer) for layer in facts.pop("layers", [])]
            try:
                names = [str(toolchains.checked(name)) for name in reply["files"]]
            except AgentError as error:
                raise StageError(f"build: {error}", where=self._channel.name) from error
            return Built({name: data.tobytes() for name, data in zip(names, found, strict=True)}, facts, layers)

    def _enough(self, limits: Limits) -> float:
        """Seconds after which timing by these limits must have ended."""
        return max(self._channel.limit_s, 2 * (limits.max_seconds + limits.warmup_max_seconds) + 60)


def _pace(names: Sequence[str], limits: Limits, seed: int, batch: int) -> dict[str, Any]:
    return {"names": list(names), "limits": vars(limits), "seed": seed, "batch": batch}


def _named(reply: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The names in the reply, in its order; ValueError if they are not those that were asked for."""
    told = [str(name) for name in reply["names"]]
    if sorted(told) != sorted(names):
        raise ValueError(f"names {told}, asked for {list(names)}")
    return told


def _expect(series: Arrays, kind: str) -> None:
    """ValueError if not all are series of numbers of a kind."""
    if odd := [one for one in series if one.ndim != 1 or one.dtype.kind != kind]:
        raise ValueError(f"a series of shape {odd[0].shape} and dtype {odd[0].dtype}")
