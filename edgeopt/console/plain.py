"""Plain lines, for logs and for terminals that cannot redraw."""

from __future__ import annotations

from typing import TextIO

from edgeopt.console.lines import Lines, writable
from edgeopt.events import Event, Sink


def plain_sink(stream: TextIO) -> Sink:
    """A sink that writes one line per event that deserves one, and flushes it."""
    lines = Lines()

    def send(event: Event) -> None:
        for line in lines.of(event):
            stream.write(writable(line, stream) + "\n")
            stream.flush()

    return send
