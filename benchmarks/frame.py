"""What the benchmarks share: claims and rows, their table and their JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "recipes" / "digits"
_TOOLS = ("torch", "torch-pruning", "onnx", "onnxruntime", "openvino", "nncf", "numpy", "tensorrt-rtx", "typer")

Row = Mapping[str, str | float | int | None]


@dataclass(frozen=True)
class Claim:
    """A statement with a number in it, and the number that was measured; ``None`` if it could not be."""

    claim: str
    value: float | None
    limit: float
    side: Literal["at most", "at least"] = "at most"

    @property
    def holds(self) -> bool:
        """Whether the value lies on the claimed side of the limit."""
        if self.value is None:
            return False
        return self.value <= self.limit if self.side == "at most" else self.value >= self.limit


@dataclass(frozen=True)
class Result:
    """What a benchmark found. ``rows`` may differ in their columns."""

    claims: Sequence[Claim]
    rows: Sequence[Row]


@dataclass(frozen=True)
class Options:
    """How to run: within five minutes or in full, and on which recipe; what took long to make is kept in ``work``."""

    quick: bool
    data: Path
    work: Path | None = None


def main(name: str, summary: str, benchmark: Callable[[Options], Result]) -> None:
    """The command line of one benchmark. A claim that does not hold is shown so, and is no failure of the command."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=summary)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: within five minutes on two cores")
    parser.add_argument("--data", type=Path, default=DIGITS, metavar="PATH", help="recipe (default: recipes/digits)")
    parser.add_argument(
        "--work", type=Path, metavar="FOLDER", help="keep there what takes long to make, such as weights"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    given = parser.parse_args()
    result = benchmark(Options(given.quick, given.data.resolve(), given.work and given.work.resolve()))
    print(text(name, result))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(document(name, result, quick=given.quick), encoding="utf-8")


def document(name: str, result: Result, *, quick: bool) -> str:
    """The result as JSON; it holds no path of this machine."""
    claims = [{"claim": c.claim, "value": c.value, "limit": c.limit, "holds": c.holds} for c in result.claims]
    content = {
        "name": name,
        "quick": quick,
        "machine": machine(),
        "claims": claims,
        "rows": [dict(row) for row in result.rows],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def machine() -> dict[str, Any]:
    """The facts that decide how far the numbers carry, and how busy the machine was."""
    from edgeopt.agent.machine import facts
    from edgeopt.provenance import tool_versions

    return {
        **facts(),
        "python": platform.python_version(),
        "load_1_min": round(os.getloadavg()[0], 2),
        "tools": tool_versions(_TOOLS),
    }


def text(name: str, result: Result) -> str:
    """Rows and claims as a table for a terminal."""
    lines = [f"{name}:", *table(result.rows), ""]
    for claim in result.claims:
        value = "not measured" if claim.value is None else f"{claim.value:.4g}"
        verdict = "holds" if claim.holds else "DOES NOT HOLD"
        lines.append(f"  {verdict}: {claim.claim}: {value} (claimed: {claim.side} {claim.limit:g})")
    return "\n".join(lines)


def table(rows: Sequence[Row]) -> list[str]:
    """Aligned lines, one header for all; a cell that a row lacks stays empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]


def _cell(value: str | float | int | None) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
