"""The loop of a process that answers one client, whatever it is asked."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

import numpy.typing as npt

from . import PROTOCOL, AgentError, wire

Arrays = Sequence[npt.NDArray[Any]]
Reply = tuple[dict[str, Any], Arrays]
#: gets the header of the request without the verb, and its tensors
Verb = Callable[[dict[str, Any], Arrays], Reply]


def serve(requests: BinaryIO, replies: BinaryIO, verbs: Mapping[str, Verb], **hello: Any) -> None:
    """Says hello, then answers one request after the other until the client closes its end.

    Args:
        requests: From the client.
        replies: To the client.
        verbs: By name.
        hello: What the client is told at once.
    """
    wire.write(replies, {"hello": "edgeopt-agent", "protocol": PROTOCOL, **hello})
    while (message := wire.read(requests)) is not None:
        header, tensors = _answer(verbs, message)
        wire.write(replies, header, tensors)


def _answer(verbs: Mapping[str, Verb], message: wire.Message) -> Reply:
    header, tensors = message
    verb = header.pop("verb", None)
    try:
        if verb not in verbs:
            raise AgentError(f"unknown verb {verb!r}; known: {', '.join(verbs)}")
        reply, out = verbs[verb](header, tensors)
    except Exception as error:  # noqa: BLE001  the boundary of the process: the client gets the error, the log the traceback
        if not isinstance(error, AgentError):
            traceback.print_exc(file=sys.stderr)
        fix = error.fix if isinstance(error, AgentError) else ""
        return {"ok": False, "error": {"type": type(error).__name__, "what": str(error).strip(), "fix": fix}}, ()
    return {"ok": True, **reply}, out
