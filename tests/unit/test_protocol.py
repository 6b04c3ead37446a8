from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from edgeopt.errors import ConfigError
from edgeopt.protocol import IDENTITY, Protocol, differences, machine_differences, require_equal, require_same_machine

#: field -> another value that times something else
OTHER: dict[str, Any] = {
    "runtimes": ("openvino 2",),
    "threads": 2,
    "batch": 8,
    "mode": "throughput",
    "streams": 2,
    "affinity": (0,),
    "transfers": True,
    "cuda_graph": True,
    "power_mode": "15W",
    "conditions": ("clocks locked", "weakly typed"),
    "inputs": "zeros",
    "warmup_seconds": 0.0,
    "warmup_runs": 0,
    "warmup": "none",
    "clock": "sundial",
    "agent": "0",
    "version": 1,
}


def test_what_changes_what_is_timed_is_in_the_digest() -> None:
    assert set(OTHER) == set(IDENTITY)
    digests = {replace(Protocol(), **{name: value}).digest() for name, value in OTHER.items()}
    assert len({*digests, Protocol().digest()}) == len(OTHER) + 1


def test_how_many_samples_are_taken_is_not() -> None:
    more = Protocol(percentile=50, confidence=0.9, min_seconds=1, min_runs=1, max_seconds=1000, warmup_max_seconds=1)
    assert more.digest() == Protocol().digest()
    assert differences(more, Protocol()) == []
    require_equal(more, Protocol())


def test_the_order_of_runtimes_means_nothing() -> None:
    assert Protocol(runtimes=("a 1", "b 2")).digest() == Protocol(runtimes=("b 2", "a 1")).digest()
    assert Protocol(runtimes=("a 1", "b 2")).digest() != Protocol(runtimes=("a 1", "b 3")).digest()


@pytest.mark.parametrize("name", OTHER)
def test_every_difference_is_named_with_both_values(name: str) -> None:
    other = replace(Protocol(), **{name: OTHER[name]})
    (found,) = differences(Protocol(), other)
    assert found.field == name
    assert found.a != found.b
    with pytest.raises(ConfigError, match=f"measured in different ways and cannot be compared \\({name}: "):
        require_equal(Protocol(), other)


def test_the_error_names_all_fields_with_their_values() -> None:
    before = Protocol(threads=1, runtimes=("openvino 2026.3",), affinity=(0, 1))
    after = Protocol(threads=2, runtimes=("openvino 2026.4",))
    with pytest.raises(ConfigError) as caught:
        require_equal(before, after, where="cpu-openvino")
    assert str(caught.value).splitlines()[0] == (
        "cpu-openvino: these were measured in different ways and cannot be compared "
        "(runtimes: openvino 2026.3 and openvino 2026.4; threads: 1 and 2; affinity: 0, 1 and none)"
    )


def test_a_protocol_equals_its_record() -> None:
    protocol = Protocol(runtimes=("b", "a"), affinity=(1,))
    record = json.loads(json.dumps({**asdict(protocol), "digest": protocol.digest(), "looks": 3}))
    assert differences(protocol, record) == []
    assert differences(record, {**record, "looks": 1, "min_runs": 7}) == []
    assert [found.field for found in differences(protocol, {**record, "batch": 4})] == ["batch"]


def test_a_record_that_lacks_a_field_differs() -> None:
    old = {name: value for name, value in asdict(Protocol()).items() if name not in ("mode", "clock")}
    assert [(found.field, found.b) for found in differences(Protocol(clock="c"), old)] == [
        ("mode", None),
        ("clock", None),
    ]


def test_limits_are_handed_on_and_support_the_percentile() -> None:
    limits = Protocol(percentile=50, min_runs=200, warmup_runs=3, warmup_max_seconds=7).limits()
    assert (limits.min_runs, limits.warmup_runs, limits.warmup_max_seconds) == (200, 3, 7)
    assert Protocol(percentile=99.9, min_runs=1).limits().min_runs > 1000


HERE = {"cpu": "A", "flags": ("avx2", "fma"), "cores": 2, "cpus": (0, 1), "cpu_limit": None, "memory_mib": 8000}


def test_a_machine_is_the_same_if_what_computes_is() -> None:
    """A record has lists where the agent's answer has tuples; the memory and the system may explain, not forbid."""
    stored = {**json.loads(json.dumps(HERE)), "memory_mib": 7000, "python": "3.12"}
    assert machine_differences(HERE, stored) == []
    require_same_machine(HERE, stored)


@pytest.mark.parametrize("change", [{"cpu": "B"}, {"flags": ["avx2"]}, {"cores": 1}, {"cpus": [0]}, {"cpu_limit": 1.0}])
def test_another_machine_is_refused_by_name(change: dict[str, Any]) -> None:
    (name,) = change
    with pytest.raises(ConfigError, match=f"different machines.*{name}: ") as caught:
        require_same_machine(HERE, {**HERE, **change}, where="bench/monday")
    assert "bench/monday" in str(caught.value)
    assert [d.field for d in machine_differences(HERE, {})] == ["cpu", "flags", "cores", "cpus"]


def test_a_record_without_conditions_is_one_with_none() -> None:
    """So that records from before there were any can still be compared, under the same digest."""
    old = {key: value for key, value in Protocol().identity().items() if key != "conditions"}
    assert differences(Protocol(), old) == []
    canonical = json.dumps(old, sort_keys=True, separators=(",", ":")).encode()
    assert Protocol().digest() == hashlib.sha256(canonical).hexdigest()


def test_mixed_stamps_are_refused() -> None:
    weak = replace(Protocol(), conditions=("spin wait", "weakly typed"))
    strong = replace(Protocol(), conditions=("spin wait", "strongly typed"))
    with pytest.raises(ConfigError, match="conditions: spin wait, weakly typed and spin wait, strongly typed"):
        require_equal(weak, strong)
    with pytest.raises(ConfigError, match="cuda_graph: True and False"):
        require_equal(replace(weak, cuda_graph=True), weak)


def test_another_gpu_is_another_machine_and_an_old_record_has_none() -> None:
    facts = {"cpu": "x", "flags": [], "cores": 4, "cpus": [0], "cpu_limit": None}
    assert machine_differences(facts, {**facts, "gpu": ""}) == []
    assert [d.field for d in machine_differences({**facts, "gpu": "A"}, {**facts, "gpu": "B"})] == ["gpu"]
