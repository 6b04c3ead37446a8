"""The network as it is deployed, with its preprocessing in front, as a traced torch program."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgeopt import reference
from edgeopt.errors import StageError
from edgeopt.recipe import Preprocess
from edgeopt.stages._parity import one_batch

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]


def deployable(
    network: torch.nn.Module, preprocess: Preprocess | None, *, channels_last: bool = False
) -> torch.nn.Module:
    """The network with its preprocessing in front: raw samples in.

    ``(raw / scale - mean) / std`` is written as one multiplication and one addition, which is the same up to rounding
    and what every runtime does fastest.

    Args:
        network: Of the user.
        preprocess: What makes its input out of raw samples.
        channels_last: The arithmetic comes before the transposition of images, for toolkits that compute channels last
            and would transpose twice.
    """
    import torch

    class Preprocessing(torch.nn.Module):
        def __init__(self, spec: Preprocess) -> None:
            super().__init__()
            mean, std = np.asarray(spec.mean), np.asarray(spec.std)
            self.image = len(spec.raw.shape) == 3
            last = channels_last and self.image  # other samples have their channels first in any order
            along_channels = (-1,) if last else (-1, *(1,) * (len(spec.raw.shape) - 1))
            factor, offset = 1 / (spec.scale * std), -mean / std
            self.factor = _constant(factor, along_channels) if (factor != 1).any() else None
            self.offset = _constant(offset, along_channels) if offset.any() else None
            self.grey = spec.raw.shape[-1] == 1
            self.int16 = spec.raw.dtype == "int16"

        def forward(self, raw: torch.Tensor) -> torch.Tensor:
            return self.moved(self.scaled(raw)) if channels_last else self.scaled(self.moved(raw))

        def moved(self, values: torch.Tensor) -> torch.Tensor:
            if self.image and self.grey:
                # Moves no data, unlike the transposition of one channel, which ONNX Runtime may push past the
                # arithmetic, where a last dimension of one makes it four times slower.
                return values.squeeze(-1).unsqueeze(1)
            # Contiguous, because a network may call view(), and because torch decomposes global average pooling of
            # a channels-last tensor into ten nodes.
            return values.permute(0, 3, 1, 2).contiguous() if self.image else values

        def scaled(self, raw: torch.Tensor) -> torch.Tensor:
            if self.int16:
                raw = raw.to(torch.int32)  # OpenVINO would fuse a conversion from int16 into a kernel that has none
            values = raw.to(torch.float32)
            if self.factor is not None:
                values = values * self.factor
            return values if self.offset is None else values + self.offset

    class Deployable(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.preprocess = torch.nn.Identity() if preprocess is None else Preprocessing(preprocess)
            self.network = network

        def forward(self, raw: torch.Tensor) -> Any:
            return self.network(self.preprocess(raw))

    return Deployable().eval()


def _constant(values: Array, shape: tuple[int, ...]) -> Any:
    """A scalar where all channels are treated alike, else one value per channel."""
    import torch

    if (values == values.flat[0]).all():
        return float(values.flat[0])
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def trace(
    model: torch.nn.Module, samples: Array, root: Path, *, fixed_batch: bool = False
) -> torch.export.ExportedProgram:
    """The program that computes ``model`` of arrays like ``samples``, for any batch unless it is fixed.

    Raises:
        StageError: The network cannot be traced; at which line of the user's code.
    """
    import torch

    dynamic = None if fixed_batch else ({0: torch.export.Dim("batch")},)
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(model, (torch.from_numpy(samples),), dynamic_shapes=dynamic)
    except Exception as error:  # the network is the user's code and may raise anything
        raise _untraceable(error, root) from error


def _untraceable(error: Exception, root: Path) -> StageError:
    text = str(error)
    place = reference.user_frame(error, root) or "export"
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    if "data-dependent" in text:
        what = "the network's control flow depends on the values of its input, so that it has no fixed graph"
        return StageError(what, where=place, fix="use torch.where, or torch.cond, instead of if, while or .item()")
    if "Constraints violated (batch)" in text:
        return one_batch(place)
    return StageError(f"the network cannot be exported: {first}", where=place)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch off stderr: it warns of its own deprecations, and prints the graph where it cannot trace on."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
