"""Text of others (devices, tools, files) without what could disguise it or drive a terminal."""

from __future__ import annotations

import unicodedata


def clean(text: str) -> str:
    """``text`` on one line, without the characters that XML forbids or that can disguise or recolour what follows.

    White space becomes one space. Control characters, lone surrogates, non-characters and directional overrides
    become U+FFFD (XML 1.0, section 2.2; Unicode UAX #9, section 2).
    """
    return " ".join(_replaced(text, keep="").split())


def clean_lines(text: str) -> str:
    """As :func:`clean`, but line feeds, tabs and all blanks stay as they are."""
    return _replaced(text, keep="\n\t")


def _replaced(text: str, keep: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c in keep else " " if c.isspace() and not c.isprintable() else "\ufffd" if _forbidden(c) else c
        for c in text
    )


def _forbidden(character: str) -> bool:
    return (
        unicodedata.category(character) in {"Cc", "Cs"}
        or character in "\ufffe\uffff"
        or "\u202a" <= character <= "\u202e"
        or "\u2066" <= character <= "\u2069"
    )
