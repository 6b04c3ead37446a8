"""Backends, the host side of a runtime: one file, one runtime.

A backend knows what INT8 means for its runtime, writes the file that the device opens, and translates the layers that
are found in that file back to the nodes of the ONNX model. Its device side is ``edgeopt/agent/runtimes/<name>.py``.

Where no device is at hand, a backend says how deep it goes without one: a toolkit may compile, may give the outputs
by a simulator or another stand-in, and may estimate how long the device takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from edgeopt import provenance
from edgeopt import tools as environments
from edgeopt.agent.runtimes import Layer
from edgeopt.artifact import Artifact
from edgeopt.errors import ConfigError
from edgeopt.stage import Params
from edgeopt.target import Target

if TYPE_CHECKING:
    from edgeopt.access import Agent

#: How far a target goes on this machine, from the least.
Depth = Literal["compile", "simulate", "estimate", "measure"]

#: Runtimes that people ask for and that edgeopt does not have, and why.
_NOT_AVAILABLE: Mapping[str, str] = MappingProxyType(
    {
        "intel-npu": "OpenVINO's wheel has the NPU plug-in, but no compiler that works without the NPU and its driver",
        "hailo": "Hailo's Dataflow Compiler is only for those who register with Hailo; no package index has it",
        "snpe": "Qualcomm's older SDK is only for those who register; the runtime `qnn` compiles for the same NPUs",
        "edgetpu": "its compiler is a Debian package of Google's, no Python package; it reads the files of `litert`",
        "executorch": "it runs beside torch 2.13, but edgeopt has no backend for it yet",
    }
)
_ALSO = MappingProxyType(
    {
        "openvino-npu": "intel-npu",
        "edge-tpu": "edgetpu",
        "coral": "edgetpu",
        "hailort": "hailo",
        "qualcomm-snpe": "snpe",
    }
)


@dataclass(frozen=True)
class Scheme:
    """What INT8 means for a runtime on a target.

    Attributes:
        quantizer: Name of the quantizer that writes it.
        options: Those of the quantizer's options that differ from its defaults.
    """

    quantizer: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What is asked of :meth:`Backend.compile` beside the model.

    Attributes:
        batch: Samples per inference.
        threads: Of the runtime.
        options: Of :attr:`Backend.Options`.
        seed: Of every random choice.
        device: Gives an agent on the target's device.
        host: Gives an agent on this machine: in this environment (``""``), or in an isolated tool environment.
    """

    batch: int
    threads: int
    options: Params
    seed: int
    device: Callable[[], Agent]
    host: Callable[[str], Agent]


@dataclass(frozen=True)
class StandIn:
    """How the outputs of a compiled artefact are had on this machine, without its device.

    Attributes:
        runtime: Of the agent.
        file: It opens this, relative to the artefact.
        what: What this is, for the report: ``x86 simulator of the HTP``.
        optimization: As for :meth:`edgeopt.access.Agent.open`.
        environment: Isolated tool environment that it runs in; empty for this one.
    """

    runtime: str
    file: str
    what: str
    optimization: Literal["all", "none"] = "all"
    environment: str = ""


@dataclass(frozen=True)
class Figure:
    """A number that the toolkit itself gives of what it compiled; lower is better.

    Attributes:
        metric: Like ``sram_mib``. ``latency_ms`` stands for every percentile of the latency.
        method: How the toolkit comes to it.
        why: By what and under which assumptions: ``vela 5.2.0, Ethos_U55_High_End_Embedded, Shared_Sram``.
        at_least: The number is a lower bound: something is left out of it.
    """

    metric: str
    value: float
    unit: str
    method: Literal["measured", "simulated", "estimated"]
    why: str
    at_least: bool = False


