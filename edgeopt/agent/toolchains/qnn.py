"""Compiles an ONNX file for Qualcomm's HTP: one ONNX file that holds the context binary, and what became of every node.

Every layer is read from what the execution provider writes beside it: ``qnn_op_trace.json`` (which nodes each operator
of QNN computes, and which nodes it refuses and why) and the dump of each QNN graph (types of the tensors).
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import AgentError  # noqa: TID252  relative, so that a zipapp works
from ..onnx_graph import nodes  # noqa: TID252
from ..runtimes import qnn  # noqa: TID252

#: What the client calls the model, and what it gets.
SOURCE, MODEL = "source.onnx", "model.onnx"

_TRACE = "qnn_op_trace.json"
#: What ONNX Runtime appends to a name when it changes the layout or splits a node.
_DECORATION = re.compile(r"(_token_\d+|/duplicated)+$")
_QUANTIZATION = ("QuantizeLinear", "DequantizeLinear")
#: ``Qnn_DataType_t`` of QnnTypes.h in Qualcomm's AI Engine Direct SDK. The HTP computes float32 in float16.
_TYPES = {
    0x0008: "i8",
    0x0016: "i16",
    0x0032: "i32",
    0x0064: "i64",
    0x0108: "u8",
    0x0116: "u16",
    0x0132: "u32",
    0x0164: "u64",
    0x0216: "f16",
    0x0232: "f16",
    0x0308: "i8",
    0x0316: "i16",
    0x0332: "i32",
    0x0408: "u8",
    0x0416: "u16",
    0x0432: "u32",
    0x0508: "bool",
}


def build(files: Mapping[str, Path], options: dict[str, Any], out: Path) -> Mapping[str, Any]:
    """Writes ``model.onnx``.

    Args:
        files: ``source.onnx``, with a fixed batch.
        options: ``htp_arch`` and ``soc_model`` as strings of digits. QNN takes what it does not know for nothing, so
            both are checked by the client.
        out: Empty folder.

    Returns:
        ``{"layers": [...]}``, in the order in which they run.

    Raises:
        AgentError: With every node that the HTP cannot run, and why.
    """
    import onnxruntime

    asked = onnxruntime.SessionOptions()
    asked.intra_op_num_threads = asked.inter_op_num_threads = 1
    asked.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        provider = {
            **options,
            "offload_graph_io_quantization": "0",
            "enable_htp_prepare_only": "1",
            "enable_framework_op_trace": "1",
            "framework_op_trace_dir": folder,
            "dump_json_qnn_graph": "1",
            "json_qnn_graph_dir": folder,
        }
        entries = {
            "ep.context_enable": "1",
            "ep.context_embed_mode": "1",
            "ep.context_file_path": str(out / MODEL),
        }
        try:
            qnn.session(files[SOURCE], asked, provider, entries)
        except Exception as error:  # ONNX Runtime's errors have no common base
            raise AgentError(_why(Path(folder), error)) from error
        known = {node.name: node.op for node in nodes(files[SOURCE].read_bytes())}
        layers = list(_layers(Path(folder), known, options["htp_arch"]))
    if not layers:
        raise AgentError("the HTP compiler left no trace of what it compiled")
    return {"layers": layers}


def _why(folder: Path, error: Exception) -> str:
    """Every node that is refused; what the library raises names none."""
    refused = [
        f"{node['node_name']} ({node['op_type']}): {_plain(node['reason'])}"
        for trace in _traces(folder)
        for node in trace.get("unsupported_nodes", ())
    ]
    if refused:
        return "\n".join((f"the HTP cannot run {len(refused)} nodes:", *refused))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _plain(reason: str) -> str:
    """The first sentence; the others say that the node is not assigned."""
    first = re.split(r"\.(?=\s|[A-Z]|$)", reason.strip())[0]
    return first.replace("QNN EP", "QNN").replace("`", "")


def _layers(folder: Path, known: Mapping[str, str], arch: str) -> Iterator[dict[str, Any]]:
    names: dict[str, int] = {}
    for trace in _traces(folder):
        for graph in trace["subgraph_traces"]:
            dump = json.loads((folder / f"{graph['graph_name']}.json").read_text(encoding="utf-8"))["graph"]
            for mapping in graph["op_mappings"]:
                operator = dump["nodes"].get(mapping["dst_name"], {})
                first = next(iter(operator.get("input_names", ())), "")
                kind = int(dump["tensors"].get(first, {}).get("data_type", -1))
                name = _DECORATION.sub("", mapping["dst_name"])
                names[name] = names.get(name, 0) + 1
                yield {
                    "name": name if names[name] == 1 else f"{name}#{names[name]}",
                    "op": mapping["dst_qnn_op_type"],
                    "source": _sources(mapping["sources"], known),
                    "precision": _TYPES.get(kind, ""),
                    "device": "NPU",
                    "exec": f"HTP v{arch} {mapping['dst_qnn_op_type']}",
                }


def _sources(sources: list[dict[str, str]], known: Mapping[str, str]) -> list[str]:
    """Nodes of the file; Q/DQ nodes only where the operator computes no other."""
    named = [_DECORATION.sub("", source["name"]) for source in sources if source["type"] == "OP"]
    found = [name for name in dict.fromkeys(named) if name in known]
    return [name for name in found if known[name] not in _QUANTIZATION] or found


def _traces(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.rglob(_TRACE)):
        yield json.loads(file.read_text(encoding="utf-8"))
