"""The verbs: probe, open, infer, time, layers, memory, close."""

from __future__ import annotations

import os
import platform
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter, perf_counter_ns
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from . import PROTOCOL, VERSION, AgentError, machine, runtimes, wire
from .runtimes import Model, Options
from .timer import Limits, interleaved

Arrays = Sequence[npt.NDArray[Any]]
Reply = tuple[dict[str, Any], Arrays]


@dataclass
class _Opened:
    model: Model
    first_inference_ns: int | None = None

    def first_run(self, batch: Arrays) -> None:
        """Runs the model once, timed, if it never ran before."""
        if self.first_inference_ns is None:
            self.model.load(batch)
            start = perf_counter_ns()
            self.model.run()
            self.first_inference_ns = perf_counter_ns() - start


class Server:
    """Answers the requests of one client, one after the other. Every model is open under the client's name for it."""

    def __init__(self, requests: BinaryIO, replies: BinaryIO) -> None:
        self._requests = requests
        self._replies = replies
        self._opened: dict[str, _Opened] = {}
        self._verbs: dict[str, Callable[[dict[str, Any], Arrays], Reply]] = {
            "probe": self._probe,
            "open": self._open,
            "infer": self._infer,
            "time": self._time,
            "layers": self._layers,
            "memory": self._memory,
            "close": self._close,
        }

    def serve(self) -> None:
        """Says hello, then answers until the client closes the stream."""
        wire.write(self._replies, {"hello": "edgeopt-agent", "protocol": PROTOCOL})
        while (message := wire.read(self._requests)) is not None:
            header, tensors = self._answer(message)
            wire.write(self._replies, header, tensors)

    def _answer(self, message: wire.Message) -> Reply:
        header, tensors = message
        verb = header.pop("verb", None)
        try:
            if verb not in self._verbs:
                raise AgentError(f"unknown verb {verb!r}; known: {', '.join(self._verbs)}")
            reply, out = self._verbs[verb](header, tensors)
        except Exception as error:  # noqa: BLE001  the boundary of the process: the client gets the error, the log the traceback
            if not isinstance(error, AgentError):
                traceback.print_exc(file=sys.stderr)
            return {"ok": False, "error": {"type": type(error).__name__, "what": str(error).strip()}}, ()
        return {"ok": True, **reply}, out

    def _probe(self, header: dict[str, Any], tensors: Arrays) -> Reply:
        found, missing = runtimes.versions()
        return {
            "version": VERSION,
            "protocol": PROTOCOL,
            "python": platform.python_version(),
            "pid": os.getpid(),
            "machine": machine.facts(),
            "runtimes": found,
            "missing": missing,
        }, ()

    def _open(self, header: dict[str, Any], tensors: Arrays) -> Reply:
        name, runtime = header["name"], header["runtime"]
        if name in self._opened:
            raise AgentError(f"a model named {name!r} is open already")
        options = Options(**header.get("options", {}))
        backend = runtimes.load(runtime)
        start = perf_counter()
        model = backend.open(header["path"], options)
        load_ms = (perf_counter() - start) * 1e3
        if model.threads != options.threads:
            model.close()
            raise AgentError(
                f"{runtime} would use {model.threads} threads where {options.threads} are asked for; "
                f"this process may use {machine.facts()['cores']} cores"
            )
        self._opened[name] = _Opened(model)
        return {
            "inputs": [asdict(port) for port in model.inputs],
            "outputs": [asdict(port) for port in model.outputs],
            "load_ms": load_ms,
            "threads": model.threads,
            "settings": model.settings,
        }, ()

    def _infer(self, header: dict[str, Any], tensors: Arrays) -> Reply:
        opened = self._get(header["name"])
        batches, samples = _batches(tensors, header["batch"])
        collected: list[Arrays] = []
        for done, batch in enumerate(batches):
            opened.first_run(batch)
            opened.model.load(batch)
            opened.model.run()
            outputs = opened.model.fetch()
            for port, output in zip(opened.model.outputs, outputs, strict=True):
                if output.ndim == 0 or output.shape[0] != header["batch"]:
                    raise AgentError(
                        f"output {port.name} of {header['name']!r} has shape {list(output.shape)}: "
                        f"its first axis is not the batch of {header['batch']}"
                    )
            collected.append(outputs)
            if done % 64 == 63:
                self._progress(done=min((done + 1) * header["batch"], samples), total=samples)
        return {}, [np.concatenate(parts)[:samples] for parts in zip(*collected, strict=True)]

    def _time(self, header: dict[str, Any], tensors: Arrays) -> Reply:
        opened = {name: self._get(name) for name in header["names"]}
        if not opened:
            raise AgentError("nothing to time: no names given")
        batches, _ = _batches(tensors, header["batch"])
        limits = Limits(**header["limits"])
        for one in opened.values():
            one.first_run(batches[0])
        begin = perf_counter()
        samples = interleaved(
            {name: one.model for name, one in opened.items()},
            batches,
            limits,
            header["seed"],
            lambda seconds, rounds: self._progress(seconds=seconds, rounds=rounds),
        )
        return {
            "names": list(samples),
            "first_inference_ns": {name: one.first_inference_ns for name, one in opened.items()},
            "seconds": perf_counter() - begin,
        }, list(samples.values())

    def _layers(self, header: dict[str, Any], tensors: Arrays) -> Reply:
        model = self._get(header["name"]).model
        return {"layers": [asdict(layer) for layer in model.layers(tensors)]}, ()

    def _memory(self, header: dict[str, Any], tensors: Arrays) -> Reply:
        return machine.memory(), ()

    def _close(self, header: dict[str, Any], tensors: Arrays) -> Reply:
        self._get(header["name"]).model.close()
        del self._opened[header["name"]]
        return {}, ()

    def _get(self, name: str) -> _Opened:
        if name not in self._opened:
            raise AgentError(f"no model named {name!r} is open; open: {', '.join(self._opened) or 'none'}")
        return self._opened[name]

    def _progress(self, **progress: float) -> None:
        wire.write(self._replies, {"progress": progress})


def _batches(tensors: Arrays, batch: int) -> tuple[list[Arrays], int]:
    """Splits (N, …) inputs into full batches; the last one is filled up by repeating the last sample.

    Returns:
        The batches and N.
    """
    counts = {len(tensor) if tensor.ndim else 0 for tensor in tensors}
    if len(counts) != 1 or not (count := counts.pop()):
        raise AgentError("the inputs need the same number of samples, at least one")
    if batch < 1:
        raise AgentError(f"a batch needs at least one sample, not {batch}")
    starts = range(0, count, batch)
    index = [np.minimum(np.arange(start, start + batch), count - 1) for start in starts]
    return [[np.ascontiguousarray(tensor[rows]) for tensor in tensors] for rows in index], count
