"""Magnitude of the filters that make a channel (Li et al. 2017, "Pruning Filters for Efficient ConvNets")."""

from __future__ import annotations

import numpy as np

from edgeopt.pruning import Floats, GroupWeights


class L1:
    """Sum of absolute filter weights, over all layers that make the channel."""

    name = "l1"
    needs_gradients = False

    def score(self, group: GroupWeights, seed: int) -> Floats:
        """Importance (channels,)."""
        filters = [part.weight for part in group.slices if part.role == "out"]
        return sum((np.abs(weight).sum(axis=1) for weight in filters), np.zeros(group.channels))


PLUGINS = (L1(),)
