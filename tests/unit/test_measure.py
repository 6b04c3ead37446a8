from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeopt.access import local
from edgeopt.errors import StageError
from edgeopt.measure import Candidate, Measurement, compare, latencies, measure, peak_memory_mib
from edgeopt.protocol import Protocol
from edgeopt.statistics import samples_needed

QUICK = Protocol(percentile=90, min_seconds=0, min_runs=1, max_seconds=60, warmup_seconds=0, warmup_runs=2)


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> list[Candidate]:
    """Two chains of matrix products, one much longer, on two runtimes."""
    made = []
    for name, runtime, length in (("small", "onnxruntime", 1), ("large", "openvino", 40)):
        names = [f"t{index}" for index in range(length + 1)]
        nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in pairwise(names)]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, [1, 256])],
            [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, [1, 256])],
            [numpy_helper.from_array(np.eye(256, dtype=np.float32), "w")],
        )
        path = tmp_path_factory.mktemp(name) / "m.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
        made.append(Candidate(name, runtime, str(path)))
    return made


TO_LARGE = {"small": "large", "large": "large"}
INPUTS = [np.ones((4, 256), np.float32)]


def test_candidates_are_measured_together(candidates: list[Candidate]) -> None:
    with local.start() as agent:
        results = measure(agent, candidates, INPUTS, QUICK, TO_LARGE, machine="here", seed=0)
        before = {name: timed.samples_ns for name, timed in results.items()}
        more = measure(
            agent, candidates, INPUTS, QUICK, TO_LARGE, machine="here", seed=1, earlier=before
        )  # the names are free again
    assert set(results) == set(more) == {"small", "large"}
    by_metric = {name: {m.metric: m for m in timed.measurements} for name, timed in results.items()}
    shared = {"load_ms", "first_inference_ms", "latency_p50_ms", "latency_p90_ms", "latency_p99_ms"}
    shared |= {"latency_ratio", "latency_ratio_p10"}
    assert set(by_metric["small"]) == shared
    assert set(by_metric["large"]) == shared | {"latency_ratio_noise"}

    assert len(results["small"].samples_ns) == len(results["large"].samples_ns) == samples_needed(0.9)
    p90 = by_metric["small"]["latency_p90_ms"]
    assert p90.value is not None
    assert p90.interval is not None
    assert p90.interval[0] <= p90.value <= p90.interval[1]
    assert p90.value == np.sort(results["small"].samples_ns)[32] / 1e6
    assert by_metric["small"]["latency_p99_ms"].value is None
    assert by_metric["small"]["latency_p99_ms"].why == "36 samples; p99 needs 368"
    for name, timed in more.items():
        assert len(timed.samples_ns) == 72
        assert (timed.samples_ns[:36] == before[name]).all()
        assert {m.n for m in timed.measurements if m.metric == "latency_p50_ms"} == {72}
    ratio = by_metric["small"]["latency_ratio"]
    assert ratio.value is not None
    assert ratio.value < 1
    assert by_metric["large"]["latency_ratio"].interval == (1, 1)
    for timed in results.values():
        for measurement in timed.measurements:
            assert measurement.protocol == QUICK.digest()
            assert measurement.machine
            assert Measurement.from_json(json.loads(json.dumps(measurement.to_json()))) == measurement


def test_a_candidate_that_does_not_open_is_a_stage_error(candidates: list[Candidate], tmp_path: Path) -> None:
    broken = Candidate("broken", "openvino", str(tmp_path / "nothing.xml"))
    with local.start() as agent:
        with pytest.raises(StageError, match=r"nothing\.xml"):
            measure(
                agent, [*candidates, broken], INPUTS, QUICK, {**TO_LARGE, "broken": "large"}, machine="here", seed=0
            )
        assert measure(
            agent, candidates[:1], INPUTS, QUICK, {"small": "small"}, machine="here", seed=0
        )  # nothing was left open
        with pytest.raises(ValueError, match="unlike"):
            measure(agent, candidates + candidates, INPUTS, QUICK, TO_LARGE, machine="here", seed=0)
        with pytest.raises(ValueError, match="a baseline among them"):
            measure(agent, candidates[:1], INPUTS, QUICK, {"small": "large"}, machine="here", seed=0)


def test_peak_memory_is_that_of_a_fresh_agent(candidates: list[Candidate]) -> None:
    measurement = peak_memory_mib(local.start, candidates[0], INPUTS, QUICK, "here")
    assert measurement.metric == "peak_memory_mib"
    assert measurement.value is not None
    assert 10 < measurement.value < 2000
    assert measurement.interval is None


def test_no_percentile_is_asked_for_that_the_runs_cannot_support() -> None:
    assert Protocol(percentile=99, min_runs=1).limits().min_runs == 368
    assert Protocol(percentile=50, min_runs=200).limits().min_runs == 200


def test_the_protocols_own_percentile_is_reported() -> None:
    metrics = [m.metric for m in latencies(np.arange(1, 500), replace(QUICK, percentile=99.9), "here")]
    assert metrics == ["latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "latency_p99.9_ms"]


def test_too_few_rounds_give_no_ratio() -> None:
    ratio, low = compare(np.arange(1, 11), np.arange(1, 11), QUICK, "here", seed=0)
    assert ratio.value is low.value is None
    assert ratio.why == "10 rounds are too few for an interval"
