"""One target's contest with planted latencies: what ships, how often it looks, what it judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt import access, verdict
from edgeopt.artifact import Artifact, Store
from edgeopt.contest import LOOKS, Contest, Evaluated
from edgeopt.data import Split
from edgeopt.errors import StageError
from edgeopt.metrics import drop, score
from edgeopt.metrics.classification import TopK
from edgeopt.plan import Candidate, TargetPlan
from edgeopt.recipe import Limit
from edgeopt.target import Target

ROUNDS = 600
LABELS = np.arange(1000) % 4


@dataclass
class PlantedAgent:
    """Stands in for a device whose latencies are known: name -> median in ns, with 5 % of common noise."""

    medians: Mapping[str, float]
    flags: tuple[str, ...] = ("avx2",)
    timed: list[list[str]] = field(default_factory=list)

    def __enter__(self) -> PlantedAgent:
        return self

    def __exit__(self, *_: object) -> None: ...

    def probe(self) -> access.Facts:
        return access.Facts("0", "3", 1, access.Machine("planted", self.flags, 2, 1024, "none"), {}, {})

    def open(self, name: str, runtime: str, path: str, **_: Any) -> access.Opened:
        return access.Opened(name, (), (), 1.0, 1)

    def close(self, name: str) -> None: ...

    def infer(self, name: str, inputs: Sequence[Any], **_: Any) -> list[Any]:
        return []

    def memory(self) -> access.Memory:
        return access.Memory(50.0, 40.0)

    def time(self, names: Sequence[str], inputs: Any, limits: access.Limits, *, seed: int, **_: Any) -> access.Timing:
        self.timed.append(list(names))
        random = np.random.default_rng(seed)
        common = 1 + 0.05 * random.random(ROUNDS)
        samples = {
            name: (self.medians[name.removesuffix(" (again)")] * common * (1 + 0.02 * random.random(ROUNDS))).astype(
                int
            )
            for name in names
        }
        return access.Timing(
            samples_ns=samples,
            call_overhead_ns={},
            first_inference_ns=dict.fromkeys(names, 1),
            seconds=1.0,
            warmup=access.Warmup(True, 30, 0.3, ()),
            clock=access.Clock("planted", 1, 1, 50),
            before=access.Condition(at_s=0.0),
            after=access.Condition(at_s=1.0),
        )


def outputs(wrong: int) -> np.ndarray:
    """Logits that are right but for the first ``wrong`` samples."""
    logits = np.eye(4, dtype=np.float32)[LABELS]
    logits[:wrong] = logits[:wrong, ::-1]
    return logits


def scores(store: Store, wrong: int, split: str) -> Artifact:
    values, settings = outputs(wrong), {"confidence": 0.95, "seed": 0}
    taken = (
        score(TopK(1), values, LABELS, **settings),
        drop(TopK(1), TopK(1), values, outputs(0), LABELS, **settings),
    )
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
    assert len(agent.timed) == 1
    assert all(len(values) == ROUNDS for values in samples.values())
    ratio = target.candidate("int8").measurement("latency_ratio")
    assert ratio is not None
    assert ratio.value == pytest.approx(0.4, rel=0.01)


def test_a_fast_candidate_that_is_wrong_does_not_ship(tmp_path: Path) -> None:
    made, _ = contest(tmp_path, {"float": 1e6, "pruned": 7e5, "int8": 4e5}, {"int8": 60})
    target, _ = made.run()
    assert target.shipped == "pruned"
    assert "accuracy does not hold" in target.candidate("int8").rejected


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


def test_equal_speed_is_no_gain_and_is_looked_at_again_within_the_budget(tmp_path: Path) -> None:
    made, agent = contest(
        tmp_path, {"float": 1e6, "int8": 1e6}, measure={"min_seconds": 1.0, "max_seconds": 9.0, "min_runs": 10}
    )
    target, samples = made.run()
    assert target.shipped == "float"
    assert len(agent.timed) == LOOKS
    assert len(samples["int8"]) == LOOKS * ROUNDS
    assert "no measured gain" in target.candidate("int8").rejected


def test_the_budget_ends_the_looking(tmp_path: Path) -> None:
    made, agent = contest(
        tmp_path, {"float": 1e6, "int8": 1e6}, measure={"min_seconds": 1.0, "max_seconds": 1.0, "min_runs": 10}
    )
    made.run()
    assert len(agent.timed) == 1


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


def test_a_device_without_the_claimed_vnni_is_refused(tmp_path: Path) -> None:
    claim = {"device": {"features": ("vnni",)}}
    made, _ = contest(tmp_path, {"float": 1e6}, **claim)
    with pytest.raises(StageError, match="does not report it"):
        made.run()
    made, _ = contest(tmp_path, {"float": 1e6}, flags=("avx2", "avx512_vnni"), **claim)
    assert made.run()[0].shipped == "float"
