"""How an agent is reached, and the client that speaks with it.

``local.start()`` runs one on this machine; every way of access ends in an :class:`Agent` over two byte streams.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from edgeopt.agent import PROTOCOL, AgentError, wire
from edgeopt.agent.runtimes import Layer, Port
from edgeopt.agent.timer import Limits
from edgeopt.errors import StageError

__all__ = ["Agent", "Facts", "Layer", "Limits", "Machine", "Memory", "Opened", "Port", "Progress", "Timing"]

Arrays = Sequence[npt.NDArray[Any]]

#: lines that an agent's surroundings (a login banner, a start-up script) may print before it says hello
_LINES_BEFORE_HELLO = 1000


@dataclass(frozen=True)
class Machine:
    """The device.

    Attributes:
        cpu: Model name of the processor.
        flags: Those features of it that matter for inference, as Linux spells them (``avx512_vnni``, ``i8mm`` …).
        cores: Cores that the agent may use.
        memory_mib: Main memory; 0 if not known.
        system: Operating system, its release and the architecture.
    """

    cpu: str
    flags: tuple[str, ...]
    cores: int
    memory_mib: int
    system: str

    def __str__(self) -> str:
        return f"{self.cpu}, {self.cores} cores, {self.memory_mib} MiB, {self.system}"


@dataclass(frozen=True)
class Facts:
    """What an agent says about itself: versions of the runtimes that load, and why others do not, by name."""

    version: str
    python: str
    pid: int
    machine: Machine
    runtimes: Mapping[str, str]
    missing: Mapping[str, str]


@dataclass(frozen=True)
class Opened:
    """An open model. ``threads`` and ``settings`` are what the runtime reports back, not what was asked for."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    load_ms: float
    threads: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """Result of :meth:`Agent.time`.

    Attributes:
        samples_ns: (rounds,) int64 by name; element i of all arrays was taken in the same round on the same input.
        first_inference_ns: Duration of the very first inference after opening, by name.
        seconds: Wall time of warming up and timing.
    """

    samples_ns: Mapping[str, npt.NDArray[np.int64]]
    first_inference_ns: Mapping[str, int]
    seconds: float


@dataclass(frozen=True)
class Memory:
    """Resident memory of the agent's process; None where the system does not say."""

    peak_mib: float | None
    current_mib: float | None


#: called with what an agent reports while it works: ``{"seconds", "rounds"}`` (time) or ``{"done", "total"}`` (infer)
Progress = Callable[[Mapping[str, float]], None]


