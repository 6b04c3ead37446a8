"""OpenVINO on the host: intermediate representation with a fixed batch.

Two things keep OpenVINO's files from being the same in every run, and are mended here: operations without a name get
a number that counts all operations of the process, and the conversion is recorded with the local file name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from edgeopt.agent.onnx_graph import nodes
from edgeopt.agent.runtimes import Layer
from edgeopt.agent.telemetry import silence
from edgeopt.artifact import Artifact
from edgeopt.backends import Backend, Compiled, Request, Scheme, entry
from edgeopt.errors import StageError
from edgeopt.target import Target

#: A name that OpenVINO made up, ``Constant_3045``; it may have become part of a longer one.
_MADE_UP = re.compile(r"(?<![\w.#])[A-Z][A-Za-z]*_\d+(?![\w.#])")
#: What OpenVINO and NNCF append to the name of the node that an operation stands for.
_APPENDED = re.compile(r"(/(WithoutBiases|fq_|nncf_|fused_|DequantizationMultiply|sink_port).*|_original)$")
_CANONICAL = re.compile(r"^[A-Z][A-Za-z]*\.\d+")


class Openvino(Backend):
    """Saves the converted model. OpenVINO compiles it on the device when the agent opens it."""

    name = "openvino"
    consumes = frozenset({"onnx", "openvino-ir"})
    produces = "openvino-model"
    tools = ("openvino",)

    def scheme(self, target: Target) -> Scheme:
        """NNCF on the OpenVINO model; weights of 7 bits unless the device cannot saturate."""
        return Scheme("nncf", {"reduce_range": "none" if "vnni" in target.device.features else "all"})

    def compile(self, artifact: Artifact, request: Request, out: Path) -> Compiled:
        """Write ``model.xml`` and ``model.bin``, with weights as they are.

        Raises:
            StageError: OpenVINO refuses the model.
        """
        silence()
        import openvino

        known: Collection[str] | None = None
        try:
            if artifact.kind == "onnx":
                source = artifact.path("model.onnx")
                model, known = convert(source), names_in(source)
            else:
                model = openvino.Core().read_model(artifact.path("model.xml"))
            port = model.input(0)
            model.reshape({port: [request.batch, *list(port.get_partial_shape())[1:]]})
        except RuntimeError as error:
            raise StageError(f"openvino refuses the model: {_first_line(error)}", where="compile") from error
        save(model, out / "model.xml", known)
        # OpenVINO names the last operation after the output, not after its node.
        origin = {output["name"]: (output["node"],) for output in artifact.meta["outputs"]}
        return Compiled("model.xml", {artifact.meta["input"]["name"]: (), **origin})

    def layer_map(self, layers: Sequence[Layer], compiled: Compiled) -> list[dict[str, Any]]:
        """Sources are nodes of the ONNX model; what OpenVINO adds on compiling has made-up names, numbered anew."""
        rename = _Renumbered()
        entries = []
        for layer in layers:
            named = [_APPENDED.sub("", name) for name in layer.source]
            source = [node for name in named if not _made_up(name) for node in compiled.origin.get(name, (name,))]
            entries.append(entry(layer, rename(layer.name), source))
        return entries


def convert(model: Path) -> Any:
    """The OpenVINO model of an ONNX file.

    Raises:
        StageError: It has an operation that OpenVINO does not know.
    """
    silence()
    import openvino
    from openvino import frontend
    from openvino.tools.ovc.error import BasicError

    failures = (frontend.OpConversionFailure, frontend.GeneralFailure, frontend.OpValidationFailure)
    try:
        return openvino.convert_model(model)
    except (RuntimeError, BasicError, *failures) as error:
        raise StageError(f"openvino cannot read this ONNX file: {_first_line(error)}", where="openvino") from error


def names_in(model: Path) -> frozenset[str]:
    """Names of all nodes and tensors of an ONNX file."""
    found = nodes(model.read_bytes())
    return frozenset(name for node in found for name in (node.name, *node.inputs, *node.outputs))


def save(model: Any, file: Path, known: Collection[str] | None = None) -> None:
    """Write the model so that equal models give equal bytes.

    Args:
        model: Changed: operations that OpenVINO named are renamed.
        file: Ends in ``.xml``; the ``.bin`` goes beside it.
        known: Names that are not OpenVINO's own; all if ``None``.
    """
    import openvino

    if known is not None:
        rename = _Renumbered(known)
        for operation in model.get_ordered_ops():
            operation.set_friendly_name(rename(operation.get_friendly_name()))
    if model.has_rt_info(["conversion_parameters"]):
        del model.rt_info["conversion_parameters"]
    openvino.save_model(model, file, compress_to_fp16=False)


class _Renumbered:
    """Made-up names numbered in the order in which they are met: ``Constant_3045`` becomes ``Constant.0``."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known = frozenset(known)
        self._new: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def __call__(self, name: str) -> str:
        return name if name in self._known else _MADE_UP.sub(self._replace, name)

    def _replace(self, match: re.Match[str]) -> str:
        old = match.group()
        if old in self._known:
            return old
        if old not in self._new:
            kind = old.rpartition("_")[0]
            self._counts[kind] = self._counts.get(kind, -1) + 1
            self._new[old] = f"{kind}.{self._counts[kind]}"
        return self._new[old]


def _made_up(name: str) -> bool:
    return _MADE_UP.fullmatch(name) is not None or _CANONICAL.match(name) is not None


def _first_line(error: Exception) -> str:
    """OpenVINO puts the places in its own sources first and the reason last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


PLUGINS = (Openvino(),)
