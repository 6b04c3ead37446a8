"""What several metrics of one scoring need, such as the scores of ten million pairs, is made once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

#: Things that are kept at a time; the one that was not asked for longest goes first.
KEPT = 6

T = TypeVar("T")

_kept: ContextVar[dict[Hashable, Any] | None] = ContextVar("kept", default=None)


@contextmanager
def sharing() -> Iterator[None]:
    """Within, :func:`once` keeps what it made; at the end all of it is dropped."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def once(key: Hashable, make: Callable[[], T]) -> T:
    """What ``make`` gives, or what it gave for an equal ``key`` before."""
    kept = _kept.get()
    if kept is None:
        return make()
    made: T = kept.pop(key) if key in kept else make()
    kept[key] = made
    while len(kept) > KEPT:
        del kept[next(iter(kept))]
    return made
