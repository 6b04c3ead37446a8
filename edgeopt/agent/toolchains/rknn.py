"""ONNX to RKNN, in the isolated tool environment ``rknn``.

The toolkit prints from C what it decides for each layer, returns a status where another library would raise, and may
end the whole process for a data type that it does not know. So it works in a process of its own, whose output is kept
and read.

It writes memory that it never set into the gaps of the model: addresses, and what was freed before. In that process
fresh memory is zero and addresses are the same each time, so that equal models become equal files.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from .. import AgentError  # noqa: TID252  relative, so that a zipapp works
from . import report

#: What the client calls the files that it sends: float32, images in the order (N, C, H, W), and (N, ...) of the same.
ONNX, CALIBRATION = "model.onnx", "calibration.npy"
#: What it gets. ``ERRORS`` only for a quantized model: each layer's error in the simulator.
MODEL, LOG, ERRORS = "model.rknn", "build.log", "layer_errors.txt"

_LAST_LINES = 12
#: Replaces itself by its arguments, with address space randomisation off (personality(2), ADDR_NO_RANDOMIZE). Where a
#: container forbids that, it goes on with it.
_SAME_ADDRESSES = (
    "import ctypes, os, sys; ctypes.CDLL(None).personality(0x0040000); os.execv(sys.argv[1], sys.argv[1:])"
)
#: Fills fresh memory with the complement, zero (mallopt(3), M_PERTURB), and makes the order of sets the same.
_SAME_MEMORY = {"MALLOC_PERTURB_": "255", "PYTHONHASHSEED": "0"}
_PRECISIONS = {"INT8": "i8", "UINT8": "u8", "INT16": "i16", "FLOAT16": "f16", "FLOAT32": "f32", "BFLOAT16": "bf16"}
#: ID, OpType, DataType, Target, InputShape, OutputShape, Cycles(DDR/NPU/Total), RW(KB), FullName
_ROW = re.compile(
    r"\] \d+\s+(?P<op>\S+)\s+(?P<type>\S+)\s+(?P<target>CPU|NPU|GPU)\s+\S+\s+\S+\s+"
    r"\d+/\d+/(?P<cycles>\d+)\s+[\d.]+\s+[^:\s]+:(?P<name>\S.*?)\s*$"
)
#: The table's head, and what stands in it, understood or not. Tables of the memory have other heads.
_HEAD = re.compile(r"\] ID\s+OpType\s")
_ANY_ROW = re.compile(r"\] (?P<row>(?P<id>\d+)\s+(?P<op>\S+)(?:\s.*?)?)\s*$")
_RULE = re.compile(r"\] -+\s*$")
_MEMORY = re.compile(r"Total (?P<what>Internal|Weight) Memory Size: (?P<kib>[\d.]+)KB")
_REWRITE = re.compile(r"D\s+\w+: remove node = \[(?P<old>[^]]*)\], add node = \[(?P<new>[^]]*)\]")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
#: What carries tensors in and out of the model, and is no operation.
_BORDER = ("InputOperator", "OutputOperator")


def build(files: Mapping[str, Path], options: dict[str, Any], out: Path) -> Mapping[str, Any]:
    """Writes ``model.rknn``, ``build.log`` and, for a quantized model, ``layer_errors.txt``.

    Args:
        files: ``model.onnx``, and ``calibration.npy`` for a quantized model.
        options: As :func:`session` takes them.
        out: Empty folder.

    Returns:
        ``layers``; ``unread``, how many of them stand in rows that were not understood: these have the device
        ``unknown`` and no source; ``rewrites``, pairs of the names of nodes, those taken away and those put in their
        place; ``weights_kib`` and ``activations_kib`` as it lays them out; ``cycles``, its own estimate for the NPU.

    Raises:
        AgentError: The toolkit refuses the model, with its own words.
    """
    report("building" if CALIBRATION not in files else "calibrating and building")
    source = Path(__file__).parents[__name__.count(".")]
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONWARNINGS": "ignore", **_SAME_MEMORY}
    with tempfile.TemporaryDirectory() as scratch:
        task = {"files": {name: str(file) for name, file in files.items()}, "options": options, "out": str(out)}
        done = subprocess.run(
            [sys.executable, "-c", _SAME_ADDRESSES, sys.executable, "-m", __name__, json.dumps(task)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            cwd=scratch, env=environment, check=False,
        )  # fmt: skip
    lines = readable(done.stdout)
    (out / LOG).write_text("\n".join(lines) + "\n", encoding="utf-8")
    if done.returncode or not (out / MODEL).exists():
        raise AgentError(f"the RKNN toolkit refuses the model: {complaint(lines)}")
    return {**read_log(lines), "versions": {"rknn-toolkit2": _version()}}


def session(onnx: Path, calibration: Path | None, options: Mapping[str, Any]) -> Any:
    """A built ``RKNN`` in the present folder, which becomes full of files.

    Args:
        onnx: The float model with a fixed batch.
        calibration: (N, C, H, W) or (N, ...) float32 or uint8, one sample after the other; ``None`` for float16.
        options: ``platform``, ``optimization``, ``mean`` and ``std`` of the channels, which may be missing, and for a
            quantized model ``algorithm`` and ``method``.

    Raises:
        AgentError: The toolkit refuses.
    """
    from rknn.api import RKNN

    rknn = RKNN(verbose=bool(options.get("verbose")))
    settings = {"target_platform": options["platform"], "optimization_level": options["optimization"]}
    if options.get("mean"):
        settings |= {"mean_values": [options["mean"]], "std_values": [options["std"]]}
    if calibration is not None:
        settings |= {"quantized_dtype": "w8a8", "quantized_algorithm": options["algorithm"]}
        settings |= {"quantized_method": options["method"]}
    _succeed("config", rknn.config(**settings))
    _succeed("load_onnx", rknn.load_onnx(model=str(onnx)))
    listed = None if calibration is None else str(_list(np.load(calibration, allow_pickle=False)))
    _succeed("build", rknn.build(do_quantization=calibration is not None, dataset=listed))
    return rknn


def readable(output: bytes) -> list[str]:
    """The toolkit's output without its colours and its progress bars."""
    text = _COLOUR.sub("", output.decode(errors="replace"))
    return [line for line in text.splitlines() if "it/s]" not in line and "?it" not in line]


