"""Importance criteria: one file each, found by its name.

A criterion sees the weights of one group of coupled channels, arranged as one row per unit of channels that can only go
together, and gives one number per row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]

#: ``out``: filters that make the channel. ``in``: weights that read it. ``norm``: scale of a normalization.
#: ``other``: anything else that goes with it, such as the slope of a PReLU.
Role = Literal["out", "in", "norm", "other"]


@dataclass(frozen=True)
class LayerSlice:
    """What one layer holds of a group.

    Attributes:
        layer: Name of the layer.
        role: What the weights do with the channel.
        weight: (channels, values) float64.
        gradient: The same shape, of the loss; ``None`` unless the criterion asked for it.
    """

    layer: str
    role: Role
    weight: Floats
    gradient: Floats | None = None


@dataclass(frozen=True)
class GroupWeights:
    """All that goes when a channel of the group goes.

    Attributes:
        name: The layer that makes the channels.
        channels: Number of rows.
        slices: Of each layer in the group; the layer that makes the channels comes first.
    """

    name: str
    channels: int
    slices: tuple[LayerSlice, ...]


class Criterion(Protocol):
    """Judges channels. Implementations are stateless; each lives in ``edgeopt/pruning/<name>.py``.

    Attributes:
        name: As a recipe writes it.
        needs_gradients: Whether :attr:`LayerSlice.gradient` must be there; needs the ``train`` split.
    """

    name: str
    needs_gradients: bool

    def score(self, group: GroupWeights, seed: int) -> Floats:
        """Importance (channels,): finite, not negative, on any scale; the higher, the sooner it stays.

        Args:
            group: Weights of the group.
            seed: Of every random choice.
        """
        ...
