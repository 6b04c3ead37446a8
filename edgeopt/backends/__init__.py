"""Backends, the host side of a runtime: one file, one runtime.

A backend knows what INT8 means for its runtime, writes the file that the device opens, and translates the layers that
the agent finds in that file back to the nodes of the ONNX model. Its device side is
``edgeopt/agent/runtimes/<name>.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edgeopt import provenance
from edgeopt.agent.runtimes import Layer
from edgeopt.artifact import Artifact
from edgeopt.target import Target


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
class Compiled:
    """What a backend wrote.

    Attributes:
        file: Name of the file that the device opens.
        origin: Nodes of the source model by the name of an operation in the file, where they differ.
        notes: What the user must know.
    """

    file: str
    origin: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


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


class Backend(Protocol):
    """A runtime, seen from the host. Implementations are stateless.

    Attributes:
        name: As a target's ``runtime`` writes it; also that of the agent's runtime.
        consumes: Artefact kinds that it compiles.
        produces: Artefact kind that it writes.
        tools: Distributions whose versions are part of the action key.
    """

    name: str
    consumes: frozenset[str]
    produces: str
    tools: tuple[str, ...]

    def scheme(self, target: Target) -> Scheme:
        """The runtime's own kind of INT8 on ``target``."""
        ...

    def compile(self, artifact: Artifact, batch: int, out: Path) -> Compiled:
        """Write the file that the device opens into ``out``, for a fixed batch. Equal arguments give equal bytes.

        Raises:
            StageError: The toolkit refuses the model.
        """
        ...

    def layer_map(self, layers: Sequence[Layer], compiled: Compiled) -> list[dict[str, Any]]:
        """``{name, op, source, precision, device, exec}`` of every layer, with names that are the same in every run."""
        ...

    def probe(self) -> Availability:
        """Whether the toolkit is installed; imports nothing."""
        ...


def availability(tools: Sequence[str]) -> Availability:
    """Whether all of ``tools`` are installed; the last one is the runtime itself."""
    missing = tuple(tool for tool in tools if not provenance.tool_version(tool))
    extras = ",".join(sorted({provenance.EXTRAS.get(tool, tool) for tool in missing}))
    fix = f"pip install 'edgeopt[{extras}]'" if missing else ""
    return Availability(not missing, provenance.tool_version(tools[-1]), missing, fix)


def entry(layer: Layer, name: str, source: Iterable[str]) -> dict[str, Any]:
    """One element of a layer map: no times, which differ from run to run."""
    return {
        "name": name,
        "op": layer.op,
        "source": list(dict.fromkeys(source)),
        "precision": layer.precision,
        "device": layer.device,
        "exec": layer.exec,
    }
