"""Builds a TensorRT-RTX engine ahead of time, which needs no GPU, and tells what the builder says of it.

In a process of its own: the builder crashes on some models, and its logger is one for the whole process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from .. import AgentError  # noqa: TID252  relative, so that a zipapp works

#: What the client calls the model, and what it gets.
SOURCE, ENGINE, LAYERS = "source.onnx", "model.engine", "aside/layers.txt"

#: Without a GPU every complaint is followed by one of these, which explain nothing.
_MISLEADING = re.compile(r"cudaError|CUDA driver version is insufficient|CUDA initialization failure")
_BYTES = re.compile(r"Total (Weights|Activation) Memory: (\d+) bytes")
#: One line of the list that the builder logs of what it fused.
_LAYER = re.compile(
    r"^Name: (?P<name>.+?), LayerType: (?P<op>[^,]+), Inputs: \[(?P<inputs>.*?)\],"
    r"(?: Constants: \[(?P<constants>.*?)\],)? Outputs: \[(?P<outputs>.*?)\],.*?"
    r"(?:TacticName: (?P<tactic>.*?), )?StreamId: \d+(?:, \w+Id: \d+)*(?:, Metadata: (?P<metadata>.*))?$"
)
_DATATYPE = re.compile(r"Datatype: (\w+)")
_ONNX = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
#: nvinfer1::DataType as the inspector writes it -> edgeopt's short name.
_SHORT = {
    "Float": "f32", "Half": "f16", "BFloat16": "bf16", "FP8": "f8", "Int8": "i8", "UInt8": "u8", "Int4": "i4",
    "Int32": "i32", "Int64": "i64", "Bool": "bool",
}  # fmt: skip
_FLOATS = ("Float", "Half", "BFloat16")
#: A generated kernel is named after what it fuses, four letters each. These move or convert elements only.
_MOVES = frozenset({"Cast", "Tran", "Move", "Resh", "Conc", "Slic", "Copy"})
#: Lines that are no operations: one stream of kernels waits for another.
_SYNCHRONIZATION = ("signal", "wait")
_TURING_FIX = "TensorRT-RTX 1.7 multiplies matrices for sm_75 in float16 only: compile for sm_80 or newer"
_STUB = "__myelin_CASK_STUB"


def build(files: Mapping[str, Path], options: dict[str, Any], out: Path) -> Mapping[str, Any]:
    """Writes ``model.engine``, and ``aside/layers.txt``, the builder's own list of layers.

    Args:
        files: ``source.onnx``, with static shapes.
        options: ``arch`` like ``sm_86``, and ``tf32``.
        out: Empty folder.

    Returns:
        ``version``; ``refused``, a list of ``{"node", "op", "why"}``, and if that is empty also ``layers``,
        ``weights_bytes`` and ``activation_bytes``, which the builder may leave out.

    Raises:
        AgentError: The builder fails, with its own words.
    """
    import tensorrt_rtx as trt

    lines: list[tuple[int, str]] = []
    logger = _logger(trt, lines)
    builder = trt.Builder(logger)
    model = files[SOURCE].read_bytes()
    if refused := _refused(trt, builder, logger, model):
        return {"version": str(trt.__version__), "refused": refused}
    network = builder.create_network(_typed(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        raise AgentError(_failed("TensorRT-RTX supports every node and yet does not import the model", lines))
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, options["arch"].upper().replace("_", "")), 0)
    if not options["tf32"]:
        config.clear_flag(trt.BuilderFlag.TF32)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        said = _failed("TensorRT-RTX cannot build this model", lines)
        raise AgentError(said, fix=_TURING_FIX if "for Turing" in said else "")
    (out / ENGINE).write_bytes(bytes(engine))
    log = "\n".join(text for _, text in lines)
    listed = log[log.rfind("\nLayers:") + 1 :].partition("\n\n")[0] if "\nLayers:" in log else ""
    (out / LAYERS).parent.mkdir()
    (out / LAYERS).write_text(listed + "\n", encoding="utf-8")
    memory = {what: int(count) for what, count in _BYTES.findall(log)}
    return {
        "version": str(trt.__version__),
        "refused": [],
        "layers": list(layers(listed)),
        "weights_bytes": memory.get("Weights"),
        "activation_bytes": memory.get("Activation"),
    }


def _logger(trt: ModuleType, lines: list[tuple[int, str]]) -> Any:
    class Collecting(trt.ILogger):  # type: ignore[misc, name-defined]  # of a module that is not known here
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            told = "\n".join(line for line in message.splitlines() if not _MISLEADING.search(line))
            if told or not message:
                lines.append((int(severity), told))

    return Collecting()


def _typed(trt: ModuleType) -> int:
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _refused(trt: ModuleType, builder: Any, logger: Any, model: bytes) -> list[dict[str, str]]:
    """Every node that ``supports_model_v2`` does not support, and why."""
    network = builder.create_network(_typed(trt))  # the parser does not keep it alive
    parser = trt.OnnxParser(network, logger)
    if parser.supports_model_v2(model):
        return []
    found = [parser.get_error(index) for index in range(parser.num_errors)]
    return [{"node": one.node_name(), "op": one.node_operator(), "why": _plain(one.desc())} for one in found]


def _plain(reason: str) -> str:
    kept = [line.strip() for line in reason.splitlines() if line.strip() and not _MISLEADING.search(line)]
    return " ".join(kept)


def _failed(what: str, lines: list[tuple[int, str]]) -> str:
    """With the errors that the builder logged; severity 1 is an error, 0 an internal one."""
    said = [text for severity, text in lines if severity <= 1 and text]
    return "\n".join((what, *said)) if said else what


def layers(listed: str) -> Iterator[dict[str, Any]]:
    """The fields of a ``Layer`` for every line of the builder's list.

    Raises:
        AgentError: A line has another form.
    """
    for line in listed.splitlines():
        if not line.startswith("Name: "):
            continue
        if (match := _LAYER.match(line)) is None:
            raise AgentError(f"this version lists its layers in a form that edgeopt does not know: {line[:120]}")
        if match["op"] in _SYNCHRONIZATION:
            continue
        tactic = match["tactic"] or ""
        generated = re.fullmatch(r"__myl_(\w+?)(_0x[0-9a-f]+)?", tactic)
        parts = re.findall("[A-Z][a-z0-9]{3}", generated[1]) if generated else []
        moves = bool(parts) and "".join(parts) == generated[1] and _MOVES.issuperset(parts) if generated else False
        source = _ONNX.findall(match["metadata"] or "")
        yield {
            "name": match["name"],
            "op": "Reformat" if moves else match["op"],
            "source": source,
            "precision": _precision(match, match["op"]),
            "device": "GPU",
            "exec": generated[1] if generated else "library kernel" if tactic in ("", _STUB) else tactic,
        }


def _precision(match: re.Match[str], op: str) -> str:
    """Of the main input; a generated kernel computes in float if any of its tensors is float."""
    kinds = [kind for part in ("inputs", "constants", "outputs") for kind in _DATATYPE.findall(match[part] or "")]
    main = kinds[0] if kinds else ""
    if op == "kgen":
        main = next((kind for kind in _FLOATS if kind in kinds), main)
    return _SHORT.get(main, main.lower())
