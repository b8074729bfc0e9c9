"""The NumPy truth against definitions written another way, and its independence of neighbours."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from freehold.ops import BatchLayout, RoutingSpec
from freehold.ops.quantize import quantize_int4, quantize_int8, quantize_rows
from freehold.ops.reference import ReferenceOps, fma_float32
from freehold.types import WeightFormat

OPS = ReferenceOps()
RNG = np.random.default_rng(0)
V3 = RoutingSpec(16, 4, "sigmoid", 4, 2, "top2_sum", normalize=True, scaling_factor=2.5)
V2 = RoutingSpec(16, 3, "softmax", 4, 2, "max", scaling_factor=16.0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


# Linears


@pytest.mark.parametrize("format", list(WeightFormat))
@pytest.mark.parametrize("in_features", [64, 96, 33])
def test_linear_is_the_product_with_the_rounded_weight(format, in_features):
    w, x, bias = normal(40, in_features), normal(5, in_features), normal(40)
    weight = OPS.weight(w, format)
    assert weight.shape == w.shape
    wanted = x.astype(np.float64) @ w.astype(np.float64).T + bias
    if format is WeightFormat.INT4 and in_features == 33:
        assert weight.format is WeightFormat.INT8
    bound = rounding_bound(x, w, weight.format)
    assert (np.abs(OPS.linear(x, weight, bias) - wanted) <= bound).all()
    assert (np.abs(OPS.linear(x, weight) - (wanted - bias)) <= bound).all()


def rounding_bound(x: np.ndarray, w: np.ndarray, format: WeightFormat) -> np.ndarray:
    """The most that half a step in each weight and activation can move each output [n, out]."""
    abs_x, abs_w = np.abs(x), np.abs(w)
    if format is WeightFormat.FLOAT32:
        return 1e-6 * (abs_x @ abs_w.T + 1)
    if format is WeightFormat.BF16:
        return 2.0**-8 * (abs_x @ abs_w.T + 1)
    weight_step = abs_w.max() / (7 if format is WeightFormat.INT4 else 127)
    x_step = abs_x.max(axis=1, keepdims=True) / 127
    half_steps = abs_x.sum(axis=1, keepdims=True) * weight_step + x_step * abs_w.sum(axis=1)
    return 0.51 * half_steps + 0.26 * weight_step * x_step * x.shape[1]


def exact_fma(a: float, b: float, c: float) -> np.float32:
    """Rounds the exact value once, by trying the float32 neighbours of an approximation."""
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    near = np.float32(float(exact))
    candidates = [np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.inf)]
    best = min(abs(Fraction(float(v)) - exact) for v in candidates)
    ties = [v for v in candidates if abs(Fraction(float(v)) - exact) == best]
    return next((v for v in ties if v.view(np.uint32) % 2 == 0), ties[0])


def test_fma_rounds_once():
    a, b, c = normal(300), RNG.integers(-60000, 60000, 300).astype(np.float32), normal(300)
    c *= (10.0 ** RNG.integers(-6, 6, 300)).astype(np.float32)
    # Halfway between two float32 but for a crumb that a second rounding would lose
    a[0], b[0], c[0] = 1 + 2.0**-12, 1 + 2.0**-12, 2.0**-60
    a[1], b[1], c[1] = 1 + 2.0**-12, 1 + 2.0**-12, -(2.0**-60)
    found = fma_float32(a, b, c)
    assert np.array_equal(found, [exact_fma(*abc) for abc in zip(a, b, c, strict=True)])
    assert found[0] != found[1]


def test_int4_linear_is_the_sum_of_groups_in_ascending_order():
    w, x = normal(6, 192), normal(3, 192)
    q, scales = quantize_int4(w, 64)
    a, a_scales = quantize_rows(x)
    found = OPS.linear(x, OPS.weight(w, WeightFormat.INT4))
    for i, o in np.ndindex(3, 6):
        total = np.float32(0)
        for g in range(3):
            part = slice(64 * g, 64 * (g + 1))
            dot = int(a[i, part].astype(np.int64) @ q[o, part].astype(np.int64))
            total = exact_fma(np.float32(scales[o, g]), dot, total)
        assert found[i, o] == a_scales[i] * total


def test_int8_linear_is_the_exact_integer_dot_times_both_scales():
    w, x = 4 + normal(6, 5000), 4 + normal(3, 5000)
    q, scales = quantize_int8(w)
    a, a_scales = quantize_rows(x)
    dots = a.astype(np.int64) @ q.astype(np.int64).T
    wanted = (a_scales[:, None] * scales) * dots.astype(np.float32)
    assert dots.min() > 2**24  # added in float32, such sums would lose bits
    assert np.array_equal(OPS.linear(x, OPS.weight(w, WeightFormat.INT8)), wanted)


def test_bfloat16_weights_are_rounded_as_ml_dtypes_rounds():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    w = normal(50, 64) * (10.0 ** RNG.integers(-30, 30, (50, 1))).astype(np.float32)
    w[0, :2] = 1 + 2.0**-8, 1 + 3 * 2.0**-8  # ties
    wanted = w.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert np.array_equal(OPS.weight(w, WeightFormat.BF16).values, wanted)


def test_per_head_linear_is_one_product_a_head():
    w, x = normal(4, 7, 9), normal(5, 4, 9)
    found = OPS.per_head_linear(x, OPS.per_head_weight(w))
    np.testing.assert_allclose(found, np.einsum("hoi,nhi->nho", w, x), rtol=1e-5, atol=1e-5)


# Small layers


def test_rms_norm_and_silu_follow_their_formulas():
    x, weight = normal(3, 2, 10), normal(10)
    wide = x.astype(np.float64)
    wanted = wide / np.sqrt((wide**2).mean(axis=-1, keepdims=True) + 1e-6) * weight
    np.testing.assert_allclose(OPS.rms_norm(x, weight, 1e-6), wanted, rtol=1e-5)
    gate, up = wide[:, 0], wide[:, 1]
    wanted = gate / (1 + np.exp(-gate)) * up
    np.testing.assert_allclose(OPS.silu_and_mul(x.reshape(3, 20)), wanted, rtol=1e-5)
    extreme = np.array([[-500.0, 500.0, 2.0, 2.0]], np.float32)
    assert np.array_equal(OPS.silu_and_mul(extreme), [[0.0, 1000.0]])


@pytest.mark.parametrize("interleaved", [False, True])
def test_rope_turns_pairs_as_complex_numbers(interleaved):
    x, positions = normal(4, 3, 8), np.array([0, 5, 2, 11], np.int32)
    angles = np.arange(12)[:, None] * 0.3 ** np.arange(4)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    found = OPS.rope(x, positions, cos, sin, interleaved=interleaved)

    def pairs(v):
        return v[..., 0::2] + 1j * v[..., 1::2] if interleaved else v[..., :4] + 1j * v[..., 4:]

    wanted = pairs(x) * np.exp(1j * angles[positions])[:, None]
    np.testing.assert_allclose(pairs(found), wanted, atol=1e-6)


def test_rope_makes_scores_depend_on_distance_alone():
    q, k = normal(1, 1, 8), normal(1, 1, 8)
    angles = np.arange(100)[:, None] * 0.5 ** np.arange(4)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def score(at_q: int, at_k: int) -> float:
        turned = [
            OPS.rope(v, np.array([at], np.int32), cos, sin) for v, at in ((q, at_q), (k, at_k))
        ]
        return float((turned[0] * turned[1]).sum())

    assert score(9, 4) == pytest.approx(score(85, 80), abs=1e-5)
    assert abs(score(9, 4) - score(9, 5)) > 1e-3


# Attention


def paged(context_lens: list[int], new: list[int], block_size: int = 4) -> BatchLayout:
    """Requests with `context_lens` keys of which the last `new` come in this step."""
    num_blocks = [-(-n // block_size) for n in context_lens]
    dealt = RNG.permutation(sum(num_blocks)).astype(np.int32)
    tables = np.full((len(new), max(num_blocks)), -1, np.int32)
    for r, blocks in enumerate(np.split(dealt, np.cumsum(num_blocks)[:-1])):
        tables[r, : len(blocks)] = blocks
    positions = np.concatenate(
        [np.arange(c - n, c) for c, n in zip(context_lens, new, strict=True)]
    ).astype(np.int32)
    rows = np.repeat(np.arange(len(new)), new)
    blocks = tables[rows, positions // block_size].astype(np.int64)
    return BatchLayout(
        positions,
        blocks * block_size + positions % block_size,
        np.concatenate([[0], np.cumsum(new)]).astype(np.int32),
        np.array(context_lens, np.int32),
        tables,
        block_size,
    )


def softmax_attention(q, keys, values, scale):
    """[heads, dim], [ctx, heads, dim] → [heads, dim], in float64."""
    scores = np.einsum("hd,thd->ht", q.astype(np.float64), keys) * scale
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.einsum("ht,thd->hd", p / p.sum(axis=1, keepdims=True), values)


@pytest.mark.parametrize("num_kv_heads", [1, 2, 6])
def test_grouped_attention_is_causal_softmax_over_the_requests_own_keys(num_kv_heads):
    lengths = [9, 1, 13]
    layout = paged(lengths, lengths)
    n = sum(lengths)
    q, k, v = normal(n, 6, 8), normal(n, num_kv_heads, 8), normal(n, num_kv_heads, 8)
    cache = OPS.grouped_cache(12, 4, num_kv_heads, 8)
    found = OPS.grouped_attention(q, k, v, cache, layout, 0.3)
    for r, (start, end) in enumerate(zip(layout.query_starts, layout.query_starts[1:])):  # noqa: B905
        assert end - start == lengths[r]
        for row in range(start, end):
            seen = [np.repeat(t[start : row + 1], 6 // num_kv_heads, axis=1) for t in (k, v)]
            wanted = softmax_attention(q[row], *seen, 0.3)
            np.testing.assert_allclose(found[row], wanted, atol=1e-5)


def test_latent_attention_is_grouped_attention_with_one_shared_key():
    layout = paged([9, 5], [9, 5])
    q, latent = normal(14, 4, 12), normal(14, 12)
    found = OPS.latent_attention(q, latent, OPS.latent_cache(5, 4, 12), layout, 0.3, value_dim=8)
    cache = OPS.grouped_cache(5, 4, 1, 12)
    wanted = OPS.grouped_attention(q, latent[:, None], latent[:, None], cache, layout, 0.3)
    np.testing.assert_allclose(found, wanted[..., :8], atol=1e-6)


# Routing


def route_by_hand(logits, spec, bias):
    """One row, after the papers, with sets and loops."""
    wide = [float(x) for x in logits]
    if spec.scoring == "softmax":
        top = max(wide)
        total = sum(np.exp(x - top) for x in wide)
        scores = [np.exp(x - top) / total for x in wide]
    else:
        scores = [1 / (1 + np.exp(-x)) for x in wide]
    choice = [s + (0 if bias is None else float(b)) for s, b in zip(scores, bias, strict=True)]
    size = spec.num_experts // spec.num_groups
    members = [range(g * size, (g + 1) * size) for g in range(spec.num_groups)]
    best_of = 1 if spec.group_score == "max" else 2
    group_scores = [sum(sorted((choice[e] for e in m), reverse=True)[:best_of]) for m in members]
    groups = sorted(range(spec.num_groups), key=lambda g: -group_scores[g])
    allowed = [e for g in sorted(groups[: spec.num_groups_per_token]) for e in members[g]]
    chosen = sorted(allowed, key=lambda e: (-choice[e], e))[: spec.num_experts_per_token]
    weights = np.array([scores[e] for e in chosen])
    if spec.normalize:
        weights /= weights.sum()
    return chosen, weights * spec.scaling_factor


@pytest.mark.parametrize(("spec", "biased"), [(V2, False), (V3, False), (V3, True)])
def test_route_follows_the_papers(spec, biased):
    logits, bias = normal(50, 16) * 2, normal(16) * 0.3 * biased
    ids, weights = OPS.route(logits, spec, bias if biased else None)
    assert ids.dtype == np.int32
    for i in range(50):
        chosen, wanted = route_by_hand(logits[i], spec, bias)
        assert ids[i].tolist() == chosen
        np.testing.assert_allclose(weights[i], wanted, rtol=1e-5)


def test_correction_bias_moves_the_choice_but_not_the_weights():
    spec = RoutingSpec(4, 1, "sigmoid")
    bias = np.array([0, 0, 5, 0], np.float32)
    ids, weights = OPS.route(np.zeros((1, 4), np.float32), spec, bias)
    assert ids.tolist() == [[2]]
    assert weights.tolist() == [[0.5]]


def test_route_gives_ties_to_the_lower_expert():
    ids, _ = OPS.route(np.zeros((1, 16), np.float32), V3)
    assert ids.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("format", list(WeightFormat))
def test_routed_experts_add_each_chosen_experts_mlp(format):
    gate_up = [normal(64, 32) for _ in range(4)]
    down = [normal(32, 32) for _ in range(4)]
    x, ids = normal(6, 32), RNG.permuted(np.tile(np.arange(4), (6, 1)), axis=1)[:, :2]
    weights = np.abs(normal(6, 2))
    experts = OPS.expert_weights(
        [OPS.weight(matrix, format) for matrix in gate_up],
        [OPS.weight(matrix, format) for matrix in down],
    )
    found = OPS.routed_experts(x, ids.astype(np.int32), weights, experts)
    for i in range(6):
        wanted = np.zeros(32, np.float32)
        for j in range(2):
            inner = OPS.linear(x[i : i + 1], OPS.weight(gate_up[ids[i, j]], format))
            out = OPS.linear(OPS.silu_and_mul(inner), OPS.weight(down[ids[i, j]], format))
            wanted += weights[i, j] * out[0]
        assert np.array_equal(found[i], wanted)


# Rows and their neighbours


@pytest.mark.parametrize("format", list(WeightFormat))
@pytest.mark.parametrize("in_features", [33, 64, 96, 257])
def test_a_row_of_a_linear_has_the_same_bits_alone_and_in_a_batch(format, in_features):
    weight, x = OPS.weight(normal(70, in_features), format), normal(37, in_features)
    together = OPS.linear(x, weight)
    for rows in (slice(0, 1), slice(5, 7), slice(3, 36)):
        assert np.array_equal(OPS.linear(x[rows], weight), together[rows])


def test_a_row_of_every_other_layer_has_the_same_bits_alone_and_in_a_batch():
    matrix, heads = normal(16, 33), OPS.per_head_weight(normal(4, 7, 9))
    layers = [
        (lambda x: OPS.matmul_float32(x, matrix), normal(37, 33)),
        (lambda x: OPS.per_head_linear(x, heads), normal(37, 4, 9)),
        (lambda x: OPS.rms_norm(x, matrix[0], 1e-6), normal(37, 66)[:, ::2]),
        (lambda x: OPS.rms_norm(x[:, :, :9], matrix[0, :9], 1e-6), normal(37, 3, 20)),
        (OPS.silu_and_mul, normal(37, 34)),
        (lambda x: OPS.route(x, V2)[1], normal(37, 16)),
        (lambda x: OPS.route(x, V3)[1], normal(37, 16)),
        (lambda x: OPS.logprobs(x, np.zeros(len(x), np.int32), 5)[2], normal(37, 300)),
    ]
    for layer, x in layers:
        together = layer(x)
        for rows in (slice(0, 1), slice(5, 7), slice(3, 36)):
            assert np.array_equal(layer(x[rows]), together[rows])


@pytest.mark.parametrize("kind", ["grouped", "latent"])
def test_attention_has_the_same_bits_in_any_division_into_steps(kind):
    q, k, v, n = normal(21, 4, 8), normal(21, 2, 8), normal(21, 2, 8), 21
    whole = paged([n], [n])

    def run(sizes: list[int]) -> np.ndarray:
        cache = OPS.grouped_cache(6, 4, 2, 8) if kind == "grouped" else OPS.latent_cache(6, 4, 8)
        found, start = [], 0
        for size in sizes:
            rows, start = slice(start, start + size), start + size
            layout = BatchLayout(
                whole.positions[rows],
                whole.slots[rows],
                np.array([0, size], np.int32),
                np.array([start], np.int32),
                whole.block_tables,
                4,
            )
            if kind == "grouped":
                found.append(OPS.grouped_attention(q[rows], k[rows], v[rows], cache, layout, 0.3))
            else:
                latent = k[rows, 0]
                found.append(OPS.latent_attention(q[rows], latent, cache, layout, 0.3, 5))
        return np.concatenate(found)

    for sizes in ([1] * n, [7, 7, 7], [20, 1], [3, 1, 17]):
        assert np.array_equal(run(sizes), run([n]))
