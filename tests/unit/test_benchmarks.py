"""The frame of the benchmarks; their figures are never asserted here."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from benchmarks.__main__ import NAMES
from benchmarks.commands import Mark, Spent, interleave, spend
from benchmarks.frame import ROOT, Claim, Options, Result, document, main, table, text

RESULT = Result(
    claims=[
        Claim("twice as fast", 2.5, 2, "at least"),
        Claim("cheap", 1.2, 1.1),
        Claim("never seen", None, 1.0),
    ],
    rows=[{"run": "first", "seconds": 1.23456, "note": "ok"}, {"run": "second", "files": 3, "seconds": None}],
)


@pytest.mark.parametrize(
    ("value", "limit", "side", "holds"),
    [
        (1.0, 1.0, "at most", True),
        (1.1, 1.0, "at most", False),
        (1.0, 1.0, "at least", True),
        (0.9, 1.0, "at least", False),
        (None, 1.0, "at most", False),
    ],
)
def test_a_claim_holds_up_to_its_limit_and_never_without_a_value(value, limit, side, holds) -> None:
    assert Claim("", value, limit, side).holds is holds


def test_json_has_the_documented_fields_and_no_path() -> None:
    written = document("sample", RESULT, quick=True)
    content = json.loads(written)
    assert list(content) == ["name", "quick", "machine", "claims", "rows"]
    assert content["name"] == "sample"
    assert content["quick"] is True
    assert content["claims"][1] == {"claim": "cheap", "value": 1.2, "limit": 1.1, "holds": False}
    assert content["rows"] == [dict(row) for row in RESULT.rows]
    assert {"cpu", "cores", "flags", "python", "tools"} <= set(content["machine"])
    assert not re.search(r'"[^"]*(/home/|/tmp/|/root/)', written)
    assert str(ROOT) not in written


def test_text_shows_claims_that_do_not_hold() -> None:
    shown = text("sample", RESULT).splitlines()
    assert "  holds: twice as fast: 2.5 (claimed: at least 2)" in shown
    assert "  DOES NOT HOLD: cheap: 1.2 (claimed: at most 1.1)" in shown
    assert "  DOES NOT HOLD: never seen: not measured (claimed: at most 1)" in shown


def test_table_aligns_rows_with_different_columns() -> None:
    header, first, second = table(RESULT.rows)
    assert header.split() == ["run", "seconds", "note", "files"]
    assert first.index("1.235") == header.index("seconds")
    assert second.index("3") == header.index("files")


def test_main_writes_the_file_and_does_not_fail_on_claims(tmp_path, monkeypatch, capsys) -> None:
    file = tmp_path / "new" / "sample.json"
    seen: list[Options] = []

    def benchmark(options: Options) -> Result:
        seen.append(options)
        return RESULT

    monkeypatch.setattr("sys.argv", ["sample", "--quick", "--data", str(tmp_path), "--json", str(file)])
    main("sample", "A sample.", benchmark)
    assert seen == [Options(quick=True, data=tmp_path)]
    assert json.loads(file.read_text())["claims"][2]["value"] is None
    assert "DOES NOT HOLD: cheap" in capsys.readouterr().out


def test_the_cpu_time_of_children_counts() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    assert spend([sys.executable, "-c", parent]).cpu_s >= 0.3


def test_marks_tell_what_a_step_used() -> None:
    script = """
import sys, time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
for line, seconds in (("measure:a: started (why)", 0.4), ("measure:a: 1/2 s", 0.0), ("measure:a: done in 1 s", 0.1)):
    print(line, file=sys.stderr, flush=True)
    time.sleep(0.3)  # the reader's turn
    burn(seconds)
"""
    spent = spend([sys.executable, "-c", script])
    assert 0.3 <= spent.of("measure:").cpu_s <= spent.cpu_s - 0.05
    rest = spent.without("measure:")
    assert rest.cpu_s == pytest.approx(spent.cpu_s - spent.of("measure:").cpu_s)
    assert spent.of("export") == Spent(0.0, 0.0)


def test_steps_that_come_again_are_added() -> None:
    lines = [
        "evaluate: started",
        "evaluate: done",
        "prune: started",
        "evaluate: started",
        "evaluate: done",
        "prune: done",
    ]
    spent = Spent(10.0, 20.0, tuple(Mark(line, float(i), 2.0 * i) for i, line in enumerate(lines)))
    assert spent.of("evaluate") == Spent(2.0, 4.0)
    assert spent.of("prune") == Spent(3.0, 6.0)


def test_a_command_that_fails_ends_the_benchmark_with_its_last_words() -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('it broke')"]
    with pytest.raises(SystemExit, match=r"exit code 1\nit broke"):
        spend(command)
    assert spend(command, allowed=(1,)).cpu_s > 0


def test_interleaving_does_everything_once_a_round_in_changing_order() -> None:
    order: list[str] = []
    results = interleave({name: lambda name=name: order.append(name) or len(order) for name in "abc"}, rounds=12)
    rounds = ["".join(order[i : i + 3]) for i in range(0, 36, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 1
    assert [order[i - 1] for i in results["b"]] == ["b"] * 12


@pytest.mark.parametrize("module", ["benchmarks", *(f"benchmarks.{name}" for name in NAMES)])
def test_help_works(module) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout


def test_the_plain_script_uses_nothing_of_edgeopt() -> None:
    folder = ROOT / "benchmarks"
    for script in (folder / "plain_digits.py", folder / "plain_runtimes.py"):
        assert not re.search(r"^\s*(from|import) (edgeopt|benchmarks)", script.read_text(), re.MULTILINE)
    command = [sys.executable, str(folder / "plain_digits.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_benchmark_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "spede"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "spede" in done.stderr
