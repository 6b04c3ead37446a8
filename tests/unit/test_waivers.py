"""A waiver excuses one failed gate until a day, and nothing else."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt import waivers
from edgeopt.errors import ConfigError
from edgeopt.record import TargetRecord, VerdictRecord
from edgeopt.waivers import Entry, Waiver

GATES = {"cpu": ["top1 max_drop", "size_mib max"], "npu": ["top1 max_drop", "latency_p99_ms max"]}
DAY = date(2026, 3, 1)
OUTCOMES = ("pass", "fail", "inconclusive", "not_measured")

FILE = """\
waivers: 1
entries:
  - gate: size_mib max
    target: cpu
    reason: the flash of the new board is twice as large
    by: A. Person
    until: 2026-03-01
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "waivers.yaml"
    path.write_text(text)
    return path


def waiver(gate: str = "size_mib max", target: str = "cpu", until: date = DAY) -> Waiver:
    return Waiver(Entry(gate=gate, target=target, reason="why", by="who", until=until), "waivers.yaml:3:5")


def target(**outcomes: str) -> TargetRecord:
    verdicts = [
        VerdictRecord(gate.replace("__", " "), "m", 1.0, 2.0, None, outcome, "it is too large")  # type: ignore[arg-type]
        for gate, outcome in outcomes.items()
    ]
    return TargetRecord("a", "fastest", (), tuple(verdicts))


