"""Full INT8 of .tflite files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt import tflite
from edgeopt.agent import tflite_file
from edgeopt.errors import ConfigError, StageError
from edgeopt.quantizers import QuantizerOutput, ai_edge
from edgeopt.quantizers.ai_edge import AiEdge, AiEdgeParams
from tests import tflite_nets

UNSEEN = tflite_nets.samples(64, seed=1)
Quantize = Callable[..., tuple[bytes, QuantizerOutput]]


@pytest.fixture
def quantize(tmp_path: Path) -> Quantize:
    def run(file: bytes, samples: Any = None, *, out: str = "out", **options: Any) -> tuple[bytes, QuantizerOutput]:
        (tmp_path / "float.tflite").write_bytes(file)
        (tmp_path / out).mkdir()
        samples = tflite_nets.samples(48) if samples is None else samples
        output = AiEdge().quantize(tmp_path / "float.tflite", samples, AiEdgeParams(**options), tmp_path / out, seed=0)
        return (tmp_path / out / "model.tflite").read_bytes(), output

    return run


def real(file: bytes, samples: Any) -> Any:
    """Outputs as real numbers, by the reference kernels."""
    (output,) = tflite_file.read(file).outputs
    codes = tflite_nets.run(file, samples).astype(np.float64)
    return (codes - output.zero_points[0]) * output.scales[0] if output.scales else codes


def test_it_computes_in_integers_what_the_float_file_computes(quantize: Quantize) -> None:
    file = tflite_nets.convolutional()
    quantized, output = quantize(file)
    graph = tflite_file.read(quantized)
    assert {operator.precision for operator in graph.operators} == {"u8", "i8"}
    assert [operator.op for operator in graph.operators][:2] == ["QUANTIZE", "MUL"]
    assert (graph.inputs[0].dtype, graph.outputs[0].dtype) == ("uint8", "int8")
    assert (output.kind, output.summary) == ("tflite-int8", "4 of 4 layers int8, 48 calibration samples")
    assert output.notes == ()
    wanted = real(file, UNSEEN)
    noise = wanted - real(quantized, UNSEEN)
    assert 10 * np.log10((wanted**2).sum() / (noise**2).sum()) > 25


def test_names_and_signature_stay(quantize: Quantize) -> None:
    graph = tflite_file.read(quantize(tflite_nets.convolutional())[0])
    assert [tensor.name for tensor in (*graph.inputs, *graph.outputs)] == ["image", "output"]
    assert "stem.0/Conv+stem.1/Relu" in [operator.name for operator in graph.operators]


def test_raw_samples_are_exact_whatever_those_for_calibration_have(quantize: Quantize) -> None:
    quantized, _ = quantize(tflite_nets.convolutional(), tflite_nets.samples(48) // 2)  # up to 127 only
    first = tflite_file.read(quantized).operators[0]
    assert (first.inputs[0].scales, first.inputs[0].zero_points) == ((1.0,), (0,))  # type: ignore[union-attr]
    assert (first.outputs[0].scales, first.outputs[0].zero_points) == ((1.0,), (-128,))


def test_ranges_are_the_smallest_and_largest_value_seen(quantize: Quantize) -> None:
    """One sample of 48 has far larger outputs than the others; a moving average would clip it."""
    file = tflite_nets.convolutional()
    samples = np.full((48, 8, 8, 3), 128, np.uint8)
    samples[7] = tflite_nets.samples(1)[0]
    wanted = tflite_nets.run(file, samples)
    spread = {}
    for ranges in ("minmax", "moving_average"):
        (output,) = tflite_file.read(quantize(file, samples, out=ranges, ranges=ranges)[0]).outputs
        spread[ranges] = output.scales[0] * 255
    assert spread["minmax"] == pytest.approx(max(wanted.max(), 0) - min(wanted.min(), 0), rel=0.02)
    assert spread["moving_average"] != pytest.approx(spread["minmax"], rel=0.02)


@pytest.mark.parametrize("per_channel", [True, False])
def test_scales_of_the_weights(quantize: Quantize, per_channel: bool) -> None:
    quantized, _ = quantize(tflite_nets.convolutional(), per_channel=per_channel)
    layers = list(ai_edge.describe(tflite.load(quantized)))
    assert [layer.name for layer in layers] == ["stem.0/Conv", "body.0/Conv", "body.2/Conv", "output"]
    assert [layer.channels for layer in layers] == [16, 16, 16, 4]
    assert [layer.scales for layer in layers] == ([16, 16, 16, 4] if per_channel else [1] * 4)
    assert all(layer.quantized and 100 < layer.largest <= 127 for layer in layers)


def test_equal_arguments_give_equal_bytes(quantize: Quantize) -> None:
    file = tflite_nets.convolutional()
    assert quantize(file, out="a")[0] == quantize(file, out="b")[0]


@pytest.mark.parametrize("batch", [1, 3])
def test_samples_are_read_in_batches_of_the_file(tmp_path: Path, batch: int) -> None:
    (tmp_path / "float.tflite").write_bytes(tflite_nets.convolutional(batch=batch))
    (tmp_path / "out").mkdir()
    told: list[int] = []
    samples = tflite_nets.samples(8)
    AiEdge().quantize(
        tmp_path / "float.tflite", samples, AiEdgeParams(), tmp_path / "out", seed=0, progress=told.append
    )
    assert told == [min(done, 8) for done in range(batch, 8 + batch, batch)]


def test_large_files_have_all_buffers_inside(quantize: Quantize) -> None:
    """The package itself puts them behind the flatbuffer from 256 KiB on."""
    file = tflite_nets.convolutional(hidden=20_000)
    package = ai_edge._by_package(file, tflite_nets.samples(8), AiEdgeParams(), lambda done: None)
    assert any(tensor.outside for tensor in tflite_file.read(package).tensors)
    quantized, _ = quantize(file, tflite_nets.samples(8))
    assert len(quantized) > 256 * 1024
    assert not any(tensor.outside for tensor in tflite_file.read(quantized).tensors)
    np.testing.assert_array_equal(tflite_nets.run(quantized, UNSEEN), tflite_nets.run(package, UNSEEN))


def test_what_stays_float_is_told(quantize: Quantize) -> None:
    """The package has no INT8 of FLOOR."""
    net = tflite_nets.Net()
    given = net.tensor("x", (1, 12), "uint8")
    cast = tflite_nets._cast(net, given, "cast")
    weight = np.random.default_rng(0).standard_normal((4, 12)).astype(np.float32)
    parameters = [net.constant("w", weight), net.constant("b", np.zeros(4, np.float32))]
    options = tflite_nets.schema.FullyConnectedOptionsT()
    product = net.add(tflite_nets.OP.FULLY_CONNECTED, [cast, *parameters], net.tensor("p", (1, 4)), options)
    last = net.add(tflite_nets.OP.FLOOR, [product], net.tensor("y", (1, 4)))
    samples = np.random.default_rng(1).integers(0, 256, (9, 12), dtype=np.uint8)
    _, output = quantize(net.file(given, last), samples)
    assert output.notes == ("1 operators compute in float: y (FLOOR)",)


def test_a_model_without_layers_is_refused(quantize: Quantize) -> None:
    samples = np.random.default_rng(1).integers(0, 256, (9, 4), dtype=np.uint8)
    with pytest.raises(StageError, match="no convolution and no matrix product"):
        quantize(tflite_nets.floor_of_image(), samples)


def test_an_activation_that_is_always_zero_has_no_range(quantize: Quantize) -> None:
    file = tflite_nets.dense(np.full((12, 5), -1, np.float32), np.zeros(5, np.float32))
    model = tflite.load(file)
    for tensor in model.subgraphs[0].tensors:
        tensor.shapeSignature = None
    samples = np.random.default_rng(1).integers(0, 256, (9, 12), dtype=np.uint8)
    with pytest.raises(ConfigError, match="zero for all calibration samples, so that they have no range: y"):
        quantize(tflite.dump(model), samples)
