from __future__ import annotations

import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from edgeopt.record import FlipRecord
from edgeopt.report import html
from tests import made_up_run

_VOID = {"meta", "br", "img"}


class _Page(HTMLParser):
    """Start tags with their attributes and texts; complains about tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def page(record, samples) -> _Page:
    """With everything that can happen to a run."""
    run = made_up_run.eventful(record)
    return _Page(html.render(run, samples, made_up_run.against_previous(run)))


def test_it_is_small_and_the_same_every_time(record, samples):
    text = html.render(record, samples)
    assert len(text.encode()) < 1_000_000
    assert html.render(record, samples) == text


def test_it_reaches_for_nothing_outside_itself(page, record, samples):
    for _, attributes in page.tags:
        for name in ("href", "xlink:href", "action"):
            assert attributes.get(name, "#").startswith("#")
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
    assert {"script", "link", "iframe", "object"}.isdisjoint({tag for tag, _ in page.tags})
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", html.render(record, samples))
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "script-src" not in policy


def test_every_link_inside_leads_somewhere_and_ids_are_unique(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    links = {attributes["href"][1:] for attributes in page.all("a")}
    assert len(set(ids)) == len(ids)
    assert links <= set(ids)
    assert len(links) >= 8


def test_tables_and_charts_speak_to_those_who_do_not_see_them(page):
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(attributes.get("scope") in ("row", "col") for attributes in page.all("th"))
    assert len(page.all("svg")) == 1 + 3 * 2
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in page.all("svg"))
    assert len(page.all("img")) == 12
    assert all(attributes["alt"] for attributes in page.all("img"))
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(deeper - before <= 1 for before, deeper in itertools.pairwise(headings))


def test_everything_that_a_reader_looks_for_is_there(page):
    text = " ".join(page.text.split())
    for wanted in (
        "DON'T SHIP",
        "1 of 10 gates failed",
        "10 gates: 6 ✓ pass, 1 ✗ FAIL",
        "chance alone would make at most",
        "false accepts grow 3.3× [3, 3.6]",
        "expired after 2026-01-31",
        "Dana Ruiz waived it until 2026-12-31: the new board has twice the memory",
        "The load rose from 0.2 to 3.9.",
        "the runtime's own call takes 0.0210 ms",
        "the kernel lets only root read the counters",
        "15 samples of the evaluation split are decided otherwise by openvino-int8-pruned",
        "The float baseline is right, what ships is wrong.",
        "Against the previous release: REGRESSION",
        "tools.openvino2026.32026.4.1",
        "The largest loss of one step is at pruned: -0.0222",
        "openvino wins over onnxruntime",
        "0.663× the latency [0.650, 0.681]",
        "14 × i8, 5 × f32",
        "Noise floor",
        "params.samples: 128 -> 256",
        "depthwise convolutions stay in float",
        "compile:jetson: no driver; fix: install one",
    ):
        assert wanted in text


@pytest.mark.parametrize("method", ["estimated", "simulated"])
def test_numbers_that_were_not_measured_are_labelled(passing, samples, method):
    assert method.upper() not in html.render(passing, samples)
    target = passing.targets["cpu-openvino"]
    candidates = tuple(
        replace(c, measurements=tuple(replace(m, method=method) for m in c.measurements)) for c in target.candidates
    )
    run = replace(passing, targets={"cpu-openvino": replace(target, candidates=candidates)})
    assert html.render(run, samples).count(f'<em class="method">{method.upper()}</em>') > 10


def test_hostile_texts_stay_texts(awkward, samples):
    text = html.render(awkward, samples)
    text.encode("utf-8")
    page = _Page(text)
    assert page.all("script") == []
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text)


def test_a_run_without_samples_or_ledger_still_has_a_report(passing):
    page = _Page(html.render(replace(passing, ledger=(), stages=(), provenance={}), {}))
    assert len(page.all("svg")) == 1
    assert "SHIP" in page.text


def test_charts_that_would_make_the_file_too_large_are_left_out_and_it_says_so(record, samples, monkeypatch):
    monkeypatch.setattr(html, "MAX_CHART_BYTES", 40_000)
    page = _Page(html.render(record, samples))
    assert 0 < len(page.all("svg")) < 7
    assert "Some charts are left out" in page.text


def _tables(text: str) -> dict[str, str]:
    """Class -> source of the first table that has it."""
    tables = re.findall(r"<table.*?</table>", text, flags=re.DOTALL)
    return {m[1]: table for table in reversed(tables) if (m := re.match(r'<table class="(\w+)"', table))}


def test_the_change_that_hurts_most_comes_first(record, samples):
    table = _tables(html.render(record, samples, made_up_run.against_previous(record)))["changes"]
    first = re.search(r"<tbody>\s*<tr>(.*?)</tr>", table, flags=re.DOTALL)[1]
    for words in ("cpu-openvino", "latency_p50_ms", "REGRESSION", "+25.0 %"):
        assert words in first


def test_a_long_reason_is_said_once(record, samples, monkeypatch):
    run = made_up_run.eventful(record)
    comparison = made_up_run.against_previous(run)
    whys = [change.why for _, change in comparison.changes()]
    longest = max(whys, key=len)
    assert whys.count(longest) > 1
    monkeypatch.setattr(html, "MAX_REASON_LETTERS", len(longest) - 1)
    page = _Page(html.render(run, samples, comparison))
    assert page.text.count(longest) == 1
    assert f"Reason 1: {longest}" in page.text
    assert sum(a.get("href") == "#reason-1" for a in page.all("a")) == whys.count(longest)


def test_a_threshold_that_all_targets_share_is_said_once(record, samples):
    table = _tables(html.render(record, samples))["matrix"]
    assert table.count("limit ≥ 0.97") == 1
    cpu = record.targets["cpu"]
    other = replace(cpu, verdicts=(replace(cpu.verdicts[0], limit=0.9), *cpu.verdicts[1:]))
    table = _tables(html.render(replace(record, targets={**record.targets, "cpu": other}), samples))["matrix"]
    assert (table.count("limit ≥ 0.97"), table.count("limit ≥ 0.9<")) == (2, 1)


def test_of_many_targets_only_those_that_passed_are_folded(record):
    page = _Page(html.render(made_up_run.crowd(record, 6), {}))
    assert sum(attributes.get("class") == "target" for attributes in page.all("details")) == 5
    few = _Page(html.render(made_up_run.crowd(record, 4), {}))
    assert not any(attributes.get("class") == "target" for attributes in few.all("details"))


def test_flips_without_images_are_told_in_words(record):
    run = made_up_run.eventful(record)
    target = run.targets["cpu-onnxruntime"]
    page = _Page(html.render(replace(run, targets={"cpu-onnxruntime": target}), {}))
    assert page.all("img") == []
    assert "sample 0float yesshipped no" in page.text


@pytest.mark.parametrize(
    "image", ["https://evil.example/x.png", 'data:image/png;base64,AAAA" onerror="x', "data:image/svg+xml;base64,AAAA"]
)
def test_what_is_no_image_in_itself_is_left_out(record, image):
    target = record.targets["cpu"]
    flips = (FlipRecord(1, "a", "b", "c", "before", image),)
    run = replace(record, targets={"cpu": replace(target, flips=flips, flip_count=1)})
    text = html.render(run, {})
    assert _Page(text).all("img") == []
    assert image not in text


def test_thumbnails_that_would_make_the_file_too_large_are_left_out(record, samples, monkeypatch):
    monkeypatch.setattr(html, "MAX_IMAGE_BYTES", 1000)
    page = _Page(html.render(made_up_run.eventful(record), samples))
    assert 0 < len(page.all("img")) < 12
    assert "sample 11" in page.text
