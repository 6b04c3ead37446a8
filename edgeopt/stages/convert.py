"""Convert: the trained network as one ``.tflite`` file that takes raw samples, for LiteRT and what is built on it.

The network is traced here, with its preprocessing in front, and converted in the isolated tool environment
``litert-torch``, where neither the user's code nor edgeopt is. The batch is fixed. Operators carry the names of the
ONNX nodes that :mod:`edgeopt.stages.export` writes, so that layers of both files can be compared.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from edgeopt import checkpoint, data, tflite
from edgeopt.agent import tflite_file
from edgeopt.agent.toolchains.litert_torch import MODEL, PROGRAM
from edgeopt.artifact import Artifact
from edgeopt.errors import StageError
from edgeopt.recipe import InputSpec
from edgeopt.stage import Params, StageContext, StageOutput
from edgeopt.stages._parity import random_samples, reference_outputs
from edgeopt.stages._program import deployable, quiet, trace
from edgeopt.target import Target
from edgeopt.tflite import names, rewrite

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]

#: A large network takes the converter minutes.
_LIMIT_S = 3600.0
#: What is stored is an index of 31 bits.
_MAX_BYTES = 2**31
#: Random samples at which the file is compared with the network.
_SAMPLES = 4


class ConvertParams(Params):
    """How to convert.

    Attributes:
        batch: Samples per inference; the target's ``measure.batch`` if it is not given.
        tolerance: Largest allowed difference between the file and the network, as a share of the largest absolute
            value that the network gives.
    """

    batch: int | None = Field(default=None, ge=1)
    tolerance: float = Field(default=1e-4, gt=0, lt=1)


class Convert:
    """See the module."""

    name = "convert"
    version = 2
    Params = ConvertParams
    accepts: Mapping[str, frozenset[str]] = {"model": frozenset({"torch"})}
    produces = frozenset({"tflite"})
    tools: tuple[str, ...] = ("ai-edge-litert", "torch")
    environment = "litert-torch"
    in_recipe = False
    on_device = False

    def bind(self, params: ConvertParams, target: Target) -> ConvertParams:
        """Take the batch from the measuring protocol."""
        return params if params.batch else params.model_copy(update={"batch": target.measure.batch})

    def data(self, params: ConvertParams) -> tuple[str, ...]:
        """None: parity is checked on random raw samples."""
        return ()

    def run(self, inputs: Mapping[str, Artifact], params: ConvertParams, ctx: StageContext) -> StageOutput:
        """Write ``model.tflite``.

        Raises:
            MissingBackend: The tool environment is not installed.
            StageError: The network cannot be traced; LiteRT lacks operators, which ones in which modules; or the file
                does not compute what the network computes.
        """
        artifact = inputs["model"]
        input_spec = InputSpec.model_validate_json(json.dumps(artifact.meta["input"]))
        preprocess = checkpoint.preprocess_of(artifact)
        raw = data.raw_spec(input_spec, preprocess)
        network = checkpoint.load(artifact, ctx.root)
        batch = params.batch or 1
        samples = random_samples(raw, batch * -(-_SAMPLES // batch), ctx.seed)
        expected = reference_outputs(network, preprocess, samples, ctx.root)

        ctx.progress(0, 3, "steps", "tracing", None)
        whole = deployable(network, preprocess, channels_last=True)
        program = trace(whole, samples[:batch], ctx.root, fixed_batch=True)
        ctx.progress(1, 3, "steps", "converting", None)
        content, facts = _convert(program, ctx)
        model = tflite.load(content)
        if len(model.subgraphs[0].outputs) != len(expected):
            raise StageError("the converter gave the file another number of outputs", where="convert")
        output_names = _output_names(len(expected), input_spec.name)
        nodes = names.tidy(model, input_spec.name, output_names)
        rewrite.reduce_in_place(model)
        file = ctx.out / MODEL
        file.write_bytes(tflite.dump(model))
        ctx.progress(2, 3, "steps", "comparing", None)
        difference, scale = _compare(expected, file, samples, batch, ctx)
        if not difference <= params.tolerance * scale:
            raise StageError(
                f"the converted file differs from the network by {difference:.2g} where outputs reach {scale:.2g} "
                f"(allowed: {params.tolerance:g} of that)",
                where=_first_unlike(whole, file, samples[:batch], params.tolerance) or "convert",
                fix="write the layer with other operations; the converter computes this one differently",
            )
        outputs = [
            {"name": name, "node": node, "shape": list(array.shape[1:]), "dtype": array.dtype.name}
            for name, node, array in zip(output_names, nodes, expected, strict=True)
        ]
        meta = {
            "input": {"name": input_spec.name, "shape": list(raw.shape), "dtype": raw.dtype},
            "outputs": outputs,
            "preprocess": artifact.meta.get("preprocess"),
            "batch": batch,
            "file": MODEL,
            "max_abs_difference": float(f"{difference:.0e}"),
            "versions": facts["versions"],
        }
        operators = len(tflite_file.read(file.read_bytes()).operators)
        return StageOutput("tflite", meta, f"{operators} operators, differs from torch by {difference:.1e} at most")


def _convert(program: torch.export.ExportedProgram, ctx: StageContext) -> tuple[bytes, dict[str, Any]]:
    """What the converter makes of a program, and its versions."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / PROGRAM
        with quiet():
            torch.export.save(program, file)
        if file.stat().st_size >= _MAX_BYTES:
            raise StageError("a .tflite file holds less than 2 GiB", where="convert", fix="prune the network first")

        def progress(line: str) -> None:
            ctx.progress(1, 3, "steps", line, None)

        agent = ctx.host(Convert.environment)
        built = agent.build("litert_torch", {PROGRAM: file}, {}, limit_s=_LIMIT_S, progress=progress)
    return built.files[MODEL], dict(built.facts)


