"""Integers that stand for real numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeopt.agent import affine
from edgeopt.agent.affine import Affine


@given(
    st.floats(1e-4, 1e3),
    st.integers(-128, 127),
    arrays(np.int8, st.integers(1, 20)),
)
def test_every_code_survives(scale: float, zero_point: int, codes: np.ndarray) -> None:
    coding = Affine("int8", scale, zero_point)
    np.testing.assert_array_equal(coding.encode(coding.decode(codes)), codes)


@given(st.floats(1e-3, 10), st.integers(-128, 127), arrays(np.float32, 9, elements=st.floats(-100, 100, width=32)))
def test_what_is_in_range_is_off_by_half_a_step_at_most(scale: float, zero_point: int, values: np.ndarray) -> None:
    coding = Affine("int8", scale, zero_point)
    low, high = (scale * (end - zero_point) for end in (-128, 127))
    decoded = coding.decode(coding.encode(values)).astype(np.float64)
    limited = np.clip(values.astype(np.float64), low, high)
    assert np.abs(decoded - limited).max() <= scale / 2 + 1e-5 * max(abs(low), abs(high))


def test_by_hand() -> None:
    coding = Affine("int8", 0.5, -3)
    np.testing.assert_array_equal(coding.encode(np.array([0.0, 1.0, -62.5, 1000, -1000])), [-3, -1, -128, 127, -128])
    np.testing.assert_array_equal(coding.decode(np.array([-3, -1, 127], np.int8)), np.array([0, 1, 65], np.float32))


@pytest.mark.parametrize("coding", [Affine("uint8"), Affine("uint8", 1.0, 0), Affine("float32")])
def test_raw_values_go_through(coding: Affine) -> None:
    values = np.arange(4).astype(coding.dtype)
    assert coding.plain
    assert coding.outside == coding.dtype
    assert coding.encode(values) is values
    assert coding.decode(values) is values


@pytest.mark.parametrize(
    ("dtype", "scales", "zeros", "wanted"),
    [
        (np.uint8, [], [], Affine("uint8")),
        (np.int8, [0.25], [4], Affine("int8", 0.25, 4)),
        (np.int16, [0.25], [], Affine("int16", 0.25, 0)),
        (np.float32, [0.25], [4], Affine("float32")),
    ],
)
def test_from_what_an_interpreter_says(dtype: type, scales: list[float], zeros: list[int], wanted: Affine) -> None:
    details = {"dtype": dtype, "quantization_parameters": {"scales": np.array(scales), "zero_points": np.array(zeros)}}
    assert affine.of(details) == wanted
