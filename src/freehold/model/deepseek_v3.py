"""DeepSeek-V2 and V3: multi-head latent attention and routed experts.

Written after the papers (V2: arXiv 2405.04434 §2.1–2.2; V3: arXiv 2412.19437 §2.1). The two differ
in how the router scores and chooses, which `RoutingSpec` says. Knows no checkpoint files.

Attention runs in its absorbed form always. The expanded form is cheaper for long fresh prompts,
but the two round differently: choosing by length would make a token depend on how its prompt was
divided into steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from freehold.model.config import MlaConfig, ModelConfig
from freehold.model.formats import Role
from freehold.model.layers import GatedMlp, Linear, RmsNorm, WeightLoader
from freehold.model.model import DecoderLayer, Mlp, Step
from freehold.model.weights import Shape
from freehold.ops import Array, Cache, Ops, RoutingSpec, Weight
from freehold.types import CacheFormat

LATENT_NORM_EPS = 1e-6  # of q_a_layernorm and kv_a_layernorm, whatever rms_norm_eps says


@dataclass(slots=True)
class LatentQuery:
    """Queries through a latent of their own (V2 §2.1.2, the end)."""

    down: Linear  # W_DQ [q_lora_rank, hidden]
    norm: RmsNorm
    up: Linear  # W_UQ and W_QR [num_heads * qk_head_dim, q_lora_rank]

    def __call__(self, x: Array) -> Array:
        return self.up(self.norm(self.down(x)))


@dataclass(slots=True)
class LatentAttention:
    """With c the latent and k_pe the rotary key that all heads share, head h's score and value are

        q_nope · (W_UK c) + q_pe · k_pe  =  (W_UKᵀ q_nope) · c + q_pe · k_pe
        Σ p (W_UV c)                     =  W_UV (Σ p c)

    so the cache keeps only [c, k_pe] a token, and W_UK and W_UV act on queries and outputs.
    """

    ops: Ops
    num_heads: int
    dims: MlaConfig
    softmax_scale: float
    rope_interleaved: bool
    query: Linear | LatentQuery
    kv_down: Linear  # W_DKV and W_KR [kv_lora_rank + rope_dim, hidden]
    kv_norm: RmsNorm
    key_up: Weight  # W_UKᵀ [num_heads, kv_lora_rank, nope_dim]
    value_up: Weight  # W_UV [num_heads, v_head_dim, kv_lora_rank]
    output: Linear

    def make_cache(self, num_blocks: int, block_size: int, format: CacheFormat) -> Cache:
        return self.ops.latent_cache(num_blocks, block_size, self.dims.latent_dim, format)

    def __call__(self, x: Array, step: Step, cache: Cache) -> Array:
        n, nope, rank = len(x), self.dims.qk_nope_head_dim, self.dims.kv_lora_rank

        q = self.query(x).reshape(n, self.num_heads, self.dims.qk_head_dim)
        q_latent = self.ops.per_head_linear(q[..., :nope], self.key_up)  # [n, heads, rank]
        q_pe = self._rotate(q[..., nope:], step)  # [n, heads, rope_dim]

        compressed = self.kv_down(x)  # [n, rank + rope_dim]
        c = self.kv_norm(compressed[:, :rank])
        k_pe = self._rotate(compressed[:, None, rank:], step)[:, 0]

        mixed = self.ops.latent_attention(
            self.ops.concatenate([q_latent, q_pe]),
            self.ops.concatenate([c, k_pe]),
            cache,
            step.layout,
            self.softmax_scale,
            value_dim=rank,
        )  # [n, heads, rank]
        values = self.ops.per_head_linear(mixed, self.value_up)  # [n, heads, v_head_dim]
        return self.output(values.reshape(n, self.num_heads * self.dims.v_head_dim))

    def _rotate(self, x: Array, step: Step) -> Array:
        return self.ops.rope(
            x, step.layout.positions, step.cos, step.sin, interleaved=self.rope_interleaved
        )


@dataclass(slots=True)
class RoutedMlp:
    """DeepSeekMoE: each token goes to a few routed experts, and to the shared one."""

    ops: Ops
    router: Array  # float32 [num_experts, hidden]
    correction_bias: Array | None  # [num_experts], balances load without an auxiliary loss (V3)
    spec: RoutingSpec
    experts: Weight
    shared: GatedMlp | None

    def __call__(self, x: Array) -> Array:
        scores = self.ops.matmul_float32(x, self.router)  # [n, num_experts]
        expert_ids, weights = self.ops.route(scores, self.spec, self.correction_bias)
        routed = self.ops.routed_experts(x, expert_ids, weights, self.experts)
        return routed + self.shared(x) if self.shared else routed


def layer_tensor_shapes(config: ModelConfig, layer: int) -> dict[str, Shape]:
    """Names and shapes of one layer's tensors."""
    prefix = f"model.layers.{layer}"
    return _attention_shapes(config, f"{prefix}.self_attn") | _mlp_shapes(
        config, f"{prefix}.mlp", layer
    )


