from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt.access import archive
from edgeopt.access.channel import Channel
from edgeopt.access.process import spawn
from edgeopt.agent import AgentError, bootstrap
from edgeopt.agent.exclusive import DeviceLock
from edgeopt.errors import StageError
from tests.unit.access.test_local import gone

DATA = np.frombuffer(b"some weights", np.uint8)
PATH = {"PATH": os.environ["PATH"]}
DIGEST = hashlib.sha256(DATA.tobytes()).hexdigest()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "agent.pyz").write_bytes(archive.content())
    return folder


def keep(work: Path) -> Channel:
    environment = {"EDGEOPT_LOCK_FOLDER": os.environ["EDGEOPT_LOCK_FOLDER"]}
    return spawn([sys.executable, str(work / "agent.pyz"), "keep", str(work)], name="board", env=environment)


def test_contents_are_taken_once_and_laid_out(work: Path) -> None:
    channel = keep(work)
    assert channel.hello()["agent"].startswith(str(work))
    assert channel.call("missing", digests=[DIGEST]).header["missing"] == [DIGEST]
    channel.call("put", [DATA[:5]], digest=DIGEST, last=False)
    assert channel.call("missing", digests=[DIGEST]).header["missing"] == [DIGEST]
    channel.call("put", [DATA[5:]], digest=DIGEST, last=True)
    assert channel.call("missing", digests=[DIGEST]).header["missing"] == []
    for _ in range(2):
        reply = channel.call("place", name="a", files={"x.bin": DIGEST, "deep/y.bin": DIGEST}).header
        assert (Path(reply["folder"]) / "deep" / "y.bin").read_bytes() == DATA.tobytes()
    channel.stop()
    assert not work.exists()


def test_what_arrives_damaged_is_not_kept(work: Path) -> None:
    channel = keep(work)
    with pytest.raises(StageError, match="a file did not arrive as it was sent"):
        channel.call("put", [DATA[:-1]], digest=DIGEST, last=True)
    assert channel.call("missing", digests=[DIGEST]).header["missing"] == [DIGEST]
    channel.call("put", [DATA], digest=DIGEST, last=True)
    assert channel.call("missing", digests=[DIGEST]).header["missing"] == []
    channel.stop()


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("put", {"digest": "../../etc/passwd", "last": True}, "is no sha256"),
        ("place", {"name": "../x", "files": {}}, "is no name of a file inside a folder"),
        ("place", {"name": "x", "files": {"../y": DIGEST}}, "is no name of a file inside a folder"),
        ("place", {"name": "x", "files": {"/y": DIGEST}}, "is no name of a file inside a folder"),
        ("infer", {}, "unknown verb 'infer'"),
    ],
)
def test_no_name_leads_out_of_the_folder(work: Path, verb: str, arguments: dict[str, Any], message: str) -> None:
    channel = keep(work)
    with pytest.raises(StageError, match=message):
        channel.call(verb, [DATA], **arguments)
    channel.stop()


def test_a_client_that_falls_silent_is_gone(work: Path) -> None:
    """The alarm, for real, in a process of its own: it blocks in reading."""
    script = (
        "import sys; from pathlib import Path; from edgeopt.agent import keeper\n"
        "keeper.SILENCE_S = 2\n"
        "keeper.Keeper(Path(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer).serve()\n"
    )
    channel = spawn([sys.executable, "-c", script, str(work)], name="board", env={"PYTHONPATH": ":".join(sys.path)})
    channel.hello()
    agent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(work / "agent")])
    assert channel.call("lock", who="me").header["holder"] is None
    deadline = time.monotonic() + 20
    while work.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not work.exists()
    assert agent.wait(10) < 0  # the agents of the folder go with it
    assert channel.stop().status == 0


def test_what_an_agent_leaves_running_is_ended_and_nothing_else(work: Path) -> None:
    channel = keep(work)
    first, second = (Path(channel.call("begin").header["temporary"]) for _ in range(2))
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    of_the_first = [
        subprocess.Popen(sleep, env={"TMPDIR": str(first)}),
        subprocess.Popen(sleep, env={"TMPDIR": f"{first}/deeper"}, start_new_session=True),
        subprocess.Popen(sleep, cwd=first),
        subprocess.Popen([*sleep, f"{first}/model.onnx"]),
    ]
    of_the_second = subprocess.Popen(sleep, env={"TMPDIR": str(second)})
    others = [subprocess.Popen(sleep, env={"TMPDIR": f"{first}0", "OTHER": str(first)}), subprocess.Popen(sleep)]
    try:
        channel.call("end", temporary=str(first))
        assert [one.wait(10) for one in of_the_first] == [-9] * 4
        assert not first.exists()
        channel.call("end", temporary=str(first))  # again is harmless
        assert [one.poll() for one in (of_the_second, *others)] == [None] * 3
        with pytest.raises(StageError, match="is no name of a file inside a folder"):
            channel.call("end", temporary="..")
        channel.stop()
        assert of_the_second.wait(10) == -9
        assert others[1].poll() is None
    finally:
        for one in (*of_the_first, of_the_second, *others):
            one.kill()
            one.wait()


