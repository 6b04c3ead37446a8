"""Over a real sshd. What must hold: nothing is left on the device, nothing hangs, and every trouble is told plainly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt.access import Agent, Limits, remote
from edgeopt.access.channel import Channel, End
from edgeopt.access.connection import Local
from edgeopt.access.ssh import Ssh
from edgeopt.agent import wire
from edgeopt.errors import StageError
from tests.sshd import HOST, Link, Sshd
from tests.unit.access.test_local import gone

X = [np.array([-1.5, 2.5], np.float32)]
BRIEF = Limits(
    min_runs=5, min_seconds=0.01, max_seconds=2.0, warmup_seconds=0.01, warmup_runs=2, warmup_max_seconds=0.1
)
LONG = Limits(
    min_runs=5, min_seconds=60.0, max_seconds=60.0, warmup_seconds=0.01, warmup_runs=2, warmup_max_seconds=0.1
)


def emptied(folder: Path) -> bool:
    """True once nothing is in the folder: a device that lost its client cleans up by itself."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not list(folder.iterdir()):
            return True
        time.sleep(0.05)
    return False


def work_folder(sshd: Sshd) -> Path:
    (folder,) = sshd.work.iterdir()
    return folder


def lost() -> AbstractContextManager[object]:
    return pytest.raises(StageError, match="the device's lock was lost while it was measured")


def keeper_of(sshd: Sshd) -> int:
    """Process id."""
    (folder,) = sshd.work.iterdir()
    (pid,) = (p.parent.name for p in Path("/proc").glob("[0-9]*/cmdline") if keeps(p, folder))
    return int(pid)


def keeps(cmdline: Path, folder: Path) -> bool:
    """Whether that is the keeper of a work folder, or of one in the folder."""
    try:
        words = cmdline.read_bytes().split(b"\0")
    except OSError:
        return False
    return b"keep" in words and any(word.startswith(os.fsencode(folder)) for word in words)


def infers(agent: Agent, model: Path) -> None:
    agent.open("m", "onnxruntime", str(model))
    np.testing.assert_array_equal(agent.infer("m", X)[0], [0.0, 2.5])


def test_a_device_is_opened_measured_and_left_as_it_was(sshd: Sshd, model: Path) -> None:
    with sshd.connect() as device:
        assert not list(sshd.work.iterdir())  # nothing happens before it is used
        with device.start() as agent:
            infers(agent, model)
            timing = agent.time(["m"], X, BRIEF, seed=0)
            assert len(timing.samples_ns["m"]) >= 5
            pid = agent.probe().pid
        assert gone(pid)
        with device.start() as again:
            assert again.probe().pid != pid  # a fresh process each
        folder = work_folder(sshd)
        assert folder.stat().st_mode & 0o777 == 0o700
        assert device.facts() is device.facts()
        assert device.facts().machine.cpu
    assert emptied(sshd.work)


