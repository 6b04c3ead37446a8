from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edgeopt import device
from edgeopt.access.connection import Local
from edgeopt.access.ssh import Ssh
from edgeopt.errors import ConfigError
from edgeopt.target import Device


def connection(access: Any) -> Any:
    return device.connect(Device.model_validate({"access": access}))


@pytest.mark.parametrize(
    ("access", "name"),
    [
        ("local", "this machine"),
        ({"python": "/opt/py/bin/python"}, "/opt/py/bin/python"),
        ({"ssh": "me@board"}, "ssh me@board"),
        ({"adb": "0123ABC"}, "adb 0123ABC"),
    ],
)
def test_every_way_has_its_connection_which_does_nothing_yet(
    access: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with connection(access) as reached:
        assert reached.name == name
    assert isinstance(connection("local"), Local)


def test_no_device_is_told() -> None:
    with pytest.raises(ConfigError, match="no device is at hand"):
        connection("none")


@pytest.mark.skipif(not shutil.which("ssh"), reason="there is no ssh: install openssh-client")
def test_ssh_is_told_what_no_configuration_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the real ssh understands it, after a configuration that says the opposite."""
    config = tmp_path / "config"
    config.write_text(
        "Host board\n HostName 192.0.2.1\n"
        " BatchMode no\n StrictHostKeyChecking no\n ForwardAgent yes\n ForwardX11 yes\n"
        " LocalForward 9999 localhost:1\n NoHostAuthenticationForLocalhost yes\n"
        " RemoteCommand id\n ControlPersist yes\n"
    )
    monkeypatch.setenv(device.SSH_CONFIG, str(config))
    with connection({"ssh": "board"}) as reached:
        assert isinstance(reached, Ssh)
        command = reached._argv("exec true", first=True)
        assert command[-3:] == ["--", "board", "exec true"]
        said = subprocess.run([command[0], "-G", *command[1:-1]], capture_output=True, text=True, check=True).stdout
        folder = reached._sockets
    lines = said.lower().splitlines()
    for line in (
        *("batchmode yes", "stricthostkeychecking true", "nohostauthenticationforlocalhost no", "forwardagent no"),
        *("forwardx11 no", "clearallforwardings yes", "requesttty false", "controlmaster true", "hostname 192.0.2.1"),
        *("controlpersist no", "serveraliveinterval 15", "connecttimeout 15", "permitlocalcommand no"),
    ):
        assert line in lines, said
    assert not [line for line in lines if line.startswith(("localforward", "remotecommand"))]
    assert folder
    assert not Path(folder.name).exists()


def test_every_agent_shares_the_first_connection() -> None:
    with connection({"ssh": "board"}) as reached:
        first, other = (" ".join(reached._argv("exec true", first=first)) for first in (True, False))
        path = next(word for word in first.split() if word.startswith("ControlPath="))
        assert "ControlMaster=yes" in first
        assert "ControlMaster=no" in other
        assert path in other
        assert Path(path.partition("=")[2]).parent.stat().st_mode & 0o777 == 0o700
