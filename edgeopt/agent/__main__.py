"""One process next to the device, for one client on standard input and output, until the client closes its end.

python -m edgeopt.agent [CPUS]        answers as an agent; CPUS, like 0,2, are those that it may run on
python -m edgeopt.agent keep FOLDER   keeps a work folder for agents, and the device's lock
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import BinaryIO

from . import FOLDER_TO_REMOVE, AgentError
from .telemetry import silence


def main() -> None:
    """Serves until end of file on standard input."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)  # so that the end of this process can be that of all it started
    requests, replies = _private_streams()
    if sys.argv[1:2] == ["keep"]:
        from .keeper import Keeper

        try:
            Keeper(Path(sys.argv[2]), requests, replies).serve()
        except AgentError as error:
            sys.exit(str(error))
        return
    silence()
    if len(sys.argv) > 1:
        _pin(sys.argv[1])
    folder = os.environ.pop(FOLDER_TO_REMOVE, "")  # what it starts has none
    threading.Thread(target=_end_with_client, args=(requests.fileno(), folder), daemon=True).start()
    from .server import Server

    try:
        Server(requests, replies).serve()
    finally:
        _remove(folder)


def _private_streams() -> tuple[BinaryIO, BinaryIO]:
    """Private copies of descriptors 0 and 1 for the protocol.

    Descriptor 1 then points at standard error and descriptor 0 at nothing, so that a library that prints, even from
    C, cannot corrupt the protocol.
    """
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123  (a descriptor is wanted, not a path)
        os.dup2(nothing.fileno(), 0)
    return requests, replies


def _pin(cpus: str) -> None:
    """Before a runtime is loaded, which counts the CPUs and starts threads that inherit this."""
    if not hasattr(os, "sched_setaffinity"):
        sys.exit("this system cannot bind a process to CPUs")
    allowed, asked = os.sched_getaffinity(0), {int(cpu) for cpu in cpus.split(",")}
    if not asked <= allowed:
        sys.exit(f"cannot run on CPUs {sorted(asked)}: this process may use {sorted(allowed)}")
    os.sched_setaffinity(0, asked)


def _end_with_client(descriptor: int, folder: str) -> None:
    """Ends the process and what it started as soon as the client is gone, even in the middle of an inference.

    Its folder goes with it. The thread sleeps inside ``poll`` and costs nothing while something is timed.
    """
    if not hasattr(select, "poll"):
        return
    gone = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)  # the last: sshd gives a socket, half shut
    poll = select.poll()
    poll.register(descriptor, gone)
    while True:
        if any(events & gone for _, events in poll.poll()):
            _remove(folder)
            os.killpg(0, signal.SIGKILL)


def _remove(folder: str) -> None:
    """Also what is written there meanwhile: twice, since nothing is written for long."""
    if folder:
        for _ in range(2):
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(1)
