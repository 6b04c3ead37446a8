"""One message: a JSON object on one line, then the bytes of its tensors in the order of its ``tensors`` entry.

    {"verb": "infer", "name": "int8", "batch": 1, "tensors": [{"dtype": "|u1", "shape": [64, 32, 32, 1]}]}\\n<bytes>

A request carries ``verb``; a reply ``ok``; between them an agent may send any number of ``progress`` messages.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from . import AgentError

#: bool, signed, unsigned, float and complex: dtypes whose bytes mean the same on both sides
_PLAIN_KINDS = "biufc"
#: of a header, in bytes; that of a large model's layers has a few MiB
_LONGEST_LINE = 2**26
_MOST_AXES = 32


class Message(NamedTuple):
    """A header and its tensors."""

    header: dict[str, Any]
    tensors: list[npt.NDArray[Any]]


def write(stream: BinaryIO, header: Mapping[str, Any], tensors: Sequence[npt.NDArray[Any]] = ()) -> None:
    """Writes one message and flushes.

    Raises:
        AgentError: A tensor holds objects or text.
    """
    arrays = [np.asarray(tensor, order="C") for tensor in tensors]
    for array in arrays:
        _check(array.dtype)
    described = [{"dtype": array.dtype.str, "shape": list(array.shape)} for array in arrays]
    stream.write(json.dumps({**header, "tensors": described}).encode() + b"\n")
    for array in arrays:
        stream.write(array.tobytes() if array.size == 0 or array.ndim == 0 else array.data)
    stream.flush()


def read(stream: BinaryIO, most_bytes: int | None = None) -> Message | None:
    """Reads one message; None at the end of the stream, also when it ends inside a message.

    Args:
        stream: Where from.
        most_bytes: That its tensors may have together; None if the other side is trusted.

    Raises:
        AgentError: The bytes are not a message, or more than what is taken.
    """
    line = stream.readline(_LONGEST_LINE)
    if not line.endswith(b"\n"):
        if len(line) == _LONGEST_LINE:
            raise AgentError(f"not a message: {line[:120]!r} and more, without an end")
        return None
    try:
        header = json.loads(line)
        described = [_described(entry) for entry in header.pop("tensors")]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise AgentError(f"not a message: {line[:120]!r}") from error
    for dtype, _ in described:
        _check(dtype)
    size = sum(math.prod(shape) * dtype.itemsize for dtype, shape in described)
    if most_bytes is not None and size > most_bytes:
        raise AgentError(f"a message of {size / 2**30:.1f} GiB, where at most {most_bytes / 2**30:.1f} GiB are taken")
    tensors = []
    for dtype, shape in described:
        try:
            array = np.empty(shape, dtype)
        except (ValueError, MemoryError) as error:
            raise AgentError(f"no memory for a tensor of shape {list(shape)} and dtype {dtype}") from error
        if array.size and not _fill(stream, array):
            return None
        tensors.append(array)
    return Message(header, tensors)


def _described(entry: Mapping[str, Any]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Dtype and shape of a tensor; ValueError, TypeError or KeyError if they are none."""
    shape = tuple(entry["shape"])
    if len(shape) > _MOST_AXES or not all(type(size) is int and 0 <= size < 2**62 for size in shape):
        raise ValueError("no shape")
    if not isinstance(entry["dtype"], str):
        raise TypeError("no dtype")
    return np.dtype(entry["dtype"]), shape


def _fill(stream: BinaryIO, array: npt.NDArray[Any]) -> bool:
    """Reads exactly the bytes of ``array`` into it; False if the stream ends before."""
    rest = array.reshape(-1).view(np.uint8).data
    while rest:
        count = stream.readinto(rest)  # type: ignore[attr-defined]  # typeshed leaves it out of BinaryIO
        if not count:
            return False
        rest = rest[count:]
    return True


def _check(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in _PLAIN_KINDS:
        raise AgentError(f"tensors of dtype {dtype} cannot be sent")
