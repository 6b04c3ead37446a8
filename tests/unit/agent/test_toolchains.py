from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeopt.access import Agent, Layer
from edgeopt.access.channel import Channel, End
from edgeopt.agent import AgentError, toolchains
from edgeopt.agent.server import Server
from edgeopt.errors import StageError

UPPER = """
from edgeopt.agent import AgentError
from edgeopt.agent.toolchains import report

def build(files, options, out):
    report("looking")
    if "mood" in options:
        raise AgentError(f"no: {options['mood']}")
    (out / "deep").mkdir()
    (out / "deep" / "empty.bin").touch()
    for name, path in files.items():
        (out / path.name).write_text(path.read_text().upper())
    (out / "link").symlink_to("/etc/hostname")
    layer = {"name": "a", "op": "Conv", "source": ["x"], "precision": "i8", "device": "NPU", "exec": ""}
    return {"seen": sorted(files), "where": str(out), "nan": options.get("nan", 0), "layers": [layer]}
"""


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    """One that knows the toolchain ``upper``, in a thread."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "upper.py").write_text(UPPER)
    monkeypatch.setattr(toolchains, "__path__", [*toolchains.__path__, str(tmp_path / "more")])
    (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
    streams = [os.fdopen(their_in, "rb"), os.fdopen(their_out, "wb"), os.fdopen(our_out, "wb"), os.fdopen(our_in, "rb")]
    server = threading.Thread(target=Server(streams[0], streams[1]).serve)
    server.start()
    yield Agent(Channel(streams[2], streams[3], name="board", stop=lambda at_once: End()))
    streams[2].close()
    server.join()
    for stream in streams:
        stream.close()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    given = {"model.txt": tmp_path / "any", "calib/a b;$(x).txt": tmp_path / "other"}
    for name, path in given.items():
        path.write_text(f"content of {name}")
    return given


def test_files_go_there_and_come_back(agent: Agent, files: dict[str, Path]) -> None:
    told: list[str] = []
    built = agent.build("upper", files, {}, limit_s=10, progress=told.append)
    assert built.files == {
        "a b;$(x).txt": b"CONTENT OF CALIB/A B;$(X).TXT",
        "deep/empty.bin": b"",
        "model.txt": b"CONTENT OF MODEL.TXT",
    }
    assert built.facts["seen"] == ["calib/a b;$(x).txt", "model.txt"]
    assert built.layers == [Layer("a", "Conv", ("x",), "i8", "NPU", "")]
    assert told == ["looking"]
    assert not Path(built.facts["where"]).parent.exists()


def test_a_refusal_is_told_and_leaves_the_agent_usable(agent: Agent, files: dict[str, Path]) -> None:
    with pytest.raises(StageError, match="build: no: grumpy"):
        agent.build("upper", files, {"mood": "grumpy"}, limit_s=10)
    with pytest.raises(StageError, match="returned what is not plain JSON"):
        agent.build("upper", files, {"nan": float("nan")}, limit_s=10)
    with pytest.raises(StageError, match=r"unknown toolchain 'os'; known: .*upper"):
        agent.build("os", files, {}, limit_s=10)
    assert agent.build("upper", {}, {}, limit_s=10).files == {"deep/empty.bin": b""}


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "", ".", "a\\..\\x", "a\0b"])
def test_no_name_leads_out_of_the_folder(agent: Agent, tmp_path: Path, name: str) -> None:
    (tmp_path / "evil").write_text("evil")
    with pytest.raises(StageError, match="is no name of a file inside a folder"):
        agent.build("upper", {name: tmp_path / "evil"}, {}, limit_s=10)


def test_names_that_come_back_are_checked_too() -> None:
    assert str(toolchains.checked("a/b.bin")) == "a/b.bin"
    with pytest.raises(AgentError):
        toolchains.checked("a/../../b.bin")
