"""How much CPU time edgeopt takes before it does anything: its help, and `edgeopt check`."""

from __future__ import annotations

import sys
from functools import partial

from benchmarks.commands import EDGEOPT, interleave, spend
from benchmarks.frame import Claim, Options, Result, Row, main
from edgeopt.statistics import percentile_interval, ratio_interval

_HELP, _TYPER, _PYTHON = "edgeopt --help", 'python -c "import typer"', 'python -c ""'


def startup(options: Options) -> Result:
    """Interleaved runs, after one round that fills the file caches; medians with 95 % intervals."""
    check = f"edgeopt check {options.data.name}"
    commands = {
        _PYTHON: [sys.executable, "-c", ""],
        _TYPER: [sys.executable, "-c", "import typer"],
        _HELP: [EDGEOPT, "--help"],
        check: [EDGEOPT, "check", str(options.data)],
    }
    runs = {name: partial(spend, command) for name, command in commands.items()}
    interleave(runs, 1)
    cpu_s = {
        name: [run.cpu_s for run in spent] for name, spent in interleave(runs, 25 if options.quick else 80).items()
    }
    rows: list[Row] = []
    for name, series in cpu_s.items():
        median = percentile_interval(series, 0.5)
        ratio = ratio_interval(series, cpu_s[_TYPER])
        rows.append(
            {
                "command": name,
                "runs": len(series),
                "cpu_s": median.value,
                "cpu_s_low": median.interval[0],
                "cpu_s_high": median.interval[1],
                "over_typer": ratio.value,
                "over_typer_low": ratio.interval[0],
                "over_typer_high": ratio.interval[1],
            }
        )
    by_name = {row["command"]: row for row in rows}
    claims = [
        Claim(f"CPU time of `{_HELP}` over that of `{_TYPER}`", by_name[_HELP]["over_typer"], 1.5),
        Claim(f"CPU seconds of `{check}`", by_name[check]["cpu_s"], 1.0),
    ]
    return Result(claims, rows)


if __name__ == "__main__":
    main("startup", __doc__ or "", startup)
