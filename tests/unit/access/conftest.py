from __future__ import annotations

from pathlib import Path

import pytest

from edgeopt.agent.call_overhead import ONNX


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """``y = relu(x)`` of one float32."""
    (tmp_path / "made here").mkdir()
    file = tmp_path / "made here" / "relu.onnx"
    file.write_bytes(ONNX)
    return file
