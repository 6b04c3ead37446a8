"""NNCF for OpenVINO, on a network with very uneven channels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
import pytest

from edgeopt.errors import ConfigError, StageError
from edgeopt.quantizers import Layer, QuantizerOutput
from edgeopt.quantizers import nncf as module
from edgeopt.quantizers.nncf import Nncf, NncfParams
from tests import onnx_nets

LAYERS = ["stem/Conv", "depth/Conv", "point/Conv", "head/Gemm"]


@pytest.fixture(scope="module")
def float_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_nets.convolutional(tmp_path_factory.mktemp("float") / "model.onnx")


@pytest.fixture(scope="module")
def quantized(float_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, QuantizerOutput]:
    """With all defaults."""
    out = tmp_path_factory.mktemp("int8")
    return out, quantize(float_model, out)


def quantize(model: Path, out: Path, **options: object) -> QuantizerOutput:
    out.mkdir(exist_ok=True)
    params = NncfParams.model_validate(options)
    return Nncf().quantize(model, onnx_nets.samples(40), params, out, seed=0, keep_float=onnx_nets.PREPROCESS_NODES)


def layers(out: Path) -> dict[str, Layer]:
    return {layer.name: layer for layer in module.describe(openvino.Core().read_model(out / "model.xml"))}


def run(path: Path, values: np.ndarray) -> np.ndarray:
    return np.asarray(openvino.Core().compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": 1})(values)[0])


def test_defaults_give_seven_bit_weights_per_channel(quantized: tuple[Path, QuantizerOutput]) -> None:
    out, output = quantized
    assert output.kind == "openvino-ir"
    assert output.notes == ()
    assert output.meta["float_layers"] == []
    assert sorted(path.name for path in out.iterdir()) == ["model.bin", "model.xml"]
    found = layers(out)
    assert sorted(found) == sorted(LAYERS)
    for layer in found.values():
        assert layer.scales == layer.channels == (4 if layer.name == "head/Gemm" else 16)
        assert layer.quantized
    assert found["depth/Conv"].op == "depthwise convolution"
    assert max(layer.largest for name, layer in found.items() if name != "depth/Conv") <= 64


def test_the_result_computes_nearly_the_same(float_model: Path, quantized: tuple[Path, QuantizerOutput]) -> None:
    unseen = onnx_nets.samples(50, seed=1)
    given = run(quantized[0] / "model.xml", unseen)
    assert onnx_nets.noise_ratio_db(onnx_nets.run(float_model, unseen), given) > 25


def test_bias_correction_moves_biases_and_none_moves_none(
    float_model: Path, quantized: tuple[Path, QuantizerOutput], tmp_path: Path
) -> None:
    assert quantized[1].meta["corrected_biases"] > 0
    assert quantize(float_model, tmp_path, bias_correction="none").meta["corrected_biases"] == 0


def test_bias_correction_that_does_nothing_is_an_error(
    float_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happens after ``core.read_model``: the fast and the full setting give the same, uncorrected file."""
    monkeypatch.setattr(module, "convert", lambda path: openvino.Core().read_model(path))
    with pytest.raises(StageError, match="full bias correction was asked for, but no bias differs"):
        quantize(float_model, tmp_path)


def test_weights_use_their_whole_range_where_allowed(float_model: Path, tmp_path: Path) -> None:
    quantize(float_model, tmp_path, reduce_range="none", bias_correction="none")
    assert min(layer.largest for layer in layers(tmp_path).values()) > 64


def test_only_the_first_layer_is_reduced(float_model: Path, tmp_path: Path) -> None:
    quantize(float_model, tmp_path, reduce_range="first_layer", bias_correction="none")
    found = layers(tmp_path)
    assert found["stem/Conv"].largest <= 64
    assert found["point/Conv"].largest > 64


def test_symmetric_activations_are_checked(float_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantize(float_model, tmp_path / "symmetric", preset="performance", bias_correction="none")
    original = module._quantize
    ignoring = NncfParams(preset="mixed", bias_correction="none")
    monkeypatch.setattr(
        module, "_quantize", lambda model, samples, params, *rest: original(model, samples, ignoring, *rest)
    )
    with pytest.raises(StageError, match=r"symmetric activations were asked for.*model/Add/fq_output_0"):
        quantize(float_model, tmp_path / "mixed", preset="performance", bias_correction="none")


def test_another_process_with_another_history_writes_the_same_bytes(
    float_model: Path, quantized: tuple[Path, QuantizerOutput], tmp_path: Path
) -> None:
    script = (
        "import sys, pathlib; from tests.unit.quantizers.test_nncf import quantize;"
        "quantize(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", script, float_model, tmp_path], check=True, cwd=root)
    quantize(float_model, tmp_path / "again")
    for name in ("model.xml", "model.bin"):
        content = (quantized[0] / name).read_bytes()
        assert content == (tmp_path / name).read_bytes()
        assert content == (tmp_path / "again" / name).read_bytes()
        assert str(float_model.parent).encode() not in content


def test_matrix_products(tmp_path: Path) -> None:
    model = onnx_nets.perceptron(tmp_path / "float.onnx")
    values = np.random.default_rng(0).standard_normal((40, 32)).astype(np.float32)
    output = Nncf().quantize(model, values, NncfParams(bias_correction="none"), tmp_path, seed=0)
    assert output.meta["float_layers"] == []
    assert sorted((layer.channels, layer.scales, layer.op) for layer in layers(tmp_path).values()) == [
        (4, 4, "product"),
        (64, 64, "product"),
    ]
    unseen = np.random.default_rng(1).standard_normal((40, 32)).astype(np.float32)
    assert onnx_nets.noise_ratio_db(onnx_nets.run(model, unseen), run(tmp_path / "model.xml", unseen)) > 25


def test_an_activation_without_a_range_is_found(tmp_path: Path) -> None:
    model = onnx_nets.convolutional(tmp_path / "dead.onnx", dead=True)
    with pytest.raises(ConfigError, match=r"zero for all calibration samples.*: relu/Relu") as caught:
        quantize(model, tmp_path / "out", bias_correction="none")
    assert caught.value.where == "data.calibrate"
    assert list((tmp_path / "out").iterdir()) == []


def test_a_narrow_range_is_no_missing_range(tmp_path: Path) -> None:
    """NNCF widens it all the same, but the samples do reach the layer."""
    model = onnx_nets.convolutional(tmp_path / "small.onnx", weight_scale=1e-6, bias_level=0)
    assert 0 < np.abs(onnx_nets.run(model, onnx_nets.samples(10))).max() < module._NARROW / 2
    assert quantize(model, tmp_path / "out", bias_correction="none").meta["float_layers"] == []


def test_a_model_without_layers_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="to quantize"):
        quantize(onnx_nets.without_layers(tmp_path / "mean.onnx"), tmp_path / "out", bias_correction="none")


def test_it_says_nothing_by_itself_and_counts_the_samples(
    float_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []
    params = NncfParams(bias_correction="none")
    Nncf().quantize(float_model, onnx_nets.samples(40), params, tmp_path, seed=0, progress=seen.append)
    assert capfd.readouterr() == ("", "")
    assert seen == list(range(1, 41))