def _attention_shapes(config: ModelConfig, prefix: str) -> dict[str, Shape]:
    dims, hidden, num_heads = config.mla, config.hidden_size, config.num_attention_heads
    assert dims is not None
    rank, q_size = dims.kv_lora_rank, num_heads * dims.qk_head_dim
    shapes: dict[str, Shape] = {
        f"{prefix}.kv_a_proj_with_mqa.weight": (dims.latent_dim, hidden),
        f"{prefix}.kv_a_layernorm.weight": (rank,),
        f"{prefix}.kv_b_proj.weight": (num_heads * (dims.qk_nope_head_dim + dims.v_head_dim), rank),
        f"{prefix}.o_proj.weight": (hidden, num_heads * dims.v_head_dim),
    }
    if config.qkv_bias:
        shapes[f"{prefix}.kv_a_proj_with_mqa.bias"] = (dims.latent_dim,)
    if config.output_bias:
        shapes[f"{prefix}.o_proj.bias"] = (hidden,)
    if dims.q_lora_rank is None:
        return shapes | {f"{prefix}.q_proj.weight": (q_size, hidden)}
    if config.qkv_bias:
        shapes[f"{prefix}.q_a_proj.bias"] = (dims.q_lora_rank,)
    return shapes | {
        f"{prefix}.q_a_proj.weight": (dims.q_lora_rank, hidden),
        f"{prefix}.q_a_layernorm.weight": (dims.q_lora_rank,),
        f"{prefix}.q_b_proj.weight": (q_size, dims.q_lora_rank),
    }


def _mlp_shapes(config: ModelConfig, prefix: str, layer: int) -> dict[str, Shape]:
    moe, hidden = config.moe, config.hidden_size
    if moe is None or not moe.is_routed(layer):
        return _gated_shapes(prefix, hidden, config.intermediate_size, config.mlp_bias)
    num_experts, inner = moe.routing.num_experts, moe.moe_intermediate_size
    shapes: dict[str, Shape] = {f"{prefix}.gate.weight": (num_experts, hidden)}
    if moe.has_correction_bias:
        shapes[f"{prefix}.gate.e_score_correction_bias"] = (num_experts,)
    for expert in range(num_experts):
        shapes |= _gated_shapes(f"{prefix}.experts.{expert}", hidden, inner, has_bias=False)
    if moe.num_shared_experts:
        shared = inner * moe.num_shared_experts
        shapes |= _gated_shapes(f"{prefix}.shared_experts", hidden, shared, config.mlp_bias)
    return shapes


def _gated_shapes(prefix: str, hidden: int, inner: int, has_bias: bool) -> dict[str, Shape]:
    weights: dict[str, Shape] = {
        f"{prefix}.gate_proj.weight": (inner, hidden),
        f"{prefix}.up_proj.weight": (inner, hidden),
        f"{prefix}.down_proj.weight": (hidden, inner),
    }
    biases = {f"{name.removesuffix('weight')}bias": shape[:1] for name, shape in weights.items()}
    return weights | biases if has_bias else weights


def load_layer(config: ModelConfig, loader: WeightLoader, layer: int) -> DecoderLayer:
    prefix, eps = f"model.layers.{layer}", config.rms_norm_eps
    return DecoderLayer(
        input_norm=loader.rms_norm(f"{prefix}.input_layernorm", eps),
        attention=_load_attention(config, loader, f"{prefix}.self_attn"),
        post_attention_norm=loader.rms_norm(f"{prefix}.post_attention_layernorm", eps),
        mlp=_load_mlp(config, loader, f"{prefix}.mlp", layer),
    )


def _load_attention(config: ModelConfig, loader: WeightLoader, prefix: str) -> LatentAttention:
    dims, num_heads = config.mla, config.num_attention_heads
    assert dims is not None
    nope, rank, kv_up = dims.qk_nope_head_dim, dims.kv_lora_rank, f"{prefix}.kv_b_proj.weight"

    def heads(tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return tensor.reshape(num_heads, -1, rank)

    attention = LatentAttention(
        ops=loader.ops,
        num_heads=num_heads,
        dims=dims,
        softmax_scale=dims.qk_head_dim**-0.5 * config.rope.mla_softmax_factor,
        rope_interleaved=config.rope_interleaved,
        query=_load_query(dims, loader, prefix),
        kv_down=loader.linear(Role.ATTENTION, f"{prefix}.kv_a_proj_with_mqa"),
        kv_norm=loader.rms_norm(f"{prefix}.kv_a_layernorm", LATENT_NORM_EPS),
        key_up=loader.per_head(
            f"{kv_up}.key", kv_up, lambda tensor: heads(tensor)[:, :nope].transpose(0, 2, 1)
        ),
        value_up=loader.per_head(f"{kv_up}.value", kv_up, lambda tensor: heads(tensor)[:, nope:]),
        output=loader.linear(Role.ATTENTION, f"{prefix}.o_proj"),
    )
    loader.release(kv_up)
    return attention


def _load_query(dims: MlaConfig, loader: WeightLoader, prefix: str) -> Linear | LatentQuery:
    if dims.q_lora_rank is None:
        return loader.linear(Role.ATTENTION, f"{prefix}.q_proj")
    return LatentQuery(
        down=loader.linear(Role.ATTENTION, f"{prefix}.q_a_proj"),
        norm=loader.rms_norm(f"{prefix}.q_a_layernorm", LATENT_NORM_EPS),
        up=loader.linear(Role.ATTENTION, f"{prefix}.q_b_proj"),
    )


def _load_mlp(config: ModelConfig, loader: WeightLoader, prefix: str, layer: int) -> Mlp:
    moe = config.moe
    if moe is None or not moe.is_routed(layer):
        return loader.gated_mlp(prefix)
    bias = f"{prefix}.gate.e_score_correction_bias"
    return RoutedMlp(
        ops=loader.ops,
        router=loader.vector(f"{prefix}.gate.weight"),
        correction_bias=loader.vector(bias) if moe.has_correction_bias else None,
        spec=moe.routing,
        experts=loader.experts(f"{prefix}.experts", moe.routing.num_experts),
        shared=loader.gated_mlp(f"{prefix}.shared_experts") if moe.num_shared_experts else None,
    )
