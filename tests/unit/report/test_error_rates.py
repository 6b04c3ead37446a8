"""The chart of error rates: whose curves, and where production is."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from edgeopt.report.error_rates import error_rates, simulated
from tests.made_up_run import measured

ROC = {"threshold": (0.9, 0.5, 0.1), "far": (0.0, 0.01, 1.0), "frr": (1.0, 0.1, 0.0)}
WORSE = {**ROC, "far": (0.0, 0.05, 1.0)}


@pytest.fixture
def target(record):
    """A target whose shipped candidate accepts five times as many impostors as the float model at its threshold."""
    known = record.targets["cpu"]
    candidates = []
    for candidate in known.candidates:
        shipped = candidate.id == known.shipped
        rates = (measured("far@float=0.01", 0.05 if shipped else 0.01, "1"), measured("frr@float=0.01", 0.1, "1"))
        candidates.append(
            replace(candidate, roc=WORSE if shipped else ROC, measurements=(*candidate.measurements, *rates))
        )
    return replace(known, candidates=tuple(candidates))


def test_a_model_that_does_not_verify_has_no_chart(record):
    assert error_rates(record.targets["cpu"], "one") == ""


def test_production_is_marked_and_told(target):
    svg = error_rates(target, "one")
    label = re.search(r'aria-label="([^"]*)"', svg)[1]
    assert f"{target.shipped} 5 % and 10 %" in label
    assert "-float 1 % and 10 %" in label
    assert "impostors accepted" in svg
    assert svg == error_rates(target, "one")


def test_only_one_runtime_is_drawn(target):
    others = [c.id for c in target.candidates if c.runtime != target.shipped.partition("-")[0]]
    assert not any(other in error_rates(target, "one") for other in others)


def test_without_a_threshold_the_curves_are_still_there(record):
    known = record.targets["cpu"]
    bare = replace(known, candidates=tuple(replace(c, roc=ROC) for c in known.candidates))
    label = re.search(r'aria-label="([^"]*)"', error_rates(bare, "one"))[1]
    assert label == "Genuine pairs rejected against impostors accepted"


def test_simulated_rates_are_labelled(target):
    """In what is spoken and in the caption; the float baseline was measured."""
    assert simulated(target) == ""

    def unreal(candidate):
        return replace(candidate, selection=tuple(replace(m, method="simulated") for m in candidate.selection))

    known = tuple(unreal(c) if c.id == target.shipped else c for c in target.candidates)
    without = replace(target, candidates=known)
    label = re.search(r'aria-label="([^"]*)"', error_rates(without, "one"))[1]
    assert f"{target.shipped} 5 % and 10 % (SIMULATED)" in label
    assert label.count("SIMULATED") == 1
    assert simulated(without) == f"SIMULATED, not taken on the device: {target.shipped}."
