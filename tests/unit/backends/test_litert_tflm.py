"""LiteRT and TFLM on the host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt.access import Agent, local
from edgeopt.agent import tflite_file
from edgeopt.artifact import Artifact
from edgeopt.backends import Backend, Compiled, Request, litert
from edgeopt.backends.litert import Litert
from edgeopt.backends.tflm import Tflm
from edgeopt.errors import ConfigError, StageError
from edgeopt.quantizers import ai_edge
from edgeopt.target import Target
from tests import onnx_nets, tflite_nets


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with local.start(limit_s=120) as started:
        yield started


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """``tflite`` and ``tflite-int8`` of one network, and ``outside``: large, with buffers behind the flatbuffer."""
    found = {}
    for kind in ("tflite", "tflite-int8", "outside"):
        folder = tmp_path_factory.mktemp(kind)
        file = tflite_nets.convolutional(528 if kind == "outside" else 16)
        (folder / "model.tflite").write_bytes(file)
        if kind == "tflite-int8":
            samples, parameters = tflite_nets.samples(32), ai_edge.AiEdgeParams()
            ai_edge.AiEdge().quantize(folder / "model.tflite", samples, parameters, folder, seed=0)
        if kind == "outside":
            package = ai_edge._by_package(file, tflite_nets.samples(8), ai_edge.AiEdgeParams(), lambda done: None)
            (folder / "model.tflite").write_bytes(package)
        found[kind] = tflite_nets.artifact(folder, "tflite" if kind == "tflite" else "tflite-int8")
    return found


def build(backend: Backend, source: Artifact, agent: Agent, out: Path) -> Compiled:
    request: Request = replace(onnx_nets.request(1), host=lambda environment: agent)
    out.mkdir()
    return backend.compile(source, request, out)


@pytest.mark.parametrize(
    ("backend", "kind"), [(Litert(), "tflite"), (Litert(), "tflite-int8"), (Tflm(), "tflite-int8")]
)
def test_layers_have_the_nodes_of_the_onnx_file(
    backend: Backend, kind: str, sources: dict[str, Artifact], agent: Agent, tmp_path: Path
) -> None:
    compiled = build(backend, sources[kind], agent, tmp_path / "out")
    assert compiled.layers is not None
    layers = {entry["name"]: entry for entry in backend.layer_map(compiled.layers, compiled)}
    assert layers["stem.0/Conv+stem.1/Relu"]["source"] == ["stem.0/Conv", "stem.1/Relu"]
    assert layers["output"]["source"] == ["head/Gemm"]
    assert {entry["device"] for entry in layers.values()} == {"CPU"}
    assert layers["output"]["precision"] == ("f32" if kind == "tflite" else "i8")


def test_the_file_that_ships_has_all_buffers_inside(sources: dict[str, Artifact], agent: Agent, tmp_path: Path) -> None:
    source = sources["outside"]
    before = source.path("model.tflite").read_bytes()
    assert any(tensor.outside for tensor in tflite_file.read(before).tensors)
    compiled = build(Litert(), source, agent, tmp_path / "out")
    after = (tmp_path / "out" / compiled.file).read_bytes()
    assert not any(tensor.outside for tensor in tflite_file.read(after).tensors)
    samples = tflite_nets.samples(3)
    np.testing.assert_array_equal(tflite_nets.run(after, samples), tflite_nets.run(before, samples))


@pytest.mark.parametrize("backend", [Litert(), Tflm()])
def test_equal_arguments_give_equal_bytes(
    backend: Backend, sources: dict[str, Artifact], agent: Agent, tmp_path: Path
) -> None:
    files = [
        (tmp_path / name / build(backend, sources["tflite-int8"], agent, tmp_path / name).file).read_bytes()
        for name in ("a", "b")
    ]
    assert files[0] == files[1]


def test_the_difference_between_kernels_is_told(sources: dict[str, Artifact], agent: Agent, tmp_path: Path) -> None:
    """As it is for the same samples, taken by LiteRT itself."""
    compiled = build(Litert(), sources["tflite-int8"], agent, tmp_path / "out")
    (note,) = compiled.notes
    told = re.fullmatch(
        r"XNNPACK and reference kernels on (\d+) random samples: (\d+) % of the outputs identical, max (\d+) LSB", note
    )
    assert told
    count, share, largest = map(int, told.groups())
    samples = np.random.default_rng(0).integers(0, 255, (count, 8, 8, 3), np.uint8, endpoint=True)
    file = (tmp_path / "out" / "model.tflite").read_bytes()
    one, other = (tflite_nets.run(file, samples, reference=reference).astype(int) for reference in (False, True))
    assert share == round(100 * (one == other).mean())
    assert largest == np.abs(one - other).max()
    (of_float,) = build(Litert(), sources["tflite"], agent, tmp_path / "float").notes
    assert float(of_float.rpartition("max ")[2]) < 1e-5


@pytest.mark.parametrize(
    ("fast", "loud"),
    [([4.0, 3.0], False), ([4.4, 3.0], False), ([4.6, 3.0], True), ([0.0, 0.0], True), ([np.nan, 3.0], True)],
)
def test_a_large_difference_between_kernels_is_a_warning(fast: list[float], loud: bool) -> None:
    """The reference has the norm 5: a difference of 0.5 is 20 dB below it."""
    graph = tflite_file.read(tflite_nets.convolutional())
    given, wanted = np.array([fast], np.float32), np.array([[4.0, 3.0]], np.float32)
    note = litert._difference(graph, [given], [wanted])
    assert note.startswith("WARNING: XNNPACK does not compute what the file says") == loud
    assert "on 1 random samples" in note
    silent = np.zeros_like(wanted)
    assert litert._difference(graph, [silent], [silent]).startswith("XNNPACK and")
    assert litert._difference(graph, [wanted], [silent]).startswith("WARNING")


@pytest.mark.parametrize(("lsb", "loud"), [(1, False), (2, False), (3, True)])
def test_rounding_of_a_small_output_is_no_warning(lsb: int, loud: bool) -> None:
    graph = tflite_file.read(tflite_nets.convolutional())
    quantized = graph._replace(outputs=(graph.outputs[0]._replace(scales=(0.5,)),))
    given, wanted = np.array([[0.5 * lsb, 0.0]], np.float32), np.zeros((1, 2), np.float32)
    note = litert._difference(quantized, [given], [wanted])
    assert note.startswith("WARNING") == loud
    assert f"max {lsb} LSB" in note


def test_figures_of_a_microcontroller(sources: dict[str, Artifact], agent: Agent, tmp_path: Path) -> None:
    compiled = build(Tflm(), sources["tflite-int8"], agent, tmp_path / "out")
    found = {figure.metric: figure for figure in compiled.figures}
    assert set(found) == {"arena_mib", "flash_mib"}
    assert found["flash_mib"].value * 2**20 == (tmp_path / "out" / "model.tflite").stat().st_size
    # At least the largest pair of activations: 8 × 8 × 16 bytes in and out.
    assert 2 * 8 * 8 * 16 < found["arena_mib"].value * 2**20 < 64 * 1024
    assert found["arena_mib"].method == "simulated"
    assert "built for this machine" in found["arena_mib"].why
    assert compiled.facts["operators"] == ["ADD", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MEAN", "MUL",
                                           "QUANTIZE"]  # fmt: skip


def test_without_a_device_this_machine_stands_in(sources: dict[str, Artifact], agent: Agent, tmp_path: Path) -> None:
    for backend in (Litert(), Tflm()):
        compiled = build(backend, sources["tflite-int8"], agent, tmp_path / backend.name)
        assert compiled.stand_in is not None
        assert compiled.stand_in.runtime == backend.name
        assert "this machine" in compiled.stand_in.what
        assert backend.without_device == "simulate"


def test_an_operator_that_tflm_lacks_is_an_error(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(tflite_nets.floor_of_image())
    source = tflite_nets.artifact(tmp_path, "tflite-int8")
    meta = {**source.meta, "input": {"name": "x", "shape": [4], "dtype": "uint8"}}
    with pytest.raises(StageError, match=r"TFLM cannot run this model: .*CAST.*; it is CAST at cast") as caught:
        build(Tflm(), replace(source, meta=meta), agent, tmp_path / "out")
    assert "operators" in caught.value.fix


@pytest.mark.parametrize("device", [{}, {"kind": "mcu"}, {"access": "local"}, {"access": {"ssh": "board"}}])
def test_this_machine_is_no_microcontroller(device: dict[str, Any]) -> None:
    target = Target.model_validate({"target": 1, "name": "t", "runtime": "tflm", "device": device})
    with pytest.raises(ConfigError, match="does not run models on microcontrollers") as caught:
        Tflm().options(target)
    assert "access: none" in caught.value.fix
    assert Tflm().depth(target) == "simulate"


def test_without_a_device_a_microcontroller_has_no_options() -> None:
    target = Target.model_validate({"target": 1, "name": "t", "runtime": "tflm", "device": {"access": "none"}})
    assert Tflm().options(target).model_dump() == {}


def test_the_refusal_names_the_module(agent: Agent, tmp_path: Path) -> None:
    """The second operator, a cosine, wants float; that is seen only when it runs."""
    net = tflite_nets.Net()
    given = net.tensor("image", (1, 4), "int8")
    x = net.add(tflite_nets.OP.RESHAPE, [given], net.tensor("a/Reshape", (1, 4), "int8"))
    x = net.add(tflite_nets.OP.COS, [x], net.tensor("output", (1, 4), "int8"))
    (tmp_path / "model.tflite").write_bytes(net.file(given, x, input_name="image", output_name="output"))
    source = tflite_nets.artifact(tmp_path, "tflite-int8")
    meta = {**source.meta, "outputs": [{**source.meta["outputs"][0], "node": "block.1/Cos"}]}
    with pytest.raises(StageError, match=r"TFLM cannot run this model: .*; it is COS at block\.1/Cos"):
        build(Tflm(), replace(source, meta=meta), agent, tmp_path / "out")


def test_only_int8_is_for_microcontrollers() -> None:
    assert Tflm.precisions == {"int8"}
    assert "tflite" not in Tflm.consumes
    assert "float" in Litert.precisions
