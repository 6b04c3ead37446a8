"""Random importance, which any other criterion must beat (Mittal et al. 2018, "Recovering from Random Pruning")."""

from __future__ import annotations

import hashlib

import numpy as np

from edgeopt.pruning import Floats, GroupWeights


class Random:
    """Uniform numbers that depend on the seed and the group's name alone."""

    name = "random"
    needs_gradients = False

    def score(self, group: GroupWeights, seed: int) -> Floats:
        """Importance (channels,)."""
        name = int.from_bytes(hashlib.sha256(group.name.encode()).digest()[:8], "little")
        return np.random.default_rng([seed, name]).random(group.channels)


PLUGINS = (Random(),)
