"""Run all benchmarks, each in a process of its own, and write ``benchmarks/results/NAME.json``.

In full they take about 40 minutes on two cores that nothing else uses; the figures of a busy machine are worth little.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.frame import ROOT

NAMES = (
    "startup",
    "rebuild",
    "overhead",
    "digits",
    "fidelity",
    "coverage",
    "verdict_power",
    "verdict_cost",
    "report_scale",
    "metrics",
    "verification",
    "targets",
    "access",
    "qdq_linter",
)


def main() -> int:
    """Exit code 0 unless a benchmark could not run; claims that do not hold are shown, and are no failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which (default: all of {', '.join(NAMES)})")
    parser.add_argument("--quick", action="store_true", help="each within five minutes; writes nothing without --out")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for the JSON (default: benchmarks/results)")
    given = parser.parse_args()
    if unknown := set(given.names) - set(NAMES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    folder = given.out or (None if given.quick else ROOT / "benchmarks" / "results")
    failed = []
    for name in given.names or NAMES:
        command = [sys.executable, "-m", f"benchmarks.{name}", *(["--quick"] if given.quick else [])]
        if folder:
            command += ["--json", str(folder.resolve() / f"{name}.json")]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"could not run: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
