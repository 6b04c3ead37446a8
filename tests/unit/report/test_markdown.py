from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from edgeopt.report import markdown, wording

_READER = MarkdownIt("commonmark").enable("table")


def _text(html: str) -> str:
    from html import unescape

    return unescape(re.sub(r"<[^>]+>", "", html))


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_escaped_text_reads_as_it_was_in_a_table_cell(text):
    html = _READER.render(f"| a | b |\n| - | - |\n| x{markdown.escape(text)}x | y |\n")
    cells = re.findall(r"<td>(.*?)</td>", html, flags=re.DOTALL)
    assert [_text(cell) for cell in cells] == [f"x{wording.clean(text)}x", "y"]


def test_the_decision_comes_first(record, samples):
    lines = markdown.render(record, samples).splitlines()
    assert lines[0] == "# digits: DON'T SHIP"
    assert lines[2].startswith("1 of 10 gates failed")


def test_hostile_texts_neither_break_tables_nor_become_markup(awkward, samples):
    report = markdown.render(awkward, samples)
    report.encode("utf-8")
    html = _READER.render(report)
    assert "<script" not in html
    assert "<em>" not in html
    assert "<a " not in html
    for table in re.findall(r"<table>.*?</table>", html, flags=re.DOTALL):
        widths = {len(re.findall(r"<t[hd]", row)) for row in re.findall(r"<tr>.*?</tr>", table, flags=re.DOTALL)}
        assert len(widths) == 1
    assert html.count("<table>") == 7


def test_everything_that_a_reader_looks_for_is_there(record, samples):
    report = markdown.render(record, samples)
    for text in (
        "openvino wins over onnxruntime",
        "| pruned | 0.9704",
        "depthwise convolutions stay in float",
        "tools.torch | 2.13.0",
        "AMD EPYC",
        "min_runs 200",
        "params.samples: 128 -&gt; 256",
        "0.663× the latency",
    ):
        assert text in report


def test_a_report_too_long_for_a_job_summary_says_what_is_left_out(record, samples):
    stage = replace(record.stages[0], notes=tuple(f"note {i} {'x' * 500}" for i in range(3000)))
    report = markdown.render(replace(record, stages=(stage,)), samples)
    assert len(report.encode()) < 1024 * 1024
    assert "Left out because the report would be too long: Notes." in report
    assert "## Ledger" in report