class Agent:
    """Client of one agent; a context manager that stops it, at once if the body raised.

    Args:
        requests: Stream to the agent.
        replies: Stream from the agent.
        name: How error messages call it.
        stop: Ends the agent; called once, with True if it must not be waited for.
        last_words: The last lines that the agent wrote on its standard error; called after ``stop``.
        limit_s: Time limit of a call that gives none. An agent that misses it is stopped.

    Every method raises StageError: with the agent's own message if it refuses, or with its last words if it died or
    did not answer in time.
    """

    def __init__(
        self,
        requests: BinaryIO,
        replies: BinaryIO,
        *,
        name: str,
        stop: Callable[[bool], None],
        last_words: Callable[[], str],
        limit_s: float = 600.0,
    ) -> None:
        self._requests = requests
        self._replies = replies
        self._name = name
        self._stop = stop
        self._last_words = last_words
        self._limit_s = limit_s
        self._greeted = False
        self._stopped = False
        self._stopping = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(at_once=error is not None)

    def stop(self, *, at_once: bool = False) -> None:
        """Ends the agent. Again is harmless."""
        with self._stopping:  # the watchdog of a call may be at it: when this returns, the agent has ended
            if not self._stopped:
                self._stopped = True
                self._stop(at_once)

    def probe(self, *, limit_s: float | None = None) -> Facts:
        """Facts about the device and the runtimes there."""
        reply, _ = self._call("probe", limit_s=limit_s)
        machine = reply["machine"]
        return Facts(
            version=reply["version"],
            python=reply["python"],
            pid=reply["pid"],
            machine=Machine(**{**machine, "flags": tuple(machine["flags"])}),
            runtimes=reply["runtimes"],
            missing=reply["missing"],
        )

    def open(
        self,
        name: str,
        runtime: str,
        path: str,
        *,
        threads: int = 1,
        optimization: str = "all",
        limit_s: float | None = None,
    ) -> Opened:
        """Opens the artefact file at ``path`` on the device under ``name``.

        Args:
            name: What the other calls name it by; must be new.
            runtime: ``onnxruntime``, ``openvino`` …
            path: On the device: the ``.onnx`` file, or the ``.xml`` of an OpenVINO IR.
            threads: Threads per inference; the call fails if the runtime would use another number.
            optimization: ``all``, or ``none`` for the plain meaning of the file (not every runtime can).
            limit_s: Time limit of the call.
        """
        options = {"threads": threads, "optimization": optimization}
        reply, _ = self._call("open", name=name, runtime=runtime, path=str(path), options=options, limit_s=limit_s)
        return Opened(
            name=name,
            inputs=tuple(_port(port) for port in reply["inputs"]),
            outputs=tuple(_port(port) for port in reply["outputs"]),
            load_ms=reply["load_ms"],
            threads=reply["threads"],
            settings=reply["settings"],
        )

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
            progress: Called about twice a second with ``{"seconds", "rounds"}`` of the timing.
            limit_s: Time limit of the call; by default what ``limits`` allow and a minute.
        """
        if limit_s is None:
            limit_s = max(self._limit_s, 2 * limits.max_seconds + 60)
        message = {"names": list(names), "limits": vars(limits), "seed": seed, "batch": batch}
        reply, series = self._call("time", inputs, progress, limit_s, **message)
        return Timing(dict(zip(reply["names"], series, strict=True)), reply["first_inference_ns"], reply["seconds"])

    def layers(self, name: str, inputs: Arrays, *, limit_s: float | None = None) -> list[Layer]:
        """The compiled operations of an open model, profiled on one batch, in the order of execution."""
        reply, _ = self._call("layers", inputs, limit_s=limit_s, name=name)
        return [Layer(**{**layer, "source": tuple(layer["source"])}) for layer in reply["layers"]]

    def memory(self, *, limit_s: float | None = None) -> Memory:
        """Resident memory of the agent's process now and at its peak."""
        reply, _ = self._call("memory", limit_s=limit_s)
        return Memory(reply["peak_mib"], reply["current_mib"])

    def close(self, name: str, *, limit_s: float | None = None) -> None:
        """Closes an open model."""
        self._call("close", limit_s=limit_s, name=name)

    def _call(
        self,
        verb: str,
        tensors: Arrays = (),
        progress: Progress | None = None,
        limit_s: float | None = None,
        **arguments: Any,
    ) -> wire.Message:
        if self._stopped:
            raise StageError(f"the agent was stopped before '{verb}'", where=self._name)
        limit_s = self._limit_s if limit_s is None else limit_s
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self.stop(at_once=True)

        watchdog = threading.Timer(limit_s, give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            reply = self._exchange({"verb": verb, **arguments}, tensors, progress)
        except BaseException as error:
            self.stop(at_once=True)  # the streams are out of step: also after Ctrl-C this agent is of no further use
            if isinstance(error, AgentError):
                raise StageError(f"talking with the agent failed in '{verb}': {error}", where=self._name) from error
            if not isinstance(error, BrokenPipeError) and not (late.is_set() and isinstance(error, Exception)):
                raise
            reply = None
        finally:
            watchdog.cancel()
        if reply is None:
            self.stop(at_once=True)
            what = f"did not answer '{verb}' within {limit_s:g} s" if late.is_set() else f"died during '{verb}'"
            words = self._last_words()
            raise StageError(f"the agent {what}" + (f"; it last wrote:\n{words}" if words else ""), where=self._name)
        if not reply.header["ok"]:
            refusal = reply.header["error"]
            raise StageError(f"{verb}: {refusal['what']} ({refusal['type']})", where=self._name)
        return reply

    def _exchange(self, request: Mapping[str, Any], tensors: Arrays, progress: Progress | None) -> wire.Message | None:
        """One request and its reply; None if the agent's stream ends."""
        if not self._greeted and not self._greet():
            return None
        wire.write(self._requests, request, tensors)
        while (message := wire.read(self._replies)) is not None:
            if "progress" not in message.header:
                return message
            if progress:
                progress(message.header["progress"])
        return None

    def _greet(self) -> bool:
        """Skips what else is printed until the agent says hello; False if the stream ends before."""
        for _ in range(_LINES_BEFORE_HELLO):
            line = self._replies.readline()
            if not line:
                return False
            if line.startswith(b'{"hello": "edgeopt-agent"'):
                with suppress(ValueError):
                    spoken = json.loads(line)["protocol"]
                    if spoken != PROTOCOL:
                        raise AgentError(f"it speaks version {spoken}, edgeopt speaks {PROTOCOL}")
                    self._greeted = True
                    return True
        raise AgentError("it never said hello")


def _port(port: Mapping[str, Any]) -> Port:
    return Port(port["name"], tuple(port["shape"]), port["dtype"])
