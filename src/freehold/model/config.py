"""What config.json says of a model, checked: every architecture's settings in one frozen form.

A setting that would change the arithmetic and is not implemented is refused by name, never
ignored. Knows no tensors. Read `rope.py` and `deepseek_v3.py` next.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Any

from freehold.errors import CheckpointError, UnsupportedArchitecture
from freehold.model.config_fields import Fields
from freehold.model.rope import RopeConfig
from freehold.ops import RoutingSpec
from freehold.types import CacheFormat

SUPPORTED_ARCHITECTURES = (
    "DeepseekV2ForCausalLM",
    "DeepseekV3ForCausalLM",
    "LlamaForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
)
MODEL_TYPES = {  # for a config.json that names no architecture
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
MAX_LAYERS = 1024
MAX_EXPERTS = 4096

# Settings of neighbouring model families that change the arithmetic, and the values that do not
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "alibi": (False,),
    "attention_multiplier": (1, 1.0),
    "attn_logit_softcapping": (),
    "clip_qkv": (),
    "compression_config": (),
    "embedding_multiplier": (1, 1.0),
    "final_logit_softcapping": (),
    "index_topk": (),
    "logit_scale": (1, 1.0),
    "logits_scaling": (1, 1.0),
    "no_rope_layers": ([],),
    "num_local_experts": (),
    "num_experts": (0,),
    "qk_layernorm": (False,),
    "residual_multiplier": (1, 1.0),
    "use_qk_norm": (False,),
}


@dataclass(frozen=True, slots=True)
class MlaConfig:
    """Multi-head latent attention (DeepSeek-V2 §2.1)."""

    q_lora_rank: int | None  # None: queries come straight from the hidden state
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def latent_dim(self) -> int:
        """Numbers a token keeps in a layer's cache: the latent and the shared rotary key."""
        return self.kv_lora_rank + self.qk_rope_head_dim


@dataclass(frozen=True, slots=True)
class MoeConfig:
    routing: RoutingSpec
    moe_intermediate_size: int
    num_shared_experts: int
    first_k_dense_replace: int  # layers before this one have an ordinary MLP
    has_correction_bias: bool

    def is_routed(self, layer: int) -> bool:
        return layer >= self.first_k_dense_replace


@dataclass(frozen=True, slots=True)
class Fp8Config:
    """Weights in FP8 E4M3 with one scale a block of [rows, columns]."""

    block_shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int  # of queries and keys
    rms_norm_eps: float
    rope: RopeConfig
    rope_interleaved: bool
    max_position_embeddings: int
    tie_word_embeddings: bool
    qkv_bias: bool  # on q, k and v; under MLA on the two projections down
    output_bias: bool  # on o_proj
    mlp_bias: bool
    qk_norm: bool  # RMSNorm on each head's query and key (Qwen3)
    mla: MlaConfig | None
    moe: MoeConfig | None
    num_mtp_layers: int  # multi-token-prediction layers that may follow; the first is read
    quantization: Fp8Config | None
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    windows: tuple[int | None, ...]  # of each layer: keys a token sees; None: all before it
    has_mtp: bool = False  # the first such layer is there: `with_tensors` finds out

    @property
    def rope_dim(self) -> int:
        return self.mla.qk_rope_head_dim if self.mla else self.head_dim

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> ModelConfig:
        """Of a parsed config.json. Raises UnsupportedArchitecture (naming those supported) or
        CheckpointError naming the field that is wrong, missing or not supported."""
        fields = Fields(values)
        architecture = _architecture(values)
        is_deepseek = architecture.startswith("Deepseek")
        _refuse_unknown_arithmetic(fields, is_deepseek=is_deepseek)
        hidden_size = fields.integer("hidden_size")
        num_heads = fields.integer("num_attention_heads")
        num_key_value_heads = fields.integer("num_key_value_heads", num_heads)
        mla = _mla(fields) if is_deepseek else None
        if mla:
            head_dim = mla.qk_head_dim
            if num_key_value_heads != num_heads:
                raise fields.wrong("num_key_value_heads", f"num_attention_heads ({num_heads})")
        else:
            by_default = 128 if architecture == "Qwen3ForCausalLM" else hidden_size // num_heads
            head_dim = fields.integer("head_dim", by_default)
        if num_heads % num_key_value_heads:
            raise fields.wrong("num_key_value_heads", f"a divisor of {num_heads} (attention heads)")
        if (mla.qk_rope_head_dim if mla else head_dim) % 2:
            raise fields.wrong("qk_rope_head_dim" if mla else "head_dim", "an even number")
        num_layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
        max_positions = fields.integer("max_position_embeddings")
        has_bias = fields.boolean("attention_bias", False)
        is_qwen2 = architecture == "Qwen2ForCausalLM"
        return ModelConfig(
            architecture=architecture,
            vocab_size=fields.integer("vocab_size"),
            hidden_size=hidden_size,
            intermediate_size=fields.integer("intermediate_size"),
            num_hidden_layers=num_layers,
            num_attention_heads=num_heads,
            num_key_value_heads=num_key_value_heads,
            head_dim=head_dim,
            rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
            rope=RopeConfig.from_fields(fields, max_positions),
            rope_interleaved=_rope_interleaved(fields, architecture),
            max_position_embeddings=max_positions,
            tie_word_embeddings=fields.boolean("tie_word_embeddings", False),
            qkv_bias=is_qwen2 or has_bias,
            output_bias=has_bias and not is_qwen2,
            mlp_bias=_mlp_bias(fields, architecture),
            qk_norm=architecture == "Qwen3ForCausalLM",
            mla=mla,
            moe=_moe(fields, architecture) if is_deepseek else None,
            num_mtp_layers=_num_mtp_layers(fields, architecture),
            quantization=_quantization(fields),
            eos_token_ids=fields.token_ids("eos_token_id"),
            bos_token_id=fields.optional_integer("bos_token_id", low=0),
            windows=_windows(fields, architecture, num_layers),
        )


