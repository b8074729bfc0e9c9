"""The truth: every operation of `Ops` in plain NumPy, float32 throughout, float32 caches.

Slow and simple on purpose; other implementations are tested against it. Knows no threads, no
packing and no models. Read `model/deepseek_v3.py` next.

Row independence. A row's bits must not depend on the rows beside it. BLAS picks another summation
order for a matrix product of 1 row than for one of 16, so nothing here multiplies many rows by a
matrix at once: `_matvec` has NumPy call the same matrix-vector routine once a row, and attention
works one token at a time over exactly the keys it may see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from freehold.ops import DEFAULT_GROUP_SIZE, BatchLayout, PackedBytes, RoutingSpec
from freehold.ops.quantize import int4_group_size, quantize_int4, quantize_int8, quantize_rows
from freehold.types import WeightFormat

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class ReferenceWeight:
    """`values` is float32 [out, in] (or [heads, out, in]): for INT8 and INT4 the integers."""

    format: WeightFormat
    values: F32
    scales: F32 | None = None  # INT8: [out]; INT4: [out, in / group_size]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def num_bytes(self) -> int:
        return self.values.nbytes + (0 if self.scales is None else self.scales.nbytes)


@dataclass(frozen=True, slots=True)
class ReferenceExperts:
    gate_up: list[ReferenceWeight]  # [2 * inner, hidden], one an expert
    down: list[ReferenceWeight]  # [hidden, inner]

    @property
    def num_bytes(self) -> int:
        return sum(weight.num_bytes for weight in (*self.gate_up, *self.down))


@dataclass(frozen=True, slots=True)
class GroupedCache:
    keys: F32  # [num_slots, num_kv_heads, head_dim]
    values: F32

    @property
    def num_bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


@dataclass(frozen=True, slots=True)
class LatentCache:
    latents: F32  # [num_slots, latent_dim]

    @property
    def num_bytes(self) -> int:
        return self.latents.nbytes


class ReferenceOps:
    name = "reference"
    pack_layout: str | None = None
    cache_layout = "reference:1"

    # Weights

    def weight(
        self, tensor: npt.NDArray[Any], format: WeightFormat, group_size: int = DEFAULT_GROUP_SIZE
    ) -> ReferenceWeight:
        group = int4_group_size(tensor.shape[1], group_size)
        if format is WeightFormat.INT4 and group is not None:
            q, half_scales = quantize_int4(tensor, group)
            return ReferenceWeight(format, q.astype(np.float32), half_scales.astype(np.float32))
        if format in (WeightFormat.INT4, WeightFormat.INT8):
            q, scales = quantize_int8(tensor)
            return ReferenceWeight(WeightFormat.INT8, q.astype(np.float32), scales)
        if format is WeightFormat.BF16:
            return ReferenceWeight(format, _round_to_bfloat16(tensor))
        return ReferenceWeight(format, _float32(tensor))

    def per_head_weight(self, tensor: npt.NDArray[Any]) -> ReferenceWeight:
        return ReferenceWeight(WeightFormat.FLOAT32, _float32(tensor))

    def expert_weights(
        self, gate_up: Sequence[ReferenceWeight], down: Sequence[ReferenceWeight]
    ) -> ReferenceExperts:
        return ReferenceExperts(list(gate_up), list(down))

    def packed(self, weight: ReferenceWeight) -> PackedBytes:
        raise ValueError("The reference packs nothing.")

    def unpacked(self, packed: PackedBytes) -> ReferenceWeight:
        raise ValueError("The reference packs nothing.")

    def embedding_table(self, tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return tensor

    def vector(self, tensor: npt.NDArray[Any]) -> F32:
        return _float32(tensor)

    # Layers

    def embedding(self, token_ids: I32, table: npt.NDArray[Any]) -> F32:
        return table[token_ids].astype(np.float32)

    def linear(self, x: F32, weight: ReferenceWeight, bias: F32 | None = None) -> F32:
        if weight.format is WeightFormat.INT8:
            y = _linear_int8(x, weight)
        elif weight.format is WeightFormat.INT4:
            y = _linear_int4(x, weight)
        else:
            y = _matvec(weight.values, x)
        return y if bias is None else y + bias

    def gated_linear(self, x: F32, weight: ReferenceWeight, bias: F32 | None = None) -> F32:
        return self.silu_and_mul(self.linear(x, weight, bias))

    def per_head_linear(self, x: F32, weight: ReferenceWeight) -> F32:
        return _matvec(weight.values, x)

    def matmul_float32(self, x: F32, matrix: F32) -> F32:
        return _matvec(matrix, x)

    def concatenate(self, parts: Sequence[F32]) -> F32:
        return np.concatenate(parts, axis=-1)

    def rms_norm(self, x: F32, weight: F32, eps: float) -> F32:
        x = np.ascontiguousarray(x)
        mean_square = np.mean(x * x, axis=-1, keepdims=True, dtype=np.float32)
        root: F32 = np.sqrt(mean_square + np.float32(eps))
        return x / root * weight

    def silu_and_mul(self, gate_up: F32) -> F32:
        gate, up = np.split(gate_up, 2, axis=-1)
        with np.errstate(over="ignore"):  # exp(-gate) may be inf: silu is then -0, as it should be
            denominator: F32 = np.float32(1) + np.exp(-gate)
        return gate / denominator * up

    def rope(self, x: F32, positions: I32, cos: F32, sin: F32, interleaved: bool = False) -> F32:
        c, s = cos[positions][:, None, :], sin[positions][:, None, :]  # [n, 1, dim / 2]
        half = x.shape[-1] // 2
        if interleaved:
            first, second = slice(0, None, 2), slice(1, None, 2)
        else:
            first, second = slice(0, half), slice(half, None)
        rotated = np.empty_like(x, order="C")
        rotated[..., first] = x[..., first] * c - x[..., second] * s
        rotated[..., second] = x[..., second] * c + x[..., first] * s
        return rotated

    # Attention

    def grouped_cache(
        self, num_blocks: int, block_size: int, num_kv_heads: int, head_dim: int
    ) -> GroupedCache:
        shape = (num_blocks * block_size, num_kv_heads, head_dim)
        return GroupedCache(np.zeros(shape, np.float32), np.zeros(shape, np.float32))

    def latent_cache(self, num_blocks: int, block_size: int, latent_dim: int) -> LatentCache:
        return LatentCache(np.zeros((num_blocks * block_size, latent_dim), np.float32))

    def cache_memory(
        self, cache: GroupedCache | LatentCache, block_size: int
    ) -> list[npt.NDArray[np.uint8]]:
        parts = [cache.latents] if isinstance(cache, LatentCache) else [cache.keys, cache.values]
        return [part.reshape(len(part) // block_size, -1).view(np.uint8) for part in parts]

    def grouped_attention(
        self, q: F32, k: F32, v: F32, cache: GroupedCache, layout: BatchLayout, scale: float
    ) -> F32:
        num_heads, num_kv_heads = q.shape[1], k.shape[1]
        group = num_heads // num_kv_heads  # query heads that share a key head
        cache.keys[layout.slots], cache.values[layout.slots] = k, v
        out = np.empty((*q.shape[:2], v.shape[2]), np.float32)
        for rows, slots in _requests(layout):
            keys = np.ascontiguousarray(cache.keys[slots].transpose(1, 0, 2))  # [kv, ctx, dim]
            values = np.ascontiguousarray(cache.values[slots].transpose(1, 0, 2))
            for row in rows:
                seen = int(layout.positions[row]) + 1
                queries = q[row].reshape(num_kv_heads, group, -1)
                mixed = _attend(queries, keys[:, :seen], values[:, :seen], scale)
                out[row] = mixed.reshape(num_heads, -1)
        return out

    def latent_attention(
        self,
        q: F32,
        latent: F32,
        cache: LatentCache,
        layout: BatchLayout,
        scale: float,
        value_dim: int,
    ) -> F32:
        cache.latents[layout.slots] = latent
        out = np.empty((*q.shape[:2], value_dim), np.float32)
        for rows, slots in _requests(layout):
            keys = cache.latents[slots][None]  # [1, ctx, latent_dim]: all heads share one key
            for row in rows:
                seen = keys[:, : int(layout.positions[row]) + 1]
                out[row] = _attend(q[row][None], seen, seen[..., :value_dim], scale)[0]
        return out

    # Routed experts

    def route(
        self, scores: F32, spec: RoutingSpec, correction_bias: F32 | None = None
    ) -> tuple[I32, F32]:
        """As in `Ops`; the experts of a row come in descending order of their choice score."""
        probabilities = _softmax(scores) if spec.scoring == "softmax" else _sigmoid(scores)
        choice = probabilities if correction_bias is None else probabilities + correction_bias
        choice = _keep_best_groups(choice, spec)
        ids = _descending(choice)[:, : spec.num_experts_per_token]  # [n, k]
        weights = np.take_along_axis(probabilities, ids, axis=1)
        if spec.normalize:
            weights = weights / (weights.sum(axis=1, keepdims=True) + np.float32(1e-20))
        return ids.astype(np.int32), weights * np.float32(spec.scaling_factor)

    def routed_experts(
        self, x: F32, expert_ids: I32, expert_weights: F32, experts: ReferenceExperts
    ) -> F32:
        num_tokens, num_chosen = expert_ids.shape
        outputs = np.empty((num_tokens, num_chosen, x.shape[1]), np.float32)
        for expert in np.unique(expert_ids):
            tokens, places = np.nonzero(expert_ids == expert)
            inner = self.silu_and_mul(self.linear(x[tokens], experts.gate_up[expert]))
            outputs[tokens, places] = self.linear(inner, experts.down[expert])
        total = np.zeros_like(x, order="C")
        for j in range(num_chosen):
            total += expert_weights[:, j, None] * outputs[:, j]
        return total

    # Choosing a token

    def sample(
        self,
        logits: F32,
        temperature: npt.NDArray[np.float32],
        top_k: I32,
        top_p: npt.NDArray[np.float32],
        min_p: npt.NDArray[np.float32],
        uniforms: npt.NDArray[np.float64],
    ) -> I32:
        rows = zip(logits, temperature, top_k, top_p, min_p, uniforms, strict=True)
        return np.array([_sample_row(*row) for row in rows], np.int32)

    def logprobs(self, logits: F32, token_ids: I32, num_top: int) -> tuple[F32, I32, F32]:
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        total = np.exp(shifted).sum(axis=1, keepdims=True)
        logprobs = (shifted - np.log(total)).astype(np.float32)  # [n, vocab]
        chosen = np.take_along_axis(logprobs, np.asarray(token_ids)[:, None].astype(np.int64), 1)
        top_ids = _descending(logits)[:, :num_top]
        top = np.take_along_axis(logprobs, top_ids, axis=1)
        return chosen[:, 0], top_ids.astype(np.int32), top


def _float32(tensor: npt.NDArray[Any]) -> F32:
    return np.ascontiguousarray(tensor, dtype=np.float32)


def _round_to_bfloat16(tensor: npt.NDArray[Any]) -> F32:
    """To the nearest bfloat16, ties to even, held as float32 (finite inputs)."""
    bits = _float32(tensor).view(np.uint32)
    half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return ((bits + half) & np.uint32(0xFFFF0000)).view(np.float32)


def _matvec(matrix: npt.NDArray[Any], x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """matrix [..., out, in] times each x [n, ..., in] → [n, ..., out], one gemv a row."""
    rows = np.ascontiguousarray(x)
    product: npt.NDArray[Any] = np.matmul(matrix, rows[..., None])
    return product[..., 0]


def _linear_int8(x: F32, weight: ReferenceWeight) -> F32:
    q, x_scales = quantize_rows(x)
    assert weight.scales is not None
    # float64 holds these integer sums exactly, so the order in which BLAS adds does not matter
    dots = _matvec(weight.values.astype(np.float64), q.astype(np.float64)).astype(np.float32)
    result: F32 = (x_scales[:, None] * weight.scales) * dots
    return result


def _linear_int4(x: F32, weight: ReferenceWeight) -> F32:
    q, x_scales = quantize_rows(x)
    assert weight.scales is not None
    num_out, num_groups = weight.scales.shape
    # |sum| ≤ group_size * 7 * 127 < 2 ** 24, so float32 holds a group's integer dot exactly
    by_group = weight.values.reshape(num_out, num_groups, -1).transpose(1, 0, 2)
    dots = _matvec(by_group, q.astype(np.float32).reshape(len(q), num_groups, -1))  # [n, g, out]
    total = np.zeros((len(q), num_out), np.float32)
    for g in range(num_groups):
        total = fma_float32(weight.scales[:, g], dots[:, g], total)
    result: F32 = x_scales[:, None] * total
    return result


def fma_float32(a: F32, b: F32, c: F32) -> F32:
    """a * b + c rounded once to float32, as the hardware's fused multiply-add does.

    In float64 the product is exact; the sum is rounded to odd (Boldo and Melquiond, 2008), which
    makes the second rounding to float32 the only one that counts.
    """
    product, addend = a.astype(np.float64) * b, c.astype(np.float64)
    product, addend = np.broadcast_arrays(product, addend)
    total = product + addend
    virtual = total - product  # Knuth's TwoSum: total + error is the exact sum
    error = (product - (total - virtual)) + (addend - virtual)
    is_even = (total.view(np.int64) & 1) == 0
    toward = np.where(error > 0, np.inf, -np.inf)
    odd = np.where((error != 0) & is_even, np.nextafter(total, toward), total)
    return odd.astype(np.float32)


def _softmax(x: F32) -> F32:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    result: F32 = e / e.sum(axis=-1, keepdims=True)
    return result


def _sigmoid(x: F32) -> F32:
    with np.errstate(over="ignore"):
        result: F32 = np.float32(1) / (np.float32(1) + np.exp(-x))
    return result


def _descending(x: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Indices of each row from greatest to least, ties to the lower index."""
    return np.argsort(-x, axis=-1, kind="stable")


