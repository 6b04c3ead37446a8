"""The comparison of two runs on the screen."""

from __future__ import annotations

import io

import pytest

from edgeopt import compare, console
from tests.releases import latency, pair, size, target, top1


@pytest.fixture
def text() -> str:
    parts = pair(target(latency(1.0), top1(0.99), size(1.0)), target(latency(1.5), top1(0.99)))
    stream = io.StringIO()
    console.print_comparison(compare.compare(*parts), stream)
    return stream.getvalue()


def test_every_number_has_a_line_with_its_result(text: str) -> None:
    def line(metric: str) -> str:
        return next(line for line in text.splitlines() if line.split()[:1] == [metric])

    assert "1.00 ms [0.990, 1.01]" in line("latency_p50_ms")
    assert line("latency_p50_ms").endswith("+50.0 % [+47.9, +52.1]  ✗ REGRESSION")
    assert line("top1").endswith("= no difference shown")
    assert line("size_mib").endswith("? not comparable")
    assert "? not comparable  size_mib: the later run does not have it" in text


def test_the_answer_comes_last_and_no_line_is_too_long(text: str) -> None:
    lines = text.splitlines()
    assert lines[-1].startswith("REGRESSION  1 regression: latency_p50_ms on cpu (+50.0 %") or lines[-2].startswith(
        "REGRESSION  1 regression: latency_p50_ms on cpu (+50.0 %"
    )
    assert max(map(len, lines)) <= 116
    assert "\x1b" not in text
