"""INT8 for Rockchip NPUs: the float model and its calibration samples, side by side.

The RKNN toolkit quantizes while it builds, in its own format, which no other tool reads. So what is written here is
what it takes; the backend checks what became of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import numpy as np

from edgeopt.quantizers import Array, Progress, QuantizerOutput
from edgeopt.stage import Params


class RknnParams(Params):
    """Options, as the toolkit's ``config`` takes them (RKNN Toolkit2 API reference, ``RKNN.config``).

    Attributes:
        algorithm: How ranges of activations are found; ``mmse`` takes many times longer than ``normal``.
        method: A weight scale for each output ``channel``, or one for the ``layer``.
    """

    algorithm: Literal["normal", "mmse", "kl_divergence"] = "normal"
    method: Literal["channel", "layer"] = "channel"


class Rknn:
    """See the module."""

    name = "rknn"
    Params = RknnParams
    consumes = frozenset({"onnx"})
    produces = "rknn-calibrated"
    tools: tuple[str, ...] = ("numpy",)

    def quantize(
        self,
        model: Path,
        samples: Array,
        params: RknnParams,
        out: Path,
        *,
        seed: int,
        keep_float: Collection[str] = (),
        progress: Progress = lambda done: None,
    ) -> QuantizerOutput:
        """Write ``model.onnx``, as it was, and ``calibration.npy``, (N, *input shape).

        The nodes ``keep_float`` are those of the preprocessing, which the backend needs to tell from the network.
        """
        shutil.copyfile(model, out / "model.onnx")
        np.save(out / "calibration.npy", samples, allow_pickle=False)
        meta = {"preprocess_nodes": sorted(keep_float)}
        return QuantizerOutput(self.produces, meta, f"{len(samples)} calibration samples; the toolkit quantizes")


PLUGINS = (Rknn(),)
