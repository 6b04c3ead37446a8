"""Quantizers: one file, one way to make a float ONNX file INT8.

Quantization libraries ignore options that they cannot honour, and say nothing. So a quantizer here reads back the
file that it wrote, describes every layer in it as a :class:`Layer`, and :func:`check` compares that with what was
asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from edgeopt.errors import ConfigError, StageError
from edgeopt.stage import Params

Array = npt.NDArray[Any]
#: Called with the number of calibration samples that have been read.
Progress = Callable[[int], None]


@dataclass(frozen=True)
class QuantizerOutput:
    """What a quantizer says of the files that it wrote.

    Attributes:
        kind: Artefact kind.
        meta: Facts about the artefact; no times, no absolute paths.
        summary: What was done, in a few words.
        notes: Every layer that stayed float, and why the user should know.
    """

    kind: str
    meta: Mapping[str, Any]
    summary: str
    notes: tuple[str, ...] = ()


P = TypeVar("P", bound=Params)


class Quantizer(Protocol[P]):
    """A quantizer. Implementations are stateless.

    Attributes:
        name: As a target's ``quantization.quantizer`` or a recipe writes it.
        Params: Type of its options.
        consumes: Artefact kinds that it reads.
        produces: Artefact kind that it writes.
        tools: Distributions whose versions are part of the action key.
    """

    name: str
    Params: type[P]
    consumes: frozenset[str]
    produces: str
    tools: tuple[str, ...]

    def quantize(
        self,
        model: Path,
        samples: Array,
        params: P,
        out: Path,
        *,
        seed: int,
        keep_float: Collection[str] = (),
        progress: Progress = lambda done: None,
    ) -> QuantizerOutput:
        """Write the quantized model into ``out``. Equal arguments give equal bytes.

        Args:
            model: Float ONNX file with one input and a dynamic batch.
            samples: Raw calibration samples, (N, *input shape).
            params: Options.
            out: Empty folder.
            seed: Of random choices, if there are any.
            keep_float: Names of nodes that stay float, such as those of the folded preprocessing.
            progress: Told how many samples have been read.

        Raises:
            ConfigError: The calibration samples leave an activation without a range.
            StageError: The library fails, or the file is not what the options ask for.
        """
        ...


@dataclass(frozen=True)
class Layer:
    """A convolution or a product with constant weights, as it stands in the quantized file.

    Attributes:
        name: Of the float model's node.
        channels: Output channels.
        scales: Number of scales of the weights; 0 if the weights stayed float.
        largest: Largest absolute integer weight.
        activation: Type of the quantized input, ``uint8`` or ``int8``; empty if the input stayed float.
        op: What it computes.
    """

    name: str
    channels: int
    scales: int
    largest: int
    activation: str
    op: Literal["convolution", "depthwise convolution", "product"]

    @property
    def quantized(self) -> bool:
        """Both weights and input are integers, so that an integer kernel can be used."""
        return self.scales > 0 and self.activation != ""


def check(
    layers: Sequence[Layer], *, per_channel: bool, reduced: Collection[Layer] = (), activations: str | None = None
) -> tuple[str, ...]:
    """Compare the layers of a quantized file with what was asked for.

    Args:
        layers: All of the file.
        per_channel: Whether every output channel has a weight scale of its own.
        reduced: Those whose integer weights have 7 bits, within ±64.
        activations: Required type of the quantized inputs.

    Returns:
        Notes on the layers that stayed float.

    Raises:
        StageError: Nothing is quantized, or an option was ignored; names the layers.
    """
    if not layers:
        raise StageError("the model has no convolution and no matrix product with constant weights to quantize")
    done = [layer for layer in layers if layer.quantized]
    if not done:
        raise StageError(f"the quantizer left all layers float: {_named(layers)}")
    wrong = {
        "weights have one scale for all channels, per-channel scales were asked for": [
            layer for layer in done if per_channel and layer.scales != layer.channels
        ],
        "weights have a scale for each channel, one for all was asked for": [
            layer for layer in done if not per_channel and layer.scales != 1
        ],
        "integer weights of 7 bits go beyond 64": [layer for layer in reduced if layer.largest > 64],
        f"inputs are not {activations}": [layer for layer in done if activations not in (None, layer.activation)],
    }
    problems = [f"{what}: {_named(found)}" for what, found in wrong.items() if found]
    if problems:
        raise StageError("the quantizer ignored an option; " + "; ".join(problems))
    left = [layer for layer in layers if not layer.quantized]
    return (f"{len(left)} of {len(layers)} layers stay float: {_named(left)}",) if left else ()


def constant_range(names: Collection[str]) -> ConfigError:
    """The error for activations that never change over the calibration samples."""
    return ConfigError(
        f"these activations are zero for all calibration samples, so that they have no range: {_quoted(names)}",
        where="data.calibrate",
        fix="calibrate with samples like those that the device will see",
    )


def summary(layers: Sequence[Layer], samples: Array, extra: str = "") -> str:
    """``16 of 17 layers int8, 128 calibration samples``."""
    done = sum(layer.quantized for layer in layers)
    return f"{done} of {len(layers)} layers int8, {len(samples)} calibration samples{extra}"


def largest_weight(values: npt.NDArray[np.int8]) -> int:
    """Largest absolute value, correct for -128."""
    return int(np.abs(values.astype(np.int16)).max(initial=0))


def _named(layers: Sequence[Layer]) -> str:
    return _quoted([layer.name for layer in layers])


def _quoted(names: Collection[str]) -> str:
    shown = sorted(names)[:8]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + more
