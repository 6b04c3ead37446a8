"""INT8 for OpenVINO: ``nncf.quantize`` on the OpenVINO model.

Why the defaults are what they are, measured on a small residual network (signal-to-noise ratio of the outputs against
those of the float model, on unseen data):

* ``ranges: minmax`` with ``bias_correction: full`` gives 37.8 dB, NNCF's own defaults (``mean_minmax``, ``fast``)
  23.5 dB. The speed is the same; calibration takes about twice as long.
* ``reduce_range: all``: without VNNI, OpenVINO's integer kernels saturate as well, convolutions a little, matrix
  products badly: 13.9 dB on a small multilayer perceptron, 48.6 dB with 7-bit weights. Where nothing saturates, the
  eighth bit would be worth up to 3 dB. ``first_layer`` is NNCF's own default.

The float ONNX file goes through ``ov.convert_model``: after ``core.read_model``, NNCF does no bias correction, and
does not say so.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgeopt.agent.telemetry import silence
from edgeopt.backends.openvino import convert, names_in, save
from edgeopt.errors import StageError
from edgeopt.quantizers import Array, Layer, Progress, QuantizerOutput, check, constant_range, largest_weight, summary
from edgeopt.stage import Params

#: Operations with weights -> axes of the weights that make up the output channels.
_WEIGHTED = {
    "Convolution": (0,),
    "GroupConvolution": (0, 1),
    "ConvolutionBackpropData": (1,),
    "GroupConvolutionBackpropData": (0, 2),
}
#: What may stand between constant weights and the operation, or between an activation's FakeQuantize and the operation.
_ON_WEIGHTS = {"Convert", "Subtract", "Multiply", "Reshape", "Transpose", "FakeQuantize"}
_MOVES_DATA = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "MaxPool", "Concat", "Split", "VariadicSplit", "Slice"}


#: Widest range that NNCF may have made out of an empty one.
_NARROW = 2e-3
_BATCH = 16


class NncfParams(Params):
    """Options.

    Attributes:
        preset: ``mixed`` has asymmetric activations, ``performance`` symmetric ones. bias_correction: ``full``
        measures the shift of each layer in the quantized network, ``fast`` estimates it. ranges: Of the activations:
        over all samples, or the mean over the samples of each one's range. reduce_range: Where weights have 7 bits,
        so that 16-bit sums of products cannot saturate. ``all`` spares depthwise layers, whose sums are short.
    """

    preset: Literal["mixed", "performance"] = "mixed"
    bias_correction: Literal["full", "fast", "none"] = "full"
    ranges: Literal["minmax", "mean_minmax"] = "minmax"
    reduce_range: Literal["none", "first_layer", "all"] = "all"


class Nncf:
    """See the module."""

    name = "nncf"
    Params = NncfParams
    consumes = frozenset({"onnx"})
    produces = "openvino-ir"
    tools: tuple[str, ...] = ("nncf", "openvino")

    def quantize(
        self,
        model: Path,
        samples: Array,
        params: NncfParams,
        out: Path,
        *,
        seed: int,
        keep_float: Collection[str] = (),
        progress: Progress = lambda done: None,
    ) -> QuantizerOutput:
        """Write ``model.xml`` and ``model.bin``. Weights have a scale for each output channel.

        Raises:
            ConfigError: An activation is zero for all samples.
            StageError: NNCF fails, or the file is not what the options ask for.
        """
        silence()
        quantized = _quantize(convert(model), samples, params, keep_float, progress)
        if silent := _without_range(quantized, convert(model), samples):
            raise constant_range(silent)
        file = out / "model.xml"
        save(quantized, file, known=names_in(model))
        written = _read(file)
        layers = [layer for layer in describe(written) if layer.name not in keep_float]
        notes = check(layers, per_channel=True, reduced=_reduced(layers, params))
        if params.preset == "performance" and (names := _asymmetric(written)):
            raise StageError(
                f"symmetric activations were asked for; these are not: {', '.join(names)}", where=self.name
            )
        moved = _moved_biases(_biases(convert(model)), _biases(written))
        if params.bias_correction != "none" and not moved:
            raise StageError(
                f"{params.bias_correction} bias correction was asked for, but no bias differs from the float model's",
                where=self.name,
            )
        meta = {
            "float_layers": [layer.name for layer in layers if not layer.quantized],
            "corrected_biases": len(moved),
        }
        return QuantizerOutput(self.produces, meta, summary(layers, samples, f", {len(moved)} biases corrected"), notes)


def _quantize(model: Any, samples: Array, params: NncfParams, keep_float: Collection[str], progress: Progress) -> Any:
    with _quiet():
        import nncf
        from nncf.quantization import advanced_parameters, range_estimator

        advanced = nncf.AdvancedQuantizationParameters(
            overflow_fix={
                "none": advanced_parameters.OverflowFix.DISABLE,
                "first_layer": advanced_parameters.OverflowFix.FIRST_LAYER,
                "all": advanced_parameters.OverflowFix.ENABLE,
            }[params.reduce_range],
            activations_range_estimator_params={
                "minmax": range_estimator.RangeEstimatorParametersSet.MINMAX,
                "mean_minmax": range_estimator.RangeEstimatorParametersSet.MEAN_MINMAX,
            }[params.ranges],
            disable_bias_correction=params.bias_correction == "none",
        )
        present = {operation.get_friendly_name() for operation in model.get_ops()}
        try:
            return nncf.quantize(
                model,
                nncf.Dataset(_Counted(samples, progress)),
                preset=nncf.QuantizationPreset(params.preset),
                target_device=nncf.TargetDevice.CPU,
                subset_size=len(samples),
                fast_bias_correction=params.bias_correction == "fast",
                ignored_scope=nncf.IgnoredScope(names=sorted(present.intersection(keep_float))),
                advanced_parameters=advanced,
            )
        except (RuntimeError, ValueError, nncf.ValidationError, nncf.InternalError) as error:
            raise StageError(f"nncf cannot quantize this model: {error}", where="nncf") from error


class _Counted:
    """Samples as batches of one, telling how many have been read for the first time."""

    def __init__(self, samples: Array, progress: Progress) -> None:
        self._samples = samples
        self._progress = progress
        self._seen = 0

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[Array]:
        for index in range(len(self._samples)):
            if index >= self._seen:
                self._seen = index + 1
                self._progress(self._seen)
            yield self._samples[index : index + 1]


def _read(file: Path) -> Any:
    import openvino

    return openvino.Core().read_model(file)


def describe(model: Any) -> Iterator[Layer]:
    """The layers of an OpenVINO model that NNCF has quantized."""
    for operation in model.get_ordered_ops():
        kind = operation.get_type_name()
        if kind not in _WEIGHTED and kind != "MatMul":
            continue
        found = _weights(operation)
        if found is None:
            continue
        constant, scales = found
        shape = list(operation.input_value(1).get_partial_shape().to_shape())
        if kind == "MatMul":
            axes: tuple[int, ...] = (-2 if operation.get_attributes()["transpose_b"] else -1,) if len(shape) > 1 else ()
        else:
            axes = _WEIGHTED[kind]
        channels = math.prod([shape[axis] for axis in axes])
        integer = constant.get_element_type().to_dtype() == np.int8
        yield Layer(
            name=operation.get_friendly_name().removesuffix("/WithoutBiases"),
            channels=channels,
            scales=scales if integer else 0,
            largest=largest_weight(constant.get_data()) if integer else 0,
            activation=_activation(operation),
            op="product" if kind == "MatMul" else "depthwise convolution" if _depthwise(kind, shape) else "convolution",
        )


def _depthwise(kind: str, shape: Sequence[int]) -> bool:
    return kind.startswith("Group") and shape[1] == shape[2] == 1


def _reduced(layers: Sequence[Layer], params: NncfParams) -> list[Layer]:
    """The layers that NNCF should have given 7-bit weights, of those in topological order."""
    if params.reduce_range == "all":
        return [layer for layer in layers if layer.op != "depthwise convolution"]
    if params.reduce_range == "first_layer":
        return [layer for layer in layers[:1] if layer.op != "product"]
    return []


def _weights(operation: Any) -> tuple[Any, int] | None:
    """The constant at the end of the weights' branch and the number of scales on the way; None if it ends elsewhere."""
    node, scales = operation.input_value(1).get_node(), 0
    while node.get_type_name() in _ON_WEIGHTS:
        if node.get_type_name() == "Multiply":
            scales = math.prod(list(node.input_value(1).get_partial_shape().to_shape()))
        node = node.input_value(0).get_node()
    return (node, scales) if node.get_type_name() == "Constant" else None


