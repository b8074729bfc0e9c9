"""The native kernels against the NumPy truth, on every instruction set this CPU runs."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from freehold.errors import ConfigError
from freehold.ops import BatchLayout
from freehold.ops.reference import ReferenceOps
from freehold.types import WeightFormat

native = pytest.importorskip("freehold.ops.native", reason="the native library is not built")

ISAS = native.available_isas()
REFERENCE = ReferenceOps()
# Relative to the spread of the result: integers differ only in the order of float rescaling.
BOUND = {
    WeightFormat.FLOAT32: 1e-5,
    WeightFormat.BF16: 2e-2,
    WeightFormat.INT8: 1e-5,
    WeightFormat.INT4: 1e-5,
}


@pytest.fixture(params=ISAS)
def ops(request: pytest.FixtureRequest) -> object:
    return native.NativeOps(num_threads=2, isa=request.param)


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize("format", list(WeightFormat))
@pytest.mark.parametrize(("k", "n"), [(32, 16), (64, 1), (96, 17), (160, 50), (1024, 33), (37, 5)])
def test_linear_equals_the_truth(ops, format: WeightFormat, k: int, n: int) -> None:
    w, bias = _random(n, k).astype(ml_dtypes.bfloat16), _random(n, seed=2)
    for m in (1, 2, 3, 7, 19):
        x = _random(m, k, seed=m)
        x[0, : k // 2] = 0
        expected = REFERENCE.linear(x, REFERENCE.weight(w, format), bias)
        got = ops.linear(x, ops.weight(w, format), bias)
        assert np.abs(got - expected).max() <= BOUND[format] * np.abs(expected).max()


@pytest.mark.parametrize("format", list(WeightFormat))
def test_a_row_has_the_same_bits_whatever_it_is_batched_with(ops, format: WeightFormat) -> None:
    weight = ops.weight(_random(70, 192), format)
    x = _random(40, 192, seed=1)
    alone = np.concatenate([ops.linear(x[i : i + 1], weight) for i in range(40)])
    for m in range(1, 41):
        assert np.array_equal(ops.linear(x[:m], weight), alone[:m])
    one_thread = native.NativeOps(num_threads=1, isa=ops.name.split(":")[1])
    assert np.array_equal(one_thread.linear(x, one_thread.weight(_random(70, 192), format)), alone)


def test_instruction_sets_agree_exactly_on_integers() -> None:
    w, x = _random(48, 256), _random(5, 256, seed=1)
    results = []
    for isa in ISAS:
        ops = native.NativeOps(1, isa)
        results.append(ops.linear(x, ops.weight(w, WeightFormat.INT8)))
    assert all(np.array_equal(results[0], result) for result in results)


def test_zero_rows_and_zero_weights_give_zero(ops) -> None:
    for format in WeightFormat:
        weight = ops.weight(np.zeros((20, 64), np.float32), format)
        assert not ops.linear(_random(3, 64), weight).any()
        weight = ops.weight(_random(20, 64), format)
        assert not ops.linear(np.zeros((3, 64), np.float32), weight).any()


def test_rows_equal_the_truth(ops) -> None:
    for dim in (8, 16, 40, 1536):
        x, w = _random(5, dim), _random(dim, seed=1)
        np.testing.assert_allclose(
            ops.rms_norm(x, w, 1e-6), REFERENCE.rms_norm(x, w, 1e-6), rtol=1e-5, atol=1e-6
        )
        gate_up = 20 * _random(5, 2 * dim)
        np.testing.assert_allclose(
            ops.silu_and_mul(gate_up), REFERENCE.silu_and_mul(gate_up), rtol=2e-6, atol=1e-30
        )
    x, w = _random(3, 4, 32), _random(4, 24, 32, seed=1)
    expected = REFERENCE.per_head_linear(x, REFERENCE.per_head_weight(w))
    got = ops.per_head_linear(x, ops.per_head_weight(w))
    assert np.abs(got - expected).max() <= 2e-2 * np.abs(expected).max()


def test_routed_experts_equal_the_truth(ops) -> None:
    rng = np.random.default_rng(0)
    gate_up, down = list(_random(6, 64, 96)), list(_random(6, 96, 32, seed=1))
    x, weights = _random(13, 96, seed=2), _random(13, 3, seed=3)
    ids = np.stack([rng.permutation(6)[:3] for _ in range(13)]).astype(np.int32)
    for format in (WeightFormat.FLOAT32, WeightFormat.INT8, WeightFormat.INT4):
        packed = ops.expert_weights(gate_up, down, format)
        got = ops.routed_experts(x, ids, weights, packed)
        truth = REFERENCE.expert_weights(gate_up, down, format)
        expected = REFERENCE.routed_experts(x, ids, weights, truth)
        # a rounding of the inner activations may fall the other way: one step of INT8
        bound = 1e-5 if format is WeightFormat.FLOAT32 else 2e-2
        assert np.abs(got - expected).max() <= bound * np.abs(expected).max()
        alone = [
            ops.routed_experts(x[i : i + 1], ids[i : i + 1], weights[i : i + 1], packed)
            for i in range(13)
        ]
        assert np.array_equal(got, np.concatenate(alone))


def _layout(lengths: list[int], computed: list[int], block_size: int, rng) -> BatchLayout:
    """Requests of these lengths, of which the first `computed` tokens are in the cache already."""
    num_blocks = [-(-length // block_size) for length in lengths]
    blocks = rng.permutation(sum(num_blocks) + 3)
    tables = np.full((len(lengths), max(num_blocks)), -1, np.int32)
    for r, count in enumerate(num_blocks):
        tables[r, :count], blocks = blocks[:count], blocks[count:]
    positions = [np.arange(c, n) for c, n in zip(computed, lengths, strict=True)]
    slots = [
        tables[r, p // block_size] * block_size + p % block_size for r, p in enumerate(positions)
    ]
    return BatchLayout(
        positions=np.concatenate(positions).astype(np.int32),
        slots=np.concatenate(slots).astype(np.int64),
        query_starts=np.cumsum([0, *(len(p) for p in positions)]).astype(np.int32),
        context_lens=np.array(lengths, np.int32),
        block_tables=tables,
        block_size=block_size,
    )


@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(4, 2, 64), (6, 1, 40), (3, 3, 8)])
def test_grouped_attention_equals_the_truth_and_ignores_chunking(ops, heads, kv_heads, dim) -> None:
    lengths = [1, 5, 37, 70]
    total = sum(lengths)
    q, k, v = (
        _random(total, heads, dim),
        _random(total, kv_heads, dim),
        _random(total, kv_heads, dim, seed=5),
    )
    k, v = (t.astype(ml_dtypes.bfloat16).astype(np.float32) for t in (k, v))
    whole = _layout(lengths, [0, 0, 0, 0], 16, np.random.default_rng(1))
    args = (64, 16, kv_heads, dim)
    expected = REFERENCE.grouped_attention(q, k, v, REFERENCE.grouped_cache(*args), whole, 0.3)
    cache = ops.grouped_cache(*args)
    got = ops.grouped_attention(q, k, v, cache, whole, 0.3)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    tail = _layout(lengths, [0, 2, 36, 33], 16, np.random.default_rng(1))
    starts = np.cumsum([0, *lengths])
    rows = np.concatenate(
        [np.arange(starts[r] + c, starts[r + 1]) for r, c in enumerate([0, 2, 36, 33])]
    )
    again = ops.grouped_attention(q[rows], k[rows], v[rows], cache, tail, 0.3)
    assert np.array_equal(again, got[rows])


def test_latent_attention_equals_the_truth(ops) -> None:
    lengths = [3, 40]
    q, latent = _random(43, 4, 80), _random(43, 80, seed=1)
    latent = latent.astype(ml_dtypes.bfloat16).astype(np.float32)
    layout = _layout(lengths, [0, 0], 8, np.random.default_rng(2))
    expected = REFERENCE.latent_attention(
        q, latent, REFERENCE.latent_cache(16, 8, 80), layout, 0.2, 64
    )
    got = ops.latent_attention(q, latent, ops.latent_cache(16, 8, 80), layout, 0.2, 64)
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_sampling_equals_the_truth(ops) -> None:
    rng = np.random.default_rng(3)
    n, vocab = 60, 3000
    logits = (4 * rng.standard_normal((n, vocab))).astype(np.float32)
    logits[:, 7] = logits[:, 5]  # ties
    arguments = (
        rng.choice([0, 0.3, 1, 2], n).astype(np.float32),
        rng.choice([0, 1, 5, 100], n).astype(np.int32),
        rng.choice([0.1, 0.7, 0.95, 1], n).astype(np.float32),
        rng.choice([0, 0.05], n).astype(np.float32),
        rng.random(n),
    )
    assert np.array_equal(ops.sample(logits, *arguments), REFERENCE.sample(logits, *arguments))
    ids = rng.integers(0, vocab, n).astype(np.int32)
    for got, expected in zip(
        ops.logprobs(logits, ids, 5), REFERENCE.logprobs(logits, ids, 5), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_bad_sizes_raise_and_never_reach_a_kernel(ops) -> None:
    weight = ops.weight(_random(8, 32), WeightFormat.INT8)
    with pytest.raises(ValueError, match="x has shape"):
        ops.linear(_random(2, 31), weight)
    with pytest.raises(ValueError, match="bias"):
        ops.linear(_random(2, 32), weight, _random(7))
    packed = ops.expert_weights([_random(8, 32)], [_random(32, 4)], WeightFormat.BF16)
    with pytest.raises(IndexError, match="Expert id"):
        ops.routed_experts(_random(1, 32), np.array([[1]], np.int32), _random(1, 1), packed)
    layout = _layout([5], [0], 16, np.random.default_rng(0))
    cache = ops.grouped_cache(1, 16, 1, 8)
    rows = (_random(5, 1, 8),) * 3
    layout.block_tables[:] = 9
    with pytest.raises((IndexError, ValueError)):
        ops.grouped_attention(*rows, cache, layout, 1.0)
    with pytest.raises(IndexError, match="Token id"):
        ops.logprobs(_random(1, 4), np.array([4], np.int32), 1)


def test_an_unknown_instruction_set_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"nonsense.*scalar"):
        native.NativeOps(1, "nonsense")
