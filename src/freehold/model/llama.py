"""Llama, Qwen2 and Qwen3: grouped-query attention (arXiv 2305.13245) and a gated MLP.

The three differ only in biases and in Qwen3's norm on each head's query and key, all of which
the config says. Knows no checkpoint files. Read `deepseek_v3.py` next.
"""

from __future__ import annotations

from dataclasses import dataclass

from freehold.model.config import ModelConfig
from freehold.model.formats import Role
from freehold.model.layers import Linear, RmsNorm, WeightLoader
from freehold.model.model import DecoderLayer, Step
from freehold.model.weights import Shape
from freehold.ops import Array, Cache, Ops
from freehold.types import CacheFormat


@dataclass(slots=True)
class GroupedQueryAttention:
    ops: Ops
    num_heads: int
    num_kv_heads: int
    head_dim: int
    qkv: Linear
    output: Linear
    q_norm: RmsNorm | None  # Qwen3
    k_norm: RmsNorm | None
    window: int | None

    def make_cache(self, num_blocks: int, block_size: int, format: CacheFormat) -> Cache:
        shape = num_blocks, block_size, self.num_kv_heads, self.head_dim
        return self.ops.grouped_cache(*shape, format)

    def __call__(self, x: Array, step: Step, cache: Cache) -> Array:
        n, positions = len(x), step.layout.positions
        q_size, kv_size = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        qkv = self.qkv(x)  # [n, q_size + 2 * kv_size]
        q = qkv[:, :q_size].reshape(n, self.num_heads, self.head_dim)
        k = qkv[:, q_size : q_size + kv_size].reshape(n, self.num_kv_heads, self.head_dim)
        v = qkv[:, q_size + kv_size :].reshape(n, self.num_kv_heads, self.head_dim)
        if self.q_norm and self.k_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q = self.ops.rope(q, positions, step.cos, step.sin)
        k = self.ops.rope(k, positions, step.cos, step.sin)
        scale = self.head_dim**-0.5
        mixed = self.ops.grouped_attention(q, k, v, cache, step.layout, scale, self.window)
        return self.output(mixed.reshape(n, q_size))


def layer_tensor_shapes(config: ModelConfig, layer: int) -> dict[str, Shape]:
    """Names and shapes of one layer's tensors."""
    hidden, inner, head_dim = config.hidden_size, config.intermediate_size, config.head_dim
    q_size = config.num_attention_heads * head_dim
    kv_size = config.num_key_value_heads * head_dim
    attention, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
    linears: dict[str, tuple[Shape, bool]] = {  # [out, in], has a bias
        f"{attention}.q_proj": ((q_size, hidden), config.qkv_bias),
        f"{attention}.k_proj": ((kv_size, hidden), config.qkv_bias),
        f"{attention}.v_proj": ((kv_size, hidden), config.qkv_bias),
        f"{attention}.o_proj": ((hidden, q_size), config.output_bias),
        f"{mlp}.gate_proj": ((inner, hidden), config.mlp_bias),
        f"{mlp}.up_proj": ((inner, hidden), config.mlp_bias),
        f"{mlp}.down_proj": ((hidden, inner), config.mlp_bias),
    }
    shapes: dict[str, Shape] = {f"{name}.weight": shape for name, (shape, _) in linears.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, (shape, bias) in linears.items() if bias}
    if config.qk_norm:
        shapes[f"{attention}.q_norm.weight"] = shapes[f"{attention}.k_norm.weight"] = (head_dim,)
    return shapes


def load_layer(config: ModelConfig, loader: WeightLoader, layer: int) -> DecoderLayer:
    prefix, eps = f"model.layers.{layer}", config.rms_norm_eps
    attention = f"{prefix}.self_attn"
    has_norms = config.qk_norm
    return DecoderLayer(
        input_norm=loader.rms_norm(f"{prefix}.input_layernorm", eps),
        attention=GroupedQueryAttention(
            ops=loader.ops,
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            qkv=loader.linear(Role.ATTENTION, *(f"{attention}.{part}_proj" for part in "qkv")),
            output=loader.linear(Role.ATTENTION, f"{attention}.o_proj"),
            q_norm=loader.rms_norm(f"{attention}.q_norm", eps) if has_norms else None,
            k_norm=loader.rms_norm(f"{attention}.k_norm", eps) if has_norms else None,
            window=config.windows[layer],
        ),
        post_attention_norm=loader.rms_norm(f"{prefix}.post_attention_layernorm", eps),
        mlp=loader.gated_mlp(f"{prefix}.mlp"),
    )