def _activation(operation: Any) -> str:
    node = operation.input_value(0).get_node()
    while node.get_type_name() in _MOVES_DATA:
        node = node.input_value(0).get_node()
    if node.get_type_name() != "FakeQuantize" or node.get_attributes()["levels"] not in (255, 256):
        return ""
    return "int8" if (node.input_value(1).get_node().get_data() < 0).any() else "uint8"


def _asymmetric(model: Any) -> list[str]:
    """Activations with negative values whose range is not -128 to 127 steps."""
    found = []
    for operation in model.get_ops():
        if operation.get_type_name() == "FakeQuantize":
            low, high = (operation.input_value(index).get_node().get_data() for index in (1, 2))
            if not np.allclose(low[low < 0], -high[low < 0] * 128 / 127, rtol=1e-3):
                found.append(operation.get_friendly_name())
    return sorted(found)


def _without_range(quantized: Any, float_model: Any, samples: Array) -> list[str]:
    """Activations that are zero for all samples.

    NNCF widens an empty range to ±0.0008. A true range may be as narrow, so those few are run again.
    """
    import openvino

    suspects = set()
    for operation in quantized.get_ops():
        if operation.get_type_name() == "FakeQuantize":
            low, high = (operation.input_value(index).get_node().get_data() for index in (1, 2))
            if (high - low).max() <= _NARROW:
                suspects.add(operation.input_value(0).get_node().get_friendly_name())
    operations = {operation.get_friendly_name(): operation for operation in float_model.get_ops()}
    asked = sorted(suspects & operations.keys())
    if not asked:
        return []
    outputs = [operations[name].output(0) for name in asked]
    probe = openvino.Core().compile_model(openvino.Model(outputs, float_model.get_parameters()), "CPU")
    silent = set(asked)
    for start in range(0, len(samples), _BATCH):
        values = probe(samples[start : start + _BATCH])
        silent -= {name for index, name in enumerate(asked) if np.any(values[index])}
    return sorted(silent)


