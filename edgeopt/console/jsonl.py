"""The event log: every event as one JSON line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from edgeopt.errors import StoreError
from edgeopt.events import Event, Sink


@contextlib.contextmanager
def jsonl_sink(path: Path) -> Iterator[Sink]:
    """A sink that appends each event to ``path`` and flushes it, so that a killed run leaves whole lines.

    Raises:
        StoreError: The file cannot be opened or written.
    """

    def broken(error: OSError) -> StoreError:
        fix = "free some disk space, or write to a folder that you own"
        return StoreError(f"cannot write the event log: {error.strerror}", where=str(path), fix=fix)

    try:
        # backslashreplace turns a lone surrogate, such as of an undecodable file name, into its JSON escape
        file = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
    except OSError as error:
        raise broken(error) from error

    def send(event: Event) -> None:
        try:
            file.write(event.to_json() + "\n")
            file.flush()
        except OSError as error:
            raise broken(error) from error

    try:
        yield send
    finally:
        with contextlib.suppress(OSError):  # what could not be flushed was reported by send
            file.close()
