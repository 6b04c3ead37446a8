"""Does an exported file compute what the network computes?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgeopt import data, reference
from edgeopt.errors import StageError
from edgeopt.recipe import Preprocess, RawSpec

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]


def random_samples(raw: RawSpec, count: int, seed: int) -> Array:
    """Raw samples over the whole range of an integer type, or standard normal ones: (count, *raw shape)."""
    generator = np.random.default_rng(seed)
    shape = (count, *raw.shape)
    if raw.dtype == "float32":
        return generator.standard_normal(shape, dtype=np.float32)
    limits = np.iinfo(raw.dtype)
    return generator.integers(limits.min, limits.max, shape, dtype=raw.dtype, endpoint=True)


def reference_outputs(
    network: torch.nn.Module, preprocess: Preprocess | None, samples: Array, root: Path
) -> list[Array]:
    """What the network itself gives, with the preprocessing of :func:`edgeopt.data.to_input`."""
    import torch

    try:
        with torch.no_grad():
            output = network(torch.from_numpy(data.to_input(samples, preprocess)))
    except Exception as error:  # the network is the user's code and may raise anything
        what = f"for a batch of {len(samples)} the network raised {type(error).__name__}: {error}"
        raise StageError(what, where=reference.user_frame(error, root) or "export") from error
    arrays = _flat(output)
    if any(array.shape[:1] != (len(samples),) for array in arrays):
        raise one_batch("export")
    if not all(np.isfinite(array).all() for array in arrays):
        raise StageError("the network gives NaN or infinity for random input, so that nothing can be compared")
    return arrays


def compare(expected: Mapping[int, list[Array]], file: Path, input_name: str, samples: Array) -> tuple[float, float]:
    """Largest absolute difference between network and file, and the largest absolute output of the network.

    The file runs in ONNX Runtime without graph optimisations.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    difference = scale = 0.0
    for batch, wanted in expected.items():
        given = session.run(None, {input_name: samples[:batch]})
        for want, got in zip(wanted, given, strict=True):
            if want.shape != got.shape:
                raise one_batch("export")
            # np.maximum keeps a NaN, max() may not.
            difference = float(np.maximum(difference, np.abs(want.astype(np.float64) - got).max(initial=0)))
            scale = float(np.maximum(scale, np.abs(want).max(initial=0)))
    return difference, scale


def _flat(output: Any) -> list[Array]:
    """The tensors of a network's output in the order in which the exporter writes them."""
    if hasattr(output, "detach"):
        return [output.detach().numpy()]
    if isinstance(output, Mapping):
        return [array for part in output.values() for array in _flat(part)]
    if isinstance(output, list | tuple):
        return [array for part in output for array in _flat(part)]
    raise StageError(f"the network returns a {type(output).__name__}, not tensors", where="export")


def one_batch(where: str) -> StageError:
    what = "the network works only for one batch size"
    return StageError(what, where=where, fix="take the batch size from the input: x.flatten(1), x.shape[0]")
