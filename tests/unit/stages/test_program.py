"""The preprocessing in front of the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeopt import data
from edgeopt.recipe import Preprocess
from edgeopt.stages._program import deployable


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("shape", "channels", "dtype"),
    [((6, 5, 3), 3, "uint8"), ((6, 5, 1), 1, "uint8"), ((2, 12), 2, "int16"), ((4, 4), 4, "int16"), ((7,), 7, "uint8")],
)
def test_it_is_that_of_the_recipe_for_all_kinds_of_samples(
    shape: tuple[int, ...], channels: int, dtype: str, channels_last: bool
) -> None:
    """Also where there are as many channels as samples in time, so that no shape tells them apart."""
    mean, std = np.linspace(-0.5, 0.5, channels), np.linspace(1, 2, channels)
    spec = Preprocess.model_validate(
        {"raw": {"shape": shape, "dtype": dtype}, "scale": 255, "mean": tuple(mean), "std": tuple(std)}
    )
    limits = np.iinfo(dtype)
    raw = np.random.default_rng(0).integers(limits.min, limits.max, (2, *shape), dtype, endpoint=True)
    given = deployable(torch.nn.Identity(), spec, channels_last=channels_last)(torch.from_numpy(raw)).numpy()
    np.testing.assert_allclose(given, data.to_input(raw, spec), rtol=1e-5, atol=1e-4)
