"""First-order change of the loss (Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning")."""

from __future__ import annotations

import numpy as np

from edgeopt.pruning import Floats, GroupWeights


class Taylor:
    """Sum of ``|weight * gradient|`` over all weights that go with the channel.

    Absolute values are summed, not the products: in front of a normalization the products of a filter cancel to zero,
    because its scale does not change the loss.
    """

    name = "taylor"
    needs_gradients = True

    def score(self, group: GroupWeights, seed: int) -> Floats:
        """Importance (channels,).

        Raises:
            ValueError: A gradient is missing.
        """
        total = np.zeros(group.channels)
        for part in group.slices:
            if part.gradient is None:
                raise ValueError(f"no gradient of {part.layer}")
            total += np.abs(part.weight * part.gradient).sum(axis=1)
        return total


PLUGINS = (Taylor(),)
