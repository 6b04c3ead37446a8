"""The reports of one run must not contradict each other."""

from __future__ import annotations

import re
from html import unescape
from xml.etree import ElementTree

from edgeopt import report
from edgeopt.report import wording

_OUTCOMES = {wording.verdict(outcome): outcome for outcome in wording.VERDICT_WORDS}
Verdicts = dict[tuple[str, str], str]


def _of_markdown(text: str) -> Verdicts:
    lines = text.split("## Gates")[1].split("## ")[0].split("\n")
    header, _, *rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    found = {}
    for target, *cells in rows:
        for gate, cell in zip(header[1:], cells, strict=True):
            word = cell.split("<br>")[0].strip("*")
            if word in _OUTCOMES:
                found[target, gate] = _OUTCOMES[word]
    return found


def _words(cell: str) -> str:
    """What stands before the first line break."""
    return re.sub("<.*?>", "", cell.partition("<br>")[0])


def _of_html(text: str) -> Verdicts:
    table = re.search(r'<table class="matrix">.*?</table>', text, flags=re.DOTALL)[0]
    header, *rows = [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, flags=re.DOTALL)
        for row in re.findall(r"<tr>.*?</tr>", table, flags=re.DOTALL)
    ]
    found = {}
    for target, *cells in rows:
        for gate, cell in zip(header[1:], cells, strict=True):
            if match := re.search(r'<span class="verdict (\w+)">(.*?)</span>', cell):
                assert _OUTCOMES[unescape(match[2])] == match[1]
                found[_words(target), _words(gate)] = match[1]
    return found


def _of_junit(text: str) -> Verdicts:
    found = {}
    for suite in ElementTree.fromstring(text):
        for case in suite.iter("testcase"):
            complaint = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
            found[suite.get("name"), case.get("name")] = "pass" if complaint is None else complaint.get("type")
    found.pop(("jetson", "served"))
    return found


def test_markdown_html_and_junit_give_the_verdicts_of_the_record(record, samples):
    reports = report.render_all(record, samples)
    expected = {(name, v.gate): v.outcome for name, target in record.targets.items() for v in target.verdicts}
    assert set(expected.values()) == set(wording.VERDICT_WORDS)
    assert _of_markdown(reports["report.md"]) == expected
    assert _of_html(reports["report.html"]) == expected
    assert _of_junit(reports["junit.xml"]) == expected


def test_all_give_the_same_decision_and_none_leaks_markup(record, samples):
    reports = report.render_all(record, samples)
    sentence = wording.decision(record).sentence
    assert sentence in reports["report.md"].replace("\\", "")
    assert sentence in unescape(reports["report.html"])
