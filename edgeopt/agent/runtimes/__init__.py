"""One file, one runtime; a runtime's name is its file's name.

A file here has two functions, and imports its runtime only inside them:

    open(path: str, options: Options) -> Model
    version() -> str
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt

from .. import AgentError  # noqa: TID252  relative, so that a zipapp works


@dataclass(frozen=True)
class Options:
    """How to open a model.

    Attributes:
        threads: Threads for one inference, at least 1.
        streams: Inferences in flight at the same time, at least 1; more than one is for throughput.
        optimization: ``all`` the runtime's graph optimisations, or ``none``: the model as it stands, for judging what
            a quantized file means apart from the shortcuts of this machine's kernels.
    """

    threads: int = 1
    streams: int = 1
    optimization: Literal["all", "none"] = "all"

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise AgentError(f"threads must be at least 1, not {self.threads}")
        if self.streams < 1:
            raise AgentError(f"streams must be at least 1, not {self.streams}")
        if self.optimization not in ("all", "none"):
            raise AgentError(f"optimization must be 'all' or 'none', not {self.optimization!r}")


@dataclass(frozen=True)
class Port:
    """An input or output: shape like (None, 3, 32, 32), None where it is dynamic; numpy's name of the dtype."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class Layer:
    """One compiled operation.

    Attributes:
        name: The runtime's name for it.
        op: The runtime's operation type.
        source: Names of the operations of the opened file that it computes; empty for what the runtime added.
        precision: Of its main input, like ``f32`` or ``u8``.
        device: Where it runs, like ``CPU``.
        exec: The kernel that was chosen, as far as the runtime says.
        time_us: Median over a few profiled runs; None if the runtime does not execute it (done in place), or it cannot
            be timed where the layers were found.
        why: Why it runs where it runs, if that is not where it should.
    """

    name: str
    op: str
    source: tuple[str, ...]
    precision: str
    device: str
    exec: str
    time_us: float | None = None
    why: str = ""


@dataclass(frozen=True)
class RuntimeMemory:
    """What the runtime itself says about the memory of a model.

    Attributes:
        peak_mib: None if it says nothing.
        what: What the figure is, or why there is none.
    """

    peak_mib: float | None
    what: str


class Lane(Protocol):
    """A request with input buffers of its own. Several lanes of a model may run at the same time."""

    def load(self, inputs: Sequence[npt.NDArray[Any]]) -> None:
        """Copies one batch, in the order of the model's inputs, into the buffers that ``run`` reads."""

    def run(self) -> int | None:
        """Returns the ns of the call by the runtime's own clock, if it has one: see :func:`own_clock`."""


class Model(Lane, Protocol):
    """An open model, which is also its first lane.

    ``load``, ``run``, ``fetch`` are the three parts of one inference; only ``run`` is ever timed, so it does the
    runtime's call and nothing else that takes time.
    """

    @property
    def inputs(self) -> tuple[Port, ...]: ...
    @property
    def outputs(self) -> tuple[Port, ...]: ...
    @property
    def threads(self) -> int:
        """Per inference, as the runtime reports it back."""

    @property
    def lanes(self) -> Sequence[Lane]:
        """As many as the runtime has streams."""

    @property
    def settings(self) -> dict[str, Any]:
        """Further settings as the runtime reports them back; plain JSON values.

        ``simulated`` is true where the runtime only imitates the device: such a model gives outputs and is never timed.
        """

    def fetch(self) -> list[npt.NDArray[Any]]:
        """Copies of the outputs of the last ``run``, in the order of ``outputs``."""

    def layers(self, inputs: Sequence[npt.NDArray[Any]]) -> list[Layer]:
        """Opens the model once more with profiling on and runs it on ``inputs``."""

    def memory(self, inputs: Sequence[npt.NDArray[Any]]) -> RuntimeMemory:
        """The runtime's own figure, for which the model may be opened once more and run on ``inputs``."""

    def close(self) -> None: ...


class Runtime(Protocol):
    """What a file here offers."""

    def open(self, path: str, options: Options) -> Model: ...
    def version(self) -> str: ...


def names() -> list[str]:
    """The runtimes that this agent knows, installed or not."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Runtime:
    """The runtime of that name.

    Raises:
        AgentError: There is no such runtime.
    """
    if name not in names():
        raise AgentError(f"unknown runtime {name!r}; known: {', '.join(names())}")
    return cast(Runtime, importlib.import_module(f".{name}", __package__))


def own_clock(name: str) -> str | None:
    """What times a call inside that runtime, below its Python binding; None if only the call can be timed."""
    clock: str | None = getattr(load(name), "OWN_CLOCK", None)
    return clock


def versions() -> tuple[dict[str, str], dict[str, str]]:
    """Versions of the runtimes that load here, and why the others do not, each by name."""
    found, missing = {}, {}
    for name in names():
        try:
            found[name] = load(name).version()
        except (ImportError, OSError) as error:
            missing[name] = str(error)
    return found, missing


def fill(
    ports: Sequence[Port], buffers: Sequence[npt.NDArray[Any]], inputs: Sequence[npt.NDArray[Any]]
) -> list[npt.NDArray[Any]] | None:
    """Copies ``inputs`` into ``buffers``, or, where their shapes differ, returns new buffers that hold them.

    Raises:
        AgentError: Number, dtype or shape is not what ``ports`` say. Nothing is cast silently.
    """
    if len(inputs) != len(ports):
        raise AgentError(f"the model has {len(ports)} inputs, {len(inputs)} are given")
    for port, given in zip(ports, inputs, strict=True):
        fits = len(given.shape) == len(port.shape) and all(
            size is None or size == have for size, have in zip(port.shape, given.shape, strict=True)
        )
        if not fits or given.dtype != np.dtype(port.dtype):
            want, got = f"{port.dtype} {_written(port.shape)}", f"{given.dtype} {_written(given.shape)}"
            raise AgentError(f"input {port.name} wants {want}, got {got}")
    if [buffer.shape for buffer in buffers] != [given.shape for given in inputs]:
        return [np.array(given, order="C") for given in inputs]
    for buffer, given in zip(buffers, inputs, strict=True):
        np.copyto(buffer, given)
    return None


def _written(shape: Sequence[int | None]) -> str:
    return f"({', '.join('?' if size is None else str(size) for size in shape)})"
