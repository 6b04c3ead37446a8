"""Export: the trained network as one self-contained ONNX file that takes raw samples.

Preprocessing becomes part of the graph, the batch stays dynamic, and every node is named after the user's module that
it comes from, ``blocks.0.body.3/Conv``, so that a profile or a diagnosis can be read without the ONNX file. The
exporter's own metadata is removed: it holds paths of the machine that exported.
"""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from edgeopt import checkpoint, data, reference
from edgeopt.agent.telemetry import silence
from edgeopt.artifact import Artifact
from edgeopt.errors import StageError
from edgeopt.recipe import InputSpec, Preprocess
from edgeopt.stage import Params, StageContext, StageOutput
from edgeopt.stages._onnx_names import graphs, strip, tidy
from edgeopt.stages._parity import compare, one_batch, random_samples, reference_outputs
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
    version = 1
    Params = ExportParams
    accepts: Mapping[str, frozenset[str]] = {"model": frozenset({"torch"})}
    produces = frozenset({"onnx"})
    tools: tuple[str, ...] = ("onnx", "onnxruntime", "onnxscript", "torch")
    in_recipe = False
    on_device = False

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
        program = _trace(_deployable(network, preprocess), samples[:2], ctx.root)
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


def _deployable(network: torch.nn.Module, preprocess: Preprocess | None) -> torch.nn.Module:
    """The network with its preprocessing in front: raw samples in.

    ``(raw / scale - mean) / std`` is written as one multiplication and one addition, which is the same up to rounding
    and what every runtime does fastest.
    """
    import torch

    class Preprocessing(torch.nn.Module):
        def __init__(self, spec: Preprocess) -> None:
            super().__init__()
            mean, std = np.asarray(spec.mean), np.asarray(spec.std)
            along_channels = (-1, *(1,) * (len(spec.raw.shape) - 1))
            factor, offset = 1 / (spec.scale * std), -mean / std
            self.factor = _constant(factor, along_channels) if (factor != 1).any() else None
            self.offset = _constant(offset, along_channels) if offset.any() else None
            self.image = len(spec.raw.shape) == 3
            self.grey = spec.raw.shape[-1] == 1
            self.int16 = spec.raw.dtype == "int16"

        def forward(self, raw: torch.Tensor) -> torch.Tensor:
            if self.image and self.grey:
                # Moves no data, unlike the transposition of one channel, which ONNX Runtime may push past the
                # arithmetic, where a last dimension of one makes it four times slower.
                raw = raw.squeeze(-1).unsqueeze(1)
            elif self.image:
                # Contiguous, because a network may call view(), and because torch decomposes global average pooling of
                # a channels-last tensor into ten nodes.
                raw = raw.permute(0, 3, 1, 2).contiguous()
            if self.int16:
                raw = raw.to(torch.int32)  # OpenVINO would fuse a conversion from int16 into a kernel that has none
            values = raw.to(torch.float32)
            if self.factor is not None:
                values = values * self.factor
            return values if self.offset is None else values + self.offset

    class Deployable(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.preprocess = torch.nn.Identity() if preprocess is None else Preprocessing(preprocess)
            self.network = network

        def forward(self, raw: torch.Tensor) -> Any:
            return self.network(self.preprocess(raw))

    return Deployable().eval()


def _constant(values: Array, shape: tuple[int, ...]) -> Any:
    """A scalar where all channels are treated alike, else one value per channel."""
    import torch

    if (values == values.flat[0]).all():
        return float(values.flat[0])
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def _trace(model: torch.nn.Module, samples: Array, root: Path) -> torch.export.ExportedProgram:
    import torch

    dynamic = ({0: torch.export.Dim("batch")},)
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(model, (torch.from_numpy(samples),), dynamic_shapes=dynamic)
    except Exception as error:  # the network is the user's code and may raise anything
        raise _untraceable(error, root) from error


def _untraceable(error: Exception, root: Path) -> StageError:
    text = str(error)
    place = reference.user_frame(error, root) or "export"
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    if "data-dependent" in text:
        what = "the network's control flow depends on the values of its input, so that it has no fixed graph"
        return StageError(what, where=place, fix="use torch.where, or torch.cond, instead of if, while or .item()")
    if "Constraints violated (batch)" in text:
        return one_batch(place)
    return StageError(f"the network cannot be exported: {first}", where=place)


def _translate(program: torch.export.ExportedProgram, input_name: str, opset: int) -> Any:
    """The ONNX ``ModelProto``."""
    import torch

    output_count = len(program.graph_signature.user_outputs)
    stem = "output" if input_name != "output" else "result"
    output_names = [stem] if output_count == 1 else [f"{stem}_{index}" for index in range(output_count)]
    try:
        with _quiet():
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch off stderr: it warns of its own deprecations, and prints the graph where it cannot trace on."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


PLUGINS = (Export(),)
