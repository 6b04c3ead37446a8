"""ONNX Runtime on the host: graph optimisation with a fixed batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeopt.agent.onnx_graph import nodes, sources
from edgeopt.agent.runtimes import Layer
from edgeopt.agent.telemetry import silence
from edgeopt.artifact import Artifact
from edgeopt.backends import Backend, Compiled, Request, Scheme, entry
from edgeopt.errors import StageError
from edgeopt.target import Target

_QUANTIZATION = ("_QuantizeLinear", "_DequantizeLinear")


class Onnxruntime(Backend):
    """Saves the graph as ``ORT_ENABLE_EXTENDED`` leaves it.

    That level fuses what every CPU fuses, among it Q/DQ into integer operators. The last level, layouts for the
    kernels of one kind of CPU, is left to the device: the agent opens the file with all optimisations. The result is
    the same, bit for bit and in speed, as opening the unoptimised file there, and the file runs on any CPU.
    """

    name = "onnxruntime"
    consumes = frozenset({"onnx", "onnx-qdq"})
    produces = "ort-model"
    tools = ("onnx", "onnxruntime")

    def scheme(self, target: Target) -> Scheme:
        """Q/DQ; weights of 7 bits unless the device cannot saturate."""
        return Scheme("onnxruntime_qdq", {"reduce_range": "vnni" not in target.device.features})

    def compile(self, artifact: Artifact, request: Request, out: Path) -> Compiled:
        """Write ``model.onnx``.

        Raises:
            StageError: ONNX Runtime refuses the model.
        """
        silence()
        import onnxruntime

        source = artifact.path("model.onnx").read_bytes()
        file = out / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(file)
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            onnxruntime.InferenceSession(with_batch(source, request.batch), options, providers=["CPUExecutionProvider"])
        except failures() as error:
            raise StageError(f"onnxruntime refuses the model: {error}", where="compile") from error
        return Compiled("model.onnx", sources(nodes(file.read_bytes()), nodes(source)))

    def layer_map(self, layers: Sequence[Layer], compiled: Compiled) -> list[dict[str, Any]]:
        """Sources are nodes of the model before optimisation; Q/DQ nodes only where a layer has no other."""
        entries = []
        for layer in layers:
            origin = [node for name in layer.source for node in compiled.origin.get(name, ())]
            computing = [node for node in origin if not node.endswith(_QUANTIZATION)]
            entries.append(entry(layer, layer.name, computing or origin))
        return entries


def failures() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises about a model; these classes have no public name and no common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    kinds = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (ValueError, RuntimeError, *kinds)


def with_batch(model: bytes, batch: int) -> bytes:
    """The model with its first dimension fixed and all shapes inferred anew."""
    import onnx

    proto = onnx.load_from_string(model)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del proto.graph.value_info[:]
    fixed = onnx.shape_inference.infer_shapes(proto)
    return bytes(fixed.SerializeToString(deterministic=True))


PLUGINS = (Onnxruntime(),)
