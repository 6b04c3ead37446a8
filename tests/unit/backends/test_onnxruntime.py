"""ONNX Runtime on the host: a saved file that is as good as the original and runs on any CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeopt.agent.runtimes import Layer
from edgeopt.backends import Compiled
from edgeopt.backends.onnxruntime import Onnxruntime, with_batch
from edgeopt.quantizers.onnxruntime_qdq import OnnxruntimeQdq, OnnxruntimeQdqParams
from tests import onnx_nets


@pytest.fixture(params=["float", "int8"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    file = onnx_nets.convolutional(folder / "model.onnx")
    if request.param == "int8":
        folder = tmp_path / "int8"
        folder.mkdir()
        OnnxruntimeQdq().quantize(file, onnx_nets.samples(40), OnnxruntimeQdqParams(), folder, seed=0)
    return folder


def test_opening_the_saved_file_gives_what_opening_the_original_gives(source: Path, tmp_path: Path) -> None:
    """Bit for bit, with all optimisations: nothing that the last level does is lost by saving after the one before."""
    out = tmp_path / "out"
    out.mkdir()
    Onnxruntime().compile(onnx_nets.artifact(source), onnx_nets.request(3), out)
    values = onnx_nets.samples(3, seed=1)
    direct = onnx_nets.run(source / "model.onnx", values, optimized=True)
    assert np.array_equal(onnx_nets.run(out / "model.onnx", values, optimized=True), direct)


def test_the_saved_file_has_no_layout_of_one_kind_of_cpu(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    Onnxruntime().compile(onnx_nets.artifact(source), onnx_nets.request(1), out)
    domains = {node.domain for node in onnx.load(out / "model.onnx").graph.node}
    assert domains <= {"", "ai.onnx", "com.microsoft"}
    assert [path.name for path in out.iterdir()] == ["model.onnx"]


def test_integer_operators_are_fused(tmp_path: Path) -> None:
    file = onnx_nets.convolutional(tmp_path / "model.onnx")
    int8, out = tmp_path / "int8", tmp_path / "out"
    int8.mkdir()
    out.mkdir()
    OnnxruntimeQdq().quantize(
        file,
        onnx_nets.samples(40),
        OnnxruntimeQdqParams(),
        int8,
        seed=0,
        keep_float=onnx_nets.PREPROCESS_NODES,
    )
    Onnxruntime().compile(onnx_nets.artifact(int8), onnx_nets.request(1), out)
    operators = [node.op_type for node in onnx.load(out / "model.onnx").graph.node]
    assert operators.count("QLinearConv") == 3
    assert "QGemm" in operators
    assert "QLinearAdd" in operators
    assert "Conv" not in operators


def test_the_batch_is_fixed_everywhere(tmp_path: Path) -> None:
    file = onnx_nets.convolutional(tmp_path / "model.onnx")
    model = onnx.load_from_string(with_batch(file.read_bytes(), 7))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        dims = value.type.tensor_type.shape.dim
        assert dims[0].dim_value == 7
        assert not any(dim.dim_param for dim in dims)


def test_sources_are_computing_nodes_where_there_are_any() -> None:
    compiled = Compiled("model.onnx", {"stem": ("w_DequantizeLinear", "stem/Conv", "b_QuantizeLinear"), "q": ("x_q",)})

    def layer(name: str, *source: str) -> Layer:
        return Layer(name, "Conv", source, "u8", "CPU", "com.microsoft:QLinearConv", 1.0)

    layers = [layer("stem_nchwc", "stem"), layer("q", "q"), layer("Transpose_token_3", "made up")]
    assert [entry["source"] for entry in Onnxruntime().layer_map(layers, compiled)] == [["stem/Conv"], ["x_q"], []]