def with_tensors(config: ModelConfig, names: Container[str]) -> ModelConfig:
    """The config of a checkpoint with these tensors: many leave the announced MTP layers out."""
    mtp = f"model.layers.{config.num_hidden_layers}.eh_proj.weight"
    has_mtp = config.mla is not None and config.num_mtp_layers > 0 and mtp in names
    return replace(config, has_mtp=has_mtp)


def kv_bytes_per_token(config: ModelConfig, format: CacheFormat = CacheFormat.BF16) -> int:
    """Cache bytes one token takes in all layers together."""
    if config.mla:
        vectors, dim = 1, config.mla.latent_dim
    else:
        vectors, dim = 2 * config.num_key_value_heads, config.head_dim
    vector_bytes = dim + 4 if format is CacheFormat.INT8 else 2 * dim
    return (config.num_hidden_layers + config.has_mtp) * vectors * vector_bytes


def _architecture(values: Mapping[str, Any]) -> str:
    named = values.get("architectures")
    if named:
        architecture = named[0] if isinstance(named, list) else named
    else:
        model_type = values.get("model_type")
        architecture = MODEL_TYPES.get(str(model_type), model_type)
    if architecture not in SUPPORTED_ARCHITECTURES:
        raise UnsupportedArchitecture(
            f"The architecture {str(architecture)[:80]!r} is not supported; "
            f"supported are {', '.join(SUPPORTED_ARCHITECTURES)}."
        )
    return str(architecture)


def _refuse_unknown_arithmetic(fields: Fields, *, is_deepseek: bool) -> None:
    expert_aliases = ("num_local_experts", "num_experts") if is_deepseek else ()
    for name, neutral in NEUTRAL.items():
        value = fields.values.get(name)
        if value is not None and value not in neutral and name not in expert_aliases:
            usual = f"it must be {neutral[0]!r}" if neutral else "it must be absent"
            raise fields.unsupported(name, usual)


def _windows(fields: Fields, architecture: str, num_layers: int) -> tuple[int | None, ...]:
    """As transformers reads them: `layer_types` where given, else the layers from
    `max_window_layers` on. Only Qwen's code has windows; elsewhere a window set is refused."""
    types = fields.values.get("layer_types")
    if not architecture.startswith("Qwen"):
        if fields.values.get("sliding_window"):
            raise fields.unsupported("sliding_window", f"{architecture} has no sliding windows")
        if types is not None and (
            not isinstance(types, list) or any(kind != "full_attention" for kind in types)
        ):
            raise fields.unsupported("layer_types", "every layer must be 'full_attention'")
        return (None,) * num_layers
    is_on = fields.boolean("use_sliding_window", False)
    window = fields.optional_integer("sliding_window") if is_on else None
    if types is None:
        first = fields.integer("max_window_layers", 28, low=0)
        return tuple(window if layer >= first else None for layer in range(num_layers))
    kinds = ("full_attention", "sliding_attention")
    is_list = isinstance(types, list) and len(types) == num_layers
    if not is_list or any(kind not in kinds for kind in types):
        raise fields.wrong("layer_types", f"{num_layers} of {' or '.join(map(repr, kinds))}")
    if "sliding_attention" in types and window is None:
        raise fields.wrong("sliding_window", "a number of tokens, with use_sliding_window true")
    return tuple(window if kind == "sliding_attention" else None for kind in types)


