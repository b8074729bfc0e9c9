"""The rounding that truth and kernels share, against its definition and in exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from freehold.ops.quantize import int4_group_size, quantize_int4, quantize_int8, quantize_rows

RNG = np.random.default_rng(0)
FLOATS = st.floats(-1e4, 1e4, width=32)


@pytest.mark.parametrize(
    ("in_features", "wanted", "size"),
    [(128, 64, 64), (128, 128, 128), (96, 64, 32), (32, 64, 32), (160, 128, 32), (48, 64, None)],
)
def test_group_size_is_the_largest_that_divides(in_features, wanted, size):
    assert int4_group_size(in_features, wanted) == size


@given(hnp.arrays(np.float32, (3, 64), elements=FLOATS), st.sampled_from([16, 32, 64]))
def test_int4_is_within_half_a_step_of_each_weight(w, group_size):
    q, scales = quantize_int4(w, group_size)
    assert q.dtype == np.int8
    assert scales.dtype == np.float16
    assert q.shape == w.shape
    assert scales.shape == (3, 64 // group_size)
    steps = np.repeat(scales.astype(np.float64), group_size, axis=1)
    # float16 holds a scale to 2**-11; below 6e-8 it is zero, and the group with it
    bound = 0.5 * steps + np.abs(w) * 2.0**-10 + 7 * 2.0**-24
    assert (np.abs(q * steps - w) <= bound).all()


def test_int4_of_whole_steps_is_exact():
    q, scales = RNG.integers(-7, 8, (8, 128)), 2.0 ** RNG.integers(-6, 3, (8, 2))
    q[:, [0, 64]] = 7  # so that the scale is found again
    w = (q.reshape(8, 2, 64) * scales[:, :, None]).reshape(8, 128)
    found, found_scales = quantize_int4(w.astype(np.float32), 64)
    assert np.array_equal(found, q)
    assert np.array_equal(found_scales, scales)


@pytest.mark.parametrize("quantize", [quantize_int8, quantize_rows])
@given(x=hnp.arrays(np.float32, (4, 17), elements=FLOATS))
def test_int8_rows_are_rounded_half_to_even_in_exact_arithmetic(quantize, x):
    q, scales = quantize(x)
    assert scales.dtype == np.float32
    for row, ints, scale in zip(x, q, scales, strict=True):
        assert scale == np.abs(row).max() / np.float32(127)
        for value, integer in zip(row, ints, strict=True):
            if scale:
                wanted = round(Fraction(float(value / scale)))  # Python rounds half to even too
                assert integer == max(-127, min(127, wanted))
            else:
                assert integer == 0


def test_a_zero_row_gives_zeros_and_the_greatest_gives_127():
    x = np.zeros((2, 8), np.float32)
    x[1, 3] = -5
    q, scales = quantize_rows(x)
    assert np.array_equal(q[0], np.zeros(8))
    assert scales[0] == 0
    assert q[1, 3] == -127


def test_rows_do_not_depend_on_each_other():
    x = RNG.standard_normal((9, 33), np.float32)
    q, scales = quantize_rows(x)
    for i in range(9):
        alone_q, alone_scales = quantize_rows(x[i : i + 1])
        assert np.array_equal(alone_q[0], q[i])
        assert alone_scales[0] == scales[i]