def _output_names(count: int, input_name: str) -> list[str]:
    """Those of the ONNX file."""
    stem = "output" if input_name != "output" else "result"
    return [stem] if count == 1 else [f"{stem}_{index}" for index in range(count)]


def _compare(expected: list[Array], file: Path, samples: Array, batch: int, ctx: StageContext) -> tuple[float, float]:
    """Largest absolute difference between network and file, and the largest absolute output of the network."""
    agent, name = ctx.host(""), f"convert {ctx.out.name}"
    agent.open(name, "litert", str(file), optimization="none")
    try:
        given = agent.infer(name, [samples], batch=batch)
    finally:
        agent.close(name)
    difference = scale = 0.0
    for want, got in zip(expected, given, strict=True):
        if want.shape != got.shape:
            what = f"the converted file gives outputs {list(got.shape)}, the network {list(want.shape)}"
            raise StageError(what, where="convert")
        difference = float(np.maximum(difference, np.abs(want.astype(np.float64) - got).max(initial=0)))
        scale = float(np.maximum(scale, np.abs(want).max(initial=0)))
    return difference, scale


def _first_unlike(whole: torch.nn.Module, file: Path, samples: Array, tolerance: float) -> str:
    """The module whose output is the first in the file that differs from the network's; empty if none is found."""
    import torch
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    seen: dict[str, Array] = {}

    def keep(name: str) -> Any:
        def hook(module: torch.nn.Module, given: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                seen[name] = output.detach().numpy()

        return hook

    network: Any = whole.network
    hooks = [module.register_forward_hook(keep(name)) for name, module in network.named_modules() if name]
    try:
        with torch.no_grad():
            whole(torch.from_numpy(samples))
    finally:
        for hook in hooks:
            hook.remove()
    interpreter = Interpreter(
        str(file),
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], samples)
    interpreter.invoke()
    for operator in tflite_file.read(file.read_bytes()).operators:
        module = names.sources(operator.name)[-1:]
        want = seen.get(module[0].rpartition("/")[0]) if module else None
        if want is None:
            continue
        got = interpreter.get_tensor(operator.outputs[0].number)
        want = want.transpose(0, *range(2, want.ndim), 1) if want.shape != got.shape and want.ndim > 2 else want
        if want.shape == got.shape and not np.abs(want - got).max() <= tolerance * np.abs(want).max():
            return module[0].rpartition("/")[0]
    return ""


PLUGINS = (Convert(),)
