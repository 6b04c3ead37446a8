"""A made-up run with everything that a report has to show: two runtimes, every verdict, an error, awkward names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeopt import placement
from edgeopt.compare import Comparison, Release, compare
from edgeopt.measure import Measurement
from edgeopt.placement import Placement
from edgeopt.record import (
    ArtifactRecord,
    CandidateRecord,
    FlipRecord,
    LedgerRecord,
    RecipeRecord,
    RunRecord,
    StageRecord,
    TargetRecord,
    VerdictRecord,
    WaiverRecord,
)

Samples = dict[str, dict[str, np.ndarray]]

_MEDIANS_MS = {
    "openvino-float": 0.81,
    "openvino-float-pruned": 0.47,
    "openvino-int8-pruned": 0.312,
    "onnxruntime-float": 0.62,
    "onnxruntime-float-pruned": 0.40,
    "onnxruntime-int8-pruned": 0.355,
}
_TOP1 = {"float": 0.9926, "float-pruned": 0.9889, "int8-pruned": 0.9883}


def measured(metric: str, value: float | None, unit: str, interval=None, **more) -> Measurement:
    better = "higher" if metric.startswith("top1") else "lower"
    fields = {"n": 400, "method": "measured", "protocol": "p1", "machine": "cpu", "better": better} | more
    return Measurement(metric=metric, value=value, unit=unit, interval=interval, **fields)


def candidate(name: str, baseline_ms: float, rejected: str, **more) -> CandidateRecord:
    runtime, _, kind = name.partition("-")
    median, top1 = _MEDIANS_MS[name], _TOP1[kind]
    size = 0.62 if kind == "float" else 0.31 if kind == "float-pruned" else 0.098
    ratio = median / baseline_ms
    measurements = [
        measured("top1", top1, "1", (top1 - 0.009, min(1.0, top1 + 0.005))),
        measured("load_ms", 31.0, "ms", n=1),
        measured("latency_p50_ms", median, "ms", (median * 0.985, median * 1.02), confidence=1 - 0.05 / 3),
        measured("latency_p90_ms", median * 1.2, "ms", (median * 1.17, median * 1.26)),
        measured("latency_p99_ms", median * 1.9, "ms", (median * 1.6, median * 2.4)),
        measured("latency_ratio", ratio, "1", (ratio * 0.97, ratio * 1.03)),
        measured("size_mib", size, "MiB"),
        measured("peak_memory_mib", 118.4, "MiB", why="a single reading"),
    ]
    if kind == "float":
        measurements.append(measured("latency_ratio_noise", 1.004, "1", (0.991, 1.018)))
    return CandidateRecord(
        id=name,
        runtime=runtime,
        precision="int8" if "int8" in name else "float",
        pruned="pruned" in name,
        baseline=kind == "float",
        artifact=ArtifactRecord("openvino-ir" if runtime == "openvino" else "onnx", "ab" * 32, size),
        measurements=tuple(measurements),
        selection=(measured("top1", top1 - 0.001, "1", (top1 - 0.01, top1 + 0.005)),),
        rejected=rejected,
        placement={"i8": 14, "f32": 5} if "int8" in name else {"f32": 22},
        **more,
    )


def served(runtimes: tuple[str, ...], verdicts: tuple[VerdictRecord, ...]) -> TargetRecord:
    shipped = f"{runtimes[0]}-int8-pruned"
    names = [f"{runtime}-{kind}" for runtime in runtimes for kind in _TOP1]
    return TargetRecord(
        shipped=shipped,
        reason="fastest candidate whose accuracy holds; 0.385× the latency [0.374, 0.397] of its float baseline",
        candidates=tuple(
            candidate(
                name,
                _MEDIANS_MS[f"{name.partition('-')[0]}-float"],
                "" if name == shipped else f"{shipped} is faster: 0.663× the latency [0.650, 0.681]",
            )
            for name in names
        ),
        verdicts=verdicts,
        machine={"cpu": "AMD EPYC 7B13", "flags": ["avx2", "fma"], "cores": 2, "memory_mib": 7950},
        protocol={"runtimes": list(runtimes), "threads": 1, "batch": 1, "min_seconds": 10.0, "min_runs": 200},
    )


TOP1_MIN = VerdictRecord("top1 min", "top1", 0.97, 0.9883, (0.979, 0.9935), "pass", "the whole interval is above", "1")
TOP1_DROP = VerdictRecord(
    "top1 max_drop", "top1", 0.01, 0.0043, (-0.0012, 0.0111), "inconclusive", "the interval straddles 0.01", "1"
)
P99 = VerdictRecord("latency_p99_ms max", "latency_p99_ms", 0.5, 0.593, (0.51, 0.75), "fail", "all above 0.5", "ms")
RATIO = VerdictRecord("latency_ratio max", "latency_ratio", 0.8, 0.385, (0.374, 0.397), "pass", "all below 0.8", "1")
SIZE = VerdictRecord("size_mib max_ratio", "size_mib", 0.5, 0.158, None, "pass", "it is exact", "1")
POWER = VerdictRecord("power_mw max", "power_mw", 900.0, None, None, "not_measured", "the board has no rails", "mW")
MEMORY = VerdictRecord(
    "peak_memory_mib max", "peak_memory_mib", 100.0, 118.4, None, "waived", "it is above 100", "MiB",
    waiver=WaiverRecord(
        "peak_memory_mib max", "cpu-openvino", "the new board has twice the memory", "Dana Ruiz", "2026-12-31",
        "waivers.yaml:2:5", "used",
    ),
)  # fmt: skip


def record() -> RunRecord:
    """One target per mood: all gates pass; one fails; undecided; not served."""
    chain = [("trained", 0.9926), ("pruned", 0.9704), ("distilled", 0.9889), ("exported", 0.9889)]
    ledger = [LedgerRecord(stage, "top1", value, (value - 0.009, value + 0.005)) for stage, value in chain]
    for runtime in ("openvino", "onnxruntime"):
        target = f"cpu-{runtime}"
        for kind in ("float", "float-pruned"):
            ledger.append(LedgerRecord("compiled", "top1", _TOP1[kind], None, target, runtime, f"{runtime}-{kind}"))
        ledger.append(LedgerRecord("quantized", "top1", 0.9883, (0.979, 0.9935), target, runtime))
        ledger.append(
            LedgerRecord("compiled", "top1", 0.9883, (0.979, 0.9935), target, runtime, f"{runtime}-int8-pruned")
        )
    stages = [
        StageRecord(
            "prune", "prune", "k1", True, 41.3, "d1", "nothing that it depends on has changed", "macs 0.502 of 1"
        ),
        StageRecord(
            "quantize:openvino",
            "quantize",
            "k2",
            False,
            8.21,
            "d2",
            "params.samples: 128 -> 256",
            "14 of 19 operators",
            ("depthwise convolutions stay in float: the runtime has no INT8 kernel for them",),
            "cpu-openvino",
        ),
        StageRecord("compile:jetson", "compile", "", False, 0.0, "", "StageError: no driver", target="jetson"),
    ]
    return RunRecord(
        schema=1,
        outcome="error",
        exit_code=3,
        started="2026-11-02T10:11:12+00:00",
        seconds=187.4,
        recipe=RecipeRecord("digits", "recipes/digits/recipe.yaml", "cd" * 32, ("steps.prune.macs_ratio=0.5",)),
        targets={
            "cpu-openvino": served(("openvino",), (TOP1_MIN, RATIO, SIZE, MEMORY)),
            "cpu-onnxruntime": served(("onnxruntime",), (TOP1_MIN, P99, RATIO)),
            "cpu": served(("openvino", "onnxruntime"), (TOP1_MIN, TOP1_DROP, POWER)),
            "jetson": TargetRecord("", "", (), (), error="compile:jetson: no driver\n  fix: install one"),
        },
        ledger=tuple(ledger),
        stages=tuple(stages),
        provenance={"edgeopt": "0.1.0", "git": "251f158", "tools": {"torch": "2.13.0", "openvino": "2026.4.1"}},
        waivers=(MEMORY.waiver,),
    )


def passing(record: RunRecord) -> RunRecord:
    """The same run with nothing but the target whose gates all pass."""
    target = replace(record.targets["cpu-openvino"], verdicts=(TOP1_MIN, RATIO, SIZE))
    return replace(record, outcome="pass", exit_code=0, targets={"cpu-openvino": target}, waivers=())


def samples(record: RunRecord) -> Samples:
    """Latencies of every candidate, (400,) int64 ns, with a tail."""
    generator = np.random.default_rng(0)

    def draw(median_ms: float) -> np.ndarray:
        return (median_ms * 1e6 * generator.lognormal(0, 0.09, 400)).astype(np.int64)

    return {
        name: {c.id: draw(_MEDIANS_MS.get(c.id, 0.81)) for c in target.candidates}
        for name, target in record.targets.items()
        if target.candidates
    }


def awkward(record: RunRecord) -> RunRecord:
    """Names and texts that are markup, or forbidden, in one of the formats."""
    nasty = "a|b <script>alert(1)</script> & \"q\" 'p' `c` \x07\x1b[31m\ud800 $x^2$ _e_ [l](u) {{ 7*7 }}\nnext"
    target = record.targets["cpu-onnxruntime"]
    verdicts = tuple(replace(v, why=nasty) for v in target.verdicts)
    candidates = (replace(target.candidates[0], id=nasty, rejected=nasty), *target.candidates[1:])
    return replace(
        record,
        recipe=replace(record.recipe, name=nasty, path=nasty),
        targets={
            nasty: replace(target, reason=nasty, verdicts=verdicts, candidates=candidates),
            f"{nasty} 2": TargetRecord("", "", (), (), error=nasty),
        },
        ledger=tuple(replace(point, target=point.target and nasty) for point in record.ledger),
        stages=tuple(replace(stage, id=nasty, why=nasty, summary=nasty, notes=(nasty,)) for stage in record.stages),
        provenance={nasty: {nasty: nasty}},
    )


_PIXELS = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAASUlEQVR4nGNggANWLn4RSTllBgYuETkNIxs3BgZ+OV0b76hMBgYR"
    "DZuAlIoeBgZJI++U2mnrGRjkbKIqpm25xMCg7JbZs/7SVwBB5w9RWfLPagAAAABJRU5ErkJggg=="
)
CONDITION = {
    "before": {"load": 0.2, "frequency_mhz": [2450.0, 2450.0], "governor": "performance", "temperature_c": None},
    "after": {"load": 3.9, "frequency_mhz": [1800.0, 2450.0], "governor": "performance", "temperature_c": None},
    "disturbed_sessions": 2,
}


def _verifying(candidate: CandidateRecord, far: tuple[float, float, float], threshold: float) -> CandidateRecord:
    """With false accepts at the threshold of the float model."""
    value, low, high = far
    more = (
        measured("far@float=0.001", value, "1", (low, high)),
        measured("threshold@far=0.001", threshold, "score", (threshold - 0.01, threshold + 0.01)),
        measured("energy_mj", None, "mJ", why="the kernel lets only root read the counters"),
        measured("call_overhead_ms", 0.021, "ms", (0.020, 0.023)),
        measured("size_compressed_mib", 0.08, "MiB"),
    )
    return replace(candidate, measurements=candidate.measurements + more)


def eventful(run: RunRecord) -> RunRecord:
    """The same run with all that needs a signature: an old threshold, a disturbed machine, waivers, flips."""
    cpu = run.targets["cpu"]
    candidates = tuple(
        _verifying(c, (0.056, 0.051, 0.062) if "int8" in c.id else (0.017, 0.014, 0.020), 0.41 if c.pruned else 0.36)
        for c in cpu.candidates
    )
    right = ("before", "before", "after", "neither", "unknown")
    flips = tuple(FlipRecord(n, str(n % 10), str(n % 7), str(n % 5), right[n % 5], _PIXELS) for n in range(12))
    silent = tuple(FlipRecord(n, "", "yes", "no", "unknown") for n in range(2))
    targets = {
        **run.targets,
        "cpu": replace(
            cpu,
            candidates=candidates,
            flips=flips,
            flip_count=15,
            condition=CONDITION,
            disturbed=("The load rose from 0.2 to 3.9.", "the frequency fell by 27 %"),
            family={"gates": 2, "level": 0.95, "looks": 3},
        ),
        "cpu-onnxruntime": replace(run.targets["cpu-onnxruntime"], flips=silent, flip_count=2),
    }
    old = replace(MEMORY.waiver, gate="top1 min", target="cpu", status="expired", until="2026-01-31")
    return replace(run, outcome="fail", targets=targets, waivers=(*run.waivers, old))


_MACS = {"stem/Conv": 600_000, "body/Conv": 300_000, "head/Gemm": 100_000, "model/Add": 0}


def _layer(name: str, op: str, source: str, precision: str, device: str, why: str = "") -> dict:
    """One entry of a layer map."""
    names = source.split()
    return {"name": name, "op": op, "source": names, "precision": precision, "device": device, "exec": "", "why": why}


def _npu(float_layers: bool) -> Placement:
    layers = [
        _layer("q0", "QUANTIZE", "", "i8", "CPU", "the input is float"),
        _layer("conv0", "CONV_2D", "stem/Conv model/Add", "i8", "NPU"),
        _layer("transpose_1", "TRANSPOSE", "", "i8", "NPU"),
        _layer("conv1", "CONV_2D", "body/Conv", "f32" if float_layers else "i8", "CPU", "a window of 9x9 is too large"),
    ]
    return placement.of(layers, _MACS, "NPU", asked="int8")


def _without_device(name: str, latency: tuple[float, str] | None, method: str, **more) -> CandidateRecord:
    """A candidate whose outputs are simulated, and whose latency is estimated, or not known."""
    runtime, _, kind = name.partition("-")
    at = {"method": method, "why": "the toolkit's simulator"}
    times = [
        measured(f"latency_p{p}_ms", latency[0], "ms", None, n=1, method="estimated", why=latency[1])
        if latency
        else measured(f"latency_p{p}_ms", None, "ms", n=0, why="no device is at hand")
        for p in (50, 90, 99)
    ]
    sizes = [measured("size_mib", 0.1, "MiB"), measured("sram_mib", 0.21, "MiB", method="estimated", why="vela 5.2.0")]
    near = [
        measured("sqnr_db", 31.4, "dB", (30.9, 32.0), better="higher", **at),
        measured("output_cosine", 0.9993, "1", (0.9991, 0.9995), better="higher", **at),
        measured("output_cosine_p1", 0.991, "1", (0.98, 0.994), better="higher", **at),
        measured("max_abs_error", 0.81, "1", None, **at),
        measured("decision_agreement", 0.995, "1", (0.98, 0.999), better="higher", **at),
    ]
    accuracy = measured("top1", _TOP1.get(kind, 0.98), "1", (0.97, 0.99), **at)
    placed = more.get("placed")
    return CandidateRecord(
        id=name,
        runtime=runtime,
        precision="int8" if "int8" in name else "float",
        pruned=False,
        baseline=kind == "float" or (kind == "int8" and runtime == "htp"),
        artifact=ArtifactRecord("vela-tflite", "ef" * 32, 0.1),
        measurements=(accuracy, *times, *sizes, *near, *(placed.measurements() if placed else ())),
        selection=(accuracy,),
        facts={"accelerator": "ethos-u55-128", "vela": "5.2.0"},
        **more,
    )


def without_devices(run: RunRecord) -> RunRecord:
    """Targets that nobody has, one with an estimated latency and one without any, and one that is here."""
    vela = "vela 5.2.0, Ethos_U55_High_End_Embedded, Shared_Sram"
    estimated = TargetRecord(
        shipped="ethos-int8",
        reason="the first in the target's order of preference whose accuracy holds; nothing was timed",
        candidates=(
            _without_device("ethos-float", (4.2, vela), "simulated", rejected="INT8 is preferred"),
            _without_device("ethos-int8", (1.9, vela), "simulated", placed=_npu(float_layers=False)),
            _without_device("ethos-int8-pruned", (1.2, vela), "simulated", placed=_npu(True), rejected="less accurate"),
        ),
        verdicts=(
            replace(RATIO, gate="latency_p99_ms max", metric="latency_p99_ms", limit=3.0, value=1.9, interval=None,
                    unit="ms", method="estimated"),
            replace(TOP1_MIN, method="simulated"),
            VerdictRecord("fallback_macs max", "fallback_macs", 0.0, 0.4, (0.3, 0.4), "fail", "all above 0", "1", 1.0),
        ),
    )  # fmt: skip
    compiled = TargetRecord(
        shipped="htp-int8",
        reason="the first in the target's order of preference whose accuracy holds; nothing was timed",
        candidates=(_without_device("htp-int8", None, "simulated"),),
        verdicts=(replace(P99, value=None, interval=None, outcome="not_measured", why="no device is at hand"),),
    )
    targets = {"ethos-u55-128": estimated, "snapdragon": compiled, "cpu-openvino": run.targets["cpu-openvino"]}
    simulated = LedgerRecord(
        "compiled", "top1", 0.98, (0.97, 0.99), "ethos-u55-128", "ethos", "ethos-int8", method="simulated"
    )
    return replace(run, outcome="fail", targets=targets, ledger=(*run.ledger[:4], simulated), waivers=())


def against_previous(run: RunRecord) -> Comparison:
    """With a release that was faster on one target, and had another toolchain and another target."""
    cpu = run.targets["cpu-openvino"]
    faster = tuple(
        replace(
            c,
            artifact=replace(c.artifact, digest="cd" * 32),
            measurements=tuple(_scaled(m, 0.8) for m in c.measurements),
        )
        if c.id == cpu.shipped
        else c
        for c in cpu.candidates
    )
    targets = {
        "cpu-openvino": replace(cpu, candidates=faster),
        "cpu": run.targets["cpu"],
        "phone": run.targets["cpu-onnxruntime"],
    }
    tools = {"tools": {"torch": "2.12.0", "openvino": "2026.3"}}
    before = replace(run, started="2026-09-30T08:00:00+00:00", targets=targets, provenance=run.provenance | tools)
    return compare(Release("build/old", before), Release("build/new", run))


def _scaled(measurement: Measurement, factor: float) -> Measurement:
    if measurement.metric != "latency_p50_ms":
        return measurement
    low, high = measurement.interval
    return replace(measurement, value=measurement.value * factor, interval=(low * factor, high * factor))


def crowd(run: RunRecord, targets: int) -> RunRecord:
    """As many targets, each with the same ten gates; the first fails one."""
    passed = [replace(TOP1_MIN, gate=f"metric{i} min", metric=f"metric{i}") for i in range(7)]
    good = (TOP1_MIN, RATIO, SIZE, *passed)
    bad = (TOP1_MIN, replace(RATIO, value=0.9, interval=(0.85, 0.95), outcome="fail"), *good[2:])
    found = {f"board-{n:02}": served(("openvino", "onnxruntime"), good if n else bad) for n in range(targets)}
    ledger = [
        *(point for point in run.ledger if point.target is None),
        *(replace(point, target=name) for name in found for point in run.ledger if point.target is not None),
    ]
    return replace(run, outcome="fail", targets=found, ledger=tuple(ledger), waivers=())
