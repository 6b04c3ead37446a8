from __future__ import annotations

import json

from edgeopt.measure import Measurement, bounded, exact, single
from edgeopt.protocol import Protocol
from edgeopt.statistics import Estimate

PROTOCOL = Protocol(confidence=0.9)


def test_a_measurement_survives_json() -> None:
    for measurement in (
        exact("size_mib", 1.5, "MiB"),
        single("load_ms", None, "ms", PROTOCOL, "here", "nobody looked"),
        bounded("latency_p50_ms", "ms", Estimate(1.0, (0.9, None)), 5, PROTOCOL, "here", "too few"),
    ):
        assert Measurement.from_json(json.loads(json.dumps(measurement.to_json()))) == measurement


def test_a_bound_that_is_missing_takes_the_value_away() -> None:
    known = bounded("latency_p50_ms", "ms", Estimate(1.0, (0.9, 1.1)), 5, PROTOCOL, "here", "too few")
    assert (known.value, known.interval, known.confidence, known.why) == (1.0, (0.9, 1.1), 0.9, "")
    assert known.protocol == PROTOCOL.digest()
    unknown = bounded("latency_p50_ms", "ms", Estimate(1.0, (0.9, None)), 5, PROTOCOL, "here", "too few")
    assert (unknown.value, unknown.interval, unknown.why) == (None, (0.9, None), "too few")


def test_a_reading_that_is_missing_counts_no_samples() -> None:
    assert single("load_ms", None, "ms", PROTOCOL, "here", "nobody looked").n == 0
    assert single("load_ms", 3.0, "ms", PROTOCOL, "here").n == 1
