"""Export: the trained network as one self-contained ONNX file that takes raw samples.

Preprocessing becomes part of the graph, the batch stays dynamic, and every node is named after the user's module that
it comes from, ``blocks.0.body.3/Conv``, so that a profile or a diagnosis can be read without the ONNX file. The
exporter's own metadata is removed: it holds paths of the machine that exported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from pydantic import Field

from edgeopt import checkpoint, data
from edgeopt.agent.telemetry import silence
from edgeopt.artifact import Artifact
from edgeopt.errors import StageError
from edgeopt.recipe import InputSpec, Preprocess
from edgeopt.stage import Params, StageContext, StageOutput
from edgeopt.stages._onnx_names import graphs, strip, tidy
from edgeopt.stages._parity import compare, random_samples, reference_outputs
from edgeopt.stages._program import deployable, quiet, trace
from edgeopt.target import Target

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]

#: Batches at which the file is compared with the network; the export itself sees a batch of two.
_PARITY_BATCHES = (1, 3)
#: What the dynamo exporter can write by itself. Lower opsets come out of onnx's version converter.
_LOWEST_NATIVE_OPSET = 18
#: A protobuf message cannot be larger, and a second file beside the model would not travel with it.
_MAX_BYTES = 2**31


class ExportParams(Params):
    """How to export.

    Attributes:
        opset: ONNX opset to write; the target's ``limits.max_opset`` lowers it.
        tolerance: Largest allowed difference between the file and the network, as a share of the largest absolute
            value that the network gives. Float32 rounding alone stays two orders of magnitude below the default.
    """

    opset: int = Field(default=20, ge=11)
    tolerance: float = Field(default=1e-4, gt=0, lt=1)


class Export:
    """See the module."""

    name = "export"
    version = 2
    Params = ExportParams
    accepts: Mapping[str, frozenset[str]] = {"model": frozenset({"torch"})}
    produces = frozenset({"onnx"})
    tools: tuple[str, ...] = ("onnx", "onnxruntime", "onnxscript", "torch")
    in_recipe = False
    on_device = False
    environment = ""

    def bind(self, params: ExportParams, target: Target) -> ExportParams:
        """Write no newer opset than the target's toolchain reads."""
        highest = target.limits.max_opset
        return params if highest is None else params.model_copy(update={"opset": min(params.opset, highest)})

    def data(self, params: ExportParams) -> tuple[str, ...]:
        """None: parity is checked on random raw samples."""
        return ()

    def run(self, inputs: Mapping[str, Artifact], params: ExportParams, ctx: StageContext) -> StageOutput:
        """Write ``model.onnx``.

        Raises:
            StageError: The network cannot be exported, at which line of the user's code; the opset cannot be
                written; or the file does not compute what the network computes.
        """
        silence()
        artifact = inputs["model"]
        folded = artifact.meta.get("preprocess")
        input_spec = InputSpec.model_validate_json(json.dumps(artifact.meta["input"]))
        preprocess = None if folded is None else Preprocess.model_validate_json(json.dumps(folded))
        raw = data.raw_spec(input_spec, preprocess)
        network = checkpoint.load(artifact, ctx.root)
        _check_size(network)
        samples = random_samples(raw, max(_PARITY_BATCHES), ctx.seed)
        expected = {
            batch: reference_outputs(network, preprocess, samples[:batch], ctx.root) for batch in _PARITY_BATCHES
        }

        ctx.progress(0, 3, "steps", "tracing", None)
        program = trace(deployable(network, preprocess), samples[:2], ctx.root)
        ctx.progress(1, 3, "steps", "writing", None)
        model = _translate(program, input_spec.name, max(params.opset, _LOWEST_NATIVE_OPSET))
        preprocess_nodes = tidy(model, set(network.state_dict()))
        model = _in_opset(model, params.opset)
        file = ctx.out / "model.onnx"
        _write(model, file)
        ctx.progress(2, 3, "steps", "comparing", None)
        difference, scale = compare(expected, file, input_spec.name, samples)
        if not difference <= params.tolerance * scale:
            raise StageError(
                f"the ONNX file differs from the network by {difference:.2g} where outputs reach {scale:.2g} "
                f"(allowed: {params.tolerance:g} of that)",
                where="export",
                fix="a network whose result depends on randomness or on earlier calls cannot be exported faithfully",
            )
        meta = {
            "input": {"name": input_spec.name, "shape": list(raw.shape), "dtype": raw.dtype},
            "outputs": _outputs(model),
            "preprocess": folded,
            "preprocess_nodes": preprocess_nodes,
            "opset": params.opset,
            # One digit: the rest differs between processors, and would make equal files different artefacts.
            "max_abs_difference": float(f"{difference:.0e}"),
        }
        return StageOutput("onnx", meta, f"opset {params.opset}, differs from torch by {difference:.1e} at most")


