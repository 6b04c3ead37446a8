"""What the cache saves: a cold `edgeopt compile` against an unchanged re-run and two cold runs against each other.

Latency is never reused, so measuring takes the same time in both. It is left out of the claims and shown in the rows:
its CPU and wall time lie between the lines that say that it began and that it is done.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.commands import FINISHED, Spent, compile_command, record, say, spend
from benchmarks.frame import DIGITS, Claim, Options, Result, Row, main

_MODEL_FILES = (".onnx", ".xml", ".bin")
_MODEL_STAGES = ("export", "quantize", "compile")


def rebuild(options: Options) -> Result:
    """Two cold runs, each in a store and a working directory of its own, and re-runs."""
    cold: list[Spent] = []
    warm: list[Spent] = []
    files: list[dict[str, str]] = []
    rows: list[Row] = []
    targets = ("cpu-openvino", "cpu-onnxruntime") if options.quick and options.data == DIGITS else ()
    only = [argument for target in targets for argument in ("--target", target)]
    with TemporaryDirectory(prefix="edgeopt-rebuild-") as temporary:
        for name, reruns in (("a", 1), ("somewhere/else", 0)) if options.quick else (("a", 3), ("somewhere/else", 3)):
            folder = Path(temporary) / name
            folder.mkdir(parents=True)
            for number in range(1 + reruns):
                what = "cold" if number == 0 else "unchanged"
                say(f"rebuild: {what} run in {name}")
                spent = spend(compile_command(options.data, folder, *only), cwd=folder, allowed=FINISHED)
                (cold if number == 0 else warm).append(spent)
                rows.append(_row(what, spent, folder))
                if number == 0:
                    files.append(_model_files(folder))
    first, second = files
    differing = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    ratios = _ratios(cold, warm)
    rows.append({"run": "cold / unchanged", **ratios})
    rows.append(
        {"run": "model files of two cold runs", "files": len(first), "differing": ", ".join(differing) or "none"}
    )
    claims = [
        Claim("wall time, cold over unchanged, without measuring", ratios["wall_s_unmeasured"], 20, "at least"),
        Claim("CPU time, cold over unchanged, without measuring", ratios["cpu_s_unmeasured"], 20, "at least"),
        Claim(
            "ONNX and OpenVINO files that differ between two cold runs in different folders",
            len(differing) if first else None,
            0,
        ),
    ]
    return Result(claims, rows)


def _seconds(spent: Spent) -> dict[str, float]:
    rest = spent.without("measure:")
    return {
        "wall_s": spent.wall_s,
        "cpu_s": spent.cpu_s,
        "wall_s_unmeasured": rest.wall_s,
        "cpu_s_unmeasured": rest.cpu_s,
    }


def _row(what: str, spent: Spent, folder: Path) -> Row:
    reused = [stage["cached"] for stage in record(folder)["stages"]]
    return {"run": what, **_seconds(spent), "steps": len(reused), "reused": sum(reused)}


def _ratios(cold: list[Spent], warm: list[Spent]) -> dict[str, float]:
    """Of the medians."""
    names = _seconds(cold[0])
    return {name: median(_seconds(s)[name] for s in cold) / median(_seconds(s)[name] for s in warm) for name in names}


def _model_files(folder: Path) -> dict[str, str]:
    """``STEP/FILE`` -> sha256 of every model file that the run made."""
    found = {}
    for stage in record(folder)["stages"]:
        if stage["stage"] in _MODEL_STAGES:
            digest = stage["output"]
            manifest = json.loads((folder / "cache" / "objects" / digest[:2] / digest / "artifact.json").read_bytes())
            for name, content in manifest["files"].items():
                if name.endswith(_MODEL_FILES):
                    found[f"{stage['id']}/{name}"] = content
    return found


if __name__ == "__main__":
    main("rebuild", __doc__ or "", rebuild)