def test_env_and_cpus_reach_the_agent(sshd: Sshd, model: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    with sshd.connect() as device, device.start(cpus=(cpu,), env={"WORD": "a b;c'"}) as agent:
        facts = agent.probe()
        assert facts.machine.cpus == (cpu,)
        environment = Path(f"/proc/{facts.pid}/environ").read_bytes().split(b"\0")
        assert b"WORD=a b;c'" in environment
        assert f"TMPDIR={work_folder(sshd)}/tmp/1".encode() in environment


def test_files_of_one_stem_are_sent_once_and_whole(sshd: Sshd, model: Path) -> None:
    weights = np.random.default_rng(0).bytes(700_000)
    model.with_suffix(".bin").write_bytes(weights)
    model.with_suffix(".empty").touch()
    (model.parent / "other.bin").write_bytes(weights)
    link = Link(sshd.port, 1e9)
    sshd.write_config(link.port)
    with sshd.connect() as device:
        with device.start() as agent:
            infers(agent, model)
        sent = link.sent
        assert sent > len(weights)
        (there,) = (work_folder(sshd) / "files").iterdir()
        assert {file.name for file in there.iterdir()} == {"relu.onnx", "relu.bin", "relu.empty"}
        assert (there / "relu.bin").read_bytes() == weights
        copy = model.with_name("copy.onnx")
        copy.write_bytes(model.read_bytes())
        copy.with_suffix(".bin").write_bytes(weights)
        with device.start() as agent:
            infers(agent, copy)
        assert link.sent - sent < 100_000
    link.close()


def test_a_folder_is_sent_as_a_whole(sshd: Sshd, model: Path) -> None:
    (model.parent / "more").mkdir()
    (model.parent / "more" / "weights.bin").write_bytes(b"w")
    with sshd.connect() as device, device.start() as agent:
        with pytest.raises(StageError):
            agent.open("m", "onnxruntime", str(model.parent))  # not a model, but it was brought
        (there,) = (work_folder(sshd) / "files").iterdir()
        assert (there / "made here" / "more" / "weights.bin").read_bytes() == b"w"
        with pytest.raises(StageError, match="there is no such file"):
            agent.open("m", "onnxruntime", str(model.parent / "none.onnx"))


def test_shell_metacharacters_mean_nothing(sshd: Sshd, model: Path) -> None:
    evil = "a b;touch pwned $(touch pwned) `touch pwned` 'q' \"d\" \\ & | > pwned\n*"
    (sshd.work / evil).mkdir()
    odd = model.with_name("m;$(touch pwned) 'x'.onnx")
    odd.write_bytes(model.read_bytes())
    with sshd.connect(folder=str(sshd.work / evil)) as device, device.start() as agent:
        infers(agent, odd)
    assert emptied(sshd.work / evil)
    home = Path.home()
    assert not any((folder / "pwned").exists() for folder in (home, Path.cwd(), sshd.work, Path("/")))


def test_a_noisy_login_does_not_matter(sshd: Sshd, model: Path) -> None:
    sshd.before_commands('echo "Last login: never"; echo "{}" >&2; printf "no end of line "')
    with sshd.connect() as device, device.start() as agent:
        infers(agent, model)


def test_the_way_there_is_that_of_the_configuration(sshd: Sshd, model: Path) -> None:
    sshd.write_config(sshd.port, device="ProxyJump jump")
    known = sshd.known_hosts.read_text()
    sshd.known_hosts.write_text(known + known.replace(HOST, "jump", 1))
    with sshd.connect() as device, device.start() as agent:
        infers(agent, model)
    sshd.known_hosts.write_text(known)  # that of the device, not that of the jump host
    with sshd.connect() as device, pytest.raises(StageError, match="or of one on the way, is not known"):
        device.facts()


# Keys


def test_an_unknown_host_key_is_refused(sshd: Sshd) -> None:
    sshd.known_hosts.write_text("")
    with (
        sshd.connect() as device,
        pytest.raises(StageError, match=r"the host key of the device, .*, is not known") as caught,
    ):
        device.facts()
    assert "ssh device" in caught.value.fix
    assert caught.value.where == "ssh device"
    assert sshd.known_hosts.read_text() == ""
    assert not list(sshd.work.iterdir())


def test_a_changed_host_key_is_refused(sshd: Sshd) -> None:
    sshd.trust("other_key")
    with sshd.connect() as device, pytest.raises(StageError, match="is not the one that is known") as caught:
        device.facts()
    assert "ssh-keygen -R" in caught.value.fix


def test_a_refused_key_is_told_and_nothing_is_asked(sshd: Sshd) -> None:
    sshd.write_config(sshd.port, key="other_key")
    with sshd.connect() as device, pytest.raises(StageError, match="does not let this user in") as caught:
        device.facts()
    assert "ssh-copy-id" in caught.value.fix


@pytest.mark.parametrize(
    ("status", "words", "expected"),
    [
        (255, "Received disconnect from 192.0.2.1 port 22:2: Too many authentication failures", "before the right one"),
        (255, "ssh: Could not resolve hostname board: Name or service not known", "no machine of this name"),
        (255, "/home/me/.ssh/config: line 3: Bad configuration option: prot", "the ssh configuration is wrong"),
        (255, 'command-line line 0: garbage at end of line; "x/s".', "does not know an option"),
        (255, "ssh: connect to host board port 22: Connection timed out", "the connection to the device failed"),
        (-9, "", "the connection to the device failed"),
        (1, "Permission denied", None),  # said by a command on the device
        (137, "", None),
    ],
)
def test_what_ssh_says_is_put_into_words(status: int, words: str, expected: str | None) -> None:
    trouble = Ssh("board")._trouble(End(status, words))
    assert (expected is None) == (trouble is None)
    if trouble and expected:
        assert expected in trouble.what
        assert "{" not in trouble.fix


@pytest.mark.parametrize("name", ["with blank", "100%", "~", "$HOME", "very" * 20])
def test_a_temporary_folder_that_ssh_would_misread_is_not_used(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / name))
    device = Ssh("board")
    (option,) = [word for word in device._argv("true", first=True) if word.startswith("ControlPath=")]
    place = Path(option.removeprefix("ControlPath=")).parent
    assert place.parent == Path("/tmp")
    assert place.stat().st_mode & 0o077 == 0
    device.close()
    assert not place.exists()


