"""What every target makes of three nets: the digits network, a MobileNetV2 and a ResNet-20 for small images.

For each candidate: whether it compiles, how its outputs are had, how near they are to the float ONNX model, what top-1
that costs, how much of it runs on the processor that the target is for, and its latency and size. All images are those
of the digits recipe; the networks are only quantized, neither pruned nor distilled. Every layer that runs elsewhere is
looked up in the layer map of the artefact, and has to be named in the notes of the run.

``prepared`` means that the file which the device's own toolkit compiles is made, checked and run, but not compiled.
Targets that cannot be served here, for want of a toolkit or of the device, are rows that say why.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import small_nets
from benchmarks.commands import EDGEOPT, FINISHED, record, say, spend
from benchmarks.frame import ROOT, Claim, Options, Result, Row, main

_QUICK = ("cpu-openvino", "cpu-onnxruntime", "ethos-u55-128")
#: Of a run with `--keep-going`: a target that could not be served makes it 3.
_FINISHED = (*FINISHED, 3)
#: Enough for a median; p99 is not shown.
_MEASURE = {"min_seconds": 1.0, "min_runs": 100, "max_seconds": 2.0}


def targets(options: Options) -> Result:
    """A row for every net, target and candidate."""
    rows: list[Row] = []
    nets = ("digits",) if options.quick else ("digits", *small_nets.NETS)
    with _folder(options.work) as work:
        able, unable = _split(sorted((ROOT / "targets").glob("*.yaml")), _QUICK if options.quick else ())
        files = [_hurried(file, work / "targets") for file in able]
        for net in nets:
            recipe = small_nets.recipe(net, work / net, files)
            say(f"targets: {net} for {len(files)} targets")
            command = [EDGEOPT, "compile", str(recipe), "--out", f"{work}/{net}/out", "--cache", f"{work}/cache"]
            spend([*command, "--keep-going"], allowed=_FINISHED)
            rows += _rows(net, record(work / net), work / "cache")
        rows += [{"net": "all", "target": name, "outcome": "skipped", "why": why} for name, why in unable.items()]
    return Result(_claims(rows), rows)


@contextlib.contextmanager
def _folder(work: Path | None) -> Iterator[Path]:
    """Where weights and artefacts are; a temporary one if none is given."""
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
        yield work
        return
    with TemporaryDirectory(prefix="edgeopt-targets-") as temporary:
        yield Path(temporary)


def _split(files: Sequence[Path], only: Sequence[str]) -> tuple[list[Path], dict[str, str]]:
    """Target files that can be served here to some depth, and why the others cannot, by name."""
    from edgeopt import config, registry
    from edgeopt.target import Target

    able, unable = [], {}
    for file in files:
        target = config.load(file, Target)
        if only and target.name not in only:
            continue
        why = ""
        for runtime in target.runtime:
            backend = registry.find("backends", runtime)
            available = backend.probe()
            if not available.installed:
                why = f"{runtime} needs {', '.join(available.missing)}: {available.fix}"
            elif target.device.access.remote:
                why = f"needs its device: {target.device.access}"
            elif backend.depth(target) is None:
                why = f"{runtime} does nothing without the device"
        if why:
            unable[target.name] = why
        else:
            able.append(file)
    return able, unable


def _hurried(file: Path, folder: Path) -> Path:
    """The target with fewer runs, and with gates on fallbacks only."""
    import yaml

    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    document["measure"] = {**document.get("measure", {}), **_MEASURE}
    document["gates"] = {"fallback_macs": {"max": 0.0}}
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / file.name
    copy.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return copy


def _rows(net: str, run: Mapping[str, Any], cache: Path) -> Iterator[Row]:
    notes = {stage["output"]: " ".join(stage["notes"]) for stage in run["stages"] if stage["stage"] == "compile"}
    for name, target in run["targets"].items():
        if target["error"]:
            yield {"net": net, "target": name, "outcome": "failed", "why": " ".join(target["error"].split())}
        for candidate in target["candidates"]:
            if candidate["artifact"]["digest"] in notes:  # else it is the float ONNX, which only is compared with
                yield _row(net, name, target, candidate, notes[candidate["artifact"]["digest"]], cache)


def _row(net: str, name: str, target: Mapping[str, Any], candidate: Mapping[str, Any], notes: str, cache: Path) -> Row:
    known = {m["metric"]: m for m in candidate["measurements"]}

    def value(metric: str) -> float | None:
        found: float | None = known.get(metric, {}).get("value")
        return found

    digest, placed = candidate["artifact"]["digest"], candidate["placed"]
    layers = json.loads((cache / "objects" / digest[:2] / digest / "layer_map.json").read_bytes())
    elsewhere = [layer["name"] for layer in layers if placed and layer["device"] != placed["processor"]]
    unmapped = [node["name"] for node in placed["unmapped"]] if placed else []
    macs, operators = value("fallback_macs"), value("fallback_operators")
    latency = known.get("latency_p50_ms", {})
    row: dict[str, str | float | int | None] = {
        "net": net,
        "target": name,
        "candidate": candidate["id"],
        "outcome": "compiled" if layers else "prepared",
        "ships": "yes" if candidate["id"] == target["shipped"] else "",
        "outputs": known["top1"]["method"] if value("top1") is not None else "not run",
        "sqnr_db": value("sqnr_db"),
        "cosine_p1": value("output_cosine_p1"),
        "top1": value("top1"),
        "top1_delta": _delta(value("top1 drop")),
        "agreement": value("decision_agreement"),
        "processor": placed["processor"] if placed else "not told",
        "operators_there": None if operators is None else 1 - operators,
        "macs_there": None if macs is None else 1 - macs,
        "layers": len(layers),
        "fallbacks": len(elsewhere) if placed else None,
        "in_float": len(placed["in_float"]) if placed else None,
        "qdq_left": len(placed["unfused"]) if placed else None,
        "reformats": len(placed["reformats"]) if placed else None,
        "unnamed": sum(layer not in notes for layer in (*elsewhere, *unmapped)) if placed else None,
        "latency_ms": value("latency_p50_ms"),
        "latency": latency.get("method", "") if value("latency_p50_ms") is not None else "not measured",
        "size_mib": value("size_mib"),
    }
    figures = {metric: value(metric) for metric in ("sram_mib", "arena_mib", "weights_mib") if metric in known}
    return {**row, **figures, "why": "" if placed else notes}


def _delta(drop: float | None) -> float | None:
    """Above the float baseline is positive."""
    return None if drop is None else -drop + 0.0


def _claims(rows: Sequence[Row]) -> list[Claim]:
    compiled = [row for row in rows if row["outcome"] in ("compiled", "prepared")]
    quantized = [float(row["sqnr_db"]) for row in compiled if "int8" in str(row["candidate"]) and row["sqnr_db"]]
    return [
        Claim("targets that this machine can do and that could not be served", _count(rows, "failed"), 0),
        Claim(
            "layers on another processor, and MACs that no layer names, that no note tells",
            sum(int(row["unnamed"] or 0) for row in compiled) if compiled else None,
            0,
        ),
        Claim("smallest SQNR of an INT8 candidate that runs, in dB", min(quantized, default=None), 15, "at least"),
    ]


def _count(rows: Sequence[Row], outcome: str) -> int:
    return sum(row["outcome"] == outcome for row in rows)


if __name__ == "__main__":
    main("targets", __doc__ or "", targets)
