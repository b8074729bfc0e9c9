"""The DeepSeek-V3 architecture for training: naive latent attention, sorted experts, BF16 products.

Same arithmetic as transformers' `DeepseekV3ForCausalLM` (a test holds the logits against it).
Knows nothing of data or serving; `export.py` writes its weights under Hugging Face names.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOT_STEP = 64


@dataclass(frozen=True)
class NanoConfig:
    """The shape of the model; field names are those of config.json."""

    vocab_size: int = 16384
    hidden_size: int = 256
    intermediate_size: int = 512
    moe_intermediate_size: int = 64
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    kv_lora_rank: int = 128
    qk_nope_head_dim: int = 32
    qk_rope_head_dim: int = 32
    v_head_dim: int = 32
    n_routed_experts: int = 16
    n_shared_experts: int = 2
    num_experts_per_tok: int = 4
    n_group: int = 4
    topk_group: int = 2
    routed_scaling_factor: float = 2.0
    first_k_dense_replace: int = 1
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    max_position_embeddings: int = 2048


class RMSNorm(nn.Module):
    """x / rms(x) × weight, in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight, self.eps)


class Linear(nn.Module):
    """A product without bias in the type `compute` (BF16 in training, float32 in checks)."""

    compute = torch.bfloat16

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width_out, width_in) / math.sqrt(width_in))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.compute), self.weight.to(self.compute))


def rope_tables(config: NanoConfig, length: int) -> tuple[Tensor, Tensor]:
    """cos and sin, each [length, rope / 2]."""
    half = torch.arange(0, config.qk_rope_head_dim, 2).float() / config.qk_rope_head_dim
    angles = torch.arange(length).float()[:, None] * config.rope_theta**-half
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate interleaved pairs; x [..., length, rope]. Pair order changes alike in q and k."""
    even, odd = x[..., 0::2].float(), x[..., 1::2].float()
    return torch.cat((even * cos - odd * sin, odd * cos + even * sin), -1).to(x.dtype)


class Attention(nn.Module):
    """Multi-head latent attention; keys and values are expanded from the latent while training."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        c = self.config = config
        heads = c.num_attention_heads
        self.q_proj = Linear(c.hidden_size, heads * (c.qk_nope_head_dim + c.qk_rope_head_dim))
        self.kv_a_proj_with_mqa = Linear(c.hidden_size, c.kv_lora_rank + c.qk_rope_head_dim)
        self.kv_a_layernorm = RMSNorm(c.kv_lora_rank, c.rms_norm_eps)
        self.kv_b_proj = Linear(c.kv_lora_rank, heads * (c.qk_nope_head_dim + c.v_head_dim))
        self.o_proj = Linear(heads * c.v_head_dim, c.hidden_size)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        c = self.config
        batch, length, _ = x.shape
        shape = (batch, length, c.num_attention_heads, -1)
        q = self.q_proj(x).view(shape).transpose(1, 2)  # [batch, heads, length, nope + rope]
        q_nope, q_rope = q.split([c.qk_nope_head_dim, c.qk_rope_head_dim], -1)
        latent, k_rope = self.kv_a_proj_with_mqa(x).split([c.kv_lora_rank, c.qk_rope_head_dim], -1)
        kv = self.kv_b_proj(self.kv_a_layernorm(latent)).view(shape).transpose(1, 2)
        k_nope, v = kv.split([c.qk_nope_head_dim, c.v_head_dim], -1)
        k_rope = rotate(k_rope[:, None], cos, sin).expand(-1, c.num_attention_heads, -1, -1)
        q = torch.cat((q_nope, rotate(q_rope, cos, sin)), -1)
        k = torch.cat((k_nope, k_rope), -1)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


