"""Arm Ethos-U: vela compiles an INT8 ``.tflite`` file for the NPU and estimates what it costs.

Vela puts the operators that the NPU has into one or more custom operators and leaves the others as they are, for the
kernels of the Cortex-M beside it. Its latency is its own estimate: from the cycles of the NPU and of the memories that
the system configuration describes, without whatever stays on the CPU.

Sources: ``ethosu/config_files/Arm/vela.ini`` and ``OPTIONS.md`` of vela 5.2.0.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from edgeopt import provenance, tflite
from edgeopt.agent import tflite_file
from edgeopt.agent.runtimes import Layer
from edgeopt.artifact import ASIDE, Artifact
from edgeopt.backends import Backend, Compiled, Depth, Figure, Request, Scheme, StandIn
from edgeopt.errors import ConfigError, StageError
from edgeopt.registry import hint
from edgeopt.stage import Params
from edgeopt.target import Target
from edgeopt.tflite import micro, names

#: Family -> what follows it in the name of an accelerator: multiply-accumulates per cycle.
ACCELERATORS: Mapping[str, tuple[int, ...]] = {
    "ethos-u55": (32, 64, 128, 256),
    "ethos-u65": (256, 512),
    "ethos-u85": (128, 256, 512, 1024, 2048),
}
#: Family -> its system configurations in vela.ini; the first one is taken if none is named.
SYSTEMS: Mapping[str, tuple[str, ...]] = {
    "ethos-u55": ("Ethos_U55_High_End_Embedded", "Ethos_U55_Deep_Embedded"),
    "ethos-u65": (
        "Ethos_U65_High_End",
        "Ethos_U65_Mid_End",
        "Ethos_U65_Embedded",
        "Ethos_U65_Client_Server",
    ),
    "ethos-u85": (
        "Ethos_U85_SYS_Flash_High",
        "Ethos_U85_SYS_Flash_Low",
        "Ethos_U85_SYS_DRAM_Low",
        "Ethos_U85_SYS_DRAM_Mid",
        "Ethos_U85_SYS_DRAM_High",
    ),
}
#: Those whose second memory is DRAM. The others have flash there, which nothing can be written to.
WITH_DRAM = frozenset(name for family in SYSTEMS.values() for name in family if "DRAM" in name) | {
    "Ethos_U65_Mid_End",
    "Ethos_U65_High_End",
    "Ethos_U65_Client_Server",
}
#: Memory modes of vela.ini: what lies in SRAM. A dedicated SRAM is a cache of the DRAM.
SHARED = ("Shared_Sram", "Sram_Only")
DEDICATED = ("Dedicated_Sram", "Dedicated_Sram_256KB", "Dedicated_Sram_384KB", "Dedicated_Sram_512KB")

_LIMIT_S = 600
_NPU = "ethos-u"
#: ``Warning (supported operators) operator: MEAN, ofm: 'name'`` and, on the next lines, why it is not for the NPU.
_REFUSED = re.compile(
    r"^Warning \([\w ]+\) operator: \S+, ofm: '(?P<name>.*)'\n(?P<why>(?:(?!Warning|Info|\n|#).*\n?)+)", re.MULTILINE
)


def _has_tflm() -> bool:
    return bool(provenance.tool_version("tflite-micro"))


class EthosUParams(Params):
    """What a target's ``compile`` may say.

    Attributes:
        accelerator: Like ``ethos-u55-128``; the target's ``device.arch`` if it is not given.
        system_config: Clock and memories, a section of Arm's ``vela.ini``; the family's first one if it is not given.
        memory_mode: What lies in which memory; the system's usual one if it is not given.
        optimise: For speed, or for the least SRAM.
        arena_cache_size_kib: SRAM that vela may use; the memory mode's if it is not given.
    """

    accelerator: str
    system_config: str
    memory_mode: str
    optimise: Literal["Performance", "Size"] = "Performance"
    arena_cache_size_kib: int | None = Field(default=None, ge=1)


class EthosU(Backend):
    """Runs vela in a folder of its own, and reads its summary, its log and the file that it wrote."""

    name = "ethos-u"
    consumes = frozenset({"tflite-int8"})
    produces = "vela-tflite"
    #: Whether what stays on the CPU is checked depends on TFLM.
    tools = ("ai-edge-litert", *(("tflite-micro",) if _has_tflm() else ()), "ethos-u-vela")
    precisions = frozenset({"int8"})
    processor = "NPU"
    without_device = "estimate"
    Options = EthosUParams

    def scheme(self, target: Target) -> Scheme:
        """Full INT8, ranges by minimum and maximum."""
        return Scheme("ai_edge")

    def options(self, target: Target) -> EthosUParams:
        """With the defaults of the accelerator's family.

        Raises:
            ConfigError: There is no such accelerator, system configuration or memory mode, they do not go together, or
                the device is said to be reached.
        """
        if not target.device.access.none:
            fix = "write `access: none`: the model is compiled and estimated"
            raise ConfigError("edgeopt does not run models on Ethos-U", where=f"target {target.name}: device", fix=fix)
        where = f"target {target.name}: compile"
        unset = {"accelerator": target.device.arch or "", "system_config": "", "memory_mode": ""}
        asked = self.parse(target, **unset)
        assert isinstance(asked, EthosUParams)
        known = [f"{family}-{macs}" for family, sizes in ACCELERATORS.items() for macs in sizes]
        if asked.accelerator not in known:
            what = f"unknown accelerator {asked.accelerator!r}" if asked.accelerator else "no accelerator is named"
            place = where if "accelerator" in target.compile else f"target {target.name}: device.arch"
            raise ConfigError(
                what + hint(asked.accelerator, known),
                where=place,
                fix=f"device: {{arch: …}} is one of {', '.join(known)}",
            )
        systems = SYSTEMS[asked.accelerator.rpartition("-")[0]]
        system = asked.system_config or systems[0]
        if system not in systems:
            what = f"{asked.accelerator} has no system_config {system!r}{hint(system, systems)}"
            raise ConfigError(what, where=where, fix=f"one of {', '.join(systems)}")
        modes = (*DEDICATED, *SHARED) if system in WITH_DRAM else SHARED
        mode = asked.memory_mode or ("Dedicated_Sram_384KB" if system in WITH_DRAM else SHARED[0])
        if mode not in modes:
            what = f"{system} has no memory_mode {mode!r}{hint(mode, modes)}"
            raise ConfigError(what, where=where, fix=f"one of {', '.join(modes)}")
        return asked.model_copy(update={"system_config": system, "memory_mode": mode})

    def depth(self, target: Target) -> Depth | None:
        """The same for all targets."""
        return self.without_device

    def compile(self, artifact: Artifact, request: Request, out: Path) -> Compiled:
        """Write ``model.tflite`` for the NPU, and under ``aside/`` the file before vela, its log and its tables.

        Raises:
            StageError: Vela refuses the file, or TFLM has not what vela leaves to the CPU.
        """
        options = request.options
        assert isinstance(options, EthosUParams)
        aside = out / ASIDE
        aside.mkdir()
        before = tflite.inlined(artifact.path("model.tflite").read_bytes())
        (aside / "model.tflite").write_bytes(before)
        log, summary = _vela(aside, out, options)
        source, compiled = tflite_file.read(before), tflite_file.read((out / "model.tflite").read_bytes())
        layers = _layers(source, compiled, _reasons(log))
        version = self.probe().version
        on_npu, on_cpu = (sum(layer.device == device for layer in layers) for device in ("NPU", "CPU"))
        why = f"vela {version}, {options.accelerator}, {options.system_config}, {options.memory_mode}"
        origin = names.origin(source, artifact.meta["outputs"])
        unchecked = _unchecked(aside / "model.tflite", source, layers, origin, request) if on_cpu else ""
        stand_in = StandIn(
            "litert", f"{ASIDE}/model.tflite", "the INT8 file before vela, reference kernels", optimization="none"
        )
        return Compiled(
            file="model.tflite",
            origin=origin,
            notes=(*_notes(on_npu, on_cpu), *([unchecked] if unchecked else [])),
            layers=tuple(layers),
            stand_in=None if unchecked else stand_in,
            figures=_figures(summary, why, on_npu, on_cpu),
            facts={"vela": version, **options.model_dump(), "operators_on_npu": on_npu, "operators_on_cpu": on_cpu},
        )


def _vela(aside: Path, out: Path, options: EthosUParams) -> tuple[str, dict[str, str]]:
    """What vela says, and the row of its summary. Its tables are named by the system, not by the accelerator."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "ethosu.vela", str(aside / "model.tflite")),
            *("--accelerator-config", options.accelerator, "--config", "Arm/vela.ini"),
            *("--system-config", options.system_config, "--memory-mode", options.memory_mode),
            *("--optimise", options.optimise, "--output-dir", folder),
            *("--show-cpu-operations", "--verbose-performance", "--verbose-cycle-estimate"),
        ]
        if options.arena_cache_size_kib:
            command += ["--arena-cache-size", str(options.arena_cache_size_kib * 1024)]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=_LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise StageError(f"vela did not end within {_LIMIT_S} s", where="vela") from error
        log = done.stdout + done.stderr
        (aside / "vela.log").write_text(log.replace(folder, "."), encoding="utf-8")
        written = Path(folder) / "model_vela.tflite"
        if done.returncode or not written.is_file():
            last = [line for line in log.splitlines() if line.strip()][-3:]
            raise StageError(
                f"vela refuses the model: {' / '.join(last) or f'exit code {done.returncode}'}", where="vela"
            )
        (out / "model.tflite").write_bytes(written.read_bytes())
        for pattern, name in (("*_per-layer.csv", "per_layer.csv"), ("*_summary_*.csv", "summary.csv")):
            for table in Path(folder).glob(pattern):
                (aside / name).write_bytes(table.read_bytes())
    summary = aside / "summary.csv"
    if not summary.is_file():
        raise StageError("vela wrote no summary", where="vela", fix=f"see what it said in {ASIDE}/vela.log")
    return log, read_summary(summary.read_text(encoding="utf-8"))