def complaint(lines: Sequence[str]) -> str:
    """What the toolkit says about why it failed; its last lines if nothing looks like that."""
    marked = [line[2:].strip() for line in lines if line.startswith("E ")]
    said = [line.partition("]")[2].strip() if line.startswith("RKNN: [") else line for line in marked]
    told = [line for line in said if line and "Traceback" not in line and not line.startswith("rknn-toolkit2 version")]
    raised = [found[1] for line in lines if (found := re.match(r"(?:\w+\.)*(\w+: (?!Traceback).+)", line))]
    return "; ".join(dict.fromkeys((*told[:3], *raised[-1:]))) or " | ".join(lines[-_LAST_LINES:])


def read_log(lines: Sequence[str]) -> dict[str, Any]:
    """What the output of a build says of the layers, of the nodes that were rewritten, and of the memory."""
    table = [found for line in _table(lines) if (found := _ANY_ROW.search(line)) and found["op"] not in _BORDER]
    rows = [found for row in table if (found := _ROW.search(row.string))]
    unread = [row for row in table if not _ROW.search(row.string)]
    memory = {found["what"]: float(found["kib"]) for line in lines if (found := _MEMORY.search(line))}
    return {
        "layers": [
            {
                "name": row["name"],
                "op": row["op"],
                "source": [row["name"]],
                "precision": _PRECISIONS.get(row["type"], row["type"].lower()),
                "device": row["target"],
                "exec": row["op"],
                "time_us": None,
                "why": "" if row["target"] == "NPU" else "the toolkit has put it there and does not say why",
            }
            for row in rows
        ]
        + [
            {
                "name": f"{row['op']} #{row['id']}",
                "op": row["op"],
                "source": [],
                "precision": "",
                "device": "unknown",
                "exec": row["op"],
                "time_us": None,
                "why": f"the toolkit's row was not understood: {row['row']}",
            }
            for row in unread
        ],
        "unread": len(unread),
        "rewrites": [[_names(found["old"]), _names(found["new"])] for line in lines if (found := _REWRITE.match(line))],
        "weights_kib": memory.get("Weight"),
        "activations_kib": memory.get("Internal"),
        "cycles": sum(int(row["cycles"]) for row in rows) if rows and not unread else None,
    }


def _table(lines: Sequence[str]) -> Iterator[str]:
    """The lines of the table of layers."""
    rest = iter(lines)
    for line in rest:
        if _HEAD.search(line):
            body = (line for line in rest if not _RULE.search(line))
            yield from takewhile(_ANY_ROW.search, body)


def _names(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _list(samples: Any) -> Path:
    """The list of calibration files that the toolkit wants, one sample to a file."""

    def write() -> Iterator[str]:
        for number, sample in enumerate(samples):
            np.save(f"{number}.npy", sample[None])
            yield f"{number}.npy\n"

    listed = Path("calibration.txt")
    listed.write_text("".join(write()), encoding="utf-8")
    return listed


def _succeed(call: str, status: int) -> None:
    if status != 0:
        raise AgentError(f"{call} gave {status}")


def _version() -> str:
    from importlib.metadata import version

    return version("rknn-toolkit2")


def _main(task: Mapping[str, Any]) -> None:
    """The work of the process of its own."""
    files, out = {name: Path(file) for name, file in task["files"].items()}, Path(task["out"])
    rknn = session(files[ONNX], files.get(CALIBRATION), {**task["options"], "verbose": True})
    _succeed("export_rknn", rknn.export_rknn(str(out / MODEL)))
    if CALIBRATION in files and task["options"]["layer_errors"]:
        _succeed("accuracy_analysis", rknn.accuracy_analysis(inputs=["0.npy"], output_dir="analysis"))
        (out / ERRORS).write_bytes(Path("analysis/error_analysis.txt").read_bytes())
    rknn.release()


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
