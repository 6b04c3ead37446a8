"""The device side: a small process that opens artefacts, runs them and times them.

It needs Python, numpy and one runtime; it imports nothing of edgeopt outside this package and uses relative imports
only, so the folder also runs from a zipapp on a board. ``python -m edgeopt.agent`` serves one client on stdio.

    __main__   protects the protocol stream, then serves
    server     the verbs of an agent
    service    the loop that answers
    wire       how a message looks on the stream; shared with the client
    bootstrap  brings all this to a device that has nothing but Python
    keeper     keeps a work folder there, and the lock
    exclusive  the device's lock
    timer      interleaved timing, and when warming up is over
    throughput several inferences in flight
    energy     mJ per inference
    call_overhead  a model that does next to nothing
    machine    facts about the device
    cgroup     what a container allows
    condition  the device's state around timing, and what disturbed it
    telemetry  keeps the runtimes from calling home
    runtimes/  one file, one runtime
    toolchains/ one file, one toolchain that compiles next to the device
"""

from __future__ import annotations

#: Version of the messages; the client refuses an agent that speaks another one.
PROTOCOL = 3
#: Version of the agent itself; raised when what it measures, or how, changes.
VERSION = "3"
#: Environment variable that names the folder of an agent, which it removes once its client is gone.
FOLDER_TO_REMOVE = "EDGEOPT_AGENT_FOLDER"


class AgentError(Exception):
    """What the client asked for cannot be done; the message says why, and ``fix`` how to mend it, if that is known."""

    def __init__(self, what: str, *, fix: str = "") -> None:
        super().__init__(what)
        self.fix = fix
