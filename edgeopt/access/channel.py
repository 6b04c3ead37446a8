"""A conversation with one process that speaks the agent's protocol, over two byte streams."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

import numpy.typing as npt

from edgeopt.agent import PROTOCOL, AgentError, wire
from edgeopt.errors import StageError
from edgeopt.printable import clean_lines

Arrays = Sequence[npt.NDArray[Any]]
T = TypeVar("T")

#: lines that the surroundings of a process (a login banner, a start-up script) may print before it says hello
_LINES_BEFORE_HELLO = 1000
_HELLO = b'{"hello": "edgeopt-agent"'
_LONGEST_LINE = 2**20
#: of the tensors of one reply; what is asked for has a few MiB, and outputs of a whole data set fit in
_MOST_BYTES = 2**34


@dataclass(frozen=True)
class End:
    """How a process ended.

    Attributes:
        status: Its exit status, negative for a signal; None if that is not known.
        words: The last lines that it wrote on its standard error.
    """

    status: int | None = None
    words: str = ""


#: What is wrong, and how to mend it, from how a process ended and the verb that it was asked.
Explain = Callable[[End, str], tuple[str, str]]


def died(end: End, verb: str) -> tuple[str, str]:
    """What is said of a process that ends by itself."""
    return f"the agent died during '{verb}'", ""


class Channel:
    """Calls one after the other.

    Args:
        requests: Stream to the process.
        replies: Stream from the process.
        name: How error messages call it.
        stop: Ends the process, and tells how it ended; called once, with True if it must not be waited for.
        explain: Puts an end that was not asked for into words.
        limit_s: Time limit of a call that gives none. A process that misses it is stopped.
    """

    def __init__(
        self,
        requests: BinaryIO,
        replies: BinaryIO,
        *,
        name: str,
        stop: Callable[[bool], End],
        explain: Explain = died,
        limit_s: float = 600.0,
    ) -> None:
        self.name = name
        self.limit_s = limit_s
        self._requests = requests
        self._replies = replies
        self._stop = stop
        self._explain = explain
        self._hello: dict[str, Any] | None = None
        self._end: End | None = None
        self._stopping = threading.Lock()

    @property
    def stopped(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._end is not None

    def stop(self, *, at_once: bool = False) -> End:
        """Ends the process. Again is harmless."""
        with self._stopping:  # the watchdog of a call may be at it: when this returns, the process has ended
            if self._end is None:
                self._end = self._stop(at_once)
            return self._end

    def hello(self, first: bytes = b"", *, limit_s: float | None = None) -> Mapping[str, Any]:
        """What the process says of itself when it begins; waits until it does.

        Args:
            first: Bytes that it has to be sent before it can.
            limit_s: Time limit.

        Raises:
            StageError: As for :meth:`call`, or it speaks another version of the protocol.
        """

        def greet() -> Mapping[str, Any] | None:
            self._requests.write(first)
            self._requests.flush()
            return self._greet()

        return self._within("hello", limit_s, greet)

    def call(
        self,
        verb: str,
        tensors: Arrays = (),
        progress: Callable[[Mapping[str, Any]], None] | None = None,
        limit_s: float | None = None,
        **arguments: Any,
    ) -> wire.Message:
        """One request and its reply.

        Raises:
            StageError: With the process's own message if it refuses, or with its last words if it died or did not
                answer in time.
        """

        def exchange() -> wire.Message | None:
            if self._greet() is None:
                return None
            wire.write(self._requests, {"verb": verb, **arguments}, tensors)
            while (message := wire.read(self._replies, _MOST_BYTES)) is not None:
                try:
                    header = _plain(message.header)
                except RecursionError as error:
                    raise AgentError("its message is nested too deep") from error
                if "progress" not in header:
                    return wire.Message(header, message.tensors)
                if not isinstance(header["progress"], dict):
                    raise AgentError(f"progress that is none: {str(header['progress'])[:120]}")
                if progress:
                    progress(header["progress"])
            return None

        reply = self._within(verb, limit_s, exchange)
        with self.parsing(verb):
            if reply.header["ok"]:
                return reply
            refusal = reply.header["error"]
            kind = "" if refusal["type"] == AgentError.__name__ else f" ({refusal['type']})"
            what, fix = f"{verb}: {refusal['what']}{kind}", str(refusal.get("fix", ""))
        raise StageError(what, where=self.name, fix=fix)

    @contextmanager
    def parsing(self, verb: str) -> Iterator[None]:
        """Around what takes a reply to ``verb`` apart.

        Raises:
            StageError: It is not what an agent answers.
        """
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            said = " ".join(f"{type(error).__name__} {error}".split())[:200]
            what = f"{verb}: the device answered what is not an answer ({clean_lines(said)})"
            raise StageError(what, where=self.name, fix="is the agent there edgeopt's own?") from error

    def _within(self, verb: str, limit_s: float | None, work: Callable[[], T | None]) -> T:
        """What ``work`` returns in time; None from it means that the stream has ended."""
        if self.stopped:
            raise StageError(f"the agent was stopped before '{verb}'", where=self.name)
        limit_s = self.limit_s if limit_s is None else limit_s
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self.stop(at_once=True)

        watchdog = threading.Timer(limit_s, give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            result = work()
        except BaseException as error:
            result = None
            if not isinstance(error, BrokenPipeError) and not (late.is_set() and isinstance(error, Exception)):
                self.stop(at_once=True)  # the streams are out of step: also after Ctrl-C it is of no further use
                if isinstance(error, AgentError):
                    what = f"talking with the agent failed in '{verb}': {clean_lines(str(error))}"
                    raise StageError(what, where=self.name) from error
                raise
        finally:
            watchdog.cancel()
        if result is not None:
            return result
        end = self.stop()  # its stream has ended: it may still have to say why
        what, fix = self._explain(end, verb)
        if late.is_set():
            what, fix = f"the agent did not answer '{verb}' within {limit_s:g} s", ""
        words = f"; it last wrote:\n{clean_lines(end.words)}" if end.words else ""
        raise StageError(what + words, where=self.name, fix=fix)

    def _greet(self) -> dict[str, Any] | None:
        """Skips what else is printed until the process says hello; None if the stream ends before."""
        if self._hello is not None:
            return self._hello
        for _ in range(_LINES_BEFORE_HELLO):
            line = self._replies.readline(_LONGEST_LINE)
            if not line:
                return None
            _before, found, rest = line.partition(_HELLO)  # what a start-up script prints need not end its line
            if found and (hello := _parsed(found + rest)):
                if hello.get("protocol") != PROTOCOL:
                    raise AgentError(f"it speaks version {hello.get('protocol')}, edgeopt speaks {PROTOCOL}")
                self._hello = hello
                return hello
        raise AgentError("it never said hello")


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The object that a line holds; None if it is cut or damaged."""
    try:
        parsed: dict[str, Any] = _plain(json.loads(line))
    except (ValueError, RecursionError):
        return None
    return parsed


def _plain(value: Any) -> Any:
    """JSON of a device, in which no text drives the terminal that it is shown on."""
    if isinstance(value, str):
        return clean_lines(value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {clean_lines(key): _plain(one) for key, one in value.items()}
    return value