def _requests(layout: BatchLayout) -> list[tuple[range, npt.NDArray[np.int64]]]:
    """Of each request: its rows, and the cache slots of its keys 0 … context_len - 1."""
    found = []
    for r, context_len in enumerate(layout.context_lens):
        keys = np.arange(context_len)
        blocks = layout.block_tables[r, keys // layout.block_size].astype(np.int64)
        slots = blocks * layout.block_size + keys % layout.block_size
        found.append((range(layout.query_starts[r], layout.query_starts[r + 1]), slots))
    return found


def _attend(q: F32, keys: F32, values: F32, scale: float) -> F32:
    """softmax(q keysᵀ · scale) values for one token: q [kv, group, dim], keys and values
    [kv, ctx, dim] → [kv, group, value_dim]."""
    scores = np.matmul(q, keys.transpose(0, 2, 1)) * np.float32(scale)  # [kv, group, ctx]
    mixed: F32 = np.matmul(_softmax(scores), values)
    return mixed


def _keep_best_groups(choice: F32, spec: RoutingSpec) -> F32:
    """Scores of experts outside each row's best groups become -inf (node-limited routing)."""
    if spec.num_groups == spec.num_groups_per_token:
        return choice
    grouped = choice.reshape(len(choice), spec.num_groups, -1)
    if spec.group_score == "max":
        group_scores = grouped.max(axis=2)
    else:
        group_scores = np.sort(grouped, axis=2)[:, :, -2:].sum(axis=2)
    best = _descending(group_scores)[:, : spec.num_groups_per_token]
    is_kept = np.zeros(group_scores.shape, bool)
    np.put_along_axis(is_kept, best, True, axis=1)
    return np.where(is_kept[:, :, None], grouped, -np.inf).reshape(choice.shape)


def _sample_row(
    logits: F32, temperature: float, top_k: int, top_p: float, min_p: float, uniform: float
) -> int:
    if temperature == 0:
        return int(np.argmax(logits))  # the first of equals
    scaled = (logits.astype(np.float64) - logits.max()) / float(temperature)
    p = np.exp(scaled)
    p /= p.sum()
    order = _descending(p)[: int(top_k) or None]
    kept = p[order]
    kept = kept[kept >= float(min_p) * kept[0]]
    if top_p < 1:
        mass = np.cumsum(kept)
        kept = kept[: int(np.searchsorted(mass, float(top_p) * mass[-1])) + 1]
    mass = np.cumsum(kept)
    index = int(np.searchsorted(mass, uniform * mass[-1], side="right"))
    return int(order[min(index, len(kept) - 1)])
