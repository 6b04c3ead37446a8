"""``python -m edgeopt.agent [CPUS]``: serve one client on standard input and output until it closes its end.

``CPUS``, like ``0,2``, are those that the process may run on; otherwise the system places it.
"""

from __future__ import annotations

import os
import select
import sys
import threading

from .server import Server
from .telemetry import silence


def main() -> None:
    """Serves until end of file on standard input.

    The protocol gets private copies of file descriptors 0 and 1. Descriptor 1 then points at standard error and
    descriptor 0 at nothing, so that a library that prints, even from C, cannot corrupt the protocol.
    """
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123  (a descriptor is wanted, not a path)
        os.dup2(nothing.fileno(), 0)
    silence()
    if len(sys.argv) > 1:
        _pin(sys.argv[1])
    threading.Thread(target=_exit_with_client, args=(requests.fileno(),), daemon=True).start()
    Server(requests, replies).serve()


def _pin(cpus: str) -> None:
    """Before a runtime is loaded, which counts the CPUs and starts threads that inherit this."""
    if not hasattr(os, "sched_setaffinity"):
        sys.exit("this system cannot bind a process to CPUs")
    allowed, asked = os.sched_getaffinity(0), {int(cpu) for cpu in cpus.split(",")}
    if not asked <= allowed:
        sys.exit(f"cannot run on CPUs {sorted(asked)}: this process may use {sorted(allowed)}")
    os.sched_setaffinity(0, asked)


def _exit_with_client(descriptor: int) -> None:
    """Ends the process as soon as the client is gone, even in the middle of an inference.

    The thread sleeps inside ``poll`` and costs nothing while something is timed.
    """
    if not hasattr(select, "poll"):
        return
    poll = select.poll()
    poll.register(descriptor, 0)  # no event but a hang-up, which is always reported
    while True:
        if any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll()):
            os._exit(0)


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(1)
