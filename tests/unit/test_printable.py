from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeopt.printable import clean, clean_lines

DANGEROUS = "\x00\x07\x08\x1b\x7f\x9b\u202e\u2066"


@given(st.text() | st.text(alphabet="ab \n\t\r\x85\u2028" + DANGEROUS))
def test_nothing_dangerous_is_left(text: str) -> None:
    for cleaned in (clean(text), clean_lines(text)):
        assert not set(DANGEROUS + "\r\x85\u2028") & set(cleaned)
    assert len(clean(text).splitlines()) <= 1
    assert clean(clean(text)) == clean(text)


@given(st.text(alphabet="ab é日  \n\t"))
def test_lines_and_blanks_can_stay(text: str) -> None:
    assert clean_lines(text) == text


def test_an_escape_sequence_becomes_visible() -> None:
    assert clean("\x1b[2J ok\r\nno") == "\ufffd[2J ok no"
