"""One target's contest with planted latencies: what ships, how often it looks, what it judges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt import access, verdict
from edgeopt.artifact import Artifact, Store
from edgeopt.contest import Contest, Evaluated
from edgeopt.data import Split
from edgeopt.errors import StageError
from edgeopt.metrics import drop, score
from edgeopt.metrics.classification import TopK
from edgeopt.plan import Candidate, TargetPlan
from edgeopt.recipe import Limit
from edgeopt.target import Target

ROUNDS = 600

#: sessions before the first and at the last look, with the target's default seconds
FIRST, LAST = 4, 20
LABELS = np.arange(1000) % 4


@dataclass
class PlantedAgent:
    """Stands in for a device whose latencies are known: name -> median in ns, with 5 % of common noise.

    ``openings`` is how far, relatively, two openings of one model lie apart.
    """

    medians: Mapping[str, float]
    flags: tuple[str, ...] = ("avx2",)
    unsteady: tuple[str, ...] = ()
    openings: float = 0.0
    power_mode: str = ""
    mode_while_timing: tuple[str | None, str | None] = (None, None)
    rails: list[Sequence[str]] = field(default_factory=list)
    timed: list[list[str]] = field(default_factory=list)

    def __enter__(self) -> PlantedAgent:
        return self

    def __exit__(self, *_: object) -> None: ...

    def probe(self) -> access.Facts:
        machine = access.Machine("planted", self.flags, 2, 1024, "none", power_mode=self.power_mode)
        return access.Facts("0", "3", 1, machine, {}, {})

    def open(self, name: str, runtime: str, path: str, **_: Any) -> access.Opened:
        return access.Opened(name, (), (), 1.0, 1)

    def close(self, name: str) -> None: ...

    def infer(self, name: str, inputs: Sequence[Any], **_: Any) -> list[Any]:
        return []

    def memory(self) -> access.Memory:
        return access.Memory(50.0, 40.0)

    def runtime_memory(self, name: str, inputs: Any) -> access.RuntimeMemory:
        return access.RuntimeMemory(None, "the planted runtime does not tell")

    def energy(self, names: Sequence[str], inputs: Any, rails: Sequence[str] = (), **_: Any) -> access.Energy:
        self.rails.append(rails)
        return access.Energy({}, "", "no counters here")

    def time(self, names: Sequence[str], inputs: Any, limits: access.Limits, *, seed: int, **_: Any) -> access.Timing:
        self.timed.append(list(names))
        random = np.random.default_rng(seed)
        common = 1 + 0.05 * random.random(ROUNDS)
        samples = {
            name: (
                self.medians[name.removesuffix(" (again)")]
                * math.exp(self.openings * random.normal())
                * common
                * (1 + 0.02 * random.random(ROUNDS))
            ).astype(int)
            for name in names
        }
        return access.Timing(
            samples_ns=samples,
            call_overhead_ns={},
            first_inference_ns=dict.fromkeys(names, 1),
            seconds=1.3,
            warmup=access.Warmup(not self.unsteady, 30, 0.3, self.unsteady),
            clock=access.Clock("planted", 1, 1, 50),
            before=access.Condition(at_s=0.0, power_mode=self.mode_while_timing[0]),
            after=access.Condition(at_s=1.0, power_mode=self.mode_while_timing[1]),
        )


def outputs(wrong: int) -> np.ndarray:
    """Logits that are right but for the first ``wrong`` samples."""
    logits = np.eye(4, dtype=np.float32)[LABELS]
    logits[:wrong] = logits[:wrong, ::-1]
    return logits


def scores(store: Store, wrong: int | None, split: str) -> Artifact:
    """``None``: of a network that gives NaN, as the stage `score` has it."""
    values, settings = outputs(wrong or 0), {"confidence": 0.95, "seed": 0}
    taken = (
        score(TopK(1), values, LABELS, **settings),
        drop(TopK(1), TopK(1), values, outputs(0), LABELS, **settings),
    )
    if wrong is None:
        taken = tuple(replace(m, value=None, interval=None, why="it gives NaN", broken=True) for m in taken)
    with store.scratch() as out:
        np.save(out / "decisions.npy", values.argmax(1))
        np.save(out / "right.npy", (values.argmax(1) == LABELS).astype(np.int8))
        return store.put("scores", out, {"split": split, "metrics": {m.metric: m.to_json() for m in taken}})


def compiled(store: Store, name: str, size: int) -> Artifact:
    with store.scratch() as out:
        (out / "model.onnx").write_bytes(name.encode() + bytes(size))
        return store.put("ort-model", out, {"file": "model.onnx", "placement": {"u8": 1}})


def contest(
    tmp_path: Path,
    latencies: Mapping[str, float],
    wrong: Mapping[str, int] | None = None,
    *,
    gates: Mapping[str, Limit] | None = None,
    flags: tuple[str, ...] = ("avx2",),
    sizes: Mapping[str, int] | None = None,
    **target: Any,
) -> tuple[Contest, PlantedAgent]:
    store, wrong = Store(tmp_path / "store"), wrong or {}
    names = {"float": ("float", 0), "pruned": ("float", 1), "int8": ("int8", 2)}
    profile = Target.model_validate({"target": 1, "name": "t", "runtime": "onnxruntime", **target})
    candidates = tuple(
        Candidate(name, "onnxruntime", names[name][0], names[name][1], name != "float", "", "", "")
        for name in latencies
    )
    limits = {"top1": Limit(max_drop=0.02)} if gates is None else gates
    judged = verdict.gates_of(limits)
    accuracy = tuple(gate for gate in judged if gate.metric == "top1")
    planned = TargetPlan(profile, tmp_path / "t.yaml", judged, accuracy, candidates)
    samples = np.zeros((len(LABELS), 2), np.float32)
    agent = PlantedAgent(latencies, flags)
    made = Contest(
        plan=planned,
        private=False,
        seed=3,
        splits={name: Split(name, samples, LABELS, "") for name in ("select", "evaluate")},
        evaluated={
            name: Evaluated(
                compiled(store, name, (sizes or {}).get(name, 100_000 if name == "float" else 10_000)),
                scores(store, wrong.get(name, 0), "select"),
                scores(store, wrong.get(name, 0), "evaluate"),
            )
            for name in latencies
        },
        connect=lambda: agent,  # type: ignore[arg-type,return-value]
        progress=lambda done, total, note: None,
    )
    return made, agent


def test_the_fastest_whose_accuracy_holds_ships(tmp_path: Path) -> None:
    made, agent = contest(tmp_path, {"float": 1e6, "pruned": 7e5, "int8": 4e5})
    target, samples = made.run()
    assert target.shipped == "int8"
    assert len(agent.timed) == FIRST
    assert all(len(values) == FIRST * ROUNDS for values in samples.values())
    ratio = target.candidate("int8").measurement("latency_ratio")
    assert ratio is not None
    assert ratio.value == pytest.approx(0.4, rel=0.01)


def test_a_fast_candidate_that_is_wrong_does_not_ship(tmp_path: Path) -> None:
    made, _ = contest(tmp_path, {"float": 1e6, "pruned": 7e5, "int8": 4e5}, {"int8": 60})
    target, _ = made.run()
    assert target.shipped == "pruned"
    assert "accuracy does not hold" in target.candidate("int8").rejected


def test_a_float_baseline_that_gives_nan_on_select_fails_its_gates(tmp_path: Path) -> None:
    """It is all there is to ship, and right on each sample of `evaluate`."""
    made, _ = contest(tmp_path, {"float": 1e6}, gates={"top1": Limit(min=0.5), "size_mib": Limit(max=1.0)})
    whole = made.evaluated["float"]
    made.evaluated = {"float": replace(whole, select=scores(Store(tmp_path / "store"), None, "select"))}
    target, _ = made.run()
    judged = {verdict.metric: verdict for verdict in target.verdicts}
    assert target.shipped == "float"
    assert judged["top1"].outcome == "fail"
    assert "NaN" in judged["top1"].why
    assert judged["top1"].value is None
    assert judged["size_mib"].outcome == "pass"


def test_an_undecided_accuracy_does_not_ship_either(tmp_path: Path) -> None:
    """15 of 1000 lost: the interval of the drop holds 0.02."""
    made, _ = contest(tmp_path, {"float": 1e6, "int8": 4e5}, {"int8": 15})
    target, _ = made.run()
    assert target.shipped == "float"
    assert "straddles 0.02" in target.candidate("int8").rejected


def test_int8_that_is_slower_does_not_ship(tmp_path: Path) -> None:
    made, _ = contest(tmp_path, {"float": 1e6, "pruned": 7e5, "int8": 9e5})
    target, _ = made.run()
    assert target.shipped == "pruned"


BUDGET = {"min_seconds": 1.0, "max_seconds": 9.0, "min_runs": 10}


def test_equal_speed_is_no_gain_and_is_soon_seen(tmp_path: Path) -> None:
    made, agent = contest(tmp_path, {"float": 1e6, "int8": 1e6}, measure=BUDGET)
    target, _ = made.run()
    assert target.shipped == "float"
    assert len(agent.timed) == FIRST
    assert "no measured gain" in target.candidate("int8").rejected


def test_what_is_not_clear_is_looked_at_again_within_the_budget(tmp_path: Path) -> None:
    made, agent = contest(tmp_path, {"float": 1e6, "int8": 1e6}, measure=BUDGET)
    agent.openings = 0.05
    target, samples = made.run()
    assert target.shipped == "float"
    assert len(agent.timed) == LAST
    assert len(samples["int8"]) == LAST * ROUNDS
    assert target.family == {"gates": 1, "level": 0.95, "looks": 4}
    assert target.protocol["looks"] == 4
    assert target.protocol["sessions"] == [ROUNDS] * LAST


def test_the_budget_ends_the_looking(tmp_path: Path) -> None:
    made, agent = contest(tmp_path, {"float": 1e6, "int8": 1e6}, measure={**BUDGET, "max_seconds": 1.0})
    agent.openings = 0.05
    target, _ = made.run()
    assert len(agent.timed) == FIRST
    assert target.protocol["looks"] == 1


@pytest.mark.parametrize(
    ("limit", "outcome"),
    [
        ({"latency_p90_ms": Limit(max=0.2)}, "inconclusive"),
        ({"latency_p90_ms": Limit(max=5.0)}, "pass"),
        ({"latency_ratio": Limit(max=0.3)}, "fail"),
        ({"size_mib": Limit(max=0.001)}, "fail"),
    ],
)
def test_a_disturbed_machine_does_not_fail_a_latency(tmp_path: Path, limit: Mapping[str, Limit], outcome: str) -> None:
    gates = {"top1": Limit(max_drop=0.02), **limit}
    made, agent = contest(tmp_path, {"float": 1e6, "int8": 4e5}, gates=gates, measure=BUDGET)
    agent.unsteady = ("int8",)
    target, _ = made.run()
    judged = {verdict.metric: verdict for verdict in target.verdicts}[next(iter(limit))]
    assert judged.outcome == outcome
    assert ("the machine was disturbed: in 4 of 4 sessions: not steady" in judged.why) == (outcome == "inconclusive")
    assert target.condition["disturbed_sessions"] == FIRST
    assert target.disturbed


def test_the_noise_floor_is_remembered_and_what_is_far_noisier_was_disturbed(tmp_path: Path) -> None:
    for seed in range(3):
        made, agent = contest(tmp_path, {"float": 1e6, "int8": 4e5}, measure=BUDGET)
        made.noise, made.seed, agent.openings = tmp_path / "noise", seed, 0.002
        target, _ = made.run()
        assert target.disturbed == ()
        assert target.protocol["noise_floor"] is None
    made, agent = contest(tmp_path, {"float": 1e6, "int8": 4e5}, measure=BUDGET)
    made.noise, agent.openings = tmp_path / "noise", 0.05
    target, _ = made.run()
    assert target.protocol["noise_floor"] < 0.01
    assert "two copies of one model differed" in target.disturbed[0]


def test_memory_energy_and_sizes_are_recorded(tmp_path: Path) -> None:
    made, _ = contest(tmp_path, {"float": 1e6, "int8": 4e5}, measure=BUDGET)
    target, _ = made.run()
    values = {m.metric: m for m in target.candidate("int8").measurements}
    assert (values["peak_memory_mib"].value, values["steady_memory_mib"].value) == (50.0, 40.0)
    assert values["energy_mj"].value is values["runtime_memory_mib"].value is None
    assert values["energy_mj"].why == "no counters here"
    assert values["size_compressed_mib"].value < values["size_mib"].value  # the files are mostly zeros
    assert {values[m].protocol for m in ("latency_p50_ms", "latency_ratio", "load_ms")} == {target.protocol["digest"]}


@pytest.mark.parametrize(
    ("limit", "outcome"),
    [
        ({"size_mib": Limit(max=1.0)}, "pass"),
        ({"size_mib": Limit(max=0.001)}, "fail"),
        ({"size_mib": Limit(max_ratio=0.5)}, "pass"),
        ({"peak_memory_mib": Limit(max=50.0)}, "pass"),
        ({"peak_memory_mib": Limit(max_ratio=0.9)}, "fail"),
        ({"latency_p99_ms": Limit(max=0.2)}, "fail"),
        ({"latency_p99_ms": Limit(max=5.0)}, "pass"),
        ({"latency_ratio": Limit(max=0.5)}, "pass"),
        ({"top1": Limit(min=0.99)}, "pass"),
        ({"top1": Limit(min=1.0)}, "inconclusive"),
    ],
)
def test_gates_of_the_shipped_candidate(tmp_path: Path, limit: Mapping[str, Limit], outcome: str) -> None:
    gates = {"top1": Limit(max_drop=0.02), **limit}
    made, _ = contest(tmp_path, {"float": 1e6, "int8": 4e5}, gates=gates, measure={"max_seconds": 2.0})
    target, _ = made.run()
    judged = {verdict.metric: verdict.outcome for verdict in target.verdicts}
    assert judged[next(iter(limit))] == outcome


@pytest.mark.parametrize(("limit", "shipped"), [(0.05, "float"), (0.0001, "int8")])
def test_a_budget_chooses_unless_nobody_meets_it(tmp_path: Path, limit: float, shipped: str) -> None:
    """The INT8 file is the larger one here: 0.1 MiB against 0.01."""
    gates = {"top1": Limit(max_drop=0.02), "size_mib": Limit(max=limit)}
    made, _ = contest(tmp_path, {"float": 1e6, "int8": 4e5}, gates=gates, sizes={"float": 10_000, "int8": 100_000})
    target, _ = made.run()
    assert target.shipped == shipped
    assert ("over budget" in target.candidate("int8").rejected) == (shipped == "float")


def test_a_device_that_lies_about_its_power_mode_is_refused(tmp_path: Path) -> None:
    made, agent = contest(tmp_path, {"float": 1e6}, device={"power_mode": "15W", "rails": ("VDD_IN",)})
    for said, told in (("MAXN", "MAXN"), ("", "none")):
        agent.power_mode = said
        with pytest.raises(StageError, match=f"the target says that .* power mode is 15W, the device says {told}"):
            made.run()
    agent.power_mode = "15W"
    for before, after, told in (("MAXN", "15W", "MAXN"), ("15W", "MAXN", "MAXN"), (None, None, "none")):
        agent.mode_while_timing = before, after
        with pytest.raises(StageError, match=f"the target says that .* power mode is 15W, the device says {told}"):
            made.run()
    agent.mode_while_timing = "15W", "15W"
    agent.rails.clear()
    assert made.run()[0].shipped == "float"
    assert agent.rails == [("VDD_IN",)]


def test_a_device_without_the_claimed_vnni_is_refused(tmp_path: Path) -> None:
    claim = {"device": {"features": ("vnni",)}}
    made, _ = contest(tmp_path, {"float": 1e6}, **claim)
    with pytest.raises(StageError, match="does not report it"):
        made.run()
    made, _ = contest(tmp_path, {"float": 1e6}, flags=("avx2", "avx512_vnni"), **claim)
    assert made.run()[0].shipped == "float"
