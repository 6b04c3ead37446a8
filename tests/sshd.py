"""A real sshd on loopback, run by the current user, and a link to it that is slow or goes away."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from edgeopt.access.ssh import Ssh

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
HOST = "device"


class Sshd:
    """The server, and the client's configuration for the host ``device``.

    Attributes:
        config: The client's; what is in ``known_hosts`` and ``key`` beside it can be changed.
        noise: Shell code that runs before every command.
    """

    def __init__(self, folder: Path, python: str) -> None:
        self.folder = folder
        self.python = python
        self.port = _free_port()
        self.config = folder / "config"
        self.known_hosts = folder / "known_hosts"
        self.locks = folder / "locks"
        self.locks.mkdir()
        self.work = folder / "work"
        self.work.mkdir()
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("host_key", "key", "other_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        shutil.copy(folder / "key.pub", folder / "authorized_keys")
        (folder / "banner").write_text("Authorised users only. $(reboot)\n")
        self.before_commands("")
        (folder / "sshd_config").write_text(
            f"""
            Port {self.port}
            ListenAddress 127.0.0.1
            HostKey {folder}/host_key
            PidFile {folder}/sshd.pid
            AuthorizedKeysFile {folder}/authorized_keys
            StrictModes no
            UsePAM no
            PermitRootLogin yes
            PasswordAuthentication no
            KbdInteractiveAuthentication no
            Banner {folder}/banner
            ForceCommand {folder}/login
            SetEnv EDGEOPT_LOCK_FOLDER={self.locks} OMP_NUM_THREADS=1
            """
        )
        self.trust()
        self.write_config(self.port)

    def write_config(self, port: int, key: str = "key", device: str = "") -> None:
        """Of the client, with further lines for the device. It tries to weaken what must not be weakened."""
        self.config.write_text(
            f"""
            Host *
                HostName 127.0.0.1
                Port {port}
                User {getpass.getuser()}
                IdentityFile {self.folder}/{key}
                IdentitiesOnly yes
                IdentityAgent none
                UserKnownHostsFile {self.known_hosts}
                GlobalKnownHostsFile none
            Host jump
                HostKeyAlias jump
            Host {HOST}
                HostKeyAlias {HOST}
                {device}
                StrictHostKeyChecking no
                NoHostAuthenticationForLocalhost yes
                RemoteCommand echo never
                ForwardAgent yes
            """
        )

    def trust(self, key: str = "host_key") -> None:
        """Make a host key the one that is known."""
        self.known_hosts.write_text(f"{HOST} {(self.folder / f'{key}.pub').read_text()}")

    def before_commands(self, code: str) -> None:
        """Shell code that runs before every command, as in a start-up file; what it prints and limits is there too."""
        login = self.folder / "login"
        login.write_text(f'#!/bin/sh\n{code}\nexec sh -c "$SSH_ORIGINAL_COMMAND"\n')
        login.chmod(0o755)

    def start(self) -> None:
        """Listens when this returns."""
        assert SSHD
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where a server of root has to be able to lock itself in
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([SSHD, "-D", "-e", "-f", self.folder / "sshd_config"], stderr=log)
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        pytest.fail(f"sshd does not listen:\n{(self.folder / 'log').read_text()}")

    def cut(self) -> None:
        """Ends the connections, not the server."""
        for pid in _children(self._process.pid) if self._process else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Ends the server and its connections."""
        if self._process:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def down(self) -> None:
        """As if the device were switched off."""
        self.cut()
        self.stop()

    def connect(self, **options: str) -> Ssh:
        return Ssh(HOST, config=self.config, **{"python": self.python, "folder": str(self.work), **options})


class Link:
    """A TCP proxy that passes ``bytes_per_s`` to the server at most. Zero passes nothing."""

    def __init__(self, port: int, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self.sent = 0
        self._to = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Cuts everything."""
        for end in (self._server, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = self._server.accept()
                theirs = socket.create_connection(("127.0.0.1", self._to))
                self._ends += [ours, theirs]
                threading.Thread(target=self._pass, args=(ours, theirs, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(theirs, ours, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, slowly: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                if slowly:
                    self.sent += len(data)
                    while not self.bytes_per_s:
                        time.sleep(0.05)
                    time.sleep(len(data) / self.bytes_per_s)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def _children(parent: int) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            if int((process / "stat").read_text().rsplit(")", 1)[1].split()[1]) == parent:
                found.append(int(process.name))
    return found
