"""The run record survives JSON unchanged, and anything else is refused with the reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt import record
from edgeopt.errors import ConfigError
from edgeopt.measure import Measurement
from edgeopt.record import (
    ArtifactRecord,
    CandidateRecord,
    LedgerRecord,
    RecipeRecord,
    RunRecord,
    StageRecord,
    TargetRecord,
    VerdictRecord,
)


def measurement(metric: str, value: float | None, **more: Any) -> Measurement:
    fields: dict[str, Any] = {"unit": "ms", "better": "lower", "interval": (0.9, 1.2), "n": 500, "method": "measured"}
    return Measurement(metric=metric, value=value, protocol="p" * 64, machine="cpu", **{**fields, **more})


CANDIDATE = CandidateRecord(
    id="openvino-int8-pruned",
    runtime="openvino",
    precision="int8",
    pruned=True,
    baseline=False,
    artifact=ArtifactRecord("openvino-model", "a" * 64, 0.25, "cpu"),
    measurements=(
        measurement("latency_p50_ms", 1.0),
        measurement("latency_p99_ms", None, interval=(1.0, None), why="too few"),
        measurement("size_mib", 0.25, interval=None, n=1),
        measurement("power_w", 4.0, method="estimated", confidence=0.9),
    ),
    selection=(measurement("top1", 0.99, better="higher", unit="1"),),
    rejected="",
    placement={"i8": 14, "f32": 5},
)
BASELINE = replace(CANDIDATE, id="openvino-float", precision="float", pruned=False, baseline=True, rejected="slower")
RECORD = RunRecord(
    schema=1,
    outcome="fail",
    exit_code=1,
    started="2026-01-02T03:04:05+00:00",
    seconds=12.5,
    recipe=RecipeRecord("digits", "recipes/digits/recipe.yaml", "d" * 64, ("seed=3",)),
    targets={
        "cpu": TargetRecord(
            shipped=CANDIDATE.id,
            reason="fastest candidate whose accuracy holds",
            candidates=(BASELINE, CANDIDATE),
            verdicts=(
                VerdictRecord("top1 min", "top1", 0.9, 0.99, (0.97, 1.0), "pass", "why", "1"),
                VerdictRecord("top1 max_drop", "top1", 0.01, None, None, "not_measured", "naïve — why"),
                VerdictRecord(
                    "latency_p99_ms max", "latency_p99_ms", 1.0, 1.2, (None, 1.3), "inconclusive", "why", "ms"
                ),
            ),
            machine={"cpu": "x", "flags": ["avx2"], "cores": 2},
            protocol={"threads": 1, "digest": "p"},
        ),
        "board": TargetRecord("", "", (), (), error="the board does not answer"),
    },
    ledger=(
        LedgerRecord("trained", "top1", 0.99, (0.97, 1.0)),
        LedgerRecord("compiled", "top1", 0.98, None, "cpu", "openvino", CANDIDATE.id),
    ),
    stages=(StageRecord("prune", "prune", "k" * 64, True, 1.5, "o" * 64, "why", "summary", ("note",), "cpu"),),
    provenance={"edgeopt": "0.1", "git": None, "tools": {"numpy": "2.0"}, "machine": {"flags": ["avx2"]}},
)


def write(folder: Path, content: str | bytes) -> Path:
    file = folder / "run.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_a_record_survives_json(tmp_path):
    file = write(tmp_path, RECORD.to_json())
    assert record.load(file) == RECORD
    assert record.load(tmp_path) == RECORD
    assert record.load(file).to_json() == RECORD.to_json()


def test_the_json_has_the_keys_that_other_tools_read():
    data = json.loads(RECORD.to_json())
    assert list(data) == [
        "schema", "outcome", "exit_code", "started", "seconds", "recipe", "targets", "ledger", "stages", "provenance",
        "waivers",
    ]  # fmt: skip
    candidate = data["targets"]["cpu"]["candidates"][1]
    assert candidate["artifact"] == {"kind": "openvino-model", "digest": "a" * 64, "size_mib": 0.25, "path": "cpu"}
    assert candidate["measurements"][1]["interval"] == [1.0, None]
    assert data["targets"]["cpu"]["verdicts"][0]["interval"] == [0.97, 1.0]


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
MEASUREMENTS = st.builds(
    Measurement,
    metric=st.text(st.characters(codec="utf-8"), max_size=8),
    value=st.none() | FLOATS,
    unit=st.sampled_from(["ms", "1", ""]),
    better=st.sampled_from(["lower", "higher"]),
    interval=st.none() | st.tuples(st.none() | FLOATS, st.none() | FLOATS),
    n=st.integers(0, 10**9),
    method=st.sampled_from(["measured", "simulated", "estimated"]),
    protocol=st.just(""),
    machine=st.text(st.characters(codec="utf-8"), max_size=8),
    confidence=st.floats(0.5, 1),
)


@given(measurements=st.lists(MEASUREMENTS, max_size=4))
def test_every_measurement_survives_json_to_the_last_bit(tmp_path_factory, measurements):
    folder = tmp_path_factory.mktemp("record")
    candidate = replace(CANDIDATE, measurements=tuple(measurements))
    changed = replace(RECORD, targets={"cpu": replace(RECORD.targets["cpu"], candidates=(candidate,))})
    write(folder, changed.to_json())
    assert record.load(folder) == changed


def test_candidates_and_measurements_are_found_by_name():
    target = RECORD.targets["cpu"]
    assert target.candidate(CANDIDATE.id) is CANDIDATE
    assert target.baseline_of(CANDIDATE) is BASELINE
    assert CANDIDATE.measurement("size_mib") == CANDIDATE.measurements[2]
    assert CANDIDATE.measurement("nothing") is None
    with pytest.raises(KeyError, match="nothing"):
        target.candidate("nothing")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "this is not a run record"),
        ("{", "this is not a run record"),
        ("[]", "this is not a run record"),
        ("3", "this is not a run record"),
        ("[" * 100_000, "this is not a run record"),
        (b"\xff\xfe", "cannot read the run record"),
        ("{}", "this is not a run record"),
        ('{"schema": 0}', "the record has the unknown schema 0, written by another edgeopt; this is edgeopt "),
        ('{"schema": "1"}', "the record has the unknown schema '1'"),
        ('{"schema": true}', "the record has the unknown schema True"),
        ('{"schema": 2}', "a newer edgeopt wrote this record: schema 2, another edgeopt; this is edgeopt "),
        ('{"schema": 1}', "the run record is damaged at outcome: Field required"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path, content, what):
    file = write(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        record.load(file)
    assert caught.value.what.startswith(what)
    assert caught.value.where == str(file)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("way", "value"),
    [
        (("outcome",), "great"),
        (("seconds",), "long"),
        (("targets",), []),
        (("targets", "cpu", "shipped"), None),
        (("targets", "cpu", "verdicts", 0, "outcome"), "maybe"),
        (("targets", "cpu", "verdicts", 0, "interval"), [1.0]),
        (("targets", "cpu", "candidates", 0, "measurements", 0, "better"), "sideways"),
        (("ledger", 0, "value"), None),
    ],
)
def test_a_damaged_record_says_where(tmp_path, way, value):
    data = json.loads(RECORD.to_json())
    node = data
    for part in way[:-1]:
        node = node[part]
    node[way[-1]] = value
    write(tmp_path, json.dumps(data))
    with pytest.raises(ConfigError, match=f"the run record is damaged at {'.'.join(map(str, way))}"):
        record.load(tmp_path)


def test_a_record_of_a_newer_edgeopt_says_which_version_wrote_it(tmp_path):
    write(tmp_path, json.dumps({"schema": 7, "provenance": {"edgeopt": "9.1.0"}, "unheard_of": []}))
    with pytest.raises(ConfigError, match=r"a newer edgeopt wrote this record: schema 7, edgeopt 9\.1\.0") as caught:
        record.load(tmp_path)
    assert "update edgeopt" in caught.value.fix


def test_a_shipped_candidate_that_is_not_there_is_damage(tmp_path):
    write(tmp_path, RECORD.to_json().replace('"shipped": "openvino-int8-pruned"', '"shipped": "other"'))
    with pytest.raises(ConfigError, match=r"damaged at targets\.cpu\.shipped: there is no candidate 'other'"):
        record.load(tmp_path)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(ConfigError, match="no run here") as caught:
        record.load(tmp_path)
    assert caught.value.where == str(tmp_path)


def test_a_misspelt_run_is_told_the_one_that_is_meant(tmp_path):
    (tmp_path / "digits").mkdir()
    write(tmp_path / "digits", RECORD.to_json())
    with pytest.raises(ConfigError, match=r"no such run \(did you mean 'digits'\?\)"):
        record.load(tmp_path / "digit")
    with pytest.raises(ConfigError) as caught:
        record.load(tmp_path / "nothing-like-it")
    assert caught.value.what == "no such run"
