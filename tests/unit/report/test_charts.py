from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.report import charts, facts
from edgeopt.report import ledger as ledgers
from edgeopt.report import svg as svg_module


def _chains(record, metric="top1"):
    return ledgers.chains(record, ledgers.rows(record)[metric])


@pytest.fixture
def drawn(record, samples) -> list[str]:
    target = record.targets["cpu"]
    return [
        charts.tradeoff(target, "top1", "one"),
        charts.distribution(samples["cpu"], "openvino-float", target.shipped, "two"),
        charts.ledger("top1", _chains(record), "three"),
    ]


def _parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1))


def test_the_same_data_give_the_same_bytes(record, drawn):
    assert charts.tradeoff(record.targets["cpu"], "top1", "one") == drawn[0]


def test_nothing_of_an_earlier_chart_of_the_kind_is_left(record, samples, drawn):
    """Axes are used again; others hold fewer points, other scales and other stages."""
    target = record.targets["cpu"]
    slow = {name: 1000 * values for name, values in samples["cpu"].items()}
    one, *_ = _chains(record)
    charts.distribution(slow, "openvino-float", "openvino-float", "x")
    charts.ledger("top1", [replace(one, rows=one.rows[:2])], "x")
    charts.tradeoff(replace(target, candidates=target.candidates[:2]), "top1", "x")
    assert charts.tradeoff(target, "top1", "one") == drawn[0]
    assert charts.distribution(samples["cpu"], "openvino-float", target.shipped, "two") == drawn[1]
    assert charts.ledger("top1", _chains(record), "three") == drawn[2]
    svg_module._axes.cache_clear()
    assert charts.tradeoff(target, "top1", "one") == drawn[0]


def test_charts_can_stand_in_one_page(drawn):
    ids = [match for svg in drawn for match in re.findall(r' id="([^"]+)"', svg)]
    used = {match for svg in drawn for match in re.findall(r"#([\w-]+)[\")]", svg)}
    assert ids
    assert len(set(ids)) == len(ids)
    assert used <= set(ids)


def test_charts_are_named_and_follow_the_scheme_of_the_page(drawn):
    for svg in drawn:
        root = _parse(svg)
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert "var(--accent)" in svg
        assert not re.search(r"(fill|stroke): #(?!fff)", svg)
        assert "<style" not in svg


def test_candidates_are_lettered_as_in_the_table(record, drawn):
    letters = " ".join(element.text for element in _parse(drawn[0]).iter("text")).split()
    assert {row.letter for row in facts.candidate_rows(record.targets["cpu"])} <= set(letters)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_the_pareto_front_holds_exactly_what_nothing_beats(costs):
    def beaten(a):
        return any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in costs)

    assert sorted(charts.pareto_front(costs)) == [i for i, cost in enumerate(costs) if not beaten(cost)]


def test_the_front_is_named_to_those_who_do_not_see_it(record, drawn):
    """C is fastest, E has the better accuracy of those that are slower, D that of the float model, A is slower."""
    assert _parse(drawn[0]).get("aria-label").endswith("Pareto front: C, E, D.")


def test_the_largest_loss_is_marked_with_its_size(drawn):
    assert "-0.0222" in [element.text for element in _parse(drawn[2]).iter("text")]
    assert "var(--fail)" in drawn[2]


def test_a_chain_without_a_loss_has_no_mark(record):
    ledger = tuple(replace(point, value=0.9) for point in record.ledger)
    assert "var(--fail)" not in charts.ledger("top1", _chains(replace(record, ledger=ledger)), "a")


def test_hostile_names_stay_text(record):
    name = '<script>alert(1)</script> "$x^2$'
    svg = charts.ledger(name, _chains(record), "two")
    assert "<script" not in svg
    assert any(name[:20] in (element.text or "") for element in _parse(svg).iter("text"))


def test_a_distribution_reaches_its_quantiles(drawn):
    """The curve of n equal steps crosses every share at that quantile: here a straight line."""
    svg = charts.distribution({"a": np.arange(1, 2001) * 1000}, "a", "a", "two")
    path = max(re.findall(r'd="([^"]+)"', svg), key=len)
    points = np.array([[float(v) for v in pair.split()] for pair in re.findall(r"[ML] ([\d.]+ [\d.]+)", path)])
    assert np.corrcoef(points[:, 0], points[:, 1])[0, 1] < -0.9999  # SVG counts y downwards


def test_nothing_to_draw_is_no_chart(record):
    target = record.targets["cpu"]
    assert charts.tradeoff(replace(target, candidates=target.candidates[:1]), "top1", "a") == ""
    assert charts.distribution({}, "x", "y", "a") == ""
    assert charts.ledger("top1", (), "a") == ""


def test_an_unbounded_interval_is_drawn_as_far_as_it_is_known(record):
    ledger = (replace(record.ledger[0], interval=(None, 0.99)),)
    assert "<svg" in charts.ledger("top1", _chains(replace(record, ledger=ledger)), "a")


def test_a_point_that_was_not_measured_is_hollow_and_says_so(no_devices):
    target = no_devices.targets["ethos-u55-128"]
    drawn = charts.tradeoff(target, "top1", "c")
    assert drawn.count("ESTIMATED") == 2 * 3  # at the mark, and in the spoken text
    measured = tuple(
        replace(c, measurements=tuple(replace(m, method="measured") for m in c.measurements)) for c in target.candidates
    )
    assert "ESTIMATED" not in charts.tradeoff(replace(target, candidates=measured), "top1", "c")
    assert "fill: none" in drawn


def test_without_any_latency_there_is_no_chart_of_it(no_devices):
    assert charts.tradeoff(no_devices.targets["snapdragon"], "top1", "c") == ""
    assert charts.distribution({}, "htp-int8", "htp-int8", "c") == ""
