"""A device behind the system's OpenSSH client, which knows its name, its keys and the way there."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path

from edgeopt.access.channel import End
from edgeopt.access.remote import Remote, Trouble
from edgeopt.errors import StageError

#: What no configuration may change: nothing is asked, host keys are checked, and a dead connection is noticed.
#: https://man.openbsd.org/ssh_config
_ALWAYS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "NoHostAuthenticationForLocalhost=no",
    "ConnectTimeout=15",
    "ConnectionAttempts=1",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "RequestTTY=no",
    "ControlPersist=no",
    "LogLevel=ERROR",
)
#: exit status of ssh where it is not that of the command
_SSH_FAILED = 255
#: A longer path does not fit into the address of a Unix socket once ssh has added to it; a blank ends the option, and
#: ``%``, ``~`` and ``$`` mean something in it.
_FOLDER_FOR_A_SOCKET = re.compile(r"[A-Za-z0-9/_.-]{1,60}")

#: By what OpenSSH writes, in the order in which they are looked for.
_TROUBLES = {
    "has changed and you have requested strict checking": Trouble(
        "the host key of the device is not the one that is known: it was set up anew, or it is another machine",
        "if you know why, forget the old key with `ssh-keygen -R NAME`, then connect by hand once: `ssh {host}`",
    ),
    "Host key verification failed": Trouble(
        "the host key of the device, or of one on the way, is not known",
        "connect by hand once and compare the fingerprint with the device's: `ssh {host}`",
    ),
    "Permission denied": Trouble(
        "the device does not let this user in",
        "nothing is asked for here: give it your key (`ssh-copy-id {host}`), and unlock the key with `ssh-add`",
    ),
    "Too many authentication failures": Trouble(
        "the device refused the keys before the right one was tried",
        "name its key as IdentityFile in ~/.ssh/config, with IdentitiesOnly yes, for the host {host}",
    ),
    "Could not resolve hostname": Trouble(
        "there is no machine of this name", "look at device.access.ssh in the target, and at ~/.ssh/config"
    ),
    "Bad configuration option": Trouble("the ssh configuration is wrong", "try `ssh {host}`"),
    "command-line line": Trouble("ssh does not know an option that edgeopt gives it", "is it OpenSSH? See `ssh -V`"),
    "Bad owner or permissions": Trouble("the ssh configuration is open to others", "try `ssh {host}`"),
}
_AWAY = Trouble(
    "the connection to the device failed", "is it on? Try `ssh {host}`. Finished steps are kept", passing=True
)


class Ssh(Remote):
    """See the module. One connection carries all commands (``ControlMaster``).

    Args:
        host: As ssh knows it; see :class:`edgeopt.target.Access` for what it may hold.
        python: See :class:`Remote`.
        folder: See :class:`Remote`.
        config: Instead of ``~/.ssh/config``.
    """

    def __init__(
        self, host: str, *, python: str = "python3", folder: str | None = None, config: Path | None = None
    ) -> None:
        super().__init__(f"ssh {host}", python, folder)
        self._host = host
        self._config = config
        self._sockets: tempfile.TemporaryDirectory[str] | None = None

    def close(self) -> None:
        """See the base class."""
        super().close()
        if self._sockets:
            self._sockets.cleanup()
            self._sockets = None

    def _argv(self, line: str, *, first: bool) -> list[str]:
        if self._sockets is None:
            self._sockets = _folder_for_sockets()
        shared = (f"ControlMaster={'yes' if first else 'no'}", f"ControlPath={self._sockets.name}/s")
        options = [word for option in (*_ALWAYS, *shared) for word in ("-o", option)]
        chosen = ["-F", str(self._config)] if self._config else []
        return ["ssh", *chosen, *options, "-T", "--", self._host, line]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}

    def _trouble(self, end: End) -> Trouble | None:
        if end.status is not None and 0 <= end.status < _SSH_FAILED:
            return None
        found = next((trouble for words, trouble in _TROUBLES.items() if words in end.words), _AWAY)
        return replace(found, fix=found.fix.format(host=self._host))


def _folder_for_sockets() -> tempfile.TemporaryDirectory[str]:
    """A private one."""
    try:
        usual = tempfile.gettempdir()
        place = usual if _FOLDER_FOR_A_SOCKET.fullmatch(usual) else "/tmp"
        return tempfile.TemporaryDirectory(prefix="edgeopt-ssh-", dir=place)
    except OSError as error:
        what = f"cannot make a folder for temporary files on this machine: {error.strerror}"
        raise StageError(what, fix="name another place as TMPDIR") from error