def test_a_host_without_room_for_a_socket_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(StageError, match="cannot make a folder for temporary files"):
        Ssh("board")._argv("true", first=True)


def test_nobody_listens(sshd: Sshd) -> None:
    sshd.stop()
    with sshd.connect() as device, pytest.raises(StageError, match="the connection to the device failed"):
        device.facts()


# What can go wrong there


def test_the_connection_is_cut_in_the_middle_of_a_measurement(sshd: Sshd, model: Path) -> None:
    cuts: list[Mapping[str, float]] = []

    def cut(progress: Mapping[str, float]) -> None:
        if not cuts:
            sshd.cut()
        cuts.append(progress)

    with sshd.connect() as device:
        with device.start() as agent:
            infers(agent, model)
            pid = agent.probe().pid
            with pytest.raises(StageError, match="the connection to the device failed during 'time'"):
                agent.time(["m"], X, LONG, seed=0, progress=cut)
        assert cuts
        assert gone(pid)
        assert emptied(sshd.work)
        with device.start() as agent:  # the device is there again
            infers(agent, model)
    assert emptied(sshd.work)


def test_the_network_goes_away_in_the_middle_of_an_inference(sshd: Sshd, model: Path) -> None:
    link = Link(sshd.port, 1e9)
    sshd.write_config(link.port)
    with sshd.connect() as device, device.start() as agent:
        pid = agent.probe().pid
        os.kill(pid, signal.SIGSTOP)  # busy, so to speak
        threading.Timer(0.3, link.close).start()
        with pytest.raises(StageError, match="the connection to the device failed during 'memory'"):
            agent.memory()
        os.kill(pid, signal.SIGCONT)
        assert gone(pid)
        assert emptied(sshd.work)


def test_an_agent_that_is_killed_there_is_not_taken_for_a_lost_connection(sshd: Sshd) -> None:
    with sshd.connect() as device, device.start() as agent:
        pid = agent.probe().pid
        threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(StageError, match="the agent was killed on the device during 'memory'"):
            agent.memory()
        with device.start() as another:
            another.memory()


@pytest.fixture
def trtexec(sshd: Sshd) -> Path:
    """A tool on the device that builds for a long time; the file tells its process id once it does."""
    tool, running = sshd.folder / "bin" / "trtexec", sshd.folder / "running"
    tool.parent.mkdir()
    banner = 'case "$*" in *--help*) echo "&&&& RUNNING TensorRT.trtexec [TensorRT v100300]"; exit 0;; esac'
    tool.write_text(f"#!/bin/sh\n{banner}\necho $$ > {running}.part; mv {running}.part {running}; exec sleep 97\n")
    tool.chmod(0o755)
    sshd.before_commands(f"export PATH={tool.parent}:$PATH")
    return running


BUILD = {
    "kind": "float",
    "arch": "",
    "tool": "trtexec",
    "typing": "auto",
    "workspace_mib": None,
    "optimization_level": None,
    "tf32": True,
    "dla_core": None,
    "gpu_fallback": True,
    "inputs": [],
    "outputs": [],
}


def test_the_tools_of_an_agent_that_is_killed_end_with_it(sshd: Sshd, model: Path, trtexec: Path) -> None:
    with sshd.connect() as device, device.start() as beside, device.start() as agent:
        pid = agent.probe().pid

        def kill() -> None:
            while not trtexec.exists():
                time.sleep(0.05)
            os.kill(pid, signal.SIGKILL)

        threading.Thread(target=kill, daemon=True).start()
        with pytest.raises(StageError, match="during 'build'"):
            agent.build("tensorrt", {"model.onnx": model}, BUILD, limit_s=60)
        assert gone(int(trtexec.read_text()))
        beside.memory()  # that one is none of its tools
        assert [file.name for file in (work_folder(sshd) / "tmp").iterdir()] == ["1"]