def read_summary(text: str) -> dict[str, str]:
    """The row of vela's summary by column.

    Raises:
        StageError: It has not exactly one row, or lacks a column.
    """
    rows = list(csv.DictReader(text.splitlines()))
    needed = {"inference_time", "sram_memory_used", "off_chip_flash_memory_used", "dram_memory_used", "cycles_total"}
    if len(rows) != 1 or needed - set(rows[0]) or None in rows[0].values():
        raise StageError("vela's summary is cut off, or of a version that is not known", where="vela")
    return rows[0]


def _reasons(log: str) -> dict[str, str]:
    """Why operators are not for the NPU, by the name of their output."""
    return {match["name"]: " ".join(match["why"].removeprefix("Reason:").split()) for match in _REFUSED.finditer(log)}


def _layers(source: tflite_file.Graph, compiled: tflite_file.Graph, reasons: Mapping[str, str]) -> list[Layer]:
    """Every operator of the file before vela: one that is still there runs on the CPU. And whatever vela added."""
    left = {operator.name for operator in compiled.operators if operator.op != _NPU}

    def why(name: str) -> str:
        # Vela takes a fused activation apart, and then speaks of the output without it.
        return reasons.get(name) or reasons.get(f"{name}_act") or "vela gives no reason"

    layers = [
        Layer(
            name,
            operator.op,
            (operator.name,),
            operator.precision,
            "CPU" if operator.name in left else "NPU",
            "TFLM" if operator.name in left else "vela",
            why=why(operator.name) if operator.name in left else "",
        )
        for name, operator in tflite_file.named(source)
    ]
    known = {operator.name for operator in source.operators}
    added = [one for one in compiled.operators if one.op != _NPU and one.name not in known]
    return layers + [
        Layer(one.name, one.op, (), one.precision, "CPU", "TFLM", why="added by vela between parts for the NPU")
        for one in added
    ]


