"""INT8 for ONNX Runtime: Q/DQ nodes by ``onnxruntime.quantization.quantize_static``.

Why the defaults are what they are, measured on a small residual network on a CPU with AVX2 and without VNNI:

* ``reduce_range``: without it, the integer kernels saturate in 16 bits on such a CPU: 81 % top-1 instead of 99 %,
  from a file that is right when it is executed without optimisations.
* ``per_channel``: one scale per layer ruins networks with uneven channels.
* All operators that ONNX Runtime can quantize are quantized, not only convolutions: additions and activations between
  them then stay in integers. Convolutions alone gave 1.3 times the speed of float, all operators 1.5 times.
* The folded preprocessing stays float, and the outputs of a final matrix product are not quantized: 8 bits are too few
  for scores, and the kernel writes float at no cost.
"""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgeopt.agent.telemetry import silence
from edgeopt.backends.onnxruntime import failures
from edgeopt.errors import StageError
from edgeopt.quantizers import Array, Layer, Progress, QuantizerOutput, check, constant_range, largest_weight, summary
from edgeopt.stage import Params

#: Operators with weights -> axis of the output channels; those of Gemm and MatMul are found by :func:`_channel_axis`.
_WEIGHTED = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": -1}
_BATCH = 16
#: A scale below this is that of an activation without a range, or may be.
_SMALL = 1e-6


class OnnxruntimeQdqParams(Params):
    """Options.

    Attributes:
        activations: Type of the activations. ``int8`` is symmetric, with zero point 0.
        per_channel: A weight scale for each output channel.
        reduce_range: Weights of 7 bits, within ±64, so that 16-bit sums of products cannot saturate.
        float_outputs: Leave the outputs of a final matrix product float.
        tensors: Which activations: ``all`` that an operator with an integer kernel reads or writes, or ``inputs``: only
            what operators with weights read. The latter is what TensorRT fuses: the result of a convolution then goes
            through bias, addition and activation before it is rounded.
        quantize_bias: Biases as int32 through DequantizeLinear, which TensorRT does not take.
    """

    activations: Literal["uint8", "int8"] = "uint8"
    per_channel: bool = True
    reduce_range: bool = True
    float_outputs: bool = True
    tensors: Literal["all", "inputs"] = "all"
    quantize_bias: bool = True


class OnnxruntimeQdq:
    """See the module."""

    name = "onnxruntime_qdq"
    Params = OnnxruntimeQdqParams
    consumes = frozenset({"onnx"})
    produces = "onnx-qdq"
    tools: tuple[str, ...] = ("onnx", "onnxruntime")

    def quantize(
        self,
        model: Path,
        samples: Array,
        params: OnnxruntimeQdqParams,
        out: Path,
        *,
        seed: int,
        keep_float: Collection[str] = (),
        progress: Progress = lambda done: None,
    ) -> QuantizerOutput:
        """Write ``model.onnx``. Ranges are the smallest and largest value seen.

        Raises:
            ConfigError: An activation is zero for all samples.
            StageError: ONNX Runtime fails, or the file is not what the options ask for.
        """
        silence()
        import onnx

        file = out / "model.onnx"

        def quantize(prepared: Path, written: Path) -> None:
            _quantize(prepared, written, samples, params, keep_float, progress)

        float_model, quantized = quantized_by(quantize, model, samples, self.name)
        if params.float_outputs:
            _leave_outputs_float(quantized)
        del quantized.metadata_props[:]
        onnx.checker.check_model(quantized, full_check=True)
        file.write_bytes(quantized.SerializeToString(deterministic=True))
        layers = list(describe(float_model, onnx.load(file), keep_float))
        notes = check(
            layers,
            per_channel=params.per_channel,
            reduced=layers if params.reduce_range else (),
            activations=params.activations,
        )
        meta = {"float_layers": [layer.name for layer in layers if not layer.quantized]}
        return QuantizerOutput(self.produces, meta, summary(layers, samples), notes)


def quantized_by(quantize: Callable[[Path, Path], None], model: Path, samples: Array, name: str) -> tuple[Any, Any]:
    """The float model with constants folded and shapes inferred, and what a function of ONNX Runtime makes of it.

    What is not folded before quantization cannot be folded any more after it.

    Args:
        quantize: Reads the first file and writes the second.
        model: Float ONNX file.
        samples: For calibration, (N, *input shape).
        name: Of the quantizer.

    Raises:
        ConfigError: An activation is zero for all samples.
        StageError: ONNX Runtime fails.
    """
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        written = Path(folder) / "quantized.onnx"
        try:
            with quiet():
                quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
                quantize(prepared, written)
        except failures() as error:
            raise StageError(f"onnxruntime cannot quantize this model: {error}", where=name) from error
        float_model, quantized = onnx.load(prepared), onnx.load(written)
    if unknown := without_range(float_model, quantized, samples):
        raise constant_range(unknown)
    return float_model, quantized


def reader(model: Path, samples: Array, progress: Progress) -> Any:
    """Feeds the samples to a calibration of ``onnxruntime.quantization``."""
    import onnx
    from onnxruntime import quantization

    name = onnx.load(model).graph.input[0].name

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            self.start = 0

        def get_next(self) -> dict[str, Array] | None:
            batch = samples[self.start : self.start + _BATCH]
            self.start += len(batch)
            progress(self.start)
            return {name: batch} if len(batch) else None

    return Reader()


