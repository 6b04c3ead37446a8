"""INT8 for Core ML: only the weights, and only when the model is converted.

coremltools calibrates activations by running the model, which only macOS does. So what is written here is the program
as it was; the backend converts it with small weights and checks what became of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from edgeopt.quantizers import Array, Progress, QuantizerOutput
from edgeopt.stage import Params


class CoremlParams(Params):
    """Options.

    Attributes:
        weights: ``int8`` with a symmetric scale for each output channel, or ``palettized``: 4 bits that choose one of
            16 values found by k-means.
    """

    weights: Literal["int8", "palettized"] = "int8"


class Coreml:
    """See the module."""

    name = "coreml"
    Params = CoremlParams
    consumes = frozenset({"torch-program"})
    produces = "torch-program-int8"
    tools: tuple[str, ...] = ("numpy",)

    def quantize(
        self,
        model: Path,
        samples: Array,
        params: CoremlParams,
        out: Path,
        *,
        seed: int,
        keep_float: Collection[str] = (),
        progress: Progress = lambda done: None,
    ) -> QuantizerOutput:
        """Write ``program.pt2``, as it was. No calibration sample is looked at."""
        shutil.copyfile(model, out / model.name)
        note = "only the weights become small: activations stay float16, coremltools calibrates them on macOS only"
        return QuantizerOutput(self.produces, {}, f"{params.weights} weights, when it is converted", (note,))


PLUGINS = (Coreml(),)
