"""The contract of a stage: a pure function from artefacts and bound parameters to one artefact.

A stage never sees the target, the store or another stage. What it needs to know of a target is folded into its
parameters by :meth:`Stage.bind` when the plan is made, so that it is part of the action key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from edgeopt.artifact import Artifact
from edgeopt.data import Split
from edgeopt.errors import ConfigError
from edgeopt.registry import hint

if TYPE_CHECKING:
    from edgeopt.access import Agent
    from edgeopt.target import Target

#: ``(done, total, unit, note, seconds_left)``
Progress = Callable[[float, float, str, str, float | None], None]


class Params(BaseModel):
    """Base of all stage parameters: frozen, strict, and no key that the stage does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, options: Mapping[str, Any], of: str, where: str) -> Self:
        """The options that a user gave a plug-in.

        Args:
            options: As YAML gives them.
            of: Name of the plug-in.
            where: They were given.

        Raises:
            ConfigError: With every option that is unknown or wrong.
        """
        try:
            return cls.model_validate(dict(options))
        except ValidationError as error:
            lines = []
            for details in error.errors():
                name = ".".join(str(part) for part in details["loc"])
                if details["type"] == "extra_forbidden":
                    lines.append(f"{of} has no option {name!r}{hint(name, cls.model_fields)}")
                else:
                    lines.append(f"{name}: {details['msg']}, got {details['input']!r}")
            raise ConfigError("; ".join(lines), where=where) from error


@dataclass(frozen=True)
class StageContext:
    """What a running stage may use besides its inputs and parameters.

    Attributes:
        out: Empty folder; everything in it becomes the output artefact.
        root: Folder of the recipe, where the user's own modules lie.
        seed: Of every random choice.
        data: The opened splits that :meth:`Stage.data` asked for.
        progress: Tells how far the work is.
        agent: Gives the agent of the device that the step runs on, started at the first call; only for stages with
            ``on_device``.
        host: Gives an agent on this machine: in this environment (``""``) or in an isolated tool environment.
    """

    out: Path
    root: Path
    seed: int
    data: Mapping[str, Split]
    progress: Progress
    agent: Callable[[], Agent]
    host: Callable[[str], Agent]


@dataclass(frozen=True)
class StageOutput:
    """What a stage says of the files that it wrote.

    Attributes:
        kind: Artefact kind, one of :attr:`Stage.produces`.
        meta: Facts about the artefact, part of its content digest: no times, no absolute paths.
        summary: What was done, in a few words.
        notes: Every fallback taken and everything that the user must know.
    """

    kind: str
    meta: Mapping[str, Any]
    summary: str = ""
    notes: tuple[str, ...] = field(default=())


P = TypeVar("P", bound=Params)


class Stage(Protocol[P]):
    """A stage. Implementations are stateless; each lives in ``edgeopt/stages/<name>.py``.

    Attributes:
        name: As a recipe's ``steps`` writes it.
        version: Part of the action key; raised whenever the behaviour changes.
        Params: Type of the parameters.
        accepts: Artefact kinds by input role, ``{"model": {"torch"}}``.
        produces: Artefact kinds that can come out.
        tools: Distributions whose versions are part of the action key.
        in_recipe: Whether a recipe may name it as a step; the plan adds the others by itself.
        on_device: Whether the output depends on the machine that runs it, so that its fingerprint enters the key. That
            is the target's device, unless the parameters have ``at_hand`` and it is false: then it is this machine.
        environment: Isolated tool environment that it works in; empty for none.
    """

    name: str
    version: int
    Params: type[P]
    accepts: Mapping[str, frozenset[str]]
    produces: frozenset[str]
    tools: tuple[str, ...]
    in_recipe: bool
    on_device: bool
    environment: str

    def bind(self, params: P, target: Target) -> P:
        """Fold the facts of ``target`` that matter into the parameters.

        Raises:
            PlanError: The parameters and the target contradict each other.
        """
        ...

    def data(self, params: P) -> tuple[str, ...]:
        """Names of the splits that :meth:`run` reads, such as ``("train", "select")``."""
        ...

    def run(self, inputs: Mapping[str, Artifact], params: P, ctx: StageContext) -> StageOutput:
        """Do the work.

        Raises:
            EdgeoptError: Any of its kinds, with what is wrong and how to mend it.
        """
        ...


class Clock:
    """Seconds left of a loop, from how long its finished part took."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def seconds_left(self, done: float, total: float) -> float | None:
        """Estimate for the rest, ``None`` before anything is done."""
        return (time.monotonic() - self._start) / done * (total - done) if done else None
