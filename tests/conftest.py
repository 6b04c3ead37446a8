"""What all tests share: one thread, no store but a temporary one, and a small hypothesis budget."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and the runtimes are loaded

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it to what it starts with `&`
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests of Ctrl-C need one

import pytest
from hypothesis import HealthCheck, settings

from tests.sshd import SSHD, Sshd

settings.register_profile(
    "edgeopt", max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("edgeopt")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may touch the user's store, nor wait for the device's lock while another one measures."""
    monkeypatch.setenv("EDGEOPT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("EDGEOPT_LOCK_FOLDER", str(tmp_path_factory.getbasetemp()))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command to make a small disk with")
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


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
