"""Arm Ethos-U, through the real vela."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt.access import Agent, local
from edgeopt.agent import tflite_file
from edgeopt.artifact import Artifact
from edgeopt.backends import Compiled, ethos_u
from edgeopt.backends.ethos_u import ACCELERATORS, DEDICATED, SHARED, SYSTEMS, WITH_DRAM, EthosU, read_summary
from edgeopt.errors import ConfigError, StageError
from edgeopt.quantizers.ai_edge import AiEdge, AiEdgeParams
from edgeopt.target import Target
from tests import onnx_nets, tflite_nets

Build = Callable[..., tuple[Compiled, Path]]


def target(arch: str | None = "ethos-u55-128", **compile_: Any) -> Target:
    device = {"kind": "npu", "access": "none", "arch": arch}
    return Target.model_validate(
        {"target": 1, "name": "t", "runtime": "ethos-u", "device": device, "compile": compile_}
    )


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("int8")
    (folder / "float.tflite").write_bytes(tflite_nets.convolutional())
    AiEdge().quantize(folder / "float.tflite", tflite_nets.samples(32), AiEdgeParams(), folder, seed=0)
    return tflite_nets.artifact(folder, "tflite-int8")


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with local.start(limit_s=120) as started:
        yield started


@pytest.fixture
def build(tmp_path: Path, int8: Artifact) -> Build:
    def run(artifact: Artifact = int8, *, out: str = "out", host: Any = None, **asked: Any) -> tuple[Compiled, Path]:
        folder = tmp_path / out
        folder.mkdir()
        request = onnx_nets.request(1, EthosU().options(target(**asked)))
        if host:
            request = replace(request, host=lambda environment: host)
        return EthosU().compile(artifact, request, folder), folder

    return run


def figures(compiled: Compiled) -> dict[str, float]:
    return {figure.metric: figure.value for figure in compiled.figures}


def test_accelerators_are_those_of_vela() -> None:
    from ethosu.vela.architecture_features import Accelerator

    ours = {f"{family}-{macs}" for family, sizes in ACCELERATORS.items() for macs in sizes}
    assert ours == set(Accelerator.member_list())


def test_systems_and_memory_modes_are_those_of_the_configuration_file() -> None:
    from configparser import ConfigParser
    from importlib.resources import files

    parser = ConfigParser(inline_comment_prefixes=(";",))
    parser.read_string((files("ethosu") / "config_files" / "Arm" / "vela.ini").read_text())
    systems = {name.removeprefix("System_Config.") for name in parser.sections() if name.startswith("System_Config.")}
    assert {system for family in SYSTEMS.values() for system in family} == systems
    assert {*SHARED, *DEDICATED} == {
        name.removeprefix("Memory_Mode.") for name in parser.sections() if name.startswith("Memory_Mode.")
    }
    dram = {name for name in systems if "Dram" in parser[f"System_Config.{name}"]["axi1_port"]}
    assert dram == WITH_DRAM


@pytest.mark.parametrize(
    ("arch", "system", "mode"),
    [
        ("ethos-u55-32", "Ethos_U55_High_End_Embedded", "Shared_Sram"),
        ("ethos-u65-512", "Ethos_U65_High_End", "Dedicated_Sram_384KB"),
        ("ethos-u85-1024", "Ethos_U85_SYS_Flash_High", "Shared_Sram"),
    ],
)
def test_defaults_of_a_family(arch: str, system: str, mode: str) -> None:
    options = EthosU().options(target(arch))
    assert (options.accelerator, options.system_config, options.memory_mode) == (arch, system, mode)


@pytest.mark.parametrize(
    ("arch", "options", "says", "where"),
    [
        ("ethos-u55-127", {}, r"unknown accelerator 'ethos-u55-127' \(did you mean 'ethos-u55-12?8'", "device.arch"),
        (None, {}, "no accelerator is named", "device.arch"),
        ("ethos-u55-128", {"accelerator": "u55"}, "unknown accelerator 'u55'", "target t: compile"),
        (
            "ethos-u55-128",
            {"system_config": "Ethos_U65_High_End"},
            "has no system_config 'Ethos_U65_High_End'",
            "compile",
        ),
        ("ethos-u55-128", {"memory_mode": "Dedicated_Sram"}, "has no memory_mode 'Dedicated_Sram'", "compile"),
        ("ethos-u55-128", {"memory_mod": "x"}, r"no option 'memory_mod' \(did you mean 'memory_mode'\?\)", "compile"),
        ("ethos-u55-128", {"optimise": "Speed"}, "optimise: ", "compile"),
        ("ethos-u55-128", {"arena_cache_size_kib": 0}, "arena_cache_size_kib: ", "compile"),
    ],
)
def test_what_does_not_exist_or_go_together_is_refused(
    arch: str | None, options: dict[str, Any], says: str, where: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        EthosU().options(target(arch, **options))
    assert where in caught.value.where


@pytest.mark.parametrize("access", ["local", {"ssh": "board"}])
def test_this_machine_is_no_npu(access: Any) -> None:
    reached = Target.model_validate(
        {"target": 1, "name": "t", "runtime": "ethos-u", "device": {"access": access, "arch": "ethos-u55-128"}}
    )
    with pytest.raises(ConfigError, match="does not run models on Ethos-U") as caught:
        EthosU().options(reached)
    assert "access: none" in caught.value.fix
    assert EthosU().depth(reached) == "estimate"


@pytest.mark.parametrize(
    ("family", "system"), [(family, system) for family, systems in SYSTEMS.items() for system in systems]
)
def test_vela_accepts_every_system(build: Build, family: str, system: str) -> None:
    compiled, _ = build(arch=f"{family}-{ACCELERATORS[family][0]}", system_config=system)
    assert figures(compiled)["npu_cycles"] > 0


@pytest.mark.parametrize("mode", [*SHARED, *DEDICATED])
def test_vela_accepts_every_memory_mode(build: Build, mode: str) -> None:
    compiled, _ = build(arch="ethos-u65-256", system_config="Ethos_U65_Mid_End", memory_mode=mode)
    assert figures(compiled)["npu_cycles"] > 0


def test_what_is_written(build: Build, int8: Artifact) -> None:
    compiled, out = build()
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == {
        "model.tflite",
        *(f"aside/{name}" for name in ("model.tflite", "vela.log", "summary.csv", "per_layer.csv")),
    }
    assert b"COP1" in (out / "model.tflite").read_bytes()  # a command stream, by its driver's tag
    assert (out / "aside" / "model.tflite").read_bytes() == int8.path("model.tflite").read_bytes()
    assert compiled.stand_in is not None
    assert (compiled.stand_in.runtime, compiled.stand_in.optimization) == ("litert", "none")
    assert (out / compiled.stand_in.file).is_file()


def test_equal_arguments_give_equal_bytes(build: Build) -> None:
    folders = [build(out=name)[1] for name in ("a", "b")]
    contents = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in folders
    ]
    assert contents[0] == contents[1]


def test_every_operator_runs_on_the_npu(build: Build) -> None:
    compiled, _ = build()
    assert compiled.layers is not None
    assert {layer.device for layer in compiled.layers} == {"NPU"}
    assert compiled.notes == ()
    mapped = {entry["name"]: entry["source"] for entry in EthosU().layer_map(compiled.layers, compiled)}
    assert mapped["stem.0/Conv+stem.1/Relu"] == ["stem.0/Conv", "stem.1/Relu"]
    assert mapped["output"] == ["head/Gemm"]


def test_figures_are_estimates_and_say_of_what(build: Build) -> None:
    compiled, out = build()
    row = read_summary((out / "aside" / "summary.csv").read_text())
    found = {figure.metric: figure for figure in compiled.figures}
    assert set(found) == {"latency_ms", "npu_cycles", "sram_mib", "flash_mib"}
    assert {figure.method for figure in compiled.figures} == {"estimated"}
    assert found["latency_ms"].value == pytest.approx(1e3 * float(row["cycles_total"]) / 500e6)  # at 500 MHz
    assert found["sram_mib"].value * 1024 == pytest.approx(float(row["sram_memory_used"]))
    assert "vela " in found["latency_ms"].why
    assert "ethos-u55-128, Ethos_U55_High_End_Embedded, Shared_Sram" in found["latency_ms"].why
    # Read differently: the same total in KiB on vela's own page.
    log = (out / "aside" / "vela.log").read_text()
    (line,) = [line for line in log.splitlines() if line.startswith("Total SRAM used")]
    assert float(line.split()[3]) == pytest.approx(found["sram_mib"].value * 1024, abs=0.01)


def test_a_larger_npu_takes_fewer_cycles(build: Build) -> None:
    cycles = [figures(build(arch=f"ethos-u55-{macs}", out=str(macs))[0])["npu_cycles"] for macs in (32, 64, 128, 256)]
    assert all(more > less for more, less in pairwise(cycles))


def test_weights_in_sram_need_no_flash(build: Build) -> None:
    shared, alone = (figures(build(memory_mode=mode, out=mode)[0]) for mode in SHARED)
    assert shared["flash_mib"] > 0
    assert alone["flash_mib"] == 0


@pytest.fixture(scope="module")
def partly(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A float FLOOR behind a fully connected layer."""
    net = tflite_nets.Net()
    given = net.tensor("image", (1, 12), "uint8")
    cast = tflite_nets._cast(net, given, "cast")
    weight = np.random.default_rng(0).standard_normal((4, 12)).astype(np.float32)
    parameters = [net.constant("w", weight), net.constant("b", np.zeros(4, np.float32))]
    options = tflite_nets.schema.FullyConnectedOptionsT()
    product = net.add(tflite_nets.OP.FULLY_CONNECTED, [cast, *parameters], net.tensor("a/Gemm", (1, 4)), options)
    last = net.add(tflite_nets.OP.FLOOR, [product], net.tensor("output", (1, 4)))
    folder = tmp_path_factory.mktemp("partly")
    (folder / "float.tflite").write_bytes(net.file(given, last, input_name="image"))
    samples = np.random.default_rng(1).integers(0, 256, (9, 12), dtype=np.uint8)
    AiEdge().quantize(folder / "float.tflite", samples, AiEdgeParams(), folder, seed=0)
    return tflite_nets.artifact(folder, "tflite-int8")