def _quantize(
    prepared: Path,
    written: Path,
    samples: Array,
    params: OnnxruntimeQdqParams,
    keep_float: Collection[str],
    progress: Progress,
) -> None:
    from onnxruntime import quantization

    symmetric = params.activations == "int8"
    weighted = sorted(_WEIGHTED) if params.tensors == "inputs" else None
    quantization.quantize_static(
        str(prepared),
        str(written),
        reader(prepared, samples, progress),
        quant_format=quantization.QuantFormat.QDQ,
        calibrate_method=quantization.CalibrationMethod.MinMax,
        activation_type=quantization.QuantType.QInt8 if symmetric else quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=params.per_channel,
        reduce_range=params.reduce_range,
        op_types_to_quantize=weighted,
        nodes_to_exclude=sorted(keep_float),
        extra_options={
            "ActivationSymmetric": symmetric,
            "WeightSymmetric": True,
            "QuantizeBias": params.quantize_bias,
            "OpTypesToExcludeOutputQuantization": weighted or [],
        },
    )


def describe(float_model: Any, quantized: Any, keep_float: Collection[str] = ()) -> Iterator[Layer]:
    """The layers of ``float_model`` as they stand in the quantized ``ModelProto``."""
    import onnx

    constants = {tensor.name: tensor for tensor in quantized.graph.initializer}
    producers = _producers(quantized)
    weighted = {node.name: node for node in quantized.graph.node if node.op_type in _WEIGHTED}
    float_constants = {tensor.name: tensor for tensor in float_model.graph.initializer}
    for original in float_model.graph.node:
        if original.op_type not in _WEIGHTED or original.name in keep_float:
            continue
        if (weights := float_constants.get(original.input[1])) is None:
            continue
        channels = weights.dims[_channel_axis(original, len(weights.dims))]
        if original.op_type == "ConvTranspose":
            channels *= next((entry.i for entry in original.attribute if entry.name == "group"), 1)
        node = weighted.get(original.name)
        data: Any = producers.get(node.input[0]) if node is not None else None
        weight: Any = producers.get(node.input[1]) if node is not None else None
        scales = largest = 0
        if _dequantizes(weight) and weight.input[0] in constants:
            scales = math.prod(constants[weight.input[1]].dims)
            largest = largest_weight(onnx.numpy_helper.to_array(constants[weight.input[0]]))
        activation = ""
        if _dequantizes(data) and data.input[2] in constants:
            activation = onnx.helper.tensor_dtype_to_np_dtype(constants[data.input[2]].data_type).name
        op: Literal["convolution", "product"] = "convolution" if "Conv" in original.op_type else "product"
        yield Layer(original.name, int(channels), scales, largest, activation, op)


def _channel_axis(node: Any, rank: int) -> int:
    transposed = any(entry.name == "transB" and entry.i for entry in node.attribute)
    return 0 if node.op_type == "Gemm" and transposed else _WEIGHTED[node.op_type] % rank


def _producers(model: Any) -> dict[str, Any]:
    return {name: node for node in model.graph.node for name in node.output}


def _dequantizes(node: Any) -> bool:
    return node is not None and node.op_type == "DequantizeLinear"


def without_range(float_model: Any, quantized: Any, samples: Array) -> list[str]:
    """Activations that are zero for all samples.

    ``quantize_static`` gives them the scale 1 and the zero point 0, or the smallest scale that it is told. A range of
    exactly 0..255, or a very small one, looks the same, so those few are run again.
    """
    import onnx
    import onnxruntime

    constants = {tensor.name: tensor for tensor in quantized.graph.initializer}

    def value(name: str) -> float:
        return float(onnx.numpy_helper.to_array(constants[name]).reshape(-1)[0])

    suspects = {
        node.input[0]
        for node in quantized.graph.node
        if node.op_type == "QuantizeLinear" and node.input[1] in constants and node.input[2] in constants
        if value(node.input[1]) < _SMALL or (value(node.input[1]) == 1 and value(node.input[2]) == 0)
    }
    known = {name for node in float_model.graph.node for name in node.output}
    asked = sorted(suspects & known)
    if not asked:
        return []
    probe = onnx.ModelProto()
    probe.CopyFrom(float_model)
    present = {output.name for output in probe.graph.output}
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in asked if name not in present)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    silent = set(asked)
    for start in range(0, len(samples), _BATCH):
        feed = {session.get_inputs()[0].name: samples[start : start + _BATCH]}
        for name, values in zip(asked, session.run(asked, feed), strict=True):
            if np.any(values):
                silent.discard(name)
    return sorted(silent)


def _leave_outputs_float(model: Any) -> None:
    """Take away the Q/DQ pair between a matrix product and an output of the model."""
    producers = _producers(model)
    consumers: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers[name] = consumers.get(name, 0) + 1
    for output in model.graph.output:
        last: Any = producers.get(output.name)
        quantize: Any = producers.get(last.input[0]) if _dequantizes(last) else None
        product: Any = producers.get(quantize.input[0]) if quantize is not None else None
        if product is None or product.op_type not in ("Gemm", "MatMul"):
            continue
        if any(consumers[name] > 1 for name in (quantize.input[0], quantize.output[0])) or consumers.get(output.name):
            continue
        product.output[0] = output.name
        model.graph.node.remove(last)
        model.graph.node.remove(quantize)
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The package advises preprocessing on the root logger even where it was done."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)


PLUGINS = (OnnxruntimeQdq(),)
