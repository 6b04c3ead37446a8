"""Tools that start others and outlive their welcome: scripts, run for real."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from edgeopt.agent import jetson, trtexec
from edgeopt.agent.child import Child
from tests import fakes

#: starts one that holds the stream and writes its number; the second one has no living parent
WRAPPERS = {
    "waits": "#!/bin/sh\nsh -c 'echo $$ > NUMBER; exec sleep 60'\necho end\n",
    "leaves": "#!/bin/sh\nsh -c 'echo $$ > NUMBER; exec sleep 60' &\n",
}


@pytest.fixture(params=list(WRAPPERS))
def wrapper(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = tmp_path / "wrapper"
    file.write_text(WRAPPERS[request.param].replace("NUMBER", str(tmp_path / "number")))
    file.chmod(0o755)
    return file


def started(wrapper: Path) -> int:
    file = wrapper.with_name("number")
    while not file.exists() or not file.read_text().strip():
        time.sleep(0.01)
    return int(file.read_text())


def is_over(pid: int) -> bool:
    """Also as a zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except FileNotFoundError:
        return True


def test_the_end_is_that_of_all_it_started(wrapper: Path) -> None:
    child = Child([str(wrapper)])
    pid = started(wrapper)
    assert os.getpgid(pid) == os.getpgrp()  # whoever ends this process's group ends it too
    child.end()
    assert is_over(pid)
    with child.output as output:
        assert output.read() == b""  # nobody holds the stream


def test_a_time_limit_ends_all_of_it(wrapper: Path, tmp_path: Path) -> None:
    with pytest.raises(trtexec.Failed, match=r"did not end within 0\.5 s"):
        trtexec.run(trtexec.Tool(str(wrapper), (10, 3, 0)), ["--warmUp=1"], tmp_path / "log", 0.5)
    assert is_over(started(wrapper))
    with pytest.raises(subprocess.TimeoutExpired):
        Child([str(wrapper)]).said(0.5)
    assert is_over(started(wrapper))


def test_a_tool_of_the_board_that_hangs_says_nothing(
    wrapper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper.rename(tmp_path / "nvpmodel")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(jetson, "_LIMIT_S", 0.5)
    assert jetson.power_mode() == ""
    assert is_over(started(wrapper))


def test_what_it_says_and_how_it_ends(tmp_path: Path) -> None:
    tool = fakes.install(tmp_path, "tool", "import sys\nprint('out', flush=True)\nsys.exit('error')")
    assert Child([str(tool)]).said(60) == (1, "out\nerror\n")
