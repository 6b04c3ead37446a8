from __future__ import annotations

import subprocess
import sys

from edgeopt.agent import machine


def test_facts_describe_this_machine() -> None:
    facts = machine.facts()
    assert facts["cpu"]
    assert facts["cores"] >= 1
    assert set(facts["flags"]) <= set(machine.INFERENCE_FLAGS)
    assert facts["system"].startswith(("Linux", "Darwin"))


def test_the_peak_grows_with_what_is_used_and_stays() -> None:
    script = (
        "from edgeopt.agent.machine import memory\n"
        "before = memory()\n"
        "block = bytearray(b'x' * (64 << 20)); del block\n"
        "after = memory()\n"
        "assert after['peak_mib'] >= before['peak_mib'] + 60, (before, after)\n"
        "assert after['current_mib'] < after['peak_mib'] - 30, after\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