def _biases(model: Any) -> dict[str, Array]:
    """What is added to the output of each layer, by the layer's name."""
    found = {}
    for operation in model.get_ops():
        if operation.get_type_name() in (*_WEIGHTED, "MatMul"):
            for target in operation.output(0).get_target_inputs():
                addition = target.get_node()
                if addition.get_type_name() == "Add":
                    other = addition.input_value(1 - target.get_index()).get_node()
                    if other.get_type_name() == "Constant":
                        found[operation.get_friendly_name()] = other.get_data().reshape(-1)
    return found


def _moved_biases(before: dict[str, Array], after: dict[str, Array]) -> list[str]:
    return [name for name, bias in after.items() if not np.array_equal(before.get(name, np.zeros_like(bias)), bias)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep NNCF off stdout: its logger, its warnings and its progress bars, which would tear a live display."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nncf
        from nncf.common.logging import track_progress

        logger = logging.getLogger("nncf")
        level = logger.level
        begin = track_progress.track.__init__
        track_progress.track.__init__ = functools.wraps(begin)(
            lambda self, *args, **kwargs: begin(self, *args, **{**kwargs, "disable": True})
        )
        nncf.set_log_level(logging.ERROR)
        try:
            yield
        finally:
            nncf.set_log_level(level)
            track_progress.track.__init__ = begin


PLUGINS = (Nncf(),)
