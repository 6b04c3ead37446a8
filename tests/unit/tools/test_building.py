"""Installing and removing environments, with the real pip and wheels of a few bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeopt import tools
from edgeopt.errors import ConfigError, MissingBackend, StageError
from edgeopt.tools import building
from tests.tool_locks import Shelf

Start = Callable[..., "subprocess.Popen[str]"]


def test_an_environment_from_nothing_to_its_removal(shelf: Shelf) -> None:
    shelf.tool("a", [shelf.wheel("tiny", code="x = 41 + 1")])
    with pytest.raises(MissingBackend, match="edgeopt tools install a"):
        tools.python("a")
    said: list[str] = []
    done = building.install("a", said.append)
    assert done.state == "installed"
    assert done.size_mib > 1
    assert done.folder.name == f"a-{tools.digest('a')[:16]}"
    seen = subprocess.run([tools.python("a"), "-c", "import tiny; print(tiny.x)"], capture_output=True, text=True)
    assert seen.stdout == "42\n"
    assert building.install("a", lambda line: pytest.fail(line)) == done  # again does nothing
    assert building.remove("a")
    assert tools.status("a").state == "not installed"
    assert not building.remove("a")


def test_a_new_lock_makes_the_environment_outdated_and_an_install_replaces_it(shelf: Shelf) -> None:
    shelf.tool("a", [shelf.wheel("tiny", "1.0")])
    old = building.install("a")
    shelf.tool("a", [shelf.wheel("tiny", "2.0")])
    assert tools.versions("a") == {"tiny": "2.0"}
    assert tools.status("a").state == "outdated"
    with pytest.raises(MissingBackend, match="is outdated"):
        tools.python("a")
    new = building.install("a")
    assert new.folder != old.folder
    assert tools.folders("a") == (new.folder,)


def test_one_name_that_begins_like_another_is_another(shelf: Shelf) -> None:
    pin = shelf.wheel("tiny")
    shelf.tool("a", [pin])
    shelf.tool("a-b", [pin])
    building.install("a-b")
    assert tools.status("a").state == "not installed"
    assert not building.remove("a")
    assert tools.status("a-b").state == "installed"


def test_killed_while_pip_is_at_work(shelf: Shelf, start: Start) -> None:
    """The pip that is left behind still holds the lock: the next install waits for it, then begins anew."""
    shelf.tool("a", [shelf.wheel("tiny")])
    first = start("install", "a")
    assert first.stderr is not None
    while not first.stderr.readline().startswith("installing"):
        assert first.poll() is None
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert tools.status("a").state == "interrupted"
    with pytest.raises(MissingBackend, match="edgeopt tools install a"):
        tools.python("a")
    assert building.install("a").state == "installed"


def test_killed_while_it_checks(shelf: Shelf, start: Start, tmp_path: Path) -> None:
    """Everything is there but the marker."""
    gate = tmp_path / "gate"
    code = f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)"
    shelf.tool("a", [shelf.wheel("tiny", code=code)])
    first = start("install", "a")
    place = tools.folder("a")
    while not list(place.rglob("tiny-1.0.dist-info/RECORD")):
        assert first.poll() is None
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    gate.touch()
    assert tools.status("a").state == "interrupted"
    assert building.install("a").state == "installed"


def test_ctrl_c_leaves_nothing(shelf: Shelf, start: Start) -> None:
    shelf.tool("a", [shelf.wheel("tiny", code="import time; time.sleep(600)")])
    process = start("install", "a")
    assert process.stderr is not None
    while not process.stderr.readline().startswith("checking"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert tools.folders("a") == ()


def test_two_at_once_build_one(shelf: Shelf, start: Start) -> None:
    shelf.tool("a", [shelf.wheel("tiny")])
    both = [start("install", "a"), start("install", "a")]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted("creating" in stderr for _, stderr in said) == [False, True]
    assert sorted("waiting" in stderr for _, stderr in said) == [False, True]


def test_a_file_that_is_not_the_locked_one(shelf: Shelf) -> None:
    pin = shelf.wheel("tiny")
    shelf.wheel("tiny", code="print('something else')")
    shelf.tool("a", [pin])
    with pytest.raises(StageError, match="not the file that was locked") as caught:
        building.install("a")
    assert "log: " in str(caught.value)
    assert tools.folders("a") == ()


def test_a_lock_without_a_hash_is_refused(shelf: Shelf) -> None:
    shelf.tool("a", [shelf.wheel("tiny").partition(" ")[0]])
    with pytest.raises(StageError, match="pip failed"):
        building.install("a")


def test_a_file_that_pip_does_not_find(shelf: Shelf) -> None:
    shelf.tool("a", [f"tiny==3.0 --hash=sha256:{'0' * 64}"])
    with pytest.raises(StageError, match="pip does not find a locked file"):
        building.install("a")


def test_what_pip_check_finds_is_an_error_unless_it_is_tolerated(shelf: Shelf) -> None:
    pins = [shelf.wheel("tiny", requires="big_one>=7"), shelf.wheel("big_one", "6.0")]
    shelf.tool("a", pins)
    with pytest.raises(StageError, match=r"pip check.*big.one"):
        building.install("a")
    shelf.tool("a", pins, tolerates=["tiny: big-one"])
    assert building.install("a").state == "installed"
    shelf.tool("b", pins[:1], tolerates=["tiny: big-one"])  # also if it is not there at all
    assert building.install("b").state == "installed"


def test_what_does_not_import_is_not_installed(shelf: Shelf) -> None:
    shelf.tool("a", [shelf.wheel("tiny", code="import no_such_thing")])
    with pytest.raises(StageError, match="no_such_thing"):
        building.install("a")
    assert tools.status("a").state == "not installed"


AIMED_ELSEWHERE = ("target", "prefix", "root", "report", "python")


def test_the_users_own_settings_put_nothing_elsewhere(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.tool("a", [shelf.wheel("tiny", code="x = 42")])
    elsewhere = str(shelf.root.parent / "elsewhere")
    for name in ("PYTHONPATH", *(f"PIP_{name.upper()}" for name in AIMED_ELSEWHERE)):
        monkeypatch.setenv(name, elsewhere)
    for name in ("PIP_USER", "PIP_DRY_RUN", "PIP_QUIET"):
        monkeypatch.setenv(name, "1")
    assert building.install("a").state == "installed"
    assert not Path(elsewhere).exists()
    assert list(tools.folder("a").rglob("site-packages/tiny-1.0.dist-info/RECORD"))


@pytest.mark.parametrize("setting", [*AIMED_ELSEWHERE, "dry-run", "user"])
def test_the_users_pip_configuration_puts_nothing_elsewhere(
    setting: str, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shelf.tool("a", [shelf.wheel("tiny", code="x = 42")])
    elsewhere, section = tmp_path / "elsewhere", "global" if setting == "python" else "install"
    value = "true" if setting in ("dry-run", "user") else elsewhere
    (tmp_path / "pip.conf").write_text(f"[{section}]\n{setting} = {value}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert building.install("a").state == "installed"
    assert not elsewhere.exists()


def test_what_did_not_get_into_the_environment_is_said(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.tool("a", [shelf.wheel("tiny"), shelf.wheel("big_one")])
    monkeypatch.setattr(building, "_INSTALL", ("download", "--no-deps", f"--dest={shelf.root}"))
    monkeypatch.setattr(building, "_PIP", ("-c", "import os"))  # a pip that does nothing and is content
    with pytest.raises(StageError, match=r"tiny, big.one did not get into the environment"):
        building.install("a")
    assert tools.folders("a") == ()


@pytest.mark.parametrize("step", ["install", "replace", "remove"])
def test_killed_while_it_removes(step: str, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an environment never counts as one, also not for the edgeopt whose lock it is of."""
    shelf.tool("a", [shelf.wheel("tiny", "1.0")])
    half = building.install("a").folder
    python, gone = half / "bin" / "python", shelf.root / "python"
    lock = tools.lock_file("a").read_text()
    if step == "install":  # what is there is removed first, for its Python is gone, which comes back later
        python.rename(gone)
    if step == "replace":
        shelf.tool("a", [shelf.wheel("tiny", "2.0")])

    def cut(place: Path) -> None:
        next(place.rglob("site-packages/tiny/__init__.py")).unlink()
        raise KeyboardInterrupt

    call: Callable[[str], object] = building.remove if step == "remove" else building.install
    with monkeypatch.context() as patch:
        patch.setattr(building.shutil, "rmtree", cut)
        with pytest.raises(KeyboardInterrupt):
            call("a")
    if step == "install":
        gone.rename(python)
    tools.lock_file("a").write_text(lock)
    assert tools.folder("a") == half
    assert tools.status("a").state == "interrupted"


