"""Gates of a product with several evaluation sets."""

from __future__ import annotations

from edgeopt.reading import _on_sets
from edgeopt.verdict import Gate


def test_a_gate_of_one_set_replaces_the_general_one_there_and_no_name_is_there_twice():
    gates = (Gate("acer", "max", 0.1), Gate("acer[outdoor]", "max", 0.02), Gate("size_mib", "max", 1.0))
    found = _on_sets(gates, ("indoor", "outdoor"))
    assert {gate.name: gate.limit for gate in found} == {
        "acer[indoor] max": 0.1,
        "acer[outdoor] max": 0.02,
        "size_mib max": 1.0,
    }
    assert len(found) == 3
    assert _on_sets(gates[:1], ()) == gates[:1]
