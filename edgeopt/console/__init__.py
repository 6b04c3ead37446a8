"""Sinks: what a person or a program sees while a run is going on, and the summary at its end.

This is the only package that imports Rich, and it does so inside functions.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TextIO

from edgeopt.console.bench import open_progress, print_bench
from edgeopt.console.comparison import print_comparison
from edgeopt.console.jsonl import jsonl_sink
from edgeopt.console.plain import plain_sink
from edgeopt.console.summary import print_summary
from edgeopt.events import Sink

__all__ = [
    "jsonl_sink",
    "open_progress",
    "open_sink",
    "plain_sink",
    "print_bench",
    "print_comparison",
    "print_summary",
]


@contextlib.contextmanager
def open_sink(stream: TextIO) -> Iterator[Sink]:
    """The sink that suits ``stream``: live progress on a terminal that can redraw, plain lines anywhere else."""
    if not stream.isatty() or os.environ.get("TERM", "") in ("", "dumb"):
        yield plain_sink(stream)
        return
    from rich.console import Console

    from edgeopt.console.live import live_sink

    with live_sink(Console(file=stream)) as sink:
        yield sink
