"""Row-wise operations and choices of the native kernels against the truth."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from tests.ops.native_ops import ISAS, native, random

from freehold.ops import RoutingSpec
from freehold.ops.reference import ReferenceOps

REFERENCE = ReferenceOps()


@pytest.fixture(params=ISAS)
def ops(request: pytest.FixtureRequest):
    return native.NativeOps(num_threads=2, isa=request.param)


@pytest.mark.parametrize("dim", [2, 8, 16, 40, 1536])
def test_norm_and_activation_equal_the_truth(ops, dim) -> None:
    x, w = random(5, dim), random(dim, seed=1)
    expected = REFERENCE.rms_norm(x, w, 1e-6)
    np.testing.assert_allclose(ops.rms_norm(x, w, 1e-6), expected, rtol=2e-6)
    assert ops.rms_norm(x.reshape(5, 1, dim), w, 1e-6).shape == (5, 1, dim)
    gate_up = 20 * random(5, 2 * dim)
    gate_up[0, 0], gate_up[0, 1] = 1e30, -1e30
    expected = REFERENCE.silu_and_mul(gate_up)
    np.testing.assert_allclose(ops.silu_and_mul(gate_up), expected, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dim", [2, 14, 64])
def test_rope_equals_the_truth(ops, dim, interleaved) -> None:
    angles = random(50, dim // 2)
    cos, sin = np.cos(angles), np.sin(angles)
    x, positions = random(7, 3, dim), np.array([0, 3, 3, 49, 1, 2, 8], np.int32)
    expected = REFERENCE.rope(x, positions, cos, sin, interleaved)
    assert np.array_equal(ops.rope(x, positions, cos, sin, interleaved), expected)
    for bad in (-1, 50):
        positions[2] = bad
        with pytest.raises(IndexError, match=f"Position {bad} is outside 0 to 49"):
            ops.rope(x, positions, cos, sin, interleaved)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_embedding_widens_rows_exactly(ops, dtype) -> None:
    table = random(30, 33).astype(dtype)
    table[1, :2] = [6e-8, -6e-8]  # subnormal in float16
    table.flags.writeable = False  # as a mapped checkpoint is
    ids = np.array([1, 29, 0, 1], np.int32)
    packed = ops.embedding_table(table)
    assert np.array_equal(ops.embedding(ids, packed), table[ids].astype(np.float32))
    for bad in (-1, 30):
        with pytest.raises(IndexError, match=f"Token id {bad} is outside 0 to 29"):
            ops.embedding(np.array([0, bad], np.int32), packed)


def test_a_float_table_is_kept_not_copied(ops) -> None:
    for dtype in (np.float32, ml_dtypes.bfloat16):
        table = random(4, 8).astype(dtype)
        assert np.shares_memory(ops.embedding_table(table).bits, table)


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize(
    "spec",
    [
        RoutingSpec(16, 3, "softmax"),
        RoutingSpec(16, 16, "softmax", normalize=True),
        RoutingSpec(16, 4, "softmax", 4, 2, "max", False, 16.0),
        RoutingSpec(16, 6, "sigmoid", 8, 4, "top2_sum", True, 2.5),
        RoutingSpec(16, 1, "sigmoid", 16, 1, "top2_sum"),
    ],
)
def test_routing_equals_the_truth(ops, spec, has_bias) -> None:
    scores = np.round(2 * random(200, 16)) / 2  # many ties
    bias = np.round(random(16, seed=1)) if has_bias else None
    expected_ids, expected = REFERENCE.route(scores, spec, bias)
    ids, weights = ops.route(scores, spec, bias)
    assert np.array_equal(ids, expected_ids)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_routing_that_cannot_be_met_is_refused(ops) -> None:
    with pytest.raises(ValueError, match="fewer experts"):
        ops.route(random(2, 16), RoutingSpec(16, 5, "softmax", 4, 1))


def _sampling(n: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    return (
        rng.choice([0, 0.05, 0.3, 1, 2], n).astype(np.float32),
        rng.choice([0, 1, 2, 5, 100, 10**6], n).astype(np.int32),
        rng.choice([1e-6, 0.1, 0.7, 0.95, 1], n).astype(np.float32),
        rng.choice([0, 0.05, 0.9, 1], n).astype(np.float32),
        rng.choice([0, rng.random(), rng.random(), 1 - 2.0**-53], n),
    )


@pytest.mark.parametrize("vocab", [1, 2, 100, 5000])
def test_sampling_equals_the_truth(ops, vocab) -> None:
    rng = np.random.default_rng(vocab)
    n = 200
    logits = (5 * rng.standard_normal((n, vocab))).astype(np.float32)
    logits[::3] = np.round(logits[::3])  # ties
    logits[::5, 1:] -= 30  # far behind
    logits[1::5, 1:] = -np.inf  # masked by a grammar
    logits[2::5] *= 0.1
    logits[2::5, 1:] -= 11  # a tail that top_k reaches and few draws do
    arguments = _sampling(n, rng)
    assert np.array_equal(ops.sample(logits, *arguments), REFERENCE.sample(logits, *arguments))


def test_a_draw_depends_on_its_row_alone(ops) -> None:
    rng = np.random.default_rng(1)
    logits = (3 * rng.standard_normal((33, 700))).astype(np.float32)
    arguments = _sampling(33, rng)
    crowd = ops.sample(logits, *arguments)
    for i in range(33):
        alone = ops.sample(logits[i : i + 1], *(a[i : i + 1] for a in arguments))
        assert alone[0] == crowd[i]


def test_draws_follow_the_distribution(ops) -> None:
    n = 20000
    p = np.array([0.5, 0.25, 0.125, 0.125])
    logits = np.tile(np.log(p).astype(np.float32), (n, 1))
    ones = np.ones(n, np.float32)
    uniforms = (np.arange(n) + 0.5) / n
    drawn = ops.sample(logits, ones, np.zeros(n, np.int32), ones, 0 * ones, uniforms)
    np.testing.assert_allclose(np.bincount(drawn) / n, p, atol=1e-3)


def test_logits_that_are_not_numbers_still_give_a_token(ops) -> None:
    logits = np.full((4, 50), np.nan, np.float32)
    logits[1, 7], logits[2, 9], logits[3] = 1, np.inf, -np.inf
    ones = np.ones(4, np.float32)
    drawn = ops.sample(logits, ones, np.full(4, 9, np.int32), ones, 0 * ones, np.full(4, 0.9))
    assert ((drawn >= 0) & (drawn < 50)).all()
    assert drawn[1] == 7
    assert drawn[2] == 9


@pytest.mark.parametrize("num_top", [0, 1, 5, 20])
def test_logprobs_equal_the_truth(ops, num_top) -> None:
    rng = np.random.default_rng(0)
    logits = np.round(8 * rng.standard_normal((30, 400))).astype(np.float32) / 2  # many ties
    ids = rng.integers(0, 400, 30).astype(np.int32)
    chosen, top_ids, top = ops.logprobs(logits, ids, num_top)
    expected_chosen, expected_ids, expected = REFERENCE.logprobs(logits, ids, num_top)
    np.testing.assert_allclose(chosen, expected_chosen, rtol=1e-6)
    assert np.array_equal(top_ids, expected_ids)
    np.testing.assert_allclose(top, expected, rtol=1e-6)
    with pytest.raises(IndexError, match="Token id 400 is outside 0 to 399"):
        ops.logprobs(logits, np.full(30, 400, np.int32), num_top)


def test_more_top_logprobs_than_tokens_gives_all_tokens(ops) -> None:
    _, ids, _ = ops.logprobs(random(2, 3), np.zeros(2, np.int32), 20)
    assert ids.shape == (2, 3)
