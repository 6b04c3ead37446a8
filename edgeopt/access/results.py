"""What an agent answers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from edgeopt.agent.condition import Condition, disturbances
from edgeopt.agent.runtimes import Layer, Port
from edgeopt.agent.timer import Clock, Warmup

T = TypeVar("T")
_adapter: Callable[[Any], TypeAdapter[Any]] = functools.cache(TypeAdapter)


@dataclass(frozen=True)
class Machine:
    """The device.

    Attributes:
        cpu: Model name of the processor.
        flags: Those features of it that matter for inference, as Linux spells them (``avx512_vnni``, ``i8mm`` …).
        cores: Cores that the agent may use.
        memory_mib: Main memory; 0 if not known.
        system: Operating system, its release and the architecture.
        physical_cores: Of the whole machine; None if not known.
        cpus: Numbers of the CPUs that the agent may run on; empty if not known.
        cpu_limit: CPUs that its control group grants on average; None without a limit.
        memory_limit_mib: Of its control group; None without a limit.
        container: Kind of the container that it runs in; empty if there is no sign of one.
        virtualization: Hypervisor below; empty if there is no sign of one.
        gpu: Name and architecture of the first NVIDIA GPU, like ``Orin (sm_87)``; empty if there is none.
        power_mode: Of a Jetson, as ``nvpmodel`` names it.
        rails: Power rails of a Jetson, as ``tegrastats`` names them.
    """

    cpu: str
    flags: tuple[str, ...]
    cores: int
    memory_mib: int
    system: str
    physical_cores: int | None = None
    cpus: tuple[int, ...] = ()
    cpu_limit: float | None = None
    memory_limit_mib: float | None = None
    container: str = ""
    virtualization: str = ""
    gpu: str = ""
    power_mode: str = ""
    rails: tuple[str, ...] = ()

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
    load_ms: float | None
    threads: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Paced:
    """How timing went, whatever was timed.

    Attributes:
        first_inference_ns: Duration of the very first inference after opening, by name; None where a tool times.
        seconds: Wall time of warming up and timing.
        warmup: Whether every series had become steady when timing began.
        clock: What timed.
        before, after: The device right before the first and right after the last timed round.
    """

    first_inference_ns: Mapping[str, int | None]
    seconds: float
    warmup: Warmup
    clock: Clock
    before: Condition
    after: Condition

    @property
    def disturbances(self) -> list[str]:
        """What disturbed the timing: that it never became steady, and what the device shows; each one sentence."""
        unsteady = ", ".join(self.warmup.unsteady)
        return [
            *([f"not steady after {self.warmup.seconds:.0f} s of warming up: {unsteady}"] if unsteady else []),
            *disturbances(self.before, self.after),
        ]


@dataclass(frozen=True, kw_only=True)
class Timing(_Paced):
    """Result of :meth:`Agent.time`.

    Attributes:
        samples_ns: (rounds,) int64 by name; element i of all arrays was taken in the same round on the same input.
        call_overhead_ns: (rounds,) int64 by runtime: a model that does next to nothing, in the same rounds.
    """

    samples_ns: Mapping[str, npt.NDArray[np.int64]]
    call_overhead_ns: Mapping[str, npt.NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Throughput(_Paced):
    """Result of :meth:`Agent.throughput`; window i of all names was taken in the same round on the same input.

    Attributes:
        counts: Finished samples, (windows,) int64 by name.
        window_ns: Length of the windows, (windows,) int64 by name.
        latency_ns: Of every single inference, while the others were in flight, (inferences,) int64 by name.
    """

    counts: Mapping[str, npt.NDArray[np.int64]]
    window_ns: Mapping[str, npt.NDArray[np.int64]]
    latency_ns: Mapping[str, npt.NDArray[np.int64]]

    def samples_per_s(self, name: str) -> npt.NDArray[np.float64]:
        """Of each window, (windows,)."""
        return self.counts[name] / (self.window_ns[name] / 1e9)


@dataclass(frozen=True)
class Energy:
    """Result of :meth:`Agent.energy`.

    Attributes:
        mj: mJ per inference of each window, (windows,) by name; empty if the device does not tell.
        scope: What the counters cover, like ``package-0 + dram``; everything that runs there is in them.
        why: Why nothing was measured.
    """

    mj: Mapping[str, npt.NDArray[np.float64]]
    scope: str
    why: str


@dataclass(frozen=True)
class Memory:
    """Resident memory of the agent's process; None where the system does not say."""

    peak_mib: float | None
    current_mib: float | None


@dataclass(frozen=True)
class Built:
    """Result of :meth:`Agent.build`.

    Attributes:
        files: What the toolchain wrote, by relative name.
        facts: What it returned: plain JSON.
        layers: Of the built model, if the toolchain tells.
    """

    files: Mapping[str, bytes]
    facts: Mapping[str, Any]
    layers: list[Layer]


def paced(reply: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of :class:`_Paced` from a reply of the agent; ValueError, TypeError or KeyError if they are none."""
    return {
        "first_inference_ns": parsed(dict[str, int | None], reply["first_inference_ns"]),
        "seconds": parsed(float, reply["seconds"]),
        "warmup": parsed(Warmup, reply["warmup"]),
        "clock": parsed(Clock, reply["clock"]),
        "before": parsed(Condition, reply["before"]),
        "after": parsed(Condition, reply["after"]),
    }


def parsed(kind: type[T], value: Any) -> T:
    """JSON of an agent as what it stands for, all types checked; ValueError if it is something else."""
    adapter: TypeAdapter[T] = _adapter(kind)
    return adapter.validate_python(value)