def test_the_next_agent_starts_without_the_tools_of_the_last_one(sshd: Sshd, model: Path, trtexec: Path) -> None:
    with sshd.connect() as device:
        agent = device.start()
        pid = agent.probe().pid
        request = {"toolchain": "tensorrt", "files": ["model.onnx"], "options": BUILD}
        contents = [np.fromfile(model, np.uint8)]
        wire.write(agent._channel._requests, {"verb": "build", **request}, contents)
        while not trtexec.exists():
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        agent.stop()
        tool = int(trtexec.read_text())
        assert Path(f"/proc/{tool}").exists()
        with device.start() as another:
            assert gone(tool)
            another.memory()


def test_ctrl_c_and_errors_leave_nothing_there(sshd: Sshd, model: Path) -> None:
    pids = []

    def interrupted() -> None:
        with sshd.connect() as device, device.start() as agent:
            infers(agent, model)
            pids.append(agent.probe().pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert emptied(sshd.work)
    assert gone(pids[0])


def test_a_host_that_is_killed_leaves_nothing_there(sshd: Sshd) -> None:
    script = (
        "import sys; from pathlib import Path; from edgeopt.access.ssh import Ssh\n"
        "device = Ssh('device', python=sys.executable, folder=sys.argv[2], config=Path(sys.argv[1]))\n"
        "with device.exclusive():\n"
        "    agent = device.start(); print(agent.probe().pid, flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(sshd.config), str(sshd.work)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as host:
        assert host.stdout
        pid = int(host.stdout.readline())
        host.kill()
    assert emptied(sshd.work)
    assert gone(pid)
    with sshd.connect() as device, device.exclusive(limit_s=5):
        pass


def test_a_full_disk_is_told_plainly(sshd: Sshd, model: Path) -> None:
    model.with_suffix(".bin").write_bytes(np.random.default_rng(0).bytes(500_000))
    sshd.before_commands("ulimit -f 400")  # in blocks of 512 or 1024 bytes
    with sshd.connect() as device, device.start() as agent:
        with pytest.raises(
            StageError, match=r"the disk of the device is full \(File too large; .* MiB are free"
        ) as full:
            agent.open("m", "onnxruntime", str(model))
        assert "device.access.folder" in full.value.fix
        model.with_suffix(".bin").unlink()
        infers(agent, model)


def test_a_disk_that_fills_up(sshd: Sshd, model: Path, small_disk: Path) -> None:
    model.with_suffix(".bin").write_bytes(np.random.default_rng(0).bytes(1_500_000))
    with sshd.connect(folder=str(small_disk)) as device, device.start() as agent:
        with pytest.raises(StageError, match=r"the disk of the device is full \(No space left on device"):
            agent.open("m", "onnxruntime", str(model))
        model.with_suffix(".bin").unlink()
        infers(agent, model)  # there is room again
    assert emptied(small_disk)


def test_no_room_even_for_the_agent(sshd: Sshd) -> None:
    sshd.before_commands("ulimit -f 4")
    with sshd.connect() as device, pytest.raises(StageError, match=r"cannot write to .* on the device: File too large"):
        device.facts()
    assert emptied(sshd.work)


def test_a_folder_that_is_not_there(sshd: Sshd) -> None:
    with (
        sshd.connect(folder="/nowhere") as device,
        pytest.raises(StageError, match="cannot make a folder in /nowhere on the device: No such file"),
    ):
        device.facts()


def test_a_python_that_is_not_there(sshd: Sshd) -> None:
    with (
        sshd.connect(python="/nowhere/python3") as device,
        pytest.raises(StageError, match="no /nowhere/python3") as no,
    ):
        device.facts()
    assert "device.access.python" in no.value.fix


def test_a_python_without_numpy(sshd: Sshd, tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # without its packages
    bare.chmod(0o755)
    with sshd.connect(python=str(bare)) as device, pytest.raises(StageError, match="has no numpy") as caught:
        device.facts()
    assert caught.value.fix == f"install numpy for {bare} there"
    assert not list(sshd.work.iterdir())


BROKEN_NUMPY = """
try:
    raise ImportError("libopenblas.so.0: cannot open it")
except ImportError as error:
    raise ImportError("please read this" + 50 * "\\nadvice") from error
"""


def test_a_python_with_a_broken_numpy(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text(BROKEN_NUMPY)
    broken = tmp_path / "python"
    broken.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec "{sys.executable}" "$@"\n')
    broken.chmod(0o755)
    with (
        sshd.connect(python=str(broken)) as device,
        pytest.raises(StageError, match=r"the numpy of .* cannot be imported: libopenblas\.so\.0") as caught,
    ):
        device.facts()
    assert caught.value.fix == f"install numpy for {broken} there anew"
    assert not list(sshd.work.iterdir())


def test_an_agent_of_another_version_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\necho \'{"hello": "edgeopt-agent", "protocol": 1, "tensors": []}\'\ncat > /dev/null\n')
    old.chmod(0o755)
    with (
        sshd.connect(python=str(old)) as device,
        pytest.raises(StageError, match="it speaks version 1, edgeopt speaks"),
    ):
        device.facts()


def test_a_slow_link(sshd: Sshd, model: Path) -> None:
    model.with_suffix(".bin").write_bytes(np.random.default_rng(0).bytes(150_000))
    link = Link(sshd.port, 200_000)
    sshd.write_config(link.port)
    with sshd.connect() as device, device.start() as agent:
        infers(agent, model)
    assert link.sent > 150_000
    link.close()


def test_a_link_that_stands_still(sshd: Sshd, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = Link(sshd.port, 1e9)
    sshd.write_config(link.port)
    with sshd.connect() as device, device.start() as agent:
        agent.memory()
        monkeypatch.setattr(remote, "_ANSWER_LIMIT_S", 0.5)
        link.bytes_per_s = 0
        with pytest.raises(StageError, match=r"did not answer 'missing' within 0\.5 s"):
            agent.open("m", "onnxruntime", str(model))
    link.close()
    assert emptied(sshd.work)


# The lock


def test_two_runs_do_not_measure_at_once(sshd: Sshd) -> None:
    events: list[str] = []

    def second() -> None:
        with sshd.connect() as device, device.exclusive(events.append):
            events.append("second")

    with sshd.connect() as device:
        with device.exclusive():
            thread = threading.Thread(target=second)
            thread.start()
            while not events:
                time.sleep(0.05)
            events.append("first is done")
        thread.join()
    assert events[1:] == ["first is done", "second"]
    assert f"process {os.getpid()}, since " in events[0]
    assert events[0].startswith("another run is measuring on this device (")


def test_this_machine_and_the_way_to_it_over_ssh_share_the_lock(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEOPT_LOCK_FOLDER", str(sshd.locks))
    with sshd.connect() as device, Local() as here:
        with device.exclusive(), pytest.raises(StageError, match="has held the device for longer than 0 s: ") as held:
            here._take_lock(print, 0)
        assert str(os.getpid()) in held.value.what
        with here.exclusive(), pytest.raises(StageError, match="has held the device"):
            device._take_lock(print, 0)
        with device.exclusive():
            pass


def test_a_run_that_is_cut_off_does_not_keep_the_lock(sshd: Sshd) -> None:
    with sshd.connect() as device, sshd.connect() as other, lost(), device.exclusive():
        sshd.cut()
        assert emptied(sshd.work)
        with other.exclusive(limit_s=5):
            pass


def test_a_timing_does_not_count_if_the_keeper_dies_beside_it(sshd: Sshd, model: Path) -> None:
    with sshd.connect() as device, lost(), device.exclusive(), device.start() as agent:
        infers(agent, model)
        os.kill(keeper_of(sshd), signal.SIGKILL)
        assert len(agent.time(["m"], X, BRIEF, seed=0).samples_ns["m"]) >= 5  # nothing of it is seen here


def test_a_lost_lock_is_noticed_although_it_was_taken_anew(sshd: Sshd) -> None:
    with sshd.connect() as device, device.exclusive():
        with lost(), device.start() as agent:
            agent.memory()
            os.kill(keeper_of(sshd), signal.SIGKILL)
            device._kept()  # as for the next session
            assert device._holds()
        with device.start() as agent:
            agent.memory()
    with sshd.connect() as other, other.exclusive(limit_s=5):
        pass


def test_a_lock_whose_file_is_cleaned_away_is_lost(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEOPT_LOCK_FOLDER", str(sshd.locks))
    for connection in (sshd.connect(), Local()):
        with connection as device, lost(), device.exclusive():
            (sshd.locks / "edgeopt-device.lock").unlink()


def test_an_error_within_is_told_instead_of_the_lost_lock(sshd: Sshd) -> None:
    def fails() -> None:
        with sshd.connect() as device, device.exclusive():
            os.kill(keeper_of(sshd), signal.SIGKILL)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fails()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_silent_device_is_left_soon(sshd: Sshd, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    monkeypatch.setattr(remote, "_LEAVING_LIMIT_S", 0.2)
    asked: list[str] = []
    keepers: list[int] = []
    call = Channel.call

    def told(channel: Channel, verb: str, *arguments: Any, **options: Any) -> Any:
        asked.append(verb)
        return call(channel, verb, *arguments, **options)

    def leaves() -> None:
        with sshd.connect() as device, device.exclusive():
            keepers.append(keeper_of(sshd))
            os.kill(keepers[0], signal.SIGSTOP)
            monkeypatch.setattr(Channel, "call", told)
            raise error

    with pytest.raises(error):
        leaves()
    assert asked == ([] if error is KeyboardInterrupt else ["unlock"])  # which waits for 0.2 s and not for 60
    os.kill(keepers[0], signal.SIGCONT)
    assert emptied(sshd.work)
    with sshd.connect() as other, other.exclusive(limit_s=5):
        pass


def test_a_sign_of_life_under_way_does_not_keep_anyone(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_LEAVING_LIMIT_S", 0.2)
    monkeypatch.setattr(remote, "_HEARTBEAT_S", 0.1)
    with sshd.connect() as device:
        device._kept()
        keeper = keeper_of(sshd)
        os.kill(keeper, signal.SIGSTOP)
        assert device._keeper
        while not device._keeper._calling.locked():
            time.sleep(0.02)
        time.sleep(0.2)  # it is in the call that gets no answer
    os.kill(keeper, signal.SIGCONT)  # reached long before the limit of an answer, or the test takes a minute
    assert device._keeper is None
    assert emptied(sshd.work)


# A device that reboots


def test_a_device_that_was_away_between_sessions(sshd: Sshd, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_SECONDS_BETWEEN_TRIES", 0.2)
    with sshd.connect() as device:
        with device.exclusive():
            with device.start() as agent:
                infers(agent, model)
            sshd.down()
            assert emptied(sshd.work)
            threading.Timer(1.0, sshd.start).start()
            with device.start() as agent:
                infers(agent, model)
            with sshd.connect() as other, pytest.raises(StageError, match="has held the device"):
                other._take_lock(print, 0)  # it was taken anew
        with sshd.connect() as other, other.exclusive(limit_s=5):
            pass


def test_a_device_that_stays_away(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_SECONDS_BETWEEN_TRIES", 0.1)
    monkeypatch.setattr(remote, "_AWAY_S", 0.5)
    with sshd.connect() as device:
        device.facts()
        sshd.down()
        with pytest.raises(StageError, match="the connection to the device failed"):
            device.start()


def test_a_device_that_was_restarted_while_it_was_measured(sshd: Sshd) -> None:
    with sshd.connect() as device, lost(), device.exclusive():
        device._boot = "another boot"
        sshd.cut()
        for _ in range(2):  # it does not go on without the lock either
            with pytest.raises(StageError, match="the device was restarted while it was measured"):
                device.start()
    assert emptied(sshd.work)


def test_another_run_takes_the_device_while_the_connection_is_lost(sshd: Sshd) -> None:
    with sshd.connect() as device, sshd.connect() as other, lost(), device.exclusive():
        sshd.cut()
        assert emptied(sshd.work)
        with other.exclusive(limit_s=5), pytest.raises(StageError, match="and another run has the device now: "):
            device.start()
