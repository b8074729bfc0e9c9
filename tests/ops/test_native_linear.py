"""Products of the native kernels against the NumPy truth, on every instruction set here.

With integers the kernels take the truth's very steps, so results are equal to the bit; with floats
they stay inside what the format's rounding and the order of a sum can do.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from tests.ops.native_ops import ISAS, native, random

from freehold.ops import PackedBytes
from freehold.ops.reference import ReferenceOps
from freehold.types import WeightFormat

REFERENCE = ReferenceOps()
INTEGERS = (WeightFormat.INT8, WeightFormat.INT4)
# Inputs and outputs that fall on and beside every border: panels of 16 columns, pairs of them,
# blocks of 8 inputs, groups of 32 and 64, tiles of 64.
SHAPES = [(8, 1), (32, 16), (37, 5), (64, 33), (96, 17), (160, 50), (1024, 65), (4096, 7)]
ROWS = (1, 2, 3, 4, 5, 9, 17, 33)


@pytest.fixture(params=ISAS)
def ops(request: pytest.FixtureRequest):
    return native.NativeOps(num_threads=2, isa=request.param)


@pytest.mark.parametrize(("k", "n"), SHAPES)
@pytest.mark.parametrize("format", INTEGERS)
def test_integer_products_equal_the_truth_to_the_bit(ops, format, k, n) -> None:
    w, bias = random(n, k).astype(ml_dtypes.bfloat16), random(n, seed=2)
    truth, packed = REFERENCE.weight(w, format), ops.weight(w, format)
    for m in ROWS:
        x = random(m, k, seed=m) * np.float32(10) ** random(m, 1, seed=3)
        assert np.array_equal(ops.linear(x, packed), REFERENCE.linear(x, truth))
        assert np.array_equal(ops.linear(x, packed, bias), REFERENCE.linear(x, truth, bias))


@pytest.mark.parametrize("group_size", [8, 32, 128])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_every_group_size_and_stored_type_is_rounded_as_the_truth_does(
    ops, group_size, dtype
) -> None:
    w = random(40, 256)
    w[3], w[5, :128] = 0, 1e-7  # a row of zeros; groups whose scale is subnormal or zero
    w[7, 0], w[8, 0] = 7 + 7 * 2.0**-11, 7 + 21 * 2.0**-11  # scales halfway between two float16
    w = w.astype(dtype)
    x = random(18, 256, seed=1)
    for format in INTEGERS:
        expected = REFERENCE.linear(x, REFERENCE.weight(w, format, group_size))
        assert np.array_equal(ops.linear(x, ops.weight(w, format, group_size)), expected)


@pytest.mark.parametrize(("k", "n"), SHAPES)
def test_float_products_stay_within_the_rounding_of_their_format(ops, k, n) -> None:
    w, bias = random(n, k), random(n, seed=2)
    for m in ROWS:
        x = random(m, k, seed=m)
        exact = x.astype(np.float64) @ w.T.astype(np.float64) + bias
        size = np.abs(x) @ np.abs(w).T + np.abs(bias)  # what errors are relative to
        sums = (k + 2) * 2.0**-24
        got = ops.linear(x, ops.weight(w, WeightFormat.FLOAT32), bias)
        assert (np.abs(got - exact) <= sums * size).all()
        got = ops.linear(x, ops.weight(w, WeightFormat.BF16), bias)
        assert (np.abs(got - exact) <= (2.1 * 2.0**-8 + 2 * sums) * size).all()


@pytest.mark.parametrize("format", list(WeightFormat))
@pytest.mark.parametrize("inner", [16, 48, 64, 40])  # the last: no whole panels
def test_gated_products_equal_the_product_then_the_gate(ops, format, inner) -> None:
    w, bias = random(2 * inner, 96), random(2 * inner, seed=2)
    weight = ops.weight(w, format)
    for m in ROWS:
        x = random(m, 96, seed=m)
        for added in (None, bias):
            expected = ops.silu_and_mul(ops.linear(x, weight, added))
            assert np.array_equal(ops.gated_linear(x, weight, added), expected)


@pytest.mark.parametrize("format", list(WeightFormat))
def test_a_row_has_the_same_bits_whatever_it_is_batched_with(ops, format) -> None:
    w, x = random(150, 192), random(40, 192, seed=1)
    weight = ops.weight(w, format)
    alone = np.concatenate([ops.linear(x[i : i + 1], weight) for i in range(40)])
    for m in range(1, 41):
        assert np.array_equal(ops.linear(x[40 - m :], weight), alone[40 - m :])
    for num_threads in (1, 3):
        others = native.NativeOps(num_threads, ops.isa)
        assert np.array_equal(others.linear(x, others.weight(w, format)), alone)


@pytest.mark.parametrize("format", [WeightFormat.FLOAT32, *INTEGERS])
def test_every_instruction_set_gives_the_same_bits(format) -> None:
    w, x = random(48, 384), random(20, 384, seed=1)
    results = []
    for isa in ISAS:
        ops = native.NativeOps(1, isa)
        results.append(ops.linear(x, ops.weight(w, format)))
    assert all(np.array_equal(results[0], result) for result in results)


def test_memory_of_any_alignment_and_order_is_read_right(ops) -> None:
    w, x = random(20, 64), random(6, 65, seed=1)
    weight = ops.weight(w, WeightFormat.INT8)
    shifted = x[:, 1:]  # neither contiguous nor aligned
    assert np.array_equal(ops.linear(shifted, weight), ops.linear(shifted.copy(), weight))
    column_major = ops.weight(np.asfortranarray(w), WeightFormat.INT8)
    assert np.array_equal(ops.linear(x[:, :64], column_major), ops.linear(x[:, :64], weight))


def test_zero_rows_and_zero_weights_give_zero(ops) -> None:
    for format in WeightFormat:
        weight = ops.weight(np.zeros((20, 64), np.float32), format)
        assert not ops.linear(random(3, 64), weight).any()
        weight = ops.weight(random(20, 64), format)
        assert not ops.linear(np.zeros((3, 64), np.float32), weight).any()
        assert ops.linear(np.zeros((0, 64), np.float32), weight).shape == (0, 20)


def test_int4_weights_take_half_a_byte_and_a_group_two_more() -> None:
    ops = native.NativeOps(1)
    weight = ops.weight(random(32, 256), WeightFormat.INT4, 64)
    assert weight.shape == (32, 256)
    assert weight.num_bytes == 32 * 256 // 2 + 32 * 4 * 2


def test_per_head_products_equal_one_product_a_head(ops) -> None:
    w = random(5, 24, 34)
    packed = ops.per_head_weight(w)
    assert packed.shape == w.shape
    for m in (1, 3, 21):
        x = random(m, 5, 34, seed=m)
        got = ops.per_head_linear(x, packed)
        for head in range(5):
            one = ops.linear(x[:, head], ops.weight(w[head], WeightFormat.BF16))
            assert np.array_equal(got[:, head], one)


def test_router_products_are_float32_and_independent_of_the_batch(ops) -> None:
    for k in (5, 32, 77, 1024):
        x, matrix = random(9, k), random(50, k, seed=1)
        exact = x.astype(np.float64) @ matrix.T.astype(np.float64)
        got = ops.matmul_float32(x, matrix)
        assert (np.abs(got - exact) <= (k + 2) * 2.0**-24 * (np.abs(x) @ np.abs(matrix).T)).all()
        alone = [ops.matmul_float32(x[i : i + 1], matrix) for i in range(9)]
        assert np.array_equal(got, np.concatenate(alone))


def stacked(ops, gate_up, down, format):
    return ops.expert_weights(
        [ops.weight(matrix, format) for matrix in gate_up],
        [ops.weight(matrix, format) for matrix in down],
    )


@pytest.mark.parametrize("format", list(WeightFormat))
def test_routed_experts_equal_the_sum_over_their_own_products(ops, format) -> None:
    rng = np.random.default_rng(0)
    gate_up, down = list(random(6, 128, 96)), list(random(6, 96, 64, seed=1))
    gate_up[4][:] = np.nan  # an expert nobody chooses is not touched
    x, weights = random(29, 96, seed=2), random(29, 3, seed=3)
    ids = np.array([0, 1, 2, 3, 5], np.int32)[np.stack([rng.permutation(5)[:3] for _ in range(29)])]
    packed = stacked(ops, gate_up, down, format)
    got = ops.routed_experts(x, ids, weights, packed)
    expected = np.zeros_like(x)
    for i in range(29):
        for j in range(3):
            up = ops.linear(x[i : i + 1], ops.weight(gate_up[ids[i, j]], format))
            out = ops.linear(ops.silu_and_mul(up), ops.weight(down[ids[i, j]], format))
            expected[i] += weights[i, j] * out[0]
    assert np.array_equal(got, expected)
    alone = [
        ops.routed_experts(x[i : i + 1], ids[i : i + 1], weights[i : i + 1], packed)
        for i in range(29)
    ]
    assert np.array_equal(got, np.concatenate(alone))


def test_bad_sizes_are_refused_before_a_kernel_runs(ops) -> None:
    weight = ops.weight(random(8, 32), WeightFormat.INT8)
    with pytest.raises(ValueError, match=r"x has shape \[2, 31\], expected \[2, 32\]"):
        ops.linear(random(2, 31), weight)
    with pytest.raises(ValueError, match="bias has shape"):
        ops.linear(random(2, 32), weight, random(7))
    gated = ops.weight(random(32, 32), WeightFormat.INT8)
    with pytest.raises(ValueError, match=r"x has shape \[2, 31\], expected \[2, 32\]"):
        ops.gated_linear(random(2, 31), gated)
    with pytest.raises(ValueError, match="bias has shape"):
        ops.gated_linear(random(2, 32), gated, random(16))
    with pytest.raises(ValueError, match="1 to 65,536 inputs"):
        ops.weight(np.zeros((1, 65537), np.float32), WeightFormat.INT8)
    with pytest.raises(ValueError, match="expected"):
        ops.matmul_float32(random(2, 32), random(4, 31))
    with pytest.raises(ValueError, match="gate_up is"):
        stacked(ops, [random(8, 32)], [random(32, 5)], WeightFormat.BF16)
    packed = stacked(ops, [random(8, 32)], [random(32, 4)], WeightFormat.BF16)
    for bad in (-1, 1):
        with pytest.raises(IndexError, match="Expert id"):
            ops.routed_experts(random(1, 32), np.array([[bad]], np.int32), random(1, 1), packed)


@pytest.mark.parametrize("format", list(WeightFormat))
def test_packed_bytes_are_the_weight(ops, format) -> None:
    weight, x = ops.weight(random(40, 96), format), random(5, 96)
    again = ops.unpacked(ops.packed(weight))
    assert again.shape == weight.shape
    assert np.array_equal(ops.linear(x, again), ops.linear(x, weight))
    heads = ops.per_head_weight(random(3, 24, 34))
    again, x = ops.unpacked(ops.packed(heads)), random(5, 3, 34)
    assert np.array_equal(ops.per_head_linear(x, again), ops.per_head_linear(x, heads))


def test_packed_bytes_of_another_form_are_refused(ops) -> None:
    packed = ops.packed(ops.weight(random(40, 96), WeightFormat.INT4, 32))
    format, count, n, k, group = packed.form
    for form in (
        (9, count, n, k, group),
        (format, count, n + 16, k, group),
        (format, count, n, k, 0),
        (format, count, n, -k, group),
        (format, 1 << 40, n, k, group),
    ):
        with pytest.raises(ValueError, match=r"\."):
            ops.unpacked(PackedBytes(form, packed.bytes))
    with pytest.raises(ValueError, match="another size"):
        ops.unpacked(PackedBytes(packed.form, packed.bytes[:-1]))
    shifted = np.empty(len(packed.bytes) + 65, np.uint8)
    start = -shifted.ctypes.data % 64 + 1
    with pytest.raises(ValueError, match="cache line"):
        ops.unpacked(PackedBytes(packed.form, shifted[start : start + len(packed.bytes)]))
