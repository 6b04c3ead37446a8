"""Q/DQ for ONNX Runtime, on a network with very uneven channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeopt.errors import ConfigError, StageError
from edgeopt.quantizers import QuantizerOutput
from edgeopt.quantizers import onnxruntime_qdq as module
from edgeopt.quantizers.onnxruntime_qdq import OnnxruntimeQdq, OnnxruntimeQdqParams
from tests import onnx_nets

LAYERS = ["stem/Conv", "depth/Conv", "point/Conv", "head/Gemm"]


@pytest.fixture(scope="module")
def float_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_nets.convolutional(tmp_path_factory.mktemp("float") / "model.onnx")


def quantize(model: Path, out: Path, **options: object) -> QuantizerOutput:
    out.mkdir(exist_ok=True)
    params = OnnxruntimeQdqParams.model_validate(options)
    return OnnxruntimeQdq().quantize(
        model, onnx_nets.samples(40), params, out, seed=0, keep_float=onnx_nets.PREPROCESS_NODES
    )


def layers(float_model: Path, out: Path) -> dict[str, module.Layer]:
    found = module.describe(
        onnx.load(float_model), onnx.load(out / "model.onnx"), keep_float=onnx_nets.PREPROCESS_NODES
    )
    return {layer.name: layer for layer in found}


def test_defaults_give_u8_activations_and_seven_bit_weights_per_channel(float_model: Path, tmp_path: Path) -> None:
    output = quantize(float_model, tmp_path)
    assert output.kind == "onnx-qdq"
    assert output.notes == ()
    assert output.meta == {"float_layers": []}
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    found = layers(float_model, tmp_path)
    assert list(found) == LAYERS
    assert [layer.channels for layer in found.values()] == [16, 16, 16, 4]
    for layer in found.values():
        assert layer.scales == layer.channels
        assert 60 <= layer.largest <= 64
        assert layer.activation == "uint8"


def test_the_result_computes_nearly_the_same_also_with_all_optimizations(float_model: Path, tmp_path: Path) -> None:
    quantize(float_model, tmp_path)
    unseen = onnx_nets.samples(50, seed=1)
    wanted = onnx_nets.run(float_model, unseen)
    for optimized in (False, True):
        given = onnx_nets.run(tmp_path / "model.onnx", unseen, optimized=optimized)
        assert onnx_nets.noise_ratio_db(wanted, given) > 25


def test_options_change_the_file(float_model: Path, tmp_path: Path) -> None:
    quantize(float_model, tmp_path / "wide", reduce_range=False)
    assert max(layer.largest for layer in layers(float_model, tmp_path / "wide").values()) > 64
    quantize(float_model, tmp_path / "tensor", per_channel=False)
    assert {layer.scales for layer in layers(float_model, tmp_path / "tensor").values()} == {1}
    quantize(float_model, tmp_path / "signed", activations="int8")
    assert {layer.activation for layer in layers(float_model, tmp_path / "signed").values()} == {"int8"}


def test_one_scale_per_layer_is_much_worse_with_uneven_channels(float_model: Path, tmp_path: Path) -> None:
    unseen = onnx_nets.samples(50, seed=1)
    wanted = onnx_nets.run(float_model, unseen)
    ratios = []
    for per_channel in (True, False):
        out = tmp_path / str(per_channel)
        quantize(float_model, out, per_channel=per_channel)
        ratios.append(onnx_nets.noise_ratio_db(wanted, onnx_nets.run(out / "model.onnx", unseen)))
    assert ratios[0] > ratios[1] + 3


def test_preprocessing_stays_float_and_the_first_convolution_does_not(float_model: Path, tmp_path: Path) -> None:
    quantize(float_model, tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    producers = {name: node for node in model.graph.node for name in node.output}
    stem = next(node for node in model.graph.node if node.name == "stem/Conv")
    pair = producers[stem.input[0]], producers[producers[stem.input[0]].input[0]]
    assert [node.op_type for node in pair] == ["DequantizeLinear", "QuantizeLinear"]
    node, path = producers[pair[1].input[0]], []
    while node is not None:
        path.append(node.name)
        node = producers.get(node.input[0])
    assert path[::-1] == onnx_nets.PREPROCESS_NODES


@pytest.mark.parametrize("float_outputs", [True, False])
def test_the_last_matrix_product_writes_float_unless_told(
    float_model: Path, tmp_path: Path, float_outputs: bool
) -> None:
    quantize(float_model, tmp_path, float_outputs=float_outputs)
    model = onnx.load(tmp_path / "model.onnx")
    last = next(node for node in model.graph.node if "output" in node.output)
    assert last.op_type == ("Gemm" if float_outputs else "DequantizeLinear")
    assert np.unique(onnx_nets.run(tmp_path / "model.onnx", onnx_nets.samples(200))).size > 256 or not float_outputs


def test_equal_arguments_give_equal_bytes_and_no_local_path(float_model: Path, tmp_path: Path) -> None:
    quantize(float_model, tmp_path / "a")
    quantize(float_model, tmp_path / "b")
    first = (tmp_path / "a" / "model.onnx").read_bytes()
    assert first == (tmp_path / "b" / "model.onnx").read_bytes()
    assert str(tmp_path).encode() not in first


def test_matrix_products_with_untransposed_weights(tmp_path: Path) -> None:
    model = onnx_nets.perceptron(tmp_path / "float.onnx")
    values = np.random.default_rng(0).standard_normal((40, 32)).astype(np.float32)
    output = OnnxruntimeQdq().quantize(model, values, OnnxruntimeQdqParams(), tmp_path, seed=0)
    assert output.meta == {"float_layers": []}
    found = module.describe(onnx.load(model), onnx.load(tmp_path / "model.onnx"))
    assert [(layer.channels, layer.scales, layer.op) for layer in found] == [(64, 64, "product"), (4, 4, "product")]


def test_an_activation_without_a_range_is_found(tmp_path: Path) -> None:
    model = onnx_nets.convolutional(tmp_path / "dead.onnx", dead=True)
    with pytest.raises(ConfigError, match=r"zero for all calibration samples.*: b") as caught:
        quantize(model, tmp_path / "out")
    assert caught.value.where == "data.calibrate"
    assert list((tmp_path / "out").iterdir()) == []


def test_a_range_of_exactly_255_is_no_missing_range(tmp_path: Path) -> None:
    """It has scale 1 and zero point 0, as a range that nobody has seen."""
    values = np.random.default_rng(0).uniform(0, 255, (40, 32)).astype(np.float32)
    values[0, :2] = 0, 255
    model = onnx_nets.perceptron(tmp_path / "float.onnx")
    OnnxruntimeQdq().quantize(model, values, OnnxruntimeQdqParams(), tmp_path, seed=0)
    scales = {tensor.name: tensor for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert onnx.numpy_helper.to_array(scales["image_scale"]) == 1


def test_a_model_without_layers_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="to quantize"):
        quantize(onnx_nets.without_layers(tmp_path / "mean.onnx"), tmp_path / "out")


def test_it_says_nothing_by_itself_and_counts_the_samples(
    float_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []
    OnnxruntimeQdq().quantize(
        float_model, onnx_nets.samples(40), OnnxruntimeQdqParams(), tmp_path, seed=0, progress=seen.append
    )
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert seen == sorted(seen)
    assert seen[-1] == 40


def test_only_what_weighted_operators_read_is_quantized(float_model: Path, tmp_path: Path) -> None:
    """The residual reads what the next convolution reads; nothing is rounded between a convolution and its Relu."""
    quantize(float_model, tmp_path, tensors="inputs")
    model = onnx.load(tmp_path / "model.onnx")
    assert {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"} == {"x", "b", "d", "h"}
    producers = {name: node for node in model.graph.node for name in node.output}
    add = next(node for node in model.graph.node if node.name == "model/Add")
    assert {producers[name].op_type for name in add.input} == {"DequantizeLinear", "Conv"}
    assert all(layer.scales == layer.channels for layer in layers(float_model, tmp_path).values())


def test_float_biases(float_model: Path, tmp_path: Path) -> None:
    quantize(float_model, tmp_path, quantize_bias=False)
    model = onnx.load(tmp_path / "model.onnx")
    assert not any(tensor.data_type == onnx.TensorProto.INT32 for tensor in model.graph.initializer)
    assert {"stem.bias", "head.bias"} <= {name for node in model.graph.node for name in node.input}


def test_tensorrt_takes_symmetric_int8_with_float_biases(float_model: Path, tmp_path: Path) -> None:
    from edgeopt.qdq import for_tensorrt, lint, refused

    options = {"activations": "int8", "quantize_bias": False, "reduce_range": False, "tensors": "inputs"}
    quantize(float_model, tmp_path / "a", **options)
    assert {finding.rule for finding in refused(lint(onnx.load(tmp_path / "a" / "model.onnx")))} == {"uint8-moved"}
    assert for_tensorrt(onnx.load(tmp_path / "a" / "model.onnx"), "")[1] == ()
    quantize(float_model, tmp_path / "b")
    rules = {finding.rule for finding in refused(lint(onnx.load(tmp_path / "b" / "model.onnx")))}
    assert {"zero-point", "int32-bias"} <= rules
