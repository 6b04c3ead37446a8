"""Qualcomm's HTP, the NPU of a Snapdragon: a context binary, compiled without the device and without any fallback.

QNN takes an architecture or a chip that it does not know for nothing and says so to nobody, and of two that contradict
each other it believes the chip. So a target names one of them, the other follows from the table here, and both are
always given: without the chip, the simulator computes in float32 what the device computes in float16.

The binary carries a build stamp, so that two compilations of one model give different bytes.
"""

from __future__ import annotations

import platform
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from edgeopt.agent.telemetry import silence
from edgeopt.agent.toolchains.qnn import MODEL, SOURCE
from edgeopt.artifact import Artifact
from edgeopt.backends import Backend, Compiled, Depth, Request, Scheme, StandIn
from edgeopt.backends.onnxruntime import with_batch
from edgeopt.errors import ConfigError, StageError
from edgeopt.registry import hint
from edgeopt.stage import Params
from edgeopt.target import Target


class Chip(NamedTuple):
    """A system on a chip: its number in QNN (``soc_model``), the version of its HTP, and how it is sold."""

    number: int
    htp: int
    sold_as: str


#: Sources: ``backends/qualcomm/serialization/qc_schema.py`` of ExecuTorch (numbers and architectures); the numbers that
#: onnxruntime-qnn 2.7.0 itself gives these names.
CHIPS: Mapping[str, Chip] = {
    "SM8350": Chip(30, 68, "Snapdragon 888"),
    "SM8450": Chip(36, 69, "Snapdragon 8 Gen 1"),
    "SM8475": Chip(42, 69, "Snapdragon 8+ Gen 1"),
    "SM8550": Chip(43, 73, "Snapdragon 8 Gen 2"),
    "SM8650": Chip(57, 75, "Snapdragon 8 Gen 3"),
    "SM8750": Chip(69, 79, "Snapdragon 8 Elite"),
    "SM8850": Chip(87, 81, "Snapdragon 8 Elite Gen 5"),
}
#: The oldest HTP has no float16. What a device with it says: https://github.com/immich-app/immich/discussions/25112.
_WITHOUT_FLOAT = 68
_LIMIT_S = 1800
_SDK = re.compile(rb"ep_sdk_version[^v]{1,8}(v[0-9][0-9.]*)")


class QnnParams(Params):
    """What a target's ``compile`` may say.

    Attributes:
        chip: Like ``SM8650``. It follows from the target's ``device.arch``, which may name the chip itself, or the
            version of its HTP, like ``v75``.
    """

    chip: str


