"""What every backend must do, built in or added later."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt import config, provenance, registry
from edgeopt.access import Agent, local
from edgeopt.artifact import Artifact
from edgeopt.backends import Backend, Compiled
from edgeopt.errors import StageError
from edgeopt.quantizers import Quantizer
from edgeopt.target import Target
from tests import onnx_nets

BACKENDS: dict[str, Backend] = dict(registry.builtin("backends"))
#: Those whose files run on this machine as they run on its CPU. The others have tests of their own.
HERE = [name for name, backend in BACKENDS.items() if backend.processor == "CPU" and "onnx" in backend.consumes]
#: Those that work in this environment.
INSTALLED_BY_PIP = [name for name, backend in BACKENDS.items() if not backend.environment]
TARGETS = Path(__file__).parents[2] / "targets"
SHIPPED = [
    (target, runtime)
    for file in sorted(TARGETS.glob("*.yaml"))
    for target in [config.load(file, Target)]
    for runtime in target.runtime
]
QUANTIZERS: dict[str, Quantizer[Any]] = dict(registry.builtin("quantizers"))
BATCH = 2
each_source = pytest.mark.parametrize(
    ("backend", "source"),
    [(name, kind) for name in HERE for kind in sorted(BACKENDS[name].consumes)],
    indirect=True,
)


def target(backend: str, *features: str) -> Target:
    return Target(target=1, name="t", runtime=(backend,), device={"features": features})  # type: ignore[arg-type]


@pytest.fixture(params=HERE)
def backend(request: pytest.FixtureRequest) -> Backend:
    found = BACKENDS[request.param]
    if not found.probe().installed:
        pytest.skip(f"{request.param} is not installed: {found.probe().fix}")
    return found


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with local.start() as started:
        yield started


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """An artefact of every kind that a quantizer can make, and the float one, by kind."""
    folder = tmp_path_factory.mktemp("float")
    onnx_nets.convolutional(folder / "model.onnx")
    found = {"onnx": onnx_nets.artifact(folder)}
    for name in {BACKENDS[backend].scheme(target(backend)).quantizer for backend in HERE}:
        quantizer = QUANTIZERS[name]
        out = tmp_path_factory.mktemp(name)
        quantizer.quantize(folder / "model.onnx", onnx_nets.samples(40), quantizer.Params(), out, seed=0)
        found[quantizer.produces] = onnx_nets.artifact(out, quantizer.produces)
    return found


@pytest.fixture
def source(request: pytest.FixtureRequest, sources: dict[str, Artifact]) -> Artifact:
    return sources[request.param]


def compile_into(backend: Backend, source: Artifact, folder: Path) -> Compiled:
    folder.mkdir()
    return backend.compile(source, onnx_nets.request(BATCH, backend.options(target(backend.name))), folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_there_are_the_runtimes_of_the_targets() -> None:
    assert {"onnxruntime", "openvino"} == set(HERE)
    assert {runtime for _, runtime in SHIPPED} <= BACKENDS.keys()


@pytest.mark.parametrize(("shipped", "runtime"), SHIPPED, ids=[f"{one.name}-{runtime}" for one, runtime in SHIPPED])
def test_the_targets_that_we_ship_are_ones_that_it_takes(shipped: Target, runtime: str) -> None:
    backend = BACKENDS[runtime]
    options = backend.options(shipped)
    assert backend.Options.parse(options.model_dump(), runtime, "") == options
    assert backend.depth(shipped) in ("compile", "simulate", "estimate", "measure")
    assert set(shipped.precision) <= backend.precisions
    if "int8" in shipped.precision:
        scheme = backend.scheme(shipped)
        assert QUANTIZERS[scheme.quantizer].produces in backend.consumes
        QUANTIZERS[scheme.quantizer].Params.parse(scheme.options, scheme.quantizer, "")


@pytest.mark.parametrize("features", [(), ("vnni",)])
def test_its_scheme_names_a_quantizer_whose_file_it_reads(backend: Backend, features: tuple[str, ...]) -> None:
    scheme = backend.scheme(target(backend.name, *features))
    quantizer = QUANTIZERS[scheme.quantizer]
    assert quantizer.produces in backend.consumes
    quantizer.Params.parse(scheme.options, quantizer.name, "")


def test_weights_use_all_bits_only_where_the_device_cannot_saturate(backend: Backend) -> None:
    options = [backend.scheme(target(backend.name, *features)).options for features in ((), ("vnni",))]
    assert options[0] != options[1]


@each_source
def test_it_computes_what_the_float_model_computes(
    backend: Backend, source: Artifact, sources: dict[str, Artifact], agent: Agent, tmp_path: Path
) -> None:
    compiled = compile_into(backend, source, tmp_path / "out")
    agent.open("model", backend.name, str(tmp_path / "out" / compiled.file))
    unseen = onnx_nets.samples(40, seed=1)
    try:
        given = agent.infer("model", [unseen], batch=BATCH)[0]
    finally:
        agent.close("model")
    wanted = onnx_nets.run(sources["onnx"].path("model.onnx"), unseen)
    if source.kind == "onnx":
        np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())
    else:
        assert onnx_nets.noise_ratio_db(wanted, given) > 25


@each_source
def test_batch_is_fixed(backend: Backend, source: Artifact, agent: Agent, tmp_path: Path) -> None:
    compiled = compile_into(backend, source, tmp_path / "out")
    opened = agent.open("model", backend.name, str(tmp_path / "out" / compiled.file))
    agent.close("model")
    assert [(port.name, port.shape, port.dtype) for port in opened.inputs] == [("image", (BATCH, 8, 8, 3), "uint8")]
    assert [(port.name, port.shape, port.dtype) for port in opened.outputs] == [("output", (BATCH, 4), "float32")]


@each_source
def test_the_layer_map_leads_back_to_every_layer_and_is_the_same_each_time(
    backend: Backend, source: Artifact, agent: Agent, tmp_path: Path
) -> None:
    maps = []
    for attempt in ("a", "b"):
        compiled = compile_into(backend, source, tmp_path / attempt)
        agent.open("model", backend.name, str(tmp_path / attempt / compiled.file))
        layers = agent.layers("model", [np.zeros((BATCH, 8, 8, 3), np.uint8)])
        agent.close("model")
        maps.append(backend.layer_map(layers, compiled))
    assert json.dumps(maps[0]) == json.dumps(maps[1])
    assert all(set(entry) == {"name", "op", "source", "precision", "device", "exec"} for entry in maps[0])
    assert len({entry["name"] for entry in maps[0]}) == len(maps[0])
    computed = {node for entry in maps[0] for node in entry["source"]}
    assert {"stem/Conv", "depth/Conv", "point/Conv", "model/Add", "model/ReduceMean", "head/Gemm"} <= computed
    for entry in maps[0]:
        if {"stem/Conv", "point/Conv", "head/Gemm"} & set(entry["source"]):
            assert entry["precision"] == ("f32" if source.kind == "onnx" else "u8")


@each_source
def test_two_runs_give_equal_bytes_without_local_paths(backend: Backend, source: Artifact, tmp_path: Path) -> None:
    compile_into(backend, source, tmp_path / "a")
    compile_into(backend, source, tmp_path / "b")
    files = contents(tmp_path / "a")
    assert files == contents(tmp_path / "b")
    for content in files.values():
        assert str(tmp_path).encode() not in content
        assert str(source.root).encode() not in content


@each_source
def test_its_input_is_not_changed(backend: Backend, source: Artifact, tmp_path: Path) -> None:
    before = contents(source.root)
    compile_into(backend, source, tmp_path / "out")
    assert contents(source.root) == before


def test_a_file_that_is_no_model_is_refused(backend: Backend, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model.onnx").write_bytes(b"\x08\x0a\x12\x03abc")
    with pytest.raises(StageError):
        backend.compile(
            onnx_nets.artifact(broken), onnx_nets.request(BATCH, backend.options(target(backend.name))), tmp_path
        )


@pytest.mark.parametrize("name", INSTALLED_BY_PIP)
def test_a_toolkit_that_is_not_installed_is_reported_with_the_line_that_installs_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(distribution: str) -> str:
        raise PackageNotFoundError(distribution)

    monkeypatch.setattr(provenance, "version", none)
    provenance.tool_version.cache_clear()
    try:
        found = BACKENDS[name].probe()
    finally:
        provenance.tool_version.cache_clear()
    assert not found.installed
    assert set(found.missing) == set(BACKENDS[name].tools)
    assert found.version == ""
    assert "pip install 'edgeopt[" in found.fix
    assert name not in HERE or name in found.fix


def test_probing_loads_no_toolkit() -> None:
    script = (
        "import sys; from edgeopt import registry;"
        "[b.probe() for b in registry.builtin('backends').values()]; registry.builtin('quantizers');"
        "print({'torch', 'onnx', 'onnxruntime', 'openvino', 'nncf'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
