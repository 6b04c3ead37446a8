"""Norm of all that is coupled to a channel (Fang et al. 2023, "DepGraph: Towards Any Structural Pruning", 3.3)."""

from __future__ import annotations

import numpy as np

from edgeopt.pruning import Floats, GroupWeights


class L2Group:
    """Square root of the sum of squares over all weights that go with the channel, in every layer of the group."""

    name = "l2_group"
    needs_gradients = False

    def score(self, group: GroupWeights, seed: int) -> Floats:
        """Importance (channels,)."""
        squares = sum((np.square(part.weight).sum(axis=1) for part in group.slices), np.zeros(group.channels))
        return np.sqrt(squares)


PLUGINS = (L2Group(),)