class Qnn(Backend):
    """Compiles on this machine; outputs come from the simulator of the HTP that the x86-64 library holds."""

    name = "qnn"
    consumes = frozenset({"onnx-qdq", "onnx-fp16"})
    produces = "qnn-context"
    tools = ("onnx", "onnxruntime", "onnxruntime-qnn")
    precisions = frozenset({"fp16", "int8"})
    processor = "NPU"
    without_device = "simulate"
    Options = QnnParams

    def scheme(self, target: Target) -> Scheme:
        """The vendor's own Q/DQ: all in integers, 8-bit weights per channel."""
        return Scheme("qnn_qdq")

    def options(self, target: Target) -> QnnParams:
        """With the chip of the target's architecture.

        Raises:
            ConfigError: There is no such chip, it has no float16, or this machine's simulator would be timed.
        """
        where = f"target {target.name}"
        arch = target.device.arch or ""
        options = self.parse(target, chip=arch)
        assert isinstance(options, QnnParams)
        chip = _chip(options.chip, where)
        if arch and _chip(arch, where).htp != chip.htp:
            what = f"compile says {options.chip}, whose HTP is v{chip.htp}, but device.arch says {arch}"
            raise ConfigError(what, where=where, fix=f"device: {{arch: v{chip.htp}}}")
        if chip.htp == _WITHOUT_FLOAT and "fp16" in target.precision:
            raise ConfigError(f"the HTP v{chip.htp} has no float16", where=where, fix="precision: [int8]")
        access = target.device.access
        if not (access.none or access.remote) and _simulates():
            what = "this machine has no HTP: what would be timed is its simulator"
            fix = "device: {access: none}, or how the device is reached: {access: {ssh: HOST}}"
            raise ConfigError(what, where=where, fix=fix)
        return options.model_copy(update={"chip": next(name for name, known in CHIPS.items() if known == chip)})

    def depth(self, target: Target) -> Depth | None:
        """Without a device, simulation is where the library holds the simulator."""
        found = super().depth(target)
        return "compile" if found == "simulate" and not _simulates() else found

    def compile(self, artifact: Artifact, request: Request, out: Path) -> Compiled:
        """Write ``model.onnx``, which holds the context binary.

        Raises:
            StageError: With every node that the HTP cannot run.
        """
        silence()
        assert isinstance(request.options, QnnParams)
        name, chip = request.options.chip, CHIPS[request.options.chip]
        prepared, added = _prepared(artifact.path("model.onnx"), request.batch)
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / SOURCE
            source.write_bytes(prepared)
            options = {"htp_arch": str(chip.htp), "soc_model": str(chip.number)}
            built = request.host("").build("qnn", {SOURCE: source}, options, limit_s=_LIMIT_S)
        (out / MODEL).write_bytes(built.files[MODEL])
        stamp = _SDK.search(built.files[MODEL])
        return Compiled(
            MODEL,
            origin={name: (node,) for name, node in added.items()},
            notes=("QNN writes other bytes each time: the digest of this artefact is not reproducible",),
            layers=tuple(built.layers),
            stand_in=StandIn("qnn", MODEL, f"x86 simulator of the HTP v{chip.htp}") if _simulates() else None,
            facts={
                "chip": name,
                "sold as": chip.sold_as,
                "htp": f"v{chip.htp}",
                "fallback": "none, by compiling",
                **({"qnn sdk": stamp[1].decode()} if stamp else {}),
            },
        )


def _chip(name: str, where: str) -> Chip:
    """The chip of that name, or the first one with an HTP of that version.

    Raises:
        ConfigError: There is none.
    """
    known: dict[str, Chip] = {}
    for chip in CHIPS.values():
        known.setdefault(f"v{chip.htp}", chip)
    known |= CHIPS
    found = known.get(name) or known.get(name.upper()) or known.get(name.lower()) or known.get(f"v{name}")
    if found:
        return found
    what = f"unknown HTP {name!r}" if name else "which HTP the device has is not said"
    listed = "device: {arch: ...} is one of " + ", ".join(known)
    raise ConfigError(what + (hint(name, known, listed=False) if name else ""), where=where, fix=listed)


def _simulates() -> bool:
    """onnxruntime-qnn for x86-64 holds the simulator; for other machines it is made for a real HTP."""
    return platform.machine().lower() in ("x86_64", "amd64")


def _prepared(model: Path, batch: int) -> tuple[bytes, dict[str, str]]:
    """The model with a fixed batch, and without the casts that QNN gets wrong.

    Compiled for a chip, its Cast from uint8 to float gives 1 for everything that is not 0 (onnxruntime-qnn 2.7.0). That
    from uint8 to int32 and from there to float is right.

    Returns:
        The file, and the node that each added one belongs to.
    """
    import onnx

    try:
        graph = onnx.load_from_string(with_batch(model.read_bytes(), batch))
    except Exception as error:  # protobuf and shape inference raise what they like
        raise StageError(f"this is no ONNX file that can be compiled: {error}", where="compile") from error
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.graph.input, *graph.graph.value_info)}
    added = {}
    for position, node in reversed(list(enumerate(graph.graph.node))):
        to = next((entry.i for entry in node.attribute if entry.name == "to"), 0)
        wrong = node.op_type == "Cast" and kinds.get(node.input[0]) == onnx.TensorProto.UINT8
        if wrong and to in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
            wide, name = f"{node.output[0]}/int32", f"{node.name}/int32"
            step = onnx.helper.make_node("Cast", [node.input[0]], [wide], name=name, to=onnx.TensorProto.INT32)
            node.input[0], added[name] = wide, node.name
            graph.graph.node.insert(position, step)
    return bytes(graph.SerializeToString(deterministic=True)), added


PLUGINS = (Qnn(),)
