from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeopt.agent.call_overhead import ONNX
from tests.sshd import SSHD, Sshd


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """A device that is this machine behind a real sshd."""
    if not SSHD:
        pytest.skip("there is no sshd: install openssh-server")
    (tmp_path / "sshd").mkdir()
    server = Sshd(tmp_path / "sshd", sys.executable)
    server.start()
    yield server
    server.down()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """``y = relu(x)`` of one float32."""
    (tmp_path / "made here").mkdir()
    file = tmp_path / "made here" / "relu.onnx"
    file.write_bytes(ONNX)
    return file