def test_a_group_that_others_share_is_left_alone(work: Path, tmp_path: Path) -> None:
    """Its leader is gone, so that nobody knows whose it was: what belongs to the agent ends, the others live."""
    channel = keep(work)
    folder = channel.call("begin").header["temporary"]
    pids = tmp_path / "pids"
    script = f"env TMPDIR={folder} sleep 60 & echo $! > {pids}; sleep 60 & echo $! >> {pids}"
    leader = subprocess.Popen(["/bin/sh", "-c", script], env=PATH, start_new_session=True)
    leader.wait()
    tool, other = (int(pid) for pid in pids.read_text().split())
    while Path(f"/proc/{tool}/comm").read_text() != "sleep\n":  # forked, but not yet what carries the folder
        time.sleep(0.01)
    channel.call("end", temporary=folder)
    assert gone(tool)
    assert Path(f"/proc/{other}").exists()
    os.kill(other, signal.SIGKILL)
    channel.stop()


def test_the_lock_is_one_for_all(work: Path) -> None:
    channel = keep(work)
    own = DeviceLock()
    assert own.take("this test") is None
    assert channel.call("lock", who="other").header["holder"].startswith("this test, since ")
    own.release()
    assert channel.call("lock", who="\x1b[31mother\n" + "é" * 500).header["holder"] is None
    holder = own.take("this test")
    assert holder is not None
    assert holder.startswith("[31motheréé")
    assert holder.isprintable()
    with pytest.raises(StageError, match="holds the device's lock already"):
        channel.call("lock", who="other")
    channel.call("unlock")
    assert own.take("this test") is None
    own.release()
    own.release()
    channel.stop()


def test_a_link_in_place_of_the_lock_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEOPT_LOCK_FOLDER", str(tmp_path))
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "edgeopt-device.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(AgentError, match="cannot open the device's lock"):
        DeviceLock().take("me")
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_folder_for_the_lock_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEOPT_LOCK_FOLDER", str(tmp_path / "none"))
    with pytest.raises(AgentError, match=r"cannot open the device's lock .*: No such file") as caught:
        DeviceLock().take("me")
    assert "EDGEOPT_LOCK_FOLDER" in caught.value.fix


def test_a_folder_for_the_lock_that_cannot_be_written_to_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()  # neither may root make a file below it
    monkeypatch.setenv("EDGEOPT_LOCK_FOLDER", str(tmp_path / "file"))
    with pytest.raises(AgentError, match=r"cannot open the device's lock .*: Not a directory"):
        DeviceLock().take("me")


def test_who_holds_a_lock_whose_file_was_cleaned_away_no_longer_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEOPT_LOCK_FOLDER", str(tmp_path))
    first, second = DeviceLock(), DeviceLock()
    assert not first.held()
    assert first.take("first") is None
    assert first.held()
    (tmp_path / "edgeopt-device.lock").unlink()
    assert not first.held()
    assert second.take("second") is None
    assert second.held()
    assert not first.held()
    first.release()
    assert second.held()


def test_a_lock_file_that_is_removed_while_it_is_taken_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEOPT_LOCK_FOLDER", str(tmp_path))
    file, removed, flock = tmp_path / "edgeopt-device.lock", [], fcntl.flock

    def removed_just_before(descriptor: int, operation: int) -> None:
        if not removed:
            file.unlink()
            removed.append(file)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", removed_just_before)
    lock = DeviceLock()
    assert lock.take("me") is None
    assert lock.held()
    assert file.read_text().startswith("me, since ")
    assert str(DeviceLock().take("other")).startswith("me, since ")
    lock.release()


# The bootstrap


def start(data: bytes, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    code = Path(bootstrap.__file__).read_text() + f"\nmain(*{arguments!r})\n"
    return subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=False, timeout=60)


def test_what_does_not_arrive_whole_is_not_run(tmp_path: Path) -> None:
    agent = archive.content()
    done = start(agent[:-1], len(agent), hashlib.sha256(agent).hexdigest(), str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.decode().startswith(f"the agent did not arrive whole: {len(agent) - 1} of {len(agent)} bytes")
    assert not list(tmp_path.iterdir())


def test_an_old_python_is_told_so(tmp_path: Path) -> None:
    code = (
        Path(bootstrap.__file__).read_text().replace("_OLDEST = (3, 10)", "_OLDEST = (9, 1)") + "\nmain(0, '', None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=b"", capture_output=True, check=False, timeout=60)
    have = ".".join(map(str, sys.version_info[:2]))
    assert done.stderr.decode() == f"the device's Python is {have}; the agent needs 9.1 or newer\n"


def test_the_keeper_greets_when_it_has_arrived(tmp_path: Path) -> None:
    agent = archive.content()
    done = start(agent, len(agent), hashlib.sha256(agent).hexdigest(), str(tmp_path))
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(b'{"hello": "edgeopt-agent"')
    assert not list(tmp_path.iterdir())  # its input has ended
