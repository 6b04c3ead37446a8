"""INT8 for Qualcomm's HTP: Q/DQ nodes by ``onnxruntime.quantization`` with its configuration for QNN.

What differs from :mod:`edgeopt.quantizers.onnxruntime_qdq`:

* Everything is quantized, also the folded preprocessing and the outputs. A node that is not needs float units, which
  the HTP v68 does not have, and no HTP has a layer with integer inputs and a float output.
* Weights use all 8 bits: the HTP does not saturate.
* The weights of a MatMul have one scale for all channels: QNN has no other MatMul. Those of a Gemm have their own.

Source: ``onnxruntime/quantization/execution_providers/qnn/quant_config.py``.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from edgeopt.agent.telemetry import silence
from edgeopt.quantizers import Array, Progress, QuantizerOutput, check, summary
from edgeopt.quantizers.onnxruntime_qdq import describe, quantized_by, reader
from edgeopt.stage import Params


class QnnQdqParams(Params):
    """Options.

    Attributes:
        activations: Type of the activations. ``uint16`` costs time on the device and is closer to the float network.
        per_channel: A weight scale for each output channel of a convolution or a Gemm.
    """

    activations: Literal["uint8", "uint16"] = "uint8"
    per_channel: bool = True


class QnnQdq:
    """See the module."""

    name = "qnn_qdq"
    Params = QnnQdqParams
    consumes = frozenset({"onnx"})
    produces = "onnx-qdq"
    tools: tuple[str, ...] = ("onnx", "onnxruntime")

    def quantize(
        self,
        model: Path,
        samples: Array,
        params: QnnQdqParams,
        out: Path,
        *,
        seed: int,
        keep_float: Collection[str] = (),
        progress: Progress = lambda done: None,
    ) -> QuantizerOutput:
        """Write ``model.onnx``. Ranges are the smallest and largest value seen; nothing is kept float.

        Raises:
            ConfigError: An activation is zero for all samples.
            StageError: ONNX Runtime fails, or the file is not what the options ask for.
        """
        silence()
        import onnx
        from onnxruntime import quantization
        from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config

        file = out / "model.onnx"

        def quantize(prepared: Path, written: Path) -> None:
            config = get_qnn_qdq_config(
                prepared,
                reader(prepared, samples, progress),
                calibrate_method=quantization.CalibrationMethod.MinMax,
                activation_type=_type(params.activations),
                weight_type=quantization.QuantType.QInt8,
                per_channel=params.per_channel,
                init_overrides=_overrides(onnx.load(prepared)),
            )
            quantization.quantize(str(prepared), str(written), config)

        float_model, quantized = quantized_by(quantize, model, samples, self.name)
        del quantized.metadata_props[:]
        onnx.checker.check_model(quantized, full_check=True)
        file.write_bytes(quantized.SerializeToString(deterministic=True))
        layers = list(describe(float_model, onnx.load(file)))
        matmuls = {node.name for node in float_model.graph.node if node.op_type == "MatMul"}
        shared = [layer for layer in layers if layer.name in matmuls]
        others = [layer for layer in layers if layer.name not in matmuls]
        notes = check(shared, per_channel=False, activations=params.activations) if shared else ()
        if others or not shared:
            notes += check(others, per_channel=params.per_channel, activations=params.activations)
        meta = {"float_layers": [layer.name for layer in layers if not layer.quantized]}
        return QuantizerOutput(self.produces, meta, summary(layers, samples), notes)


def _overrides(model: Any) -> dict[str, list[dict[str, Any]]]:
    """The HTP takes the factors of a LayerNormalization in uint8 only; the vendor's configuration leaves them int8."""
    from onnxruntime.quantization import QuantType

    constants = {tensor.name for tensor in model.graph.initializer}
    factors = (node.input[1] for node in model.graph.node if node.op_type == "LayerNormalization")
    return {name: [{"quant_type": QuantType.QUInt8, "symmetric": False}] for name in factors if name in constants}


def _type(activations: str) -> Any:
    from onnxruntime.quantization import QuantType

    return {"uint8": QuantType.QUInt8, "uint16": QuantType.QUInt16}[activations]


PLUGINS = (QnnQdq(),)
