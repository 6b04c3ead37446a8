"""Which layer is the first that gives NaN or infinity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt import checkpoint, data
from edgeopt.artifact import Artifact

Array = npt.NDArray[Any]


def first_layer(artifact: Artifact, sample: Array, root: Path) -> str:
    """Name of the first layer, in the order of execution, that gives NaN or infinity; empty where nothing can tell.

    Args:
        artifact: A torch artefact, or one with an ONNX file.
        sample: (1, *raw shape), one on which the outputs are broken.
        root: Folder of the recipe.
    """
    if artifact.kind == "torch":
        return _torch(artifact, sample, root)
    file = next((artifact.path(name) for name in artifact.files if name.endswith(".onnx")), None)
    return _onnx(file, sample) if file else ""


def _torch(artifact: Artifact, sample: Array, root: Path) -> str:
    import torch

    model = checkpoint.load(artifact, root)
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and not torch.isfinite(output).all():
                found.append(name)

        return hook

    for name, module in model.named_modules():
        if name and not any(module.children()):
            module.register_forward_hook(watch(name))
    with torch.no_grad():
        model(torch.from_numpy(data.to_input(sample, checkpoint.preprocess_of(artifact))))
    return found[0] if found else ""


def _onnx(file: Path, sample: Array) -> str:
    """Runs the file as it is written, with every tensor as an output."""
    import onnx
    import onnxruntime

    model = onnx.load(str(file))
    given = {output.name for output in model.graph.output}
    owner = {name: node for node in model.graph.node for name in node.output if name}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in owner if name not in given)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = list(owner)
    values = session.run(names, {session.get_inputs()[0].name: sample})
    for name, value in zip(names, values, strict=True):
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            return str(owner[name].name or name)
    return ""