def _check_size(network: torch.nn.Module) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size >= _MAX_BYTES:
        raise StageError(
            f"the weights take {size / 2**30:.1f} GiB, and an ONNX file holds less than 2 GiB",
            where="export",
            fix="prune the network first; weights in separate files are not supported",
        )


def _translate(program: torch.export.ExportedProgram, input_name: str, opset: int) -> Any:
    """The ONNX ``ModelProto``."""
    import torch

    output_count = len(program.graph_signature.user_outputs)
    stem = "output" if input_name != "output" else "result"
    output_names = [stem] if output_count == 1 else [f"{stem}_{index}" for index in range(output_count)]
    try:
        with quiet():
            written = torch.onnx.export(
                program,
                input_names=[input_name],
                output_names=output_names,
                opset_version=opset,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        operation = re.search(r"target=torch\.ops\.([\w.]+)", str(error.__cause__ or error))
        named = f" ({operation.group(1)})" if operation else ""
        raise StageError(
            f"the network uses an operation that ONNX cannot express{named}",
            where="export",
            fix="compute it outside the network, or with other operations",
        ) from error
    if written is None:
        raise StageError("the exporter wrote nothing", where="export")
    return written.model_proto


def _in_opset(model: Any, opset: int) -> Any:
    """The model in exactly this opset: the exporter takes a wish that it cannot meet for a hint."""
    import onnx

    if opset < _LOWEST_NATIVE_OPSET:
        for graph in graphs(model.graph):
            for node in graph.node:  # the converter would keep this attribute, which older opsets do not know
                kept = [entry for entry in node.attribute if (entry.name, entry.i) != ("noop_with_empty_axes", 0)]
                del node.attribute[:]
                node.attribute.extend(kept)
        try:
            model = onnx.version_converter.convert_version(model, opset)
        except RuntimeError as error:
            raise _unwritable(opset, str(error).strip().splitlines()[0]) from error
        strip(model)
    wrote = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if wrote != opset:
        raise _unwritable(opset, f"the exporter writes {wrote} instead")
    return model


def _unwritable(opset: int, why: str) -> StageError:
    fix = f"raise the target's limits.max_opset to {_LOWEST_NATIVE_OPSET} or more if its toolchain can read that"
    return StageError(f"the network cannot be written in ONNX opset {opset}: {why}", where="export", fix=fix)


def _write(model: Any, file: Path) -> None:
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise StageError(f"the exporter wrote a file that is not valid ONNX: {error}", where="export") from error
    file.write_bytes(model.SerializeToString(deterministic=True))


def _outputs(model: Any) -> list[dict[str, Any]]:
    """Name, producing node, shape without the batch (0 where dynamic) and dtype of each output."""
    import onnx

    producers = {tensor: node.name for node in model.graph.node for tensor in node.output}
    return [
        {
            "name": value.name,
            "node": producers.get(value.name, ""),
            "shape": [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:],
            "dtype": onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
        }
        for value in model.graph.output
    ]


PLUGINS = (Export(),)
