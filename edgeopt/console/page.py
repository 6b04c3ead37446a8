"""A page of text and tables, as wide as the terminal or as a file is."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TextIO

from edgeopt.console.lines import writable

if TYPE_CHECKING:
    from rich.box import Box
    from rich.console import Console, RenderableType

ROOMY = 108  # from this width on, a value and its interval stand on one line
_WIDTH_OF_A_FILE = 116


def write(parts: Callable[[Console], Iterable[RenderableType]], stream: TextIO) -> None:
    """Write what ``parts`` makes for a console to ``stream``.

    A terminal gets its own width and colours, unless ``NO_COLOR`` is set; a file gets plain text of a fixed width.
    """
    from rich.console import Console

    tty = stream.isatty()
    width = Console(file=stream).width if tty else _WIDTH_OF_A_FILE
    text = io.StringIO()
    console = Console(
        file=text,
        width=width,
        force_terminal=tty,
        color_system="auto" if tty else None,
        legacy_windows=False,
        highlight=False,
        emoji=False,
    )
    for part in parts(console):
        console.print(part, soft_wrap=False)
    lines = (line.rstrip() for line in text.getvalue().splitlines())
    stream.write(writable("\n".join(lines) + "\n", stream))


def table_box(console: Console) -> Box:
    """A rule under the header; of ASCII, and columns apart by spaces, if it is for a file."""
    from rich import box

    return (
        box.SIMPLE_HEAD
        if console.is_terminal
        else box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
    )
