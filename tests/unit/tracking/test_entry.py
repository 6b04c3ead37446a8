"""What a tracking server is told: the right numbers, under names that it takes."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.errors import ConfigError
from edgeopt.measure import Measurement
from edgeopt.record import (
    ArtifactRecord,
    CandidateRecord,
    LedgerRecord,
    RecipeRecord,
    RunRecord,
    TargetRecord,
    VerdictRecord,
    WaiverRecord,
)
from edgeopt.tracking.entry import Entry, Key, entry_of, flat, named

WAIVER = WaiverRecord("top1 max_drop", "cpu", "agreed", "A. Person", "2099-12-31", "waivers.yaml:3:5", "used")


def measured(metric: str, value: float | None, low: float | None = None, high: float | None = None, **more: Any) -> Any:
    interval = None if low is None and high is None else (low, high)
    fields = {"unit": "", "better": "lower", "interval": interval, "n": 9, "method": "measured", **more}
    return Measurement(metric, value, protocol="", machine="", **fields)


def candidate(name: str, *measurements: Measurement, baseline: bool = False) -> CandidateRecord:
    artifact = ArtifactRecord("openvino-model", "a" * 64, 0.5)
    return CandidateRecord(
        name, "openvino", "float" if baseline else "int8", not baseline, baseline, artifact, measurements
    )


RECORD = RunRecord(
    schema=1,
    outcome="pass",
    exit_code=0,
    started="2026-01-02T03:04:05+00:00",
    seconds=1.5,
    recipe=RecipeRecord(
        "digits",
        "recipe.yaml",
        "d" * 64,
        ("seed=3",),
        values={"seed": 3, "targets": [{"name": "cpu", "gates": {"top1": {"max_drop": 0.02}}}, {"name": "board"}]},
    ),
    targets={
        "cpu": TargetRecord(
            shipped="int8",
            reason="it is fastest",
            candidates=(
                candidate("float", measured("latency_p50_ms", 2.0, 1.9, 2.1), baseline=True),
                candidate(
                    "int8",
                    measured("latency_p50_ms", 1.0, 0.9, 1.1),
                    measured("latency_p99_ms", None, 1.0, None, why="too few"),
                    measured("size_mib", 0.0),
                    measured("tar@far=1e-3", 0.9, 0.8, None),
                    measured("power_w", 4.0, 3.0, 5.0, method="estimated"),
                    measured("ratio", float("inf"), 1.0, 2.0),
                ),
                candidate("other", measured("latency_p50_ms", 7.0)),
            ),
            verdicts=(
                VerdictRecord("top1 max_drop", "top1", 0.02, 0.03, (0.01, 0.05), "waived", "why", waiver=WAIVER),
            ),
            machine={"cpu": "a CPU"},
            disturbed=("busy", "hot"),
        ),
        "board": TargetRecord("", "", (), (), error="it does not answer"),
    },
    ledger=(
        LedgerRecord("trained", "top1", 0.99, (0.98, 1.0)),
        LedgerRecord("pruned", "top1", 0.5, None),
        LedgerRecord("compiled", "top1", 0.99, None, "cpu", "openvino", "float"),
        LedgerRecord("compiled", "top1", 0.96, (0.95, 0.97), "cpu", "openvino", "int8"),
    ),
    stages=(),
    provenance={
        "edgeopt": "0.1",
        "python": "3.11",
        "git": {"commit": "c0ffee", "dirty": False},
        "tools": {"numpy": "2"},
    },
    waivers=(WAIVER,),
)


def metrics(entry: Entry) -> dict[tuple[str, int], float]:
    return {(point.name, point.step): point.value for point in entry.metrics}


def test_metrics_are_those_of_what_ships_and_of_its_baseline_with_their_intervals():
    entry = entry_of(RECORD)
    assert len(metrics(entry)) == len(entry.metrics)
    assert metrics(entry) == {
        ("seconds", 0): 1.5,
        ("cpu.latency_p50_ms", 0): 1.0,
        ("cpu.latency_p50_ms.low", 0): 0.9,
        ("cpu.latency_p50_ms.high", 0): 1.1,
        ("cpu.size_mib", 0): 0.0,
        ("cpu.tar_far_1e-3", 0): 0.9,
        ("cpu.tar_far_1e-3.low", 0): 0.8,
        ("cpu.power_w.estimated", 0): 4.0,
        ("cpu.power_w.estimated.low", 0): 3.0,
        ("cpu.power_w.estimated.high", 0): 5.0,
        ("cpu.ratio.low", 0): 1.0,
        ("cpu.ratio.high", 0): 2.0,
        ("cpu.baseline.latency_p50_ms", 0): 2.0,
        ("cpu.baseline.latency_p50_ms.low", 0): 1.9,
        ("cpu.baseline.latency_p50_ms.high", 0): 2.1,
        ("cpu.gate.top1_max_drop", 0): 0.03,
        ("cpu.gate.top1_max_drop.low", 0): 0.01,
        ("cpu.gate.top1_max_drop.high", 0): 0.05,
        ("cpu.gate.top1_max_drop.limit", 0): 0.02,
        ("cpu.ledger.top1", 0): 0.99,
        ("cpu.ledger.top1.low", 0): 0.98,
        ("cpu.ledger.top1.high", 0): 1.0,
        ("cpu.ledger.top1", 1): 0.5,
        ("cpu.ledger.top1", 2): 0.96,
        ("cpu.ledger.top1.low", 2): 0.95,
        ("cpu.ledger.top1.high", 2): 0.97,
    }


def test_parameters_and_tags():
    entry = entry_of(RECORD)
    assert entry.params == {
        "seed": "3",
        "targets": "cpu, board",
        "targets.cpu.gates.top1.max_drop": "0.02",
        "overrides": "seed=3",
        "python": "3.11",
        "tools.numpy": "2",
    }
    assert entry.tags == {
        "run_digest": entry.digest,
        "outcome": "pass",
        "exit_code": "0",
        "edgeopt_version": "0.1",
        "recipe_digest": "d" * 64,
        "git_commit": "c0ffee",
        "mlflow.source.git.commit": "c0ffee",
        "git_dirty": "false",
        "waiver.cpu.top1_max_drop": "used: agreed (A. Person, until 2099-12-31)",
        "cpu.shipped": "int8",
        "cpu.reason": "it is fastest",
        "cpu.disturbed": "busy; hot",
        "cpu.machine": "a CPU",
        "cpu.gate.top1_max_drop": "waived",
        "cpu.not_measured": "latency_p99_ms: too few",
        "cpu.ledger.top1": "0 trained, 1 pruned, 2 compiled",
        "board.error": "it does not answer",
    }
    assert (entry.experiment, entry.name) == ("digits", RECORD.started)
    assert entry.end_ms - entry.start_ms == 1500


def test_a_baseline_that_ships_is_told_once():
    target = replace(RECORD.targets["cpu"], shipped="float")
    names = {point.name for point in entry_of(replace(RECORD, targets={"cpu": target})).metrics}
    assert "cpu.latency_p50_ms" in names
    assert not any("baseline" in name for name in names)


def test_another_run_has_another_digest():
    assert entry_of(RECORD).digest == entry_of(replace(RECORD)).digest
    assert entry_of(RECORD).digest != entry_of(replace(RECORD, seconds=1.6)).digest


def test_a_record_without_a_start():
    with pytest.raises(ConfigError, match="damaged at started"):
        entry_of(replace(RECORD, started="yesterday"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": {"b": [1, 2]}, "c": "x"}, {"a.b": "[1, 2]", "c": "x"}),
        ({"private": False, "scale": 255.0, "none": None}, {"private": "false", "scale": "255.0", "none": "null"}),
        ({"steps": [{"prune": {"keep": ["head"]}}]}, {"steps": "prune", "steps.prune.keep": '["head"]'}),
        ({"steps": [{"a": {"x": 1}}, {"a": {"x": 2}}]}, {"steps": "a, a", "steps.0.x": "1", "steps.1.x": "2"}),
        (
            {"metrics": [{"name": "top1", "args": {}}, {"name": "tar", "far": 1}]},
            {"metrics": "top1, tar", "metrics.tar.far": "1"},
        ),
        ({"odd": [{"a": 1, "b": 2}]}, {"odd": "0", "odd.0.a": "1", "odd.0.b": "2"}),
        ({"empty": []}, {"empty": "[]"}),
    ],
)
def test_recipes_are_flattened_as_set_addresses_them(value, expected):
    assert {".".join(key): text for key, text in flat(value)} == expected


def test_what_is_too_long_is_cut_visibly():
    values = {"short": "x" * 500, "long": "x" * 501}
    params = entry_of(replace(RECORD, recipe=replace(RECORD.recipe, values=values))).params
    assert params["short"] == "x" * 500
    assert params["long"] == "x" * 499 + "…"


PARTS = st.text(st.sampled_from("ab./@_ é"), min_size=1, max_size=4)
KEYS = st.lists(st.tuples(PARTS, PARTS) | st.tuples(PARTS) | st.tuples(PARTS, st.just("x" * 300)), max_size=12)


@given(keys=KEYS)
def test_names_are_taken_by_mlflow_and_tell_all_keys_apart(keys: list[Key]):
    names = named(("cpu", *key) for key in keys)
    assert len(set(names.values())) == len({("cpu", *key) for key in keys})
    for name in names.values():
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,249}", name)


def test_names_stay_as_they_are_where_they_can():
    assert named([("cpu", "top1"), ("cpu", "top1 drop")]) == {
        ("cpu", "top1"): "cpu.top1",
        ("cpu", "top1 drop"): "cpu.top1_drop",
    }
