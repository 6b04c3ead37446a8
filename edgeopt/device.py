"""From what a target says of its device to a connection."""

from __future__ import annotations

import os
from pathlib import Path

from edgeopt.access import Connection
from edgeopt.errors import ConfigError
from edgeopt.target import Device

#: a configuration for ssh instead of ~/.ssh/config, as `ssh -F` takes it
SSH_CONFIG = "EDGEOPT_SSH_CONFIG"


def connect(device: Device) -> Connection:
    """The device; nothing is started or connected before the connection is used.

    Raises:
        ConfigError: The target says that no device is at hand.
    """
    access = device.access
    if access.none:
        raise ConfigError("no device is at hand", where="device.access", fix="say how it is reached: local, ssh, adb")
    python = access.python or "python3"
    if access.ssh:
        from edgeopt.access.ssh import Ssh

        config = os.environ.get(SSH_CONFIG)
        return Ssh(access.ssh, python=python, folder=access.folder, config=Path(config) if config else None)
    if access.adb:
        from edgeopt.access.adb import Adb

        return Adb(access.adb, python=python, folder=access.folder)
    from edgeopt.access.connection import Local

    return Local(access.python)