class MLP(nn.Module):
    """Gated SiLU: the dense layer and the shared experts."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = Linear(hidden, width), Linear(hidden, width)
        self.down_proj = Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class MoE(nn.Module):
    """Sigmoid-scored experts, the best of the best groups, beside the shared ones.

    `bias` steers the choice only; `balance` moves it against the load (loss-free balancing).
    """

    bias: Tensor
    load: Tensor

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        c = self.config = config
        experts, width, hidden = c.n_routed_experts, c.moe_intermediate_size, c.hidden_size
        self.router = nn.Parameter(torch.randn(experts, hidden) * 0.2 / math.sqrt(hidden))
        self.gate_up = nn.Parameter(torch.randn(experts, 2 * width, hidden) / math.sqrt(hidden))
        self.down = nn.Parameter(torch.randn(experts, hidden, width) / math.sqrt(width))
        self.shared_experts = MLP(hidden, width * c.n_shared_experts)
        self.register_buffer("bias", torch.zeros(experts))
        self.register_buffer("load", torch.zeros(experts), persistent=False)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Chosen experts and their weights, each [num_tokens, top_k]; x [num_tokens, hidden]."""
        c = self.config
        scores = F.linear(x, self.router).sigmoid()
        choice = scores.detach() + self.bias
        groups = choice.view(len(x), c.n_group, -1)
        best = groups.topk(2, -1).values.sum(-1).topk(c.topk_group, -1).indices
        closed = torch.ones(len(x), c.n_group, dtype=torch.bool).scatter_(1, best, False)
        choice = groups.masked_fill(closed[:, :, None], -math.inf).flatten(1)
        chosen = choice.topk(c.num_experts_per_tok, -1).indices
        weights = scores.gather(1, chosen)
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return chosen, weights * c.routed_scaling_factor

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        chosen, weights = self.route(flat)
        top_k = chosen.shape[1]
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=len(self.router))
        self.load += counts
        # Every expert gets the same number of slots, so that few shapes of product ever occur.
        capacity = -(-int(counts.max()) // SLOT_STEP) * SLOT_STEP
        first = counts.cumsum(0) - counts
        expert = chosen.flatten()[order]
        slot = expert * capacity + torch.arange(len(order)) - first[expert]
        compute = Linear.compute
        inputs = torch.zeros(len(counts) * capacity, flat.shape[1], dtype=compute)
        inputs = inputs.index_copy(0, slot, flat.to(compute).index_select(0, order // top_k))
        inputs = inputs.view(len(counts), capacity, -1)
        gate, up = (inputs @ self.gate_up.to(compute).mT).chunk(2, -1)
        outputs = ((F.silu(gate) * up) @ self.down.to(compute).mT).flatten(0, 1)
        place = torch.empty_like(slot)
        place[order] = slot  # where each (token, choice) went
        picked = outputs.index_select(0, place).view(len(flat), top_k, -1)
        routed = (picked * weights[:, :, None].to(compute)).sum(1)
        return (routed + self.shared_experts(flat)).view(x.shape)

    @torch.no_grad()
    def balance(self, rate: float) -> float:
        """Move the bias one step toward equal load; returns max load over mean load."""
        mean = self.load.mean()
        self.bias += rate * (mean - self.load).sign()
        imbalance = float(self.load.max() / mean)
        self.load.zero_()
        return imbalance


class Layer(nn.Module):
    """Attention, then the dense or routed half, each on the normed residual."""

    def __init__(self, config: NanoConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp: MLP | MoE
        if index < config.first_k_dense_replace:
            self.mlp = MLP(config.hidden_size, config.intermediate_size)
        else:
            self.mlp = MoE(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Nano(nn.Module):
    """Token ids to final hidden states; logits are products with the tied embedding."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Parameter(torch.randn(config.vocab_size, config.hidden_size) * 0.02)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        for layer in self.layers:
            nn.init.zeros_(layer.self_attn.o_proj.weight)

    def forward(self, ids: Tensor) -> Tensor:
        """Hidden states [batch, length, hidden] of ids [batch, length]."""
        cos, sin = rope_tables(self.config, ids.shape[1])
        x = F.embedding(ids, self.embed)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocab] in float32."""
        return F.linear(hidden.to(Linear.compute), self.embed.to(Linear.compute)).float()

    def routers(self) -> list[MoE]:
        """The routed layers, first to last."""
        return [layer.mlp for layer in self.layers if isinstance(layer.mlp, MoE)]
