"""A model that does next to nothing, for timing what the call of a runtime costs by itself."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from .runtimes import Model, Options, load

#: An ONNX file (opset 13): ``y = Relu(x)`` of one float32. Relu and not Identity, which a runtime may remove.
ONNX = bytes.fromhex(
    "08073a360a0c0a0178120179220452656c75120463616c6c5a0f0a0178120a0a08080112040a020801620f0a0179120a0a08080112040a02080142040a00100d"
)


def can_be_timed(runtime: str) -> bool:
    """Whether a runtime opens ONNX files; one that does not says so with ``READS_ONNX = False``."""
    return bool(getattr(load(runtime), "READS_ONNX", True))


def open_model(runtime: str, threads: int) -> Model:
    """The model, open in a runtime, with its input in place: it only needs to be run."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "call.onnx"
        file.write_bytes(ONNX)
        model = load(runtime).open(str(file), Options(threads=threads))
    model.load([np.zeros(1, np.float32)])
    return model
