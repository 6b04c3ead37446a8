"""The target: a hardware profile. Capability and budget, kept apart from the product's intent in the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from edgeopt.errors import ConfigError
from edgeopt.recipe import Frozen, Gates, Name, Size, unlike

#: A target's artefact lies in the run's folder under the target's name, beside these.
_RESERVED = frozenset(
    {"samples", "run.json", "events.jsonl", "report.md", "report.html", "junit.xml", "comparison.json"}
)

#: Features of a device that change how a model is quantized for it.
Feature = Literal["vnni"]


class Device(Frozen):
    """What runs the artefact.

    Attributes:
        access: How its agent is reached; ``local`` is a process on this machine.
        features: What the device is known to have; the agent checks it. ``vnni``: 8-bit dot products that cannot
            saturate, so that INT8 weights may use their full range.
    """

    kind: Literal["cpu"] = "cpu"
    access: Literal["local"] = "local"
    features: tuple[Feature, ...] = ()


class Limits(Frozen):
    """What the device and its kernels like.

    Attributes:
        channel_multiple: Pruned widths are multiples of this.
        max_opset: Highest ONNX opset that the toolchain reads; ``None`` if it reads what the exporter writes.
    """

    channel_multiple: Size = 1
    max_opset: Annotated[int, Field(ge=11)] | None = None


class MeasureSpec(Frozen):
    """The measuring protocol.

    Attributes:
        percentile: The latency percentile that the target stands for; enough runs for its interval are made.
        min_seconds: Timed seconds per candidate, at least.
        min_runs: Timed inferences per candidate, at least.
        max_seconds: Budget per candidate when a gate cannot be decided yet.
        batch: Samples per inference.
        threads: Threads that the runtime may use.
    """

    percentile: Annotated[float, Field(ge=50, lt=100)] = 99
    min_seconds: Annotated[float, Field(gt=0)] = 2.0
    min_runs: Size = 200
    max_seconds: Annotated[float, Field(gt=0)] = 10.0
    batch: Size = 1
    threads: Size = 1


def _as_tuple(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _not_reserved(name: str) -> str:
    if name in _RESERVED:
        raise ValueError(f"{name!r} is a file or folder of every run; choose another name")
    return name


class Target(Frozen):
    """A hardware profile.

    Attributes:
        runtime: One runtime, or several that compete on the same device.
        precision: Candidates beside the float baseline, in order of preference.
        quantization: Overrides of the runtime's own INT8 scheme.
        gates: Default budgets of this slot, which a recipe may override.
        accept: Which numbers that were not measured may still pass a gate.
    """

    target: Literal[1]
    name: Annotated[Name, AfterValidator(_not_reserved)]
    description: str = ""
    runtime: Annotated[
        tuple[Name, ...],
        BeforeValidator(_as_tuple, json_schema_input_type=str | tuple[str, ...]),
        Field(min_length=1),
        AfterValidator(unlike),
    ]
    device: Device = Device()
    precision: tuple[Literal["int8"], ...] = ("int8",)
    limits: Limits = Limits()
    measure: MeasureSpec = MeasureSpec()
    quantization: dict[str, Any] = Field(default_factory=dict)
    gates: Gates = Field(default_factory=dict)
    accept: tuple[Literal["estimated", "simulated"], ...] = ()


def folders(recipe_root: Path) -> list[Path]:
    """Where target files are looked up: ``targets/`` beside and above the recipe, here, and the built-in ones."""
    root = recipe_root.resolve()
    package = Path(__file__).resolve().parent
    candidates = [
        *(folder / "targets" for folder in (root, *root.parents)),
        Path.cwd() / "targets",
        package / "_targets",
        package.parent / "targets",
    ]
    unique = dict.fromkeys(folder for folder in candidates if folder.is_dir() and any(folder.glob("*.yaml")))
    return list(unique)


def available(recipe_root: Path) -> dict[str, Path]:
    """Name -> file of every target that a recipe in this folder can name."""
    found: dict[str, Path] = {}
    for folder in folders(recipe_root):
        for file in sorted(folder.glob("*.yaml")):
            found.setdefault(file.stem, file)
    return found


def locate(name: str, recipe_root: Path) -> Path:
    """The file of a target, given by name or as a path to a YAML file.

    Raises:
        ConfigError: There is none.
    """
    if name.endswith((".yaml", ".yml")):
        for file in (recipe_root / name, Path(name)):
            if file.is_file():
                return file
        raise ConfigError(f"no such target file {name!r}")
    known = available(recipe_root)
    if name in known:
        return known[name]
    from edgeopt.registry import hint

    raise ConfigError(f"unknown target {name!r}{hint(name, known)}")
