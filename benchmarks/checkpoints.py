"""Seeded random checkpoints of real shapes, as ordinary Hugging Face directories.

For speed only: the weights are noise. The tokenizer gives one token a byte, so that a prompt of n
ASCII characters is n tokens here and (written by `gguf_peer.py`) for the peer too.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

QWEN2_1_5B: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 151936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
    "bos_token_id": 0,
    "eos_token_id": 1,
}

DEEPSEEK_V2_LITE_6: dict[str, Any] = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "vocab_size": 102400,
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "num_hidden_layers": 6,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "q_lora_rank": None,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "n_group": 1,
    "topk_group": 1,
    "topk_method": "greedy",
    "scoring_func": "softmax",
    "norm_topk_prob": False,
    "routed_scaling_factor": 1.0,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
    "bos_token_id": 0,
    "eos_token_id": 1,
}

SHAPES = {"qwen2-1.5b": QWEN2_1_5B, "deepseek-v2-lite-6l": DEEPSEEK_V2_LITE_6}


def tensor_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of a checkpoint of this config, in file order."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        attention = _mla(config) if "kv_lora_rank" in config else _gqa(config)
        mlp = _moe(config) if layer >= config.get("first_k_dense_replace", 1 << 30) else None
        mlp = mlp or _mlp("mlp.", hidden, config["intermediate_size"])
        shapes[prefix + "input_layernorm.weight"] = (hidden,)
        shapes |= {prefix + name: shape for name, shape in attention.items()}
        shapes[prefix + "post_attention_layernorm.weight"] = (hidden,)
        shapes |= {prefix + name: shape for name, shape in mlp.items()}
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def _mlp(prefix: str, hidden: int, inner: int) -> dict[str, tuple[int, ...]]:
    return {
        prefix + "gate_proj.weight": (inner, hidden),
        prefix + "up_proj.weight": (inner, hidden),
        prefix + "down_proj.weight": (hidden, inner),
    }


def _gqa(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden = config["hidden_size"]
    head_dim = hidden // config["num_attention_heads"]
    kv = head_dim * config["num_key_value_heads"]
    return {
        "self_attn.q_proj.weight": (hidden, hidden),
        "self_attn.q_proj.bias": (hidden,),
        "self_attn.k_proj.weight": (kv, hidden),
        "self_attn.k_proj.bias": (kv,),
        "self_attn.v_proj.weight": (kv, hidden),
        "self_attn.v_proj.bias": (kv,),
        "self_attn.o_proj.weight": (hidden, hidden),
    }


def _mla(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, heads, rank = (
        config["hidden_size"],
        config["num_attention_heads"],
        config["kv_lora_rank"],
    )
    nope, rope, value = (
        config["qk_nope_head_dim"],
        config["qk_rope_head_dim"],
        config["v_head_dim"],
    )
    return {
        "self_attn.q_proj.weight": (heads * (nope + rope), hidden),
        "self_attn.kv_a_proj_with_mqa.weight": (rank + rope, hidden),
        "self_attn.kv_a_layernorm.weight": (rank,),
        "self_attn.kv_b_proj.weight": (heads * (nope + value), rank),
        "self_attn.o_proj.weight": (hidden, heads * value),
    }


def _moe(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, inner = config["hidden_size"], config["moe_intermediate_size"]
    shapes = {"mlp.gate.weight": (config["n_routed_experts"], hidden)}
    for expert in range(config["n_routed_experts"]):
        shapes |= _mlp(f"mlp.experts.{expert}.", hidden, inner)
    return shapes | _mlp("mlp.shared_experts.", hidden, inner * config["n_shared_experts"])


def build(shape: str, directory: Path, seed: int = 0) -> Path:
    """Write the checkpoint once; an existing complete one is kept. Returns its directory."""
    target = directory / shape
    if (target / "complete").exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    config = SHAPES[shape]
    (target / "config.json").write_text(json.dumps(config, indent=1))
    (target / "tokenizer.json").write_text(json.dumps(_byte_tokenizer(config["vocab_size"])))
    (target / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>"}))
    _write_weights(target / "model.safetensors", config, seed)
    (target / "complete").touch()
    return target


def random_tensor(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 noise of a spread that keeps activations near 1 through the layers."""
    if "norm" in name:
        return np.ones(shape, np.float32)
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    spread = 0.02 if "embed" in name else shape[-1] ** -0.5
    return rng.standard_normal(shape, np.float32) * np.float32(spread)


def _write_weights(path: Path, config: dict[str, Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    header: dict[str, Any] = {}
    offset = 0
    shapes = tensor_shapes(config)
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for name, shape in shapes.items():
            file.write(random_tensor(rng, name, shape).astype(ml_dtypes.bfloat16).tobytes())


def byte_characters() -> list[str]:
    """GPT-2's printable stand-in for each byte, in byte order."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (chr(256 + i) for i in range(256))
    return [chr(b) if b in plain else next(others) for b in range(256)]


def _byte_tokenizer(vocab_size: int) -> dict[str, Any]:
    """Bytes, then fillers that no merge reaches, so that every sampled id has text."""
    special = ["<bos>", "<eos>"]
    tokens = [*special, *byte_characters()]
    tokens += [f"x{i}" for i in range(len(tokens), vocab_size)]
    vocab = {token: i for i, token in enumerate(tokens)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "added_tokens": [
            {
                "id": i,
                "content": token,
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
            for i, token in enumerate(special)
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level | {"use_regex": False},
        "post_processor": None,
        "decoder": byte_level | {"use_regex": False},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }
