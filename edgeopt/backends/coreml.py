"""Core ML, for Apple's devices: converted in the isolated tool environment ``coreml``, and run by nothing here.

Only macOS and iOS run a Core ML model. So what is converted here is **unverified**: no number of its accuracy exists,
and none of its latency.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from edgeopt.agent.toolchains import coreml as toolchain
from edgeopt.artifact import Artifact
from edgeopt.backends import Backend, Compiled, Depth, Request, Scheme
from edgeopt.errors import ConfigError
from edgeopt.stage import Params
from edgeopt.target import Target

_LIMIT_S = 3600.0


class CoremlOptions(Params):
    """What a target's ``compile`` may say.

    Attributes:
        deployment: Oldest system that is to open the model (coremltools, ``minimum_deployment_target``).
        compute: In what it computes; the Neural Engine has only ``float16``.
    """

    deployment: Literal["iOS16", "iOS17", "iOS18", "macOS13", "macOS14", "macOS15"] = "iOS16"
    compute: Literal["float16", "float32"] = "float16"


class Coreml(Backend):
    """ML programs (``.mlpackage``) from torch programs."""

    name = "coreml"
    consumes = frozenset({"torch-program", "torch-program-int8"})
    produces = "coreml-model"
    tools: ClassVar[tuple[str, ...]] = ("torch",)
    environment = "coreml"
    precisions: ClassVar[frozenset[str]] = frozenset({"float", "int8"})
    float_is = "f16"
    processor = "NPU"
    without_device: ClassVar[Depth | None] = "compile"
    Options = CoremlOptions

    def scheme(self, target: Target) -> Scheme:
        """Small weights."""
        return Scheme("coreml")

    def options(self, target: Target) -> Params:
        """As ``compile`` says.

        Raises:
            ConfigError: An option is wrong, or the device is said to be reached.
        """
        if not target.device.access.none:
            where, fix = f"target {target.name}: device", "write `access: none`: the model is converted"
            raise ConfigError("edgeopt does not run Core ML models", where=where, fix=fix)
        return self.parse(target)

    def compile(self, artifact: Artifact, request: Request, out: Path) -> Compiled:
        """Write ``model.mlpackage``.

        Raises:
            MissingBackend: The tool environment is not installed.
            StageError: The converter refuses the program.
        """
        options = {
            **request.options.model_dump(),
            "weights": artifact.meta["options"]["weights"] if artifact.kind == "torch-program-int8" else "float",
            "input": artifact.meta["input"]["name"],
            "outputs": [port["name"] for port in artifact.meta["outputs"]],
        }
        files = {toolchain.PROGRAM: artifact.path(artifact.meta["file"])}
        built = request.host(self.environment).build("coreml", files, options, limit_s=_LIMIT_S)
        for name, content in built.files.items():
            file = out / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        notes = [
            "unverified: only macOS runs a Core ML model, so that neither its accuracy nor its speed is known",
            f"the model takes the raw samples as float32, though they are {artifact.meta['input']['dtype']}",
        ]
        if built.facts["compressed"]:
            notes.append(f"{built.facts['compressed']} weights are {options['weights']}")
        return Compiled(file=toolchain.PACKAGE, notes=tuple(notes), facts=dict(built.facts))


PLUGINS = (Coreml(),)
