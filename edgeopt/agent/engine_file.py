"""A TensorRT engine on the device: the plan, and beside it what was known when it was built.

A plan says nothing of its inputs before it is deserialised, and deserialising one of another version or another GPU
fails late, with a message that names neither. So the toolchain writes a ``.json`` of the same stem beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import AgentError
from .runtimes import Port

#: bytes of a plan up to the end of its version
_HEADER = 28
_TAGS = {b"ftrt": "TensorRT", b"vtrt": "TensorRT-RTX"}


@dataclass(frozen=True)
class EngineFile:
    """What was known when the plan was built.

    Attributes:
        tensorrt: Version that built it, like ``10.3.0``.
        arch: GPU that it was built on, like ``sm_87``; empty if the builder did not say.
        gpu: Name of that GPU.
        tool: ``trtexec`` or ``python``.
        typing: ``strong`` or ``weak``.
        cuda_graph: Whether its run can be captured as a CUDA graph.
        dla_core: Number of the accelerator; None for the GPU alone.
        inputs, outputs: With static shapes.
        reasons: Why layers do not run on the DLA core, by name.
    """

    tensorrt: str
    arch: str
    gpu: str
    tool: str
    typing: str
    cuda_graph: bool
    dla_core: int | None
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    reasons: Mapping[str, str] = field(default_factory=dict)

    def write(self, plan: Path) -> None:
        """Writes it beside the plan."""
        plan.with_suffix(".json").write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def beside(cls, plan: Path) -> EngineFile:
        """Reads it.

        Raises:
            AgentError: It is not there, or damaged.
        """
        file = plan.with_suffix(".json")
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
            return cls(**{**raw, "inputs": _ports(raw["inputs"]), "outputs": _ports(raw["outputs"])})
        except OSError as error:
            what = f"{file.name} is not beside {plan.name}, which does not say for which GPU it was built"
            raise AgentError(what) from error
        except (ValueError, TypeError, KeyError) as error:
            raise AgentError(f"{file.name} is damaged: {error!r}") from error

    def conditions(self, *others: str) -> dict[str, Any]:
        """How it is timed: without copies, with a graph where it can be captured; the other words as they are."""
        typed = f"{self.typing}ly typed"
        return {"transfers": False, "cuda_graph": self.cuda_graph, "others": [*others, typed]}

    def require(self, plan: Path, version: str, arch: str) -> None:
        """Stops before a plan is deserialised that this device cannot run.

        Args:
            plan: The engine.
            version: Of the TensorRT here, like ``10.3.0`` or ``10.3.0.30``; words after a blank mean nothing.
            arch: Of the GPU here; empty if nobody knows.

        Raises:
            AgentError: It was built by another version, or for another GPU; both are named.
        """
        product, built = plan_version(plan)
        here = ".".join(version.split()[0].split(".")[:3])
        if product != "TensorRT":
            raise AgentError(f"{plan.name} was built by {product} {built}, which TensorRT {here} cannot run")
        if built != here:
            raise AgentError(f"{plan.name} was built by TensorRT {built}, this device has {here}: build it again here")
        if self.arch and arch and self.arch != arch:
            raise AgentError(
                f"{plan.name} was built for {self.arch} ({self.gpu}), this device is {arch}: build it again"
            )


def plan_version(plan: Path) -> tuple[str, str]:
    """Product and version that built a plan, from its first bytes, as ``trtexec --getPlanVersionOnly`` reads them.

    Source: ``printPlanVersion`` in ``samples/common/sampleEngines.cpp`` of NVIDIA's TensorRT repository: a tag of four
    bytes, the version of the format, which must be 0, and at byte 24 major, minor, patch and build. Plans of
    TensorRT-RTX 1.7 look the same, but for the tag.

    Raises:
        AgentError: It is no plan.
    """
    with plan.open("rb") as stream:
        head = stream.read(_HEADER)
    if len(head) < _HEADER or head[:4] not in _TAGS:
        raise AgentError(f"{plan.name} is no TensorRT engine")
    if head[4:8] != bytes(4):
        raise AgentError(f"{plan.name} has a format that edgeopt does not know; build it again")
    return _TAGS[head[:4]], ".".join(map(str, head[24:27]))


def _ports(raw: Sequence[dict[str, object]]) -> tuple[Port, ...]:
    return tuple(Port(str(port["name"]), tuple(port["shape"]), str(port["dtype"])) for port in raw)  # type: ignore[arg-type]
