"""With a program that behaves like adb towards this machine: what a phone does is not tested here."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from edgeopt.access import Agent
from edgeopt.access.adb import Adb
from edgeopt.errors import StageError
from tests.unit.access.test_local import gone
from tests.unit.access.test_ssh import emptied, infers, keeps

#: As `adb shell -T -e none` with shell protocol 2: three separate streams, raw bytes, the status of the command.
ADB = """#!/bin/sh
echo "* daemon started successfully" >&2
[ "$1" = -s ] && [ "$3 $4 $5 $6" = "shell -T -e none" ] && [ $# = 7 ] || { echo "adb: usage: $*" >&2; exit 1; }
case "$2" in
    phone) ;;
    locked) echo "error: device unauthorized." >&2; exit 1 ;;
    *) echo "error: device '$2' not found" >&2; exit 1 ;;
esac
cd /
exec sh -c "$7"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the work folder is made on the phone."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "adb").write_text(ADB)
    (tmp_path / "bin" / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    work = tmp_path / "data $(id) local"
    work.mkdir()
    return work


def phone(folder: Path, serial: str = "phone") -> Adb:
    return Adb(serial, python=sys.executable, folder=str(folder))


def all_bytes(agent: Agent, model: Path) -> None:
    """Every byte comes through as it is, also line ends and the escape character."""
    agent.open("all", "onnxruntime", str(model))
    x = np.frombuffer(bytes(range(256)) * 4, np.float32)
    x = x[np.isfinite(x)]
    np.testing.assert_array_equal(agent.infer("all", [x])[0], np.maximum(x, 0))


def test_the_same_protocol(folder: Path, model: Path) -> None:
    model.with_suffix(".bin").write_bytes(bytes(range(256)) * 3000)
    with phone(folder) as device, device.exclusive():
        with device.start() as agent:
            infers(agent, model)
            all_bytes(agent, model)
        assert device.facts().machine.cpu
        assert list(folder.glob("*/files/*/relu.bin"))
    assert emptied(folder)


def test_a_phone_that_is_not_there_or_not_allowed(folder: Path) -> None:
    with phone(folder, "nobody") as device, pytest.raises(StageError, match="there is no such device") as caught:
        device.facts()
    assert caught.value.where == "adb nobody"
    with phone(folder, "locked") as device, pytest.raises(StageError, match="has not allowed this computer"):
        device.facts()
    assert not list(folder.iterdir())


def test_a_cable_that_is_pulled(folder: Path) -> None:
    with phone(folder) as device, device.start() as agent:
        pid = agent.probe().pid
        assert device._keeper
        keeper = int(next(p.parent.name for p in Path("/proc").glob("[0-9]*/cmdline") if keeps(p, folder)))
        os.kill(pid, signal.SIGSTOP)

        def pull() -> None:
            os.kill(keeper, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)

        threading.Timer(0.3, pull).start()
        with pytest.raises(StageError, match="the device was lost during 'memory'"):
            agent.memory()
        assert gone(pid)


def test_without_adb(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with phone(folder) as device, pytest.raises(StageError, match="cannot start adb: No such file"):
        device.facts()
