"""The parity stage: which decisions, how outputs were had, and outputs that cannot be compared."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from edgeopt import parity, verdict
from edgeopt.artifact import Artifact
from edgeopt.data import Split
from edgeopt.errors import StageError
from edgeopt.measure import Measurement
from edgeopt.recipe import MetricSpec
from edgeopt.stage import StageContext
from edgeopt.stages.parity import Parity, ParityParams
from edgeopt.verdict import Gate

COUNT = 400
TOP1 = MetricSpec(name="top1")


@pytest.fixture
def bench(tmp_path):
    """Runs the stage on planted outputs: ``bench(own, reference, metrics, ...)`` gives its measurements by name."""

    def planted(role: str, values: np.ndarray, **meta: str) -> Artifact:
        folder = tmp_path / role
        folder.mkdir()
        np.save(folder / "outputs.npy", values)
        known = {"n": len(values), "broken": "", "not_run": "", "method": "measured", "how": ""} | meta
        return Artifact("outputs", hashlib.sha256(role.encode()).hexdigest(), folder, {}, known)

    def run(own, reference, specs=(TOP1,), *, select=None, columns=None, own_meta=None, **meta):
        inputs = {
            "outputs": planted("outputs", own, **(own_meta or {})),
            "reference": planted("reference", reference, **meta),
        }
        if select is not None:
            inputs["reference_select"] = planted("reference_select", select)
        samples = np.zeros((len(reference), 2), np.uint8)
        split = Split("select", samples, None, "0" * 64, columns or {})
        out = tmp_path / "out"
        out.mkdir()
        context = StageContext(
            out=out, root=tmp_path, seed=7, data={"select": split}, progress=lambda *_: None, agent=None, host=None
        )
        output = Parity().run(inputs, ParityParams(metrics=specs, split="evaluate"), context)
        found = json.loads(json.dumps(output.meta["metrics"], allow_nan=False))
        return {name: Measurement.from_json(raw) for name, raw in found.items()}

    return run


def logits(seed: int = 0, width: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((COUNT, width)).astype(np.float32)


def test_a_network_against_itself(bench):
    found = bench(logits(), logits())
    assert list(found) == list(parity.METRICS)
    assert {name: m.better for name, m in found.items()} == parity.METRICS
    values = {name: m.value for name, m in found.items()}
    assert values == {
        "sqnr_db": parity.SQNR_LIMIT_DB,
        "output_cosine": pytest.approx(1),
        "output_cosine_p1": pytest.approx(1),
        "max_abs_error": 0,
        "decision_agreement": 1,
    }
    assert {m.method for m in found.values()} == {"measured"}


def test_a_gate_on_the_largest_error_is_decided_on_these_samples(bench):
    own = logits()
    own[5, 1] += 0.5
    error = bench(own, logits())["max_abs_error"]
    assert error.interval is None
    assert verdict.decide(Gate("max_abs_error", "max", 0.51), error).outcome == "pass"
    assert verdict.decide(Gate("max_abs_error", "max", 0.49), error).outcome == "fail"


def test_numbers_of_simulated_outputs_say_so(bench):
    found = bench(logits() + 0.01, logits(), own_meta={"method": "simulated", "how": "x86 simulator of the HTP"})
    assert {m.method for m in found.values()} == {"simulated"}
    assert all("x86 simulator of the HTP" in m.why for m in found.values())


def test_a_threshold_is_that_of_the_float_network(bench):
    """Scores near the threshold flip, whatever their sign; the threshold comes from select."""
    scores = np.linspace(0, 1, COUNT, dtype=np.float32)[:, None]
    attack = np.where(scores[:, 0] > 0.6, "print", "")
    spec = (MetricSpec(name="acer"),)
    own = scores + np.float32(0.05)
    found = bench(own, scores, spec, select=scores, columns={"attack": attack})
    assert found["decision_agreement"].value == pytest.approx(0.95, abs=0.003)
    assert found["decision_agreement"].why == "decisions of acer"
    assert found["output_cosine"].value is None


def test_without_select_a_fitted_threshold_is_not_known(bench):
    scores = np.linspace(0, 1, COUNT, dtype=np.float32)[:, None]
    found = bench(scores, scores, (MetricSpec(name="acer"),))
    assert found["decision_agreement"].value is None
    assert found["sqnr_db"].value == parity.SQNR_LIMIT_DB


def test_embeddings_are_compared_by_their_neighbours(bench):
    found = bench(logits(), logits(), (MetricSpec(name="eer"),), columns={"identity": np.arange(COUNT) // 4})
    assert found["decision_agreement"].value == 1
    assert "nearest neighbours" in found["decision_agreement"].why


def test_a_broken_network_fails_its_gates(bench):
    found = bench(logits() * np.nan, logits(), own_meta={"broken": "it gives NaN"})
    assert all(m.broken and m.value is None and m.why == "it gives NaN" for m in found.values())


@pytest.mark.parametrize(("meta", "why"), [({"broken": "NaN"}, "NaN"), ({"not_run": "no kernel"}, "no kernel")])
def test_without_a_reference_nothing_is_measured(bench, meta, why):
    found = bench(logits(), logits(), **meta)
    assert all(m.value is None and not m.broken and why in m.why for m in found.values())


def test_what_did_not_run_is_not_measured(bench):
    found = bench(logits(), logits(), own_meta={"not_run": "nothing here runs it"})
    assert all(m.value is None and not m.broken for m in found.values())


def test_outputs_of_another_shape_are_refused(bench):
    with pytest.raises(StageError, match=r"\[400, 3\].*\[400, 4\]"):
        bench(logits(width=3), logits())
