"""The hardware layer: one Ops protocol that every architecture is written over.

Implementations: `reference` (NumPy, float32, the truth), `native` (C++ kernels chosen by CPU
features), later `torch`. Knows nothing of models, requests or files. Activations are float32
arrays `[num_tokens, …]` at this face; what kernels do inside (INT8 activations, BF16) is theirs.
Every row of a result depends on that row's inputs alone, never on what it is batched with: this
is what makes a request's tokens the same alone and in a crowd. Read `reference.py` next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from freehold.types import WeightFormat

Array = Any  # np.ndarray for reference and native, torch.Tensor for torch
Weight = Any  # an Ops' own packed form; `.shape` is (out_features, in_features)
Cache = Any  # one layer's paged cache, an Ops' own layout; `.num_bytes`

DEFAULT_GROUP_SIZE = 64


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """Which rows of a step belong to which request and where their keys live.

    The tokens of one request are consecutive rows in order of position; requests follow each
    other. Row i of request r sees keys 0 … positions[i] of that request.
    """

    positions: npt.NDArray[np.int32]  # [num_tokens]
    slots: npt.NDArray[np.int64]  # [num_tokens] block * block_size + offset, where its key goes
    query_starts: npt.NDArray[np.int32]  # [num_requests + 1] row ranges
    context_lens: npt.NDArray[np.int32]  # [num_requests] keys in cache after this step's writes
    block_tables: npt.NDArray[np.int32]  # [num_requests, max_blocks], -1 where unused
    block_size: int


@dataclass(frozen=True, slots=True)
class PackedBytes:
    form: tuple[int, ...]  # what the Ops needs to know of them
    bytes: npt.NDArray[np.uint8]  # [num_bytes], from a border of 64 bytes on


@dataclass(frozen=True, slots=True)
class RoutingSpec:
    """How a DeepSeek router turns scores into experts (DeepSeek-V2 §2.1, DeepSeek-V3 §2.1.2)."""

    num_experts: int
    num_experts_per_token: int
    scoring: Literal["softmax", "sigmoid"]
    num_groups: int = 1  # n_group
    num_groups_per_token: int = 1  # topk_group
    group_score: Literal["max", "top2_sum"] = "max"  # V2: best expert; V3: sum of best two
    normalize: bool = False  # norm_topk_prob
    scaling_factor: float = 1.0  # routed_scaling_factor


class Ops(Protocol):
    name: str  # "reference", "native:avx512_vnni" …
    pack_layout: str | None  # whose and which version packed bytes are; None: packs nothing
    cache_layout: str  # whose and which version the memory of a cache is

    # Weights: checkpoint arrays in (float32, ml_dtypes bfloat16, float16), this Ops' form out

    def weight(
        self, tensor: npt.NDArray[Any], format: WeightFormat, group_size: int = DEFAULT_GROUP_SIZE
    ) -> Weight:
        """Pack one linear's [out, in] matrix, rounding as `format` says."""
        ...

    def per_head_weight(self, tensor: npt.NDArray[Any]) -> Weight:
        """Pack [num_heads, out, in], for `per_head_linear`; held at 16 bits (32 in the truth)."""
        ...

    def expert_weights(self, gate_up: Sequence[Weight], down: Sequence[Weight]) -> Weight:
        """One layer's routed experts as one: gate_up[e] is a `weight` of [2 * inner, hidden] (gate
        first), down[e] one of [hidden, inner]."""
        ...

    def packed(self, weight: Weight) -> PackedBytes:
        """The bytes of a weight or per-head weight as they may be kept on disk, not copied.
        Needs a `pack_layout`."""
        ...

    def unpacked(self, packed: PackedBytes) -> Weight:
        """The weight that `packed` gave these bytes for; they are used where they lie. Raises
        ValueError if they cannot be that."""
        ...

    def embedding_table(self, tensor: npt.NDArray[Any]) -> Weight:
        """Keep [vocab, hidden] for `embedding`; mapped arrays stay mapped, not copied."""
        ...

    def vector(self, tensor: npt.NDArray[Any]) -> Array:
        """A norm weight, bias or router matrix as this Ops' float32 array."""
        ...

    # Layers

    def embedding(self, token_ids: npt.NDArray[np.int32], table: Weight) -> Array:
        """[num_tokens] → float32 [num_tokens, hidden]."""
        ...

    def linear(self, x: Array, weight: Weight, bias: Array | None = None) -> Array:
        """x [n, in] @ weight.T (+ bias) → float32 [n, out]."""
        ...

    def gated_linear(self, x: Array, weight: Weight, bias: Array | None = None) -> Array:
        """silu_and_mul(linear(x, weight, bias)), in one pass over weight [gate; up]."""
        ...

    def per_head_linear(self, x: Array, weight: Weight) -> Array:
        """x [n, num_heads, in] → [n, num_heads, out], one matrix a head."""
        ...

    def matmul_float32(self, x: Array, matrix: Array) -> Array:
        """x [n, in] @ matrix.T, accumulated in float32 in a fixed order: for routers."""
        ...

    def concatenate(self, parts: Sequence[Array]) -> Array:
        """Join along the last axis; the other axes agree."""
        ...

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        """Over the last axis; x [..., dim]."""
        ...

    def silu_and_mul(self, gate_up: Array) -> Array:
        """[n, 2 * inner] → silu(first half) * second half, [n, inner]."""
        ...

    def rope(
        self,
        x: Array,
        positions: npt.NDArray[np.int32],
        cos: Array,
        sin: Array,
        interleaved: bool = False,
    ) -> Array:
        """Rotate x [n, heads, dim] by tables [max_positions, dim / 2] (RoFormer §3.4.2).

        Pairs are (i, i + dim/2), or (2i, 2i + 1) if `interleaved`. The result's order of
        components is the input's.
        """
        ...

    # Attention over paged caches; both write this step's keys first, then attend causally

    def grouped_cache(
        self, num_blocks: int, block_size: int, num_kv_heads: int, head_dim: int
    ) -> Cache: ...

    def latent_cache(self, num_blocks: int, block_size: int, latent_dim: int) -> Cache: ...

    def cache_memory(self, cache: Cache, block_size: int) -> list[npt.NDArray[np.uint8]]:
        """A cache's own memory, by block: writable views [num_blocks, bytes]. Bytes moved to the
        same place of another cache of this `cache_layout` and shape mean the same there."""
        ...

    def grouped_attention(
        self, q: Array, k: Array, v: Array, cache: Cache, layout: BatchLayout, scale: float
    ) -> Array:
        """q [n, num_heads, head_dim], k and v [n, num_kv_heads, head_dim] → [n, num_heads,
        head_dim]. v may have a smaller last axis than k only if the cache was made for it."""
        ...

    def latent_attention(
        self,
        q: Array,
        latent: Array,
        cache: Cache,
        layout: BatchLayout,
        scale: float,
        value_dim: int,
    ) -> Array:
        """Absorbed multi-head latent attention (DeepSeek-V2 §2.1.3): one shared key a token.

        q [n, num_heads, latent_dim], latent [n, latent_dim]; the value is the latent's first
        `value_dim` components. → [n, num_heads, value_dim].
        """
        ...

    # Routed experts

    def route(
        self, scores: Array, spec: RoutingSpec, correction_bias: Array | None = None
    ) -> tuple[Array, Array]:
        """Router logits [n, num_experts] → expert ids int32 [n, k] and weights float32 [n, k].

        `correction_bias` [num_experts] steers the choice only, not the weights. Ties go to the
        lower expert id.
        """
        ...

    def routed_experts(
        self, x: Array, expert_ids: Array, expert_weights: Array, experts: Weight
    ) -> Array:
        """sum_j weights[i, j] * down_e(silu(gate_e x) * up_e x), e = ids[i, j]; added in order of
        j. x [n, hidden] → [n, hidden]."""
        ...

    # Choosing a token

    def sample(
        self,
        logits: Array,
        temperature: npt.NDArray[np.float32],
        top_k: npt.NDArray[np.int32],
        top_p: npt.NDArray[np.float32],
        min_p: npt.NDArray[np.float32],
        uniforms: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.int32]:
        """One token a row of logits float32 [n, vocab] (penalties already applied).

        temperature 0: the lowest id of the greatest logit. Else softmax(logits / temperature),
        kept to top_k (0: all; ties at the border: lower id), then min_p (≥ min_p × greatest), then
        the smallest set in descending (probability, then ascending id) order whose mass reaches
        top_p × the mass kept so far (top_p 1: all of it); then the token at which the cumulative
        mass in that same order passes uniforms[i] × kept mass. A pure function of its row.
        """
        ...

    def logprobs(
        self, logits: Array, token_ids: npt.NDArray[np.int32], num_top: int
    ) -> tuple[Array, npt.NDArray[np.int32], Array]:
        """log-softmax of each row at token_ids [n]; and the num_top greatest: ids [n, num_top] and
        logprobs [n, num_top], descending, ties to the lower id."""
        ...
