"""Q/DQ for Qualcomm's HTP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeopt.errors import ConfigError, StageError
from edgeopt.quantizers import Layer, QuantizerOutput
from edgeopt.quantizers.onnxruntime_qdq import describe
from edgeopt.quantizers.qnn_qdq import QnnQdq, QnnQdqParams
from tests import onnx_nets


def quantize(model: Path, out: Path, **options: object) -> QuantizerOutput:
    out.mkdir(exist_ok=True)
    params = QnnQdqParams.model_validate(options)
    values = onnx_nets.samples(40)
    return QnnQdq().quantize(model, values, params, out, seed=0, keep_float=onnx_nets.PREPROCESS_NODES)


@pytest.fixture(scope="module")
def float_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_nets.convolutional(tmp_path_factory.mktemp("float") / "model.onnx")


def layers(float_model: Path, out: Path) -> list[Layer]:
    return list(describe(onnx.load(float_model), onnx.load(out / "model.onnx")))


@pytest.mark.parametrize("activations", ["uint8", "uint16"])
def test_weights_have_eight_bits_per_channel(float_model: Path, tmp_path: Path, activations: str) -> None:
    output = quantize(float_model, tmp_path, activations=activations)
    assert (output.kind, output.notes, output.meta) == ("onnx-qdq", (), {"float_layers": []})
    found = layers(float_model, tmp_path)
    assert [layer.name for layer in found] == ["stem/Conv", "depth/Conv", "point/Conv", "head/Gemm"]
    for layer in found:
        assert layer.scales == layer.channels
        assert 120 <= layer.largest <= 128
        assert layer.activation == activations


def test_one_scale_for_all_channels_if_asked_for(float_model: Path, tmp_path: Path) -> None:
    quantize(float_model, tmp_path, per_channel=False)
    assert {layer.scales for layer in layers(float_model, tmp_path)} == {1}


def test_nothing_stays_float_between_the_cast_of_the_input_and_the_output(float_model: Path, tmp_path: Path) -> None:
    quantize(float_model, tmp_path)
    graph = onnx.load(tmp_path / "model.onnx").graph
    produced = {name: node for node in graph.node for name in node.output}
    plain = {"QuantizeLinear", "DequantizeLinear", "Transpose", "Cast"}
    computing = [node for node in graph.node if node.op_type not in plain]
    assert {"preprocess/Mul", "preprocess/Add", "head/Gemm"} <= {node.name for node in computing}
    for node in computing:
        producers = {produced[name].op_type for name in node.input if name in produced}
        assert producers == {"DequantizeLinear"}, node.name
    assert produced[graph.output[0].name].op_type == "DequantizeLinear"


def test_sixteen_bits_are_closer_to_the_float_network(float_model: Path, tmp_path: Path) -> None:
    unseen = onnx_nets.samples(50, seed=1)
    wanted = onnx_nets.run(float_model, unseen)
    ratio_db = {}
    for activations in ("uint8", "uint16"):
        quantize(float_model, tmp_path / activations, activations=activations)
        given = onnx_nets.run(tmp_path / activations / "model.onnx", unseen)
        ratio_db[activations] = onnx_nets.noise_ratio_db(wanted, given)
    assert ratio_db["uint16"] > ratio_db["uint8"] > 25


def test_a_matrix_product_has_one_scale(tmp_path: Path) -> None:
    model = onnx_nets.perceptron(tmp_path / "model.onnx")
    values = np.random.default_rng(0).standard_normal((40, 32)).astype(np.float32)
    out = tmp_path / "out"
    out.mkdir()
    output = QnnQdq().quantize(model, values, QnnQdqParams(), out, seed=0)
    assert output.notes == ()
    assert [layer.scales for layer in layers(model, out)] == [1, 1]


def test_the_factors_of_a_normalization_are_uint8(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gemm", ["image", "w"], ["a"], name="head/Gemm"),
        helper.make_node("LayerNormalization", ["a", "g", "b"], ["output"], name="norm"),
    ]
    random = np.random.default_rng(0)
    shapes = {"w": (32, 8), "g": (8,), "b": (8,)}
    constants = [
        numpy_helper.from_array(random.standard_normal(size).astype("f4"), name) for name, size in shapes.items()
    ]
    ports = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", s]) for n, s in (("image", 32), ("output", 8))
    ]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "m.onnx")
    out = tmp_path / "out"
    out.mkdir()
    values = random.standard_normal((40, 32)).astype(np.float32)
    QnnQdq().quantize(tmp_path / "m.onnx", values, QnnQdqParams(), out, seed=0)
    written = onnx.load(out / "model.onnx").graph
    kinds = {tensor.name: tensor.data_type for tensor in written.initializer}
    assert kinds["g_quantized"] == TensorProto.UINT8
    assert kinds["w_quantized"] == TensorProto.INT8


def test_two_runs_give_equal_bytes(float_model: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        quantize(float_model, tmp_path / name)
    assert (tmp_path / "a" / "model.onnx").read_bytes() == (tmp_path / "b" / "model.onnx").read_bytes()


def test_activations_without_a_range_are_refused(tmp_path: Path) -> None:
    model = onnx_nets.convolutional(tmp_path / "dead.onnx", dead=True)
    with pytest.raises(ConfigError, match="zero for all calibration samples"):
        quantize(model, tmp_path / "out")


def test_a_model_without_layers_is_refused(tmp_path: Path) -> None:
    model = onnx_nets.without_layers(tmp_path / "mean.onnx")
    with pytest.raises(StageError, match="no convolution"):
        quantize(model, tmp_path / "out")
