"""Full INT8 for LiteRT and what is built on it: ``ai-edge-quantizer`` on a ``.tflite`` file.

Weights are symmetric, with a scale for each output channel; activations have 8 bits and a zero point, as the kernels
require (https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec).

* Ranges are the smallest and largest value seen. The package's own default is a moving average over the samples, which
  clips the rare large values: on the logits of a small network 8 % of them.
* Raw integer samples go in as they are: the cast to float and the quantization that would follow it become one integer
  operator, exact for 8 bits. Float samples go in as INT8 with the scale of the input tensor.
* Outputs are INT8 with one scale.
* All buffers lie inside the flatbuffer. The package puts large ones behind it, where TFLM does not look.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgeopt import tflite
from edgeopt.agent import tflite_file
from edgeopt.errors import StageError
from edgeopt.quantizers import Array, Layer, Progress, QuantizerOutput, check, constant_range, largest_weight, summary
from edgeopt.stage import Params
from edgeopt.tflite import names, rewrite

_SIGNATURE = "serving_default"
#: Operators with weights -> axis of the output channels in them.
_WEIGHTED = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}
#: What only carries values between integers and floats.
_BETWEEN = ("QUANTIZE", "DEQUANTIZE", "CAST")


class AiEdgeParams(Params):
    """Options.

    Attributes:
        ranges: Of the activations: ``minmax`` of all samples, or ``moving_average`` of those of each sample.
        per_channel: A weight scale for each output channel.
    """

    ranges: Literal["minmax", "moving_average"] = "minmax"
    per_channel: bool = True


class AiEdge:
    """See the module."""

    name = "ai_edge"
    Params = AiEdgeParams
    consumes = frozenset({"tflite"})
    produces = "tflite-int8"
    tools: tuple[str, ...] = ("ai-edge-litert", "ai-edge-quantizer")

    def quantize(
        self,
        model: Path,
        samples: Array,
        params: AiEdgeParams,
        out: Path,
        *,
        seed: int,
        keep_float: Collection[str] = (),
        progress: Progress = lambda done: None,
    ) -> QuantizerOutput:
        """Write ``model.tflite``. Nothing is left float on purpose: microcontrollers and NPUs have no floats.

        Raises:
            ConfigError: An activation is zero for all samples.
            StageError: The package fails, or the file is not what the options ask for.
        """
        source = model.read_bytes()
        try:
            written = _by_package(source, samples, params, progress)
        except (ValueError, RuntimeError, NotImplementedError) as error:
            raise StageError(f"ai-edge-quantizer cannot quantize this model: {error}", where=self.name) from error
        quantized = tflite.load(written)
        rewrite.integer_input(quantized)
        content = tflite.dump(quantized)
        (out / "model.tflite").write_bytes(content)
        layers = list(describe(quantized))
        notes = check(layers, per_channel=params.per_channel, activations="int8")
        left = _in_float(tflite_file.read(content))
        if left:
            notes += (f"{len(left)} operators compute in float: {', '.join(left)}",)
        meta = {"float_layers": [layer.name for layer in layers if not layer.quantized]}
        return QuantizerOutput(self.produces, meta, summary(layers, samples), notes)


def _by_package(source: bytes, samples: Array, params: AiEdgeParams, progress: Progress) -> bytes:
    """The file as the package writes it."""
    with _quiet():
        return _quantize(source, samples, params, progress)


def _quantize(source: bytes, samples: Array, params: AiEdgeParams, progress: Progress) -> bytes:
    from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    graph = tflite_file.read(source)
    granularity = qtyping.QuantGranularity
    recipe = recipe_manager.RecipeManager()
    recipe.add_static_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        activation_num_bits=8,
        weight_num_bits=8,
        weight_granularity=granularity.CHANNELWISE if params.per_channel else granularity.TENSORWISE,
    )
    update = qsv_utils.min_max_update if params.ranges == "minmax" else qsv_utils.moving_average_update
    calibration = calibrator.Calibrator(source, num_threads=1, qsv_update_func=update)
    batch, name = graph.inputs[0].shape[0], graph.inputs[0].name
    for start in range(0, len(samples), batch):
        rows = np.minimum(np.arange(start, start + batch), len(samples) - 1)  # the last batch is filled up
        calibration.calibrate({_SIGNATURE: [{name: np.ascontiguousarray(samples[rows])}]}, recipe)
        progress(min(start + batch, len(samples)))
    ranges = calibration.get_model_qsvs()
    silent = sorted(name for name, range_ in ranges.items() if not np.any(range_["min"]) and not np.any(range_["max"]))
    if silent:
        raise constant_range(silent)
    _cover_raw_samples(graph, ranges)
    result = quantizer.Quantizer(source, recipe.get_quantization_recipe()).quantize(ranges)
    return bytes(result.quantized_model)


def _cover_raw_samples(graph: tflite_file.Graph, ranges: dict[str, Any]) -> None:
    """Raw samples of 8 bits may have every value of their type, whatever those for calibration have: scale 1."""
    given = graph.inputs[0]
    for operator in graph.operators:
        name = operator.outputs[0].name
        if operator.op == "CAST" and operator.inputs[0] == given and given.short in ("u8", "i8") and name in ranges:
            limits = np.iinfo(given.dtype)
            like = ranges[name]["min"]
            ranges[name] = {"min": np.full_like(like, limits.min), "max": np.full_like(like, limits.max)}


def describe(model: Any) -> Iterator[Layer]:
    """The layers with constant weights of a ``ModelT``, as they stand in it."""
    graph = model.subgraphs[0]
    for operator in graph.operators:
        kind = tflite.operator_name(model, operator)
        if kind not in _WEIGHTED:
            continue
        # A transposed convolution has the shape of its output first, and its data last.
        data, weight = (2, 1) if kind == "TRANSPOSE_CONV" else (0, 1)
        weights = graph.tensors[operator.inputs[weight]]
        values = tflite.values(model, weights)
        if values is None:
            continue
        integer = values.dtype == np.int8
        coding = weights.quantization
        activation = tflite_file.dtype_of(graph.tensors[operator.inputs[data]].type)
        name = graph.tensors[operator.outputs[0]].name.decode()
        yield Layer(
            name=(names.sources(name) or (name,))[0],
            channels=int(values.shape[_WEIGHTED[kind]]),
            scales=len(coding.scale) if integer and coding is not None and coding.scale is not None else 0,
            largest=largest_weight(values) if integer else 0,
            activation=activation if activation == "int8" else "",
            op="product" if kind == "FULLY_CONNECTED" else "convolution",
        )


def _in_float(graph: tflite_file.Graph) -> list[str]:
    """``name (OPERATOR)`` of what computes in float: other operators than those between integers and floats."""
    return [
        f"{operator.name} ({operator.op})"
        for operator in graph.operators
        if operator.precision == "f32" and operator.op not in _BETWEEN
    ]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The package draws progress bars, prints a summary, and warns of its own way to calibrate."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


PLUGINS = (AiEdge(),)
