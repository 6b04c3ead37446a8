"""The verbs: probe, open, infer, time, throughput, energy, layers, memory, runtime_memory, close, build."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from time import perf_counter, perf_counter_ns
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from . import (
    PROTOCOL,
    VERSION,
    AgentError,
    blocks,
    call_overhead,
    condition,
    energy,
    machine,
    runtimes,
    toolchains,
    wire,
)
from .runtimes import Model, Options
from .service import Arrays, Reply, Verb, serve
from .throughput import Saturated, Window
from .timer import Interleaved, Limits, collect, measure_clock, undisturbed, warm_up

T = TypeVar("T")


@dataclass
class _Opened:
    runtime: str
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
        self._verbs: Mapping[str, Verb] = {
            "probe": self._probe,
            "open": self._open,
            "infer": self._infer,
            "time": self._time,
            "throughput": self._throughput,
            "energy": self._energy,
            "layers": self._layers,
            "memory": self._memory,
            "runtime_memory": self._runtime_memory,
            "close": self._close,
            "build": self._build,
        }

    def serve(self) -> None:
        """Says hello, then answers until the client closes the stream."""
        serve(self._requests, self._replies, self._verbs)

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
        backend.version()  # imports the runtime, which is no part of loading a model
        start = perf_counter()
        model = backend.open(header["path"], options)
        load_ms: float | None = (perf_counter() - start) * 1e3
        if isinstance(model, blocks.Timed):
            load_ms = None  # the tool loads the model whenever it runs it
        used, asked = (model.threads, len(model.lanes)), (options.threads, options.streams)
        if used != asked:
            model.close()
            raise AgentError(
                f"{runtime} would use {used[0]} threads in {used[1]} streams where {asked[0]} in {asked[1]} are asked "
                f"for; this process may use {machine.facts()['cores']} cores"
            )
        self._opened[name] = _Opened(runtime, model)
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
        opened, batches = self._ready(header, tensors)
        models = {name: one.model for name, one in opened.items()}
        if timed := blocks.timed(models):
            reply, series = self._in_blocks(timed, batches[0], Limits(**header["limits"]), header["seed"])
            samples = [np.array(series[name], dtype=np.int64) for name in models]
            return {**reply, **_first(opened), "call_overhead": []}, samples
        threads = {
            one.runtime: one.model.threads
            for one in opened.values()
            if header["call_overhead"] and call_overhead.can_be_timed(one.runtime)
        }
        empty = {f"calling {runtime}": call_overhead.open_model(runtime, count) for runtime, count in threads.items()}
        one_round = Interleaved({**models, **empty}, batches, header["seed"], preloaded=list(empty))
        try:
            reply, series = self._paced(one_round, list(models), Limits(**header["limits"]), float)
        finally:
            for model in empty.values():
                model.close()
        reply["clock"]["name"] = _clocks(reply["clock"]["name"], {one.runtime for one in opened.values()})
        samples = [np.array(series[name], dtype=np.int64) for name in (*models, *empty)]
        return {**reply, **_first(opened), "call_overhead": list(threads)}, samples

    def _throughput(self, header: dict[str, Any], tensors: Arrays) -> Reply:
        opened, batches = self._ready(header, tensors)
        models = {name: one.model for name, one in opened.items()}
        if blocks.timed(models):
            raise AgentError("a tool that is started for every series gives no throughput; it needs the Python package")
        with Saturated(models, batches, header["seed"], header["window_seconds"]) as one_round:
            limits = Limits(**header["limits"])
            reply, series = self._paced(one_round, list(models), limits, lambda window: window.ns_per_run)
        samples: list[npt.NDArray[Any]] = []
        for name in models:
            windows: list[Window] = series[name]
            samples += [
                np.array([window.runs * header["batch"] for window in windows], dtype=np.int64),
                np.array([window.ns for window in windows], dtype=np.int64),
                np.concatenate([window.latency_ns for window in windows]),
            ]
        return {**reply, **_first(opened)}, samples

    def _energy(self, header: dict[str, Any], tensors: Arrays) -> Reply:
        plan = {key: header[key] for key in ("windows", "window_seconds", "seed")}
        ready = self._ready(header, tensors) if header["names"] else None
        series: Mapping[str, npt.NDArray[Any]] = {}
        try:
            with energy.counters(header.get("rails", ())) as (counters, least_seconds):
                plan["window_seconds"] = max(plan["window_seconds"], least_seconds)
                if ready:
                    opened, batches = ready
                    models = {name: one.model for name, one in opened.items()}
                    series = energy.measure_mj(models, batches, counters, **plan)
        except energy.NoCounters as error:
            return {"why": str(error)}, ()
        return {"why": "", "scope": " + ".join(counter.name for counter in counters)}, list(series.values())

    def _ready(self, header: dict[str, Any], tensors: Arrays) -> tuple[dict[str, _Opened], list[Arrays]]:
        """The named models, each run at least once, and the batches."""
        opened = {name: self._get(name) for name in header["names"]}
        if not opened:
            raise AgentError("nothing to time: no names given")
        if simulated := [name for name, one in opened.items() if one.model.settings.get("simulated")]:
            raise AgentError(
                f"this machine only simulates a device for {', '.join(simulated)}: the time of that says nothing",
                fix="device: {access: none}, or access to a real device",
            )
        batches, _ = _batches(tensors, header["batch"])
        for one in opened.values():
            if not isinstance(one.model, blocks.Timed):
                one.first_run(batches[0])
        return opened, batches

    def _paced(
        self, one_round: Callable[[int], dict[str, T]], names: list[str], limits: Limits, pace: Callable[[T], float]
    ) -> tuple[dict[str, Any], dict[str, list[T]]]:
        """Warms up, then times, between two looks at the device's condition."""
        begin = perf_counter()
        clock = measure_clock()
        with undisturbed():
            warmup = warm_up(one_round, names, limits, pace)
            before = condition.read()
            series = collect(one_round, limits, lambda seconds, rounds: self._progress(seconds=seconds, rounds=rounds))
            after = condition.read()
        return {
            "seconds": perf_counter() - begin,
            "clock": asdict(clock),
            "warmup": asdict(warmup),
            "before": asdict(before),
            "after": asdict(after),
        }, series

    def _in_blocks(
        self, models: dict[str, blocks.Timed], batch: Arrays, limits: Limits, seed: int
    ) -> tuple[dict[str, Any], dict[str, list[int]]]:
        """As :meth:`_paced`, for models that their tool times."""
        begin = perf_counter()
        before = condition.read()
        warmup, series = blocks.collect(
            models, batch, limits, seed, lambda seconds, runs: self._progress(seconds=seconds, rounds=runs)
        )
        after = condition.read()
        return {
            "seconds": perf_counter() - begin,
            "clock": asdict(next(iter(models.values())).clock),
            "warmup": asdict(warmup),
            "before": asdict(before),
            "after": asdict(after),
        }, series

    def _layers(self, header: dict[str, Any], tensors: Arrays) -> Reply:
        model = self._get(header["name"]).model
        return {"layers": [asdict(layer) for layer in model.layers(tensors)]}, ()

    def _memory(self, header: dict[str, Any], tensors: Arrays) -> Reply:
        if any(isinstance(one.model, blocks.Timed) for one in self._opened.values()):
            return {"peak_mib": None, "current_mib": None}, ()  # the tool's process has the model, not this one
        return machine.memory(), ()

    def _runtime_memory(self, header: dict[str, Any], tensors: Arrays) -> Reply:
        return asdict(self._get(header["name"]).model.memory(tensors)), ()

    def _close(self, header: dict[str, Any], tensors: Arrays) -> Reply:
        self._get(header["name"]).model.close()
        del self._opened[header["name"]]
        return {}, ()

    def _build(self, header: dict[str, Any], tensors: Arrays) -> Reply:
        contents = dict(zip(header["files"], tensors, strict=True))
        built = toolchains.build(
            header["toolchain"], contents, header["options"], lambda line: self._progress(note=line)
        )
        return {"files": list(built.files), "facts": built.facts}, list(built.files.values())

    def _get(self, name: str) -> _Opened:
        if name not in self._opened:
            raise AgentError(f"no model named {name!r} is open; open: {', '.join(self._opened) or 'none'}")
        return self._opened[name]

    def _progress(self, **progress: float | str) -> None:
        wire.write(self._replies, {"progress": progress})


def _first(opened: dict[str, _Opened]) -> dict[str, Any]:
    """Where a tool times, the first inference has no time: the tool's own start is in it."""
    first = {
        name: None if isinstance(one.model, blocks.Timed) else one.first_inference_ns for name, one in opened.items()
    }
    return {"names": list(opened), "first_inference_ns": first}


def _clocks(name: str, used: Iterable[str]) -> str:
    """The agent's clock, and those of the runtimes that have one of their own."""
    own = {runtime: runtimes.own_clock(runtime) for runtime in sorted(used)}
    return "; ".join([name, *(f"{runtime}: {clock}" for runtime, clock in own.items() if clock)])


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
