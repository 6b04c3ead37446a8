"""The target: a hardware profile. Capability and budget, kept apart from the product's intent in the recipe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from edgeopt.errors import ConfigError
from edgeopt.recipe import Frozen, Gates, Name, Size, unlike

#: A target's artefact lies in the run's folder under the target's name, beside these.
_RESERVED = frozenset(
    {"samples", "run.json", "events.jsonl", "report.md", "report.html", "junit.xml", "comparison.json"}
)

#: Features of a device that change how a model is quantized for it.
Feature = Literal["vnni"]


#: Kinds of numbers beside the float ones, from the least to the most compressed.
Precision = Literal["fp16", "int8"]


def _like(pattern: str, what: str) -> AfterValidator:
    """Text that no program takes for an option, nor a shell for anything but text."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"should be {what}, got {value!r}")
        return value

    return AfterValidator(check)


#: neither the user nor the machine may begin like an option: a ProxyCommand sees them one by one
_HOST = r"([A-Za-z0-9_][A-Za-z0-9_.-]{0,63}@)?[A-Za-z0-9_][A-Za-z0-9_.:%-]{0,254}"
_Host = Annotated[str, _like(_HOST, "a host as `ssh HOST` takes it")]
_Serial = Annotated[str, _like(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,254}", "a serial number as `adb devices` lists it")]
_Interpreter = Annotated[str, _like(r"[/A-Za-z0-9._][^\x00-\x1f]*", "a Python interpreter")]
_Folder = Annotated[str, _like(r"/[^\x00-\x1f]*", "an absolute path on the device")]


class Access(Frozen):
    """How the agent of a device is reached. ``local``, a process on this machine, is all that is not given.

    Attributes:
        ssh: Host, as the system's OpenSSH client knows it.
        adb: Serial number, as ``adb devices`` lists it.
        python: Interpreter with numpy and the runtime on the device; alone, another one on this machine.
        folder: Where the private work folder is made on a remote device.
        none: No device is at hand: what can be compiled, simulated or estimated without it is.
    """

    ssh: _Host | None = None
    adb: _Serial | None = None
    python: _Interpreter | None = None
    folder: _Folder | None = None
    none: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum((self.ssh is not None, self.adb is not None, self.none)) > 1:
            raise ValueError("a device is reached in one way: give ssh, adb, or none")
        if self.none and (self.python or self.folder):
            raise ValueError("without a device there is neither a python nor a folder")
        if self.folder and not self.remote:
            raise ValueError("folder is for a device that is reached over ssh or adb")
        return self

    @property
    def remote(self) -> bool:
        """Whether files must be brought to the device."""
        return self.ssh is not None or self.adb is not None

    def __str__(self) -> str:
        if self.none:
            return "none"
        named = {"ssh": self.ssh, "adb": self.adb, "python": self.python}
        return next((f"{how} {value}" for how, value in named.items() if value), "local")


def _as_access(value: Any) -> Any:
    return {"local": {}, "none": {"none": True}}.get(value, value) if isinstance(value, str) else value


class Device(Frozen):
    """What runs the artefact.

    Attributes:
        kind: What computes: a microcontroller is ``mcu``.
        access: How its agent is reached.
        arch: Which one, as the runtime's toolkit calls it: ``sm_87``, ``v75``, ``ethos-u55-128``, ``rk3588``.
        features: What the device is known to have; the agent checks it. ``vnni``: 8-bit dot products that cannot
            saturate, so that INT8 weights may use their full range.
        power_mode: In which it must be while it is measured, as ``nvpmodel -q`` calls it.
        rails: Power rails that add up to the device's power, as ``tegrastats`` calls them.
    """

    kind: Literal["cpu", "gpu", "npu", "mcu"] = "cpu"
    access: Annotated[Access, BeforeValidator(_as_access, json_schema_input_type=Literal["local", "none"] | Access)] = (
        Access()
    )
    arch: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")] | None = None
    features: tuple[Feature, ...] = ()
    power_mode: str | None = None
    rails: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")], ...] = ()


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
        precision: Candidates beside the float baseline, in order of preference. Where nothing is timed, the first one
            whose accuracy holds ships.
        quantization: Overrides of the runtime's own INT8 scheme.
        compile: The toolkit's own options; under the name of one of several runtimes, for that one alone.
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
    precision: Annotated[tuple[Precision, ...], AfterValidator(unlike)] = ("int8",)
    limits: Limits = Limits()
    measure: MeasureSpec = MeasureSpec()
    quantization: dict[str, Any] = Field(default_factory=dict)
    compile: dict[str, Any] = Field(default_factory=dict)
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