@pytest.mark.parametrize("call", [building.install, building.remove])
def test_a_folder_that_cannot_be_removed(
    call: Callable[[str], object], shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.tool("a", [shelf.wheel("tiny")])
    (building.install("a").folder / "bin" / "python").unlink()

    def refused(place: Path) -> None:
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr(building.shutil, "rmtree", refused)
    with pytest.raises(StageError, match="Permission denied"):
        call("a")
    assert tools.status("a").state == "interrupted"


def test_too_little_room_is_seen_before_anything_is_downloaded(shelf: Shelf) -> None:
    shelf.tool("a", [shelf.wheel("tiny")], size_mib=1e9)
    with pytest.raises(StageError, match="are free in"):
        building.install("a")
    assert tools.folders("a") == ()


def test_a_disk_that_fills_up_meanwhile(shelf: Shelf, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEOPT_TOOLS", str(small_disk))
    shelf.tool("a", [shelf.wheel("tiny")], size_mib=0.1)
    with pytest.raises(StageError, match="the disk is full"):
        building.install("a")
    assert tools.folders("a") == ()


def test_a_folder_that_cannot_be_written(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.tool("a", [shelf.wheel("tiny")])
    (shelf.root.parent / "file").touch()
    monkeypatch.setenv("EDGEOPT_TOOLS", str(shelf.root.parent / "file" / "tools"))
    with pytest.raises(StageError, match="cannot use the folder"):
        building.install("a")


def test_a_python_that_is_gone_means_installing_again(shelf: Shelf) -> None:
    shelf.tool("a", [shelf.wheel("tiny")])
    place = building.install("a").folder
    (place / "bin" / "python").unlink()
    (place / "bin" / "python").symlink_to("/nowhere/python")
    assert tools.status("a").state == "interrupted"
    assert building.install("a").state == "installed"
    assert tools.python("a").exists()


def test_a_python_that_is_not_there(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    shelf.tool("a", [], python="3.99")
    monkeypatch.setattr(tools, "LOCKS", shelf.locks)
    with pytest.raises(MissingBackend, match=r"needs Python 3\.99"):
        building.interpreter(tools.find("a"))
    shelf.tool("b", [])
    assert building.interpreter(tools.find("b")) == Path(sys.executable)


@pytest.mark.parametrize("call", [building.install, building.remove, tools.status, tools.python, tools.digest])
def test_an_unknown_name(shelf: Shelf, call: Callable[[str], object]) -> None:
    shelf.tool("rknn", [])
    with pytest.raises(ConfigError, match="did you mean 'rknn'"):
        call("rkn")