def _unchecked(
    file: Path,
    source: tflite_file.Graph,
    layers: Sequence[Layer],
    origin: Mapping[str, tuple[str, ...]],
    request: Request,
) -> str:
    """Why it is not known whether TFLM, built for this machine, runs what is left to the CPU; empty if it does.

    Raises:
        StageError: It does not.
    """
    unknown = "it is not checked whether the CPU can run what is left to it, so that nothing is simulated: "
    if not _has_tflm():
        return f"{unknown}tflite-micro is not installed (pip install 'edgeopt[tflm]')"
    agent, name = request.host(""), f"compile {file.parent.parent.name}"
    try:
        agent.open(name, "tflm", str(file))
    except StageError as error:
        found = micro.culprits(error.what, source)
        left = {name for layer in layers if layer.device == "CPU" for name in layer.source}
        if found and not left & {operator.name for operator in found}:
            return f"{unknown}TFLM stops at {found[0].op}, which the NPU runs"
        raise micro.refusal(error, found, origin, "vela leaves operators to the CPU") from error
    agent.close(name)
    return ""


def _notes(on_npu: int, on_cpu: int) -> tuple[str, ...]:
    if not on_npu:
        return ("NO OPERATOR RUNS ON THE NPU: vela left the whole model to the CPU, as if there were no NPU",)
    if on_cpu:
        return (f"{on_cpu} of {on_npu + on_cpu} operators run on the CPU; vela's latency does not contain their time",)
    return ()


def _figures(summary: Mapping[str, Any], why: str, on_npu: int, on_cpu: int) -> tuple[Figure, ...]:
    """Vela gives times in seconds and memories in KiB."""
    memories = {
        "sram_mib": "sram_memory_used",
        "flash_mib": "off_chip_flash_memory_used",
        "dram_mib": "dram_memory_used",
    }
    figures = [
        Figure(metric, float(summary[column]) / 1024, "MiB", "estimated", why)
        for metric, column in memories.items()
        if metric != "dram_mib" or float(summary[column])
    ]
    if on_npu:
        partly = f"; without the {on_cpu} operators on the CPU" if on_cpu else ""
        figures += [
            Figure(
                "latency_ms",
                float(summary["inference_time"]) * 1e3,
                "ms",
                "estimated",
                why + partly,
                at_least=on_cpu > 0,
            ),
            Figure("npu_cycles", float(summary["cycles_total"]), "cycles", "estimated", why),
        ]
    return tuple(figures)


PLUGINS = (EthosU(),)
