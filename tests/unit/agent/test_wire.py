from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeopt.agent import AgentError, wire

PLAIN = st.sampled_from(["bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64"])


@given(
    st.lists(
        PLAIN.flatmap(lambda d: arrays.arrays(d, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))
    )
)
def test_tensors_come_back_as_they_were(tensors: list[np.ndarray]) -> None:
    stream = io.BytesIO()
    wire.write(stream, {"verb": "x"}, tensors)
    wire.write(stream, {"ok": True})
    stream.seek(0)
    first, second, end = wire.read(stream), wire.read(stream), wire.read(stream)
    assert first is not None
    assert first.header == {"verb": "x"}
    assert [(t.dtype, t.shape, t.tobytes()) for t in first.tensors] == [
        (t.dtype, t.shape, t.tobytes()) for t in tensors
    ]
    assert second == ({"ok": True}, [])
    assert end is None


def test_a_tensor_that_is_not_contiguous_keeps_its_values() -> None:
    stream = io.BytesIO()
    original = np.arange(24).reshape(4, 6)[::2, ::-3]
    wire.write(stream, {}, [original])
    stream.seek(0)
    message = wire.read(stream)
    assert message is not None
    np.testing.assert_array_equal(message.tensors[0], original)


def test_every_truncation_reads_as_end_of_stream() -> None:
    stream = io.BytesIO()
    wire.write(stream, {"a": 1}, [np.arange(3, dtype=np.int64)])
    whole = stream.getvalue()
    for length in range(len(whole)):
        assert wire.read(io.BytesIO(whole[:length])) is None


def announced(shape: str, dtype: str = '"<f4"') -> bytes:
    return b'{"tensors": [{"dtype": %s, "shape": %s}]}\n' % (dtype.encode(), shape.encode())


@pytest.mark.parametrize(
    "line",
    [
        b"{}\n",
        b"[]\n",
        b"hello\n",
        b"\xff\xfe\n",
        b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b', "tensors": []}\n',
        announced("[]", '"?!"'),
        announced("[]", "null"),
        announced("[]", '[["a", "<f4"]]'),
        announced("[-1]"),
        announced("[true]"),
        announced("[1.5]"),
        announced('"12"'),
        announced("null"),
        announced(f"[{2**63}]"),
        announced(str([1] * 100)),
    ],
)
def test_other_bytes_are_not_a_message(line: bytes) -> None:
    with pytest.raises(AgentError, match="not a message"):
        wire.read(io.BytesIO(line))


def test_objects_are_neither_sent_nor_received() -> None:
    with pytest.raises(AgentError, match="cannot be sent"):
        wire.write(io.BytesIO(), {}, [np.array([{}], dtype=object)])
    with pytest.raises(AgentError, match="cannot be sent"):
        wire.read(io.BytesIO(b'{"tensors": [{"dtype": "|O", "shape": [1]}]}\n12345678'))


def test_more_bytes_than_are_taken_are_refused_before_any_is_read() -> None:
    line = announced("[3, 4]") + b"\0" * 48
    assert wire.read(io.BytesIO(line), most_bytes=48) is not None
    stream = io.BytesIO(line)
    with pytest.raises(AgentError, match="are taken"):
        wire.read(stream, most_bytes=47)
    assert len(stream.read()) == 48


@pytest.mark.parametrize("shape", [f"[{2**61}]", f"[{2**40}, {2**40}]", f"[0, {2**61}, {2**61}]"])
def test_a_tensor_that_no_memory_holds(shape: str) -> None:
    with pytest.raises(AgentError, match="no memory"):
        wire.read(io.BytesIO(announced(shape)))


def test_a_line_without_an_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_LONGEST_LINE", 100)
    stream = io.BytesIO(b"x" * 1000 + b"\n")
    with pytest.raises(AgentError, match="without an end"):
        wire.read(stream)
    assert stream.tell() == 100