def _rope_interleaved(fields: Fields, architecture: str) -> bool:
    if architecture == "DeepseekV2ForCausalLM":
        return True
    return architecture == "DeepseekV3ForCausalLM" and fields.boolean("rope_interleave", True)


def _mlp_bias(fields: Fields, architecture: str) -> bool:
    has_bias = fields.boolean("mlp_bias", False)
    if has_bias and architecture not in ("LlamaForCausalLM", "DeepseekV2ForCausalLM"):
        raise fields.unsupported("mlp_bias", f"{architecture} has no MLP biases")
    return has_bias


def _num_mtp_layers(fields: Fields, architecture: str) -> int:
    by_default = 1 if architecture == "DeepseekV3ForCausalLM" else 0
    spelled = [n for n in ("num_nextn_predict_layers", "num_mtp_layers") if n in fields.values]
    return fields.integer(spelled[0], by_default, low=0, high=64) if spelled else by_default


def _mla(fields: Fields) -> MlaConfig:
    return MlaConfig(
        q_lora_rank=fields.optional_integer("q_lora_rank"),
        kv_lora_rank=fields.integer("kv_lora_rank"),
        qk_nope_head_dim=fields.integer("qk_nope_head_dim"),
        qk_rope_head_dim=fields.integer("qk_rope_head_dim"),
        v_head_dim=fields.integer("v_head_dim"),
    )


def _moe(fields: Fields, architecture: str) -> MoeConfig | None:
    """Of a DeepSeek config; None where it names no routed experts."""
    if fields.values.get("n_routed_experts") is None:
        return None
    if fields.integer("moe_layer_freq", 1) != 1:
        raise fields.unsupported("moe_layer_freq", "every layer after the dense ones is routed")
    routing = _routing(fields, is_v3=architecture == "DeepseekV3ForCausalLM")
    return MoeConfig(
        routing=routing,
        moe_intermediate_size=fields.integer("moe_intermediate_size"),
        num_shared_experts=fields.integer("n_shared_experts", 0, low=0),
        first_k_dense_replace=fields.integer("first_k_dense_replace", 0, low=0),
        has_correction_bias=routing.scoring == "sigmoid",
    )


def _routing(fields: Fields, *, is_v3: bool) -> RoutingSpec:
    num_experts = fields.integer("n_routed_experts", high=MAX_EXPERTS)
    methods = ("noaux_tc",) if is_v3 else ("greedy", "group_limited_greedy")
    method = fields.one_of("topk_method", methods, methods[0])
    fields.one_of("scoring_func", ("sigmoid",) if is_v3 else ("softmax",), "")
    normalize = fields.boolean("norm_topk_prob", is_v3)
    if normalize and not is_v3:
        # The published code then drops the scaling factor, transformers ignores the setting, and
        # no released V2 checkpoint sets it
        raise fields.unsupported("norm_topk_prob", "DeepseekV2ForCausalLM must have it false")
    num_groups = num_chosen_groups = 1
    if method != "greedy":
        num_groups = fields.integer("n_group", high=num_experts)
        num_chosen_groups = fields.integer("topk_group", high=num_groups)
    if num_experts % num_groups:
        raise fields.wrong("n_group", f"a divisor of n_routed_experts ({num_experts})")
    group_size = num_experts // num_groups
    if is_v3 and group_size < 2:
        raise fields.wrong("n_group", "such that each group has at least two experts")
    return RoutingSpec(
        num_experts=num_experts,
        num_experts_per_token=fields.integer(
            "num_experts_per_tok", high=group_size * num_chosen_groups
        ),
        scoring="sigmoid" if is_v3 else "softmax",
        num_groups=num_groups,
        num_groups_per_token=num_chosen_groups,
        group_score="top2_sum" if is_v3 else "max",
        normalize=normalize,
        scaling_factor=fields.number("routed_scaling_factor", 2.5 if is_v3 else 1.0),
    )


def _quantization(fields: Fields) -> Fp8Config | None:
    quantization = fields.object("quantization_config")
    if quantization is None:
        return None
    quantization.one_of("quant_method", ("fp8",), "")
    quantization.one_of("fmt", ("e4m3",), "")
    quantization.one_of("activation_scheme", ("dynamic",), "")
    block = quantization.values.get("weight_block_size")
    if quantization.values.get("quant_method") is None or not (
        isinstance(block, list)
        and len(block) == 2
        and all(type(size) is int and size > 0 for size in block)
    ):
        raise CheckpointError(
            "config.json: quantization_config must name quant_method 'fp8' and a "
            "weight_block_size of two whole numbers; no other stored quantization is read yet."
        )
    return Fp8Config((block[0], block[1]))
