"""A target whose device is not at hand, or runs no float network: what ships, and what its gates say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from edgeopt import placement, verdict
from edgeopt.artifact import Artifact, Store
from edgeopt.backends import Figure
from edgeopt.contest import Contest, Evaluated
from edgeopt.plan import Candidate
from edgeopt.recipe import Limit
from edgeopt.record import TargetRecord
from tests.unit.test_contest import contest

PLACED = placement.of(
    [
        {"name": "a", "op": "Conv", "source": ["conv"], "precision": "i8", "device": "NPU"},
        {"name": "b", "op": "Softmax", "source": ["softmax"], "precision": "f32", "device": "CPU"},
    ],
    {"conv": 10, "softmax": 0},
    "NPU",
)
ESTIMATE = Figure("latency_ms", 2.0, "ms", "estimated", "vela, some memory mode")


def simulated(scored: Artifact) -> Artifact:
    taken = {name: {**raw, "method": "simulated"} for name, raw in scored.meta["metrics"].items()}
    return replace(scored, meta={**scored.meta, "metrics": taken})


def untimed(
    tmp_path: Path,
    wrong: Mapping[str, int],
    *,
    gates: Mapping[str, Limit] | None = None,
    accept: Sequence[str] = ("simulated", "estimated"),
    float_runs: bool = True,
    figures: Mapping[str, Sequence[Figure]] | None = None,
    **target: Any,
) -> TargetRecord:
    """Judges candidates of which ``wrong`` says how many of 1000 samples they get wrong."""
    made, agent = contest(
        tmp_path,
        dict.fromkeys(wrong, 1e6),
        wrong,
        gates=gates,
        device={"access": "none"},
        accept=tuple(accept),
        **target,
    )
    store = Store(tmp_path / "more")
    made = replace(
        made,
        plan=replace(made.plan, candidates=tuple(_ships(c, float_runs) for c in made.plan.candidates)),
        evaluated={
            name: Evaluated(
                _with_figures(store, one.compiled, (figures or {}).get(name, ())),
                simulated(one.select),
                simulated(one.evaluate),
            )
            for name, one in made.evaluated.items()
        },
    )
    record, samples = made.run()
    assert samples == {}
    assert agent.timed == []
    return record


def _ships(candidate: Candidate, float_runs: bool) -> Candidate:
    return replace(candidate, ships=float_runs or candidate.precision != "float")


def _with_figures(store: Store, artifact: Artifact, figures: Sequence[Figure]) -> Artifact:
    with store.scratch() as out:
        (out / "model.bin").write_bytes(bytes(1000))
        (out / "aside").mkdir()
        (out / "aside" / "build.log").write_bytes(bytes(100_000))
        meta = {**artifact.meta, "file": "model.bin", "figures": [asdict(figure) for figure in figures]}
        meta["placed"] = PLACED.to_json()
        return store.put("compiled", out, meta)


def verdicts(record: TargetRecord) -> dict[str, str]:
    return {judged.gate: judged.outcome for judged in record.verdicts}


def test_the_targets_preference_decides_where_nothing_is_timed(tmp_path: Path) -> None:
    record = untimed(tmp_path, {"float": 0, "pruned": 0, "int8": 0})
    assert record.shipped == "int8"
    assert "nothing was timed" in record.reason
    assert verdicts(record) == {"top1 max_drop": "pass"}
    shipped = record.candidate("int8")
    latency = shipped.measurement("latency_p99_ms")
    assert latency is not None
    assert (latency.value, latency.why) == (None, "no device is at hand")
    assert all(m.method == "simulated" for m in shipped.measurements if m.metric.startswith("top1"))


def test_what_is_inaccurate_on_select_is_passed_over(tmp_path: Path) -> None:
    record = untimed(tmp_path, {"float": 0, "pruned": 0, "int8": 200})
    assert record.shipped == "pruned"
    assert "accuracy does not hold" in record.candidate("int8").rejected
    assert untimed(tmp_path / "b", {"float": 0, "pruned": 200, "int8": 200}).shipped == "float"


def test_simulated_accuracy_passes_no_gate_unless_the_target_accepts_it(tmp_path: Path) -> None:
    record = untimed(tmp_path, {"float": 0, "int8": 0}, accept=())
    assert record.shipped == "int8"
    assert verdicts(record) == {"top1 max_drop": "not_measured"}


def test_where_the_device_runs_no_float_the_failing_one_ships_and_fails(tmp_path: Path) -> None:
    """Also if it would have passed on the evaluation split: the selection split saw it fail."""
    record = untimed(tmp_path, {"float": 0, "int8": 200}, float_runs=False)
    assert record.shipped == "int8"
    assert "the device runs no float one" in record.reason
    assert verdicts(record) == {"top1 max_drop": "fail"}


@pytest.mark.parametrize(("outcome", "expected"), [("fail", "fail"), ("inconclusive", "inconclusive")])
def test_no_pass_for_what_did_not_hold_on_select(outcome: Any, expected: str) -> None:
    passed = verdict.VerdictRecord("top1 min", "top1", 0.9, 0.95, None, "pass", "fine")
    seen = replace(passed, outcome=outcome, why="it was 0.8")
    judged = verdict.unselected(passed, [seen])
    assert judged.outcome == expected
    assert judged.why == "on the selection split: it was 0.8"
    failed = replace(passed, outcome="fail")
    assert verdict.unselected(failed, [seen]) == failed
    assert verdict.unselected(passed, [replace(seen, gate="top5 min")]) == passed
    of_a_set = replace(passed, gate="top1[night] min", metric="top1[night]")
    assert verdict.unselected(of_a_set, [seen]).outcome == expected


def test_the_reference_never_ships(tmp_path: Path) -> None:
    record = untimed(tmp_path, {"float": 0, "int8": 0}, float_runs=False)
    assert record.shipped == "int8"
    assert "the device cannot run it" in record.candidate("float").rejected


def test_an_estimate_stands_for_every_percentile_and_needs_to_be_accepted(tmp_path: Path) -> None:
    figures = {"float": [replace(ESTIMATE, value=8.0)], "int8": [ESTIMATE]}
    gates = {
        "top1": Limit(max_drop=0.02),
        "latency_p99_ms": Limit(max=3),
        "latency_p50_ms": Limit(max=1),
        "latency_ratio": Limit(max=0.5),
    }
    record = untimed(tmp_path, {"float": 0, "int8": 0}, gates=gates, figures=figures)
    assert verdicts(record) == {
        "top1 max_drop": "pass",
        "latency_p99_ms max": "pass",
        "latency_p50_ms max": "fail",
        "latency_ratio max": "pass",
    }
    assert {v.gate: v.method for v in record.verdicts}["latency_ratio max"] == "estimated"
    ratio = record.candidate("int8").measurement("latency_ratio")
    assert ratio is not None
    assert ratio.value == 0.25
    refused = untimed(tmp_path / "b", {"float": 0, "int8": 0}, gates=gates, figures=figures, accept=("simulated",))
    assert verdicts(refused)["latency_p99_ms max"] == "not_measured"


@pytest.mark.parametrize(("limit", "expected"), [(1.0, "fail"), (3.0, "inconclusive"), (1e9, "inconclusive")])
def test_a_lower_bound_never_passes(tmp_path: Path, limit: float, expected: str) -> None:
    """Where operators stay on the CPU the latency of the NPU says nothing about what they take."""
    figures = {"float": [ESTIMATE], "int8": [replace(ESTIMATE, at_least=True)]}
    gates = {name: Limit(max=limit) for name in ("latency_p50_ms", "latency_p99_ms")}
    gates |= {"top1": Limit(max_drop=0.02), "latency_ratio": Limit(max=limit / 2)}
    record = untimed(tmp_path, {"float": 0, "int8": 0}, gates=gates, figures=figures)
    judged = verdicts(record)
    assert judged.pop("top1 max_drop") == "pass"
    assert set(judged) == {"latency_p50_ms max", "latency_p99_ms max", "latency_ratio max"}
    assert set(judged.values()) == {expected}
    for metric, value in (("latency_p50_ms", 2.0), ("latency_p99_ms", 2.0), ("latency_ratio", 1.0)):
        shown = record.candidate("int8").measurement(metric)
        assert shown is not None
        assert (shown.value, shown.interval) == (value, (value, None))


def test_a_ratio_to_a_lower_bound_is_an_upper_one(tmp_path: Path) -> None:
    figures = {"float": [replace(ESTIMATE, value=8.0, at_least=True)], "int8": [ESTIMATE]}
    gates = {"latency_ratio": Limit(max=0.3), "latency_p50_ms": Limit(max=3)}
    record = untimed(tmp_path, {"float": 0, "int8": 0}, gates=gates, figures=figures)
    assert verdicts(record) == {"latency_ratio max": "pass", "latency_p50_ms max": "pass"}
    ratio = record.candidate("int8").measurement("latency_ratio")
    assert ratio is not None
    assert ratio.interval == (None, 0.25)
    both = {name: [replace(ESTIMATE, at_least=True)] for name in ("float", "int8")}
    record = untimed(tmp_path / "b", {"float": 0, "int8": 0}, gates=gates, figures=both)
    assert verdicts(record) == {"latency_ratio max": "inconclusive", "latency_p50_ms max": "inconclusive"}


def test_figures_of_the_toolkit_are_gated_under_their_own_names(tmp_path: Path) -> None:
    figures = {"int8": [Figure("sram_mib", 0.25, "MiB", "estimated", "vela")]}
    gates = {"top1": Limit(max_drop=0.02), "sram_mib": Limit(max=0.2), "arena_mib": Limit(max=1)}
    record = untimed(tmp_path, {"float": 0, "int8": 0}, gates=gates, figures=figures)
    assert verdicts(record)["sram_mib max"] == "fail"
    assert verdicts(record)["arena_mib max"] == "not_measured"


def test_what_is_aside_is_not_part_of_the_size(tmp_path: Path) -> None:
    record = untimed(tmp_path, {"float": 0, "int8": 0})
    size = record.candidate("int8").measurement("size_mib")
    assert size is not None
    assert size.value == 1000 / 2**20


def test_a_device_that_runs_no_float_is_timed_without_it(tmp_path: Path) -> None:
    made, agent = contest(tmp_path, {"float": 1e6, "int8": 4e5}, {}, measure={"min_seconds": 1, "max_seconds": 1})
    made = replace(
        made,
        plan=replace(made.plan, candidates=tuple(_ships(c, False) for c in made.plan.candidates)),
    )
    record, samples = made.run()
    assert set(samples) == {"int8"}
    assert all("float" not in names for names in agent.timed)
    assert record.shipped == "int8"
    ratio = record.candidate("int8").measurement("latency_ratio")
    assert ratio is not None
    assert (ratio.value, ratio.why) == (None, "the device cannot run the float baseline")
    latency = record.candidate("int8").measurement("latency_p50_ms")
    assert latency is not None
    assert latency.value == pytest.approx(0.4, rel=0.1)


def test_the_contest_asks_no_device(tmp_path: Path) -> None:
    made, _ = contest(tmp_path, {"float": 1e6, "int8": 1e6}, device={"access": "none"})
    asked = replace(made, connect=lambda: pytest.fail("there is no device"))
    assert isinstance(asked, Contest)
    asked.run()


def test_where_a_compiled_file_runs_is_a_fact_and_says_who_told_it(tmp_path: Path) -> None:
    gates = {"fallback_macs": Limit(max=0.0), "fallback_operators": Limit(max=0.1)}
    record = untimed(tmp_path, {"float": 0, "int8": 0}, gates=gates, accept=())
    decided = {one.gate: one for one in record.verdicts if one.gate.startswith("fallback")}
    assert sorted(one.outcome for one in decided.values()) == ["fail", "pass"]
    found = {m.metric: m for m in record.candidates[0].measurements if m.metric in placement.METRICS}
    assert [(m.value, m.method) for m in found.values()] == [(0.0, "measured"), (0.5, "measured")]
    assert {m.why for m in found.values()} == {"told by the toolkit, no device was asked"}