def test_a_file_is_read_with_the_place_of_every_entry(tmp_path: Path) -> None:
    path = write(tmp_path, FILE)
    (read,) = waivers.read(path, GATES)
    assert read.entry == Entry(
        gate="size_mib max",
        target="cpu",
        reason="the flash of the new board is twice as large",
        by="A. Person",
        until=date(2026, 3, 1),
    )
    assert read.where == f"{path}:3:5"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("target: cpu", "target: cpx", "4:13: the recipe has no target 'cpx' (did you mean 'cpu'?)"),
        ("gate: size_mib max", "gate: size_mb max", "3:11: target 'cpu' has no gate 'size_mb max' (did you mean"),
        ("gate: size_mib max", "gate: latency_p99_ms max", "3:11: target 'cpu' has no gate 'latency_p99_ms max'"),
        ("2026-03-01", "2026-02-30", "7:12: entries.0.until should be a valid date"),
        ("2026-03-01", "soon", "7:12: entries.0.until should be a valid date"),
        ("    by: A. Person\n", "", "3:5: missing key 'by'"),
        ("by: A. Person", "by: ''", "6:9: entries.0.by"),
        ("reason: the flash of the new board is twice as large", "reason: '  '", "5:13: entries.0.reason"),
        ("until: 2026-03-01", "until: 2026-03-01\n    up_to: much", "8:12: entries.0.up_to should be a valid number"),
        ("until: 2026-03-01", "until: 2026-03-01\n    up_to: .nan", "8:12: infinity and NaN are not allowed here"),
        ("until:", "untl:", "7:5: unknown key 'untl' (did you mean 'until'?)"),
        ("waivers: 1", "waivers: 2", "1:10: waivers should be 1, got 2"),
        ("waivers: 1", "waiver: 1", "1:1: unknown key 'waiver' (did you mean 'waivers'?)"),
    ],
)
def test_every_mistake_is_told_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in FILE
    path = write(tmp_path, FILE.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        waivers.read(path, GATES)
    assert f"{path}:{message}" in str(caught.value)


def test_all_mistakes_come_at_once_and_a_gate_is_waived_only_once(tmp_path: Path) -> None:
    entry = FILE.partition("entries:\n")[2]
    path = write(tmp_path, FILE + entry + entry.replace("cpu", "board"))
    with pytest.raises(ConfigError) as caught:
        waivers.read(path, GATES)
    assert str(caught.value).splitlines() == [
        f"{path}:8:5: 'size_mib max' on 'cpu' is waived twice",
        f"{path}:14:13: the recipe has no target 'board' (there are: cpu, npu)",
    ]


def test_the_file_given_goes_before_the_one_beside_the_recipe(tmp_path: Path) -> None:
    assert waivers.locate(tmp_path, None) is None
    assert waivers.locate(tmp_path, Path("other.yaml")) == Path("other.yaml")
    path = write(tmp_path, FILE)
    assert waivers.locate(tmp_path, None) == path
    assert waivers.locate(tmp_path, Path("other.yaml")) == Path("other.yaml")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        waivers.read(tmp_path / "none.yaml", GATES)


def test_a_waived_fail_keeps_its_reason_and_says_who_waived_it() -> None:
    before = target(size_mib__max="fail", top1__max_drop="fail")
    after = waivers.apply([waiver()], "cpu", before, DAY)
    waived, other = after.verdicts
    assert (waived.outcome, waived.why, waived.value) == ("waived", "it is too large", 2.0)
    assert waived.waiver is not None
    assert (waived.waiver.by, waived.waiver.until, waived.waiver.status) == ("who", "2026-03-01", "used")
    assert other == before.verdicts[1]
    assert [w.status for w in waivers.settle([waiver()], {"cpu": after}, DAY)] == ["used"]


@given(st.sampled_from(OUTCOMES), st.integers(-400, 400), st.sampled_from(["cpu", "npu"]))
def test_only_a_fail_on_the_target_within_the_time_is_waived(outcome: str, days: int, name: str) -> None:
    """Whatever else happens, a waiver changes nothing, and never stays without notice."""
    before = target(size_mib__max=outcome)
    one = waiver(until=DAY + timedelta(days))
    after = waivers.apply([one], name, before, DAY)
    waived = outcome == "fail" and days >= 0 and name == "cpu"
    assert (after != before) == waived
    (settled,) = waivers.settle([one], {name: after}, DAY)
    expected = (
        "not_judged"
        if name != "cpu"
        else "expired"
        if days < 0
        else {"fail": "used", "pass": "unused"}.get(outcome, "not_judged")
    )
    assert settled.status == expected


@pytest.mark.parametrize(
    ("gate", "value", "up_to", "outcome"),
    [
        ("top1 max_drop", 0.03, None, "waived"),
        ("top1 max_drop", 0.03, 0.03, "waived"),
        ("top1 max_drop", 0.031, 0.03, "fail"),
        ("top1 min", 0.90, 0.90, "waived"),
        ("top1 min", 0.89, 0.90, "fail"),
        ("latency_p99_ms max_ratio", 1.6, 1.5, "fail"),
        ("top1 max_drop", None, None, "fail"),
        ("top1 max_drop", None, 0.03, "fail"),
        ("top1 max_drop", float("nan"), None, "fail"),
    ],
)
def test_a_fail_that_nobody_decided_on_stays(gate: str, value: float | None, up_to: float | None, outcome: str) -> None:
    """A value worse than ``up_to``, or none at all, such as that of a network that gives NaN."""
    failed = VerdictRecord(gate, "m", 1.0, value, None, "fail", "it is bad")
    one = Waiver(Entry(gate=gate, target="cpu", reason="why", by="who", until=DAY, up_to=up_to), "waivers.yaml:3:5")
    after = waivers.apply([one], "cpu", TargetRecord("a", "fastest", (), (failed,)), DAY)
    assert after.verdicts[0].outcome == outcome
    (settled,) = waivers.settle([one], {"cpu": after}, DAY)
    assert settled.status == ("used" if outcome == "waived" else "not_judged")


def test_a_target_that_could_not_be_served_leaves_its_waiver_unjudged() -> None:
    broken = TargetRecord("", "", (), (), error="no driver")
    assert [w.status for w in waivers.settle([waiver()], {"cpu": broken}, DAY)] == ["not_judged"]