def test_operators_that_the_npu_lacks_stay_on_the_cpu_with_the_reason(
    build: Build, partly: Artifact, agent: Agent
) -> None:
    compiled, _ = build(partly, host=agent)
    assert compiled.layers is not None
    placed = {layer.op: layer for layer in compiled.layers}
    assert placed["FULLY_CONNECTED"].device == "NPU"
    assert placed["FLOOR"].device == "CPU"
    assert "Float32" in placed["FLOOR"].why or "Unsupported opType" in placed["FLOOR"].why
    on_cpu = sum(layer.device == "CPU" for layer in compiled.layers)
    assert compiled.notes == (
        f"{on_cpu} of {len(compiled.layers)} operators run on the CPU; vela's latency does not contain their time",
    )
    assert compiled.stand_in is not None


def test_a_latency_without_what_runs_on_the_cpu_is_a_lower_bound(build: Build, partly: Artifact, agent: Agent) -> None:
    (whole,) = [figure for figure in build(out="whole")[0].figures if figure.metric == "latency_ms"]
    (part,) = [figure for figure in build(partly, host=agent)[0].figures if figure.metric == "latency_ms"]
    assert (whole.at_least, part.at_least) == (False, True)
    assert "without the" in part.why


def test_what_tflm_cannot_run_on_the_cpu_is_refused(build: Build, agent: Agent, tmp_path: Path) -> None:
    """Its cast takes no uint8."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "model.tflite").write_bytes(tflite_nets.floor_of_image())
    with pytest.raises(StageError, match=r"TFLM cannot run this model: .*; it is CAST at cast") as caught:
        build(tflite_nets.artifact(folder, "tflite-int8"), host=agent)
    assert "vela leaves operators to the CPU" in caught.value.where
    assert "operators that TFLM has" in caught.value.fix


def test_without_tflm_the_cpu_is_unchecked_and_nothing_is_simulated(
    build: Build, partly: Artifact, int8: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ethos_u, "_has_tflm", lambda: False)
    compiled, _ = build(partly)
    assert compiled.stand_in is None
    assert "not checked" in compiled.notes[-1]
    assert "edgeopt[tflm]" in compiled.notes[-1]
    assert build(int8, out="whole")[0].stand_in is not None


class Stopping:
    """Of an agent: TFLM that fails at the first fully connected layer."""

    def __init__(self, number: int) -> None:
        self._number = number

    def open(self, *_: Any) -> None:
        raise StageError(f"TFLM cannot run this model: Node FULLY_CONNECTED (number {self._number}) failed to invoke")


def test_where_tflm_stops_at_what_the_npu_runs_the_rest_is_unchecked(build: Build, partly: Artifact) -> None:
    operators = tflite_file.read(partly.path("model.tflite").read_bytes()).operators
    number = [operator.op for operator in operators].index("FULLY_CONNECTED")
    compiled, _ = build(partly, host=Stopping(number))
    assert compiled.stand_in is None
    assert "TFLM stops at FULLY_CONNECTED, which the NPU runs" in compiled.notes[-1]


def test_the_reason_of_an_operator_with_a_fused_activation(build: Build, agent: Agent, tmp_path: Path) -> None:
    """Vela speaks of ``NAME_act`` then. Its kernels stride by three at most."""
    net = tflite_nets.Net()
    given = net.tensor("image", (1, 16, 16, 8))
    weight = np.random.default_rng(0).standard_normal((1, 3, 3, 8)).astype(np.float32)
    parameters = [net.constant("w", weight), net.constant("b", np.zeros(8, np.float32))]
    options = tflite_nets._activated(
        tflite_nets.schema.DepthwiseConv2DOptionsT(),
        **{"strideH": 4, "strideW": 4, "dilationHFactor": 1, "dilationWFactor": 1, "depthMultiplier": 1},
    )
    kind = tflite_nets.OP.DEPTHWISE_CONV_2D
    x = net.add(kind, [given, *parameters], net.tensor("a/Conv+model/Relu", (1, 4, 4, 8)), options)
    last = net.add(tflite_nets.OP.LOGISTIC, [x], net.tensor("output", (1, 4, 4, 8)))
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "float.tflite").write_bytes(net.file(given, last, input_name="image"))
    samples = np.random.default_rng(1).standard_normal((4, 16, 16, 8)).astype(np.float32)
    AiEdge().quantize(folder / "float.tflite", samples, AiEdgeParams(), folder, seed=0)
    compiled, out = build(tflite_nets.artifact(folder, "tflite-int8"), host=agent)
    assert "'a/Conv+model/Relu_act'" in (out / "aside" / "vela.log").read_text()
    assert compiled.layers is not None
    placed = {layer.op: layer for layer in compiled.layers}
    assert placed["DEPTHWISE_CONV_2D"].device == "CPU"
    assert "stride" in placed["DEPTHWISE_CONV_2D"].why


def test_a_model_with_nothing_for_the_npu_says_so_loudly_and_has_no_latency(
    build: Build, agent: Agent, tmp_path: Path
) -> None:
    net = tflite_nets.Net()
    given = net.tensor("image", (1, 4))
    last = net.add(tflite_nets.OP.FLOOR, [given], net.tensor("output", (1, 4)))
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "model.tflite").write_bytes(net.file(given, last, input_name="image"))
    compiled, _ = build(tflite_nets.artifact(folder, "tflite-int8"), host=agent)
    assert compiled.layers is not None
    assert {layer.device for layer in compiled.layers} == {"CPU"}
    assert compiled.notes[0].startswith("NO OPERATOR RUNS ON THE NPU")
    assert "latency_ms" not in figures(compiled)


def test_no_name_reaches_a_shell(build: Build, int8: Artifact, tmp_path: Path) -> None:
    folder = tmp_path / "in; touch pwned; $(touch pwned)"
    folder.mkdir()
    (folder / "model.tflite").write_bytes(int8.path("model.tflite").read_bytes())
    build(tflite_nets.artifact(folder, "tflite-int8"), out="out; touch pwned")
    assert not list(tmp_path.rglob("pwned"))


def test_vela_that_fails_keeps_its_log(build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "vela"
    fake.write_text("#!/bin/sh\necho reading\necho 'Error: out of cheese' >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setattr(ethos_u.sys, "executable", str(fake))
    with pytest.raises(StageError, match="vela refuses the model: reading / Error: out of cheese"):
        build()
    assert "out of cheese" in (tmp_path / "out" / "aside" / "vela.log").read_text()


@pytest.mark.parametrize(
    "text",
    ["", "inference_time,sram_memory_used\n", "inference_time,sram_memory_used\n0.1,5\n"],
    ids=["empty", "no row", "no column"],
)
def test_a_summary_that_is_cut_off_is_an_error(text: str) -> None:
    with pytest.raises(StageError, match="cut off"):
        read_summary(text)


def test_a_summary_that_ends_within_its_row_is_an_error(build: Build) -> None:
    _, out = build()
    text = (out / "aside" / "summary.csv").read_text()
    with pytest.raises(StageError, match="cut off"):
        read_summary(text[: len(text) * 3 // 4])


def test_reasons_are_found_in_the_log() -> None:
    log = (
        "Warning: Option --x is deprecated.\n\n"
        "Warning (supported operators) operator: MEAN, ofm: 'a/ReduceMean'\n"
        "Reason: Unsupported depth-reduction.  IFM: 1, 128, 8, 8\n"
        "Reduction over depth is only supported if any of h,w,c == 1\n\n"
        "Warning (supported operators) operator: CAST, ofm: 'b'\n"
        "Reason: Unsupported opType\n\n"
        "########\nPerformance\n"
    )
    assert ethos_u._reasons(log) == {
        "a/ReduceMean": "Unsupported depth-reduction. IFM: 1, 128, 8, 8 "
        "Reduction over depth is only supported if any of h,w,c == 1",
        "b": "Unsupported opType",
    }
