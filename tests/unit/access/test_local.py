from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import edgeopt
from edgeopt.access import local
from edgeopt.access.process import spawn
from edgeopt.agent import runtimes
from edgeopt.errors import StageError


def gone(pid: int) -> bool:
    """True once the process is dead (a zombie that nobody reaps counts)."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_probe_tells_versions_and_machine() -> None:
    with local.start() as agent:
        facts = agent.probe()
    assert facts.python == ".".join(map(str, sys.version_info[:3]))
    assert {*facts.runtimes, *facts.missing} == set(runtimes.names())
    assert {"onnxruntime", "openvino"} <= set(facts.runtimes)
    assert facts.machine.cpu in str(facts.machine)


def test_it_ends_with_the_context() -> None:
    with local.start() as agent:
        pid = agent.probe().pid
        assert os.getpgid(pid) == pid != os.getpgid(0)  # Ctrl-C does not reach it
    assert gone(pid)
    with pytest.raises(StageError, match="stopped before 'memory'"):
        agent.memory()


def test_it_ends_when_the_body_raises() -> None:
    pids = []

    def interrupted() -> None:
        with local.start() as agent:
            pids.append(agent.probe().pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert gone(pids[0])


def test_it_ends_when_the_host_is_killed_in_the_middle_of_a_call(tmp_path: Path) -> None:
    script = (
        "from edgeopt.access import local\n"
        "agent = local.start()\n"
        "print(agent.probe().pid, flush=True)\n"
        "import time; time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(edgeopt.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as host:
        assert host.stdout
        pid = int(host.stdout.readline())
        os.kill(pid, signal.SIGSTOP)  # busy, so to speak: it cannot read the end of its input
        host.kill()
    os.kill(pid, signal.SIGCONT)
    assert gone(pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("python", [None, sys.executable])
def test_a_host_that_is_killed_leaves_no_folder(python: str | None, number: int, tmp_path: Path) -> None:
    script = (
        "import os, signal, time\n"
        "from edgeopt.access import local\n"
        f"agent = local.start(python={python!r})\n"
        "print(agent.probe().pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    root = str(Path(edgeopt.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as host:
        assert host.stdout
        pid = int(host.stdout.readline())
        (folder,) = tmp_path.iterdir()
        (folder / "left.bin").write_bytes(b"x")
        host.send_signal(number)
    assert gone(pid)
    assert not list(tmp_path.iterdir())


def test_a_host_without_a_temporary_folder_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(StageError, match="cannot write temporary files on this machine: No such file"):
        local.start()


def test_only_the_last_words_are_kept_of_many() -> None:
    script = "import sys; sys.stderr.write('x' * 10_000_000 + '\\nlast words\\n')"
    channel = spawn([sys.executable, "-c", script], name="chatty", env={})
    with pytest.raises(StageError, match="last words") as caught:
        channel.hello(limit_s=60)
    assert len(str(caught.value)) < 5000


def test_what_outlives_the_agent_with_its_standard_error_is_not_waited_for(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '60'], stdin=0, stdout=subprocess.DEVNULL, start_new_session=True)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "sys.exit('last words')"
    )
    channel = spawn([sys.executable, "-c", script], name="parent", env=dict(os.environ))
    try:
        with pytest.raises(StageError, match="last words"):
            channel.hello(limit_s=30)
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_an_agent_that_does_not_answer_in_time_is_stopped() -> None:
    with local.start() as agent:
        pid = agent.probe().pid
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(StageError, match=r"did not answer 'memory' within 0\.3 s"):
            agent.memory(limit_s=0.3)
    assert gone(pid)


def test_last_words_reach_the_error(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os, sys\nsys.stderr.write('no such luck\\n')\nos._exit(7)\n")
    with (
        local.start(env={"PYTHONPATH": str(tmp_path)}) as agent,
        pytest.raises(StageError, match="died during 'probe'; it last wrote:\nno such luck"),
    ):
        agent.probe()


def test_another_python_gets_the_agent_as_an_archive(tmp_path: Path) -> None:
    """A launcher that hides edgeopt from the interpreter: only the zipapp can serve."""
    launcher = tmp_path / "python"
    launcher.write_text(f'#!/bin/sh\nunset PYTHONPATH\ncd /\nexec "{sys.executable}" "$@"\n')
    launcher.chmod(0o755)
    with local.start(python=str(launcher)) as agent:
        assert agent.probe().runtimes
        with pytest.raises(StageError, match="no model named 'm' is open"):
            agent.close("m")


def test_another_python_does_not_see_the_packages_of_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("__version__ = '9.9.9'\n")
    for name in ("PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("PYTHONNOUSERSITE", raising=False)
    with local.start(python=sys.executable) as agent:
        runtimes = agent.probe().runtimes
        environment = Path(f"/proc/{agent.probe().pid}/environ").read_bytes().split(b"\0")
    assert runtimes["onnxruntime"] != "9.9.9"
    assert b"PYTHONNOUSERSITE=1" in environment
    assert not [one for one in environment if one.startswith((b"PYTHONPATH=", b"PYTHONHOME=", b"PYTHONSTARTUP="))]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind a process to CPUs")
def test_it_can_be_bound_to_cpus() -> None:
    cpu = min(os.sched_getaffinity(0))
    with local.start(cpus=(cpu,)) as agent:
        assert agent.probe().machine.cpus == (cpu,)
    with (
        local.start(cpus=(cpu, 10_000)) as agent,
        pytest.raises(StageError, match=r"cannot run on CPUs \[\d+, 10000\]: this process may use \["),
    ):
        agent.probe()


def test_a_python_that_is_not_there() -> None:
    with pytest.raises(StageError, match="cannot start /nowhere/python: No such file"):
        local.start(python="/nowhere/python")
