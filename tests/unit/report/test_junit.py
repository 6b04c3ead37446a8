from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from edgeopt.report import junit

_COMPLAINTS = ("failure", "error", "skipped")


def _cases(text: str) -> dict[tuple[str, str], str]:
    """(classname, name) -> ``pass``, or the type of the complaint."""
    found = {}
    for case in ElementTree.fromstring(text).iter("testcase"):
        complaints = [
            f"{child.tag} {child.get('type')}" for child in case if child.tag in ("failure", "error", "skipped")
        ]
        found[case.get("classname"), case.get("name")] = " ".join(complaints) or "pass"
    return found


def test_one_case_per_gate_and_only_a_pass_is_green(record, samples):
    cases = _cases(junit.render(record, samples))
    assert len(cases) == 11
    assert cases["digits.cpu", "top1 min"] == "pass"
    assert cases["digits.cpu-onnxruntime", "latency_p99_ms max"] == "failure fail"
    assert cases["digits.cpu", "top1 max_drop"] == "error inconclusive"
    assert cases["digits.cpu", "power_mw max"] == "error not_measured"
    assert cases["digits.cpu-openvino", "peak_memory_mib max"] == "skipped waived"
    assert cases["digits.jetson", "served"] == "error error"


def test_the_counts_are_those_of_the_cases(record, samples):
    root = ElementTree.fromstring(junit.render(record, samples))
    counts = [(e.get("tests"), e.get("failures"), e.get("errors")) for e in (root, *root.findall("testsuite"))]
    assert counts == [("11", "1", "3"), ("4", "0", "0"), ("3", "1", "0"), ("3", "0", "2"), ("1", "0", "1")]


def test_a_run_that_did_not_pass_is_never_all_green(passing, samples):
    assert set(_cases(junit.render(passing, samples)).values()) == {"pass"}
    for outcome in ("error", "inconclusive", "fail"):
        assert f"error {outcome}" in _cases(junit.render(replace(passing, outcome=outcome), samples)).values()
        assert _cases(junit.render(replace(passing, outcome=outcome, targets={}), samples))


def test_hostile_texts_are_well_formed_xml(awkward, samples):
    text = junit.render(awkward, samples)
    assert len(_cases(ElementTree.canonicalize(text.encode("utf-8").decode()))) == 4


@pytest.mark.parametrize("status", ["expired", "unused"])
def test_a_waiver_that_fails_the_run_is_a_failure(passing, record, samples, status):
    waiver = replace(record.waivers[0], status=status)
    cases = _cases(junit.render(replace(passing, outcome="fail", exit_code=1, waivers=(waiver,)), samples))
    assert cases["digits.waivers", f"{waiver.gate} on {waiver.target}"] == f"failure {status}"
    assert "error fail" not in cases.values()


def test_a_waived_gate_says_who_waived_it_and_why(record, samples):
    (skipped,) = ElementTree.fromstring(junit.render(record, samples)).iter("skipped")
    message = skipped.get("message")
    for part in (record.waivers[0].by, record.waivers[0].reason, record.waivers[0].until, "WAIVED"):
        assert part in message