@dataclass(frozen=True)
class Compiled:
    """What a backend wrote.

    Attributes:
        file: Name of the file that the device opens. What lies under ``aside/`` is not for it.
        origin: Nodes of the source model by the name of an operation in the file, where they differ.
        notes: Every fallback, and what else the user must know.
        layers: The compiled operations, if compiling tells them; else the agent is asked.
        stand_in: How the outputs are had without the device; ``None`` if they are not.
        figures: What the toolkit says of the file.
        facts: Plain JSON for the report: versions, the architecture, stamps of the build.
    """

    file: str
    origin: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    layers: tuple[Layer, ...] | None = None
    stand_in: StandIn | None = None
    figures: tuple[Figure, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Availability:
    """Whether a toolkit can be used on this machine.

    Attributes:
        installed: All that it needs is there.
        version: Of the runtime; empty if it is not installed.
        missing: Distributions that are not installed.
        fix: How to get them; empty if nothing is missing.
    """

    installed: bool
    version: str
    missing: tuple[str, ...]
    fix: str


class NoOptions(Params):
    """Of a backend whose toolkit has nothing to choose."""


class Backend:
    """A runtime, seen from the host. Implementations are stateless.

    Attributes:
        name: As a target's ``runtime`` writes it; also that of the agent's runtime.
        consumes: Artefact kinds that it compiles.
        produces: Artefact kind that it writes.
        tools: Distributions whose versions are part of the action key; the last one is the runtime.
        environment: Isolated tool environment that it needs as well.
        precisions: What it compiles. Without ``float`` a target's baseline is the float ONNX on this machine, which
            never ships.
        float_is: What its float network computes in. If that is not ``f32``, accuracy is compared with the float ONNX
            on this machine, and not with a network that may have lost as much.
        processor: Where its layers should run. A layer elsewhere is a fallback.
        own_toolkit: The device's own toolkit compiles, so that its version there decides what comes out.
        without_device: How deep it goes where no device is at hand; ``None`` if it needs one.
        Options: Type of what a target's ``compile`` may say.
    """

    name: ClassVar[str]
    consumes: ClassVar[frozenset[str]]
    produces: ClassVar[str]
    tools: ClassVar[tuple[str, ...]]
    environment: ClassVar[str] = ""
    precisions: ClassVar[frozenset[str]] = frozenset({"float", "int8"})
    float_is: ClassVar[str] = "f32"
    processor: ClassVar[str] = "CPU"
    own_toolkit: ClassVar[bool] = False
    without_device: ClassVar[Depth | None] = None
    Options: ClassVar[type[Params]] = NoOptions

    def scheme(self, target: Target) -> Scheme:
        """The runtime's own kind of INT8 on ``target``."""
        raise ConfigError(f"{self.name} has no INT8")

    def options(self, target: Target) -> Params:
        """What the target says of compiling: :attr:`Options` with the facts of its device folded in.

        Raises:
            ConfigError: An option or the architecture is unknown.
        """
        return self.parse(target)

    def runs_on(self, options: Params) -> str:
        """Where the layers should run with these options."""
        return self.processor

    def parse(self, target: Target, **facts: Any) -> Params:
        """The target's ``compile`` as :attr:`Options`, with ``facts`` for what it leaves out.

        Raises:
            ConfigError: It has an option that there is not, or with a wrong value.
        """
        shared = {key: value for key, value in target.compile.items() if key not in target.runtime}
        own = target.compile.get(self.name, {})
        where = f"target {target.name}: compile"
        if not isinstance(own, Mapping):
            raise ConfigError(f"{self.name}: expected options, got {own!r}", where=where)
        return self.Options.parse({**facts, **shared, **own}, self.name, where)

    def compile(self, artifact: Artifact, request: Request, out: Path) -> Compiled:
        """Write the file that the device opens into ``out``, for a fixed batch.

        Equal arguments give equal bytes, unless the toolkit cannot do it; a note says so then.

        Raises:
            MissingBackend: The toolkit is not installed.
            StageError: The toolkit refuses the model.
        """
        raise ConfigError(f"{self.name} cannot compile")

    def layer_map(self, layers: Sequence[Layer], compiled: Compiled) -> list[dict[str, Any]]:
        """:func:`entry` of every layer, with names that are the same in every run and nodes of the ONNX model."""
        return [
            entry(layer, layer.name, [node for name in layer.source for node in compiled.origin.get(name, (name,))])
            for layer in layers
        ]

    def probe(self) -> Availability:
        """Whether the toolkit is installed; imports nothing."""
        return availability(self.tools, self.environment)

    def depth(self, target: Target) -> Depth | None:
        """How deep it goes for ``target`` once its toolkit is installed; ``None`` if not at all."""
        return self.without_device if target.device.access.none else "measure"


def availability(tools: Sequence[str], environment: str = "") -> Availability:
    """Whether all of ``tools`` are installed; the last is the runtime, unless that has an ``environment``."""
    missing = [tool for tool in tools if not provenance.tool_version(tool)]
    version = provenance.tool_version(tools[-1])
    extras = ",".join(sorted({provenance.EXTRAS.get(tool, tool) for tool in missing}))
    fixes = [f"pip install 'edgeopt[{extras}]'"] if missing else []
    if environment:
        found = environments.status(environment)
        toolkit, installed = found.tool.toolkit, found.state == "installed"
        version = environments.versions(environment)[toolkit] if installed else ""
        missing += [] if installed else [toolkit]
        fixes += [] if installed else [f"edgeopt tools install {environment}"]
    return Availability(not missing, version, tuple(missing), " && ".join(fixes))


def entry(layer: Layer, name: str, source: Iterable[str]) -> dict[str, Any]:
    """One element of a layer map: no times, which differ from run to run."""
    return {
        "name": name,
        "op": layer.op,
        "source": list(dict.fromkeys(source)),
        "precision": layer.precision,
        "device": layer.device,
        "exec": layer.exec,
        **({"why": layer.why} if layer.why else {}),
    }


def not_available(runtime: str) -> str:
    """Why edgeopt does not have a runtime that people ask for; empty if it is not one of those."""
    return _NOT_AVAILABLE.get(_ALSO.get(runtime, runtime), "")
