"""Writes the random checkpoint of `checkpoints.py` as GGUF for llama.cpp: Q4_0 with embeddings and
head at Q8_0 (ours are INT8 there), Q8_0, or BF16. Needs the `gguf` package:

    python benchmarks/gguf_peer.py CHECKPOINT_DIRECTORY OUT.gguf [int4|int8|bf16]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import quantize

Reader = Callable[[str], np.ndarray]
KINDS = {
    "int4": gguf.GGMLQuantizationType.Q4_0,
    "int8": gguf.GGMLQuantizationType.Q8_0,
    "bf16": gguf.GGMLQuantizationType.BF16,
}


def _reader(path: Path) -> Reader:
    """float32 copies of a BF16 safetensors file's tensors, by name."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    data = np.memmap(path, np.uint8, "r", offset=8 + size)

    def read(name: str) -> np.ndarray:
        start, end = header[name]["data_offsets"]
        bits = data[start:end].view(np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(header[name]["shape"])

    return read


def _attention(config: dict[str, Any], read: Reader, src: str, dst: str) -> Iterator[Any]:
    if "kv_lora_rank" not in config:
        for part in "qkv":
            yield f"{dst}attn_{part}.weight", read(f"{src}self_attn.{part}_proj.weight")
            yield f"{dst}attn_{part}.bias", read(f"{src}self_attn.{part}_proj.bias")
    else:
        heads, nope = config["num_attention_heads"], config["qk_nope_head_dim"]
        kv_b = read(f"{src}self_attn.kv_b_proj.weight")
        k_b, v_b = np.split(kv_b.reshape(heads, -1, config["kv_lora_rank"]), [nope], axis=1)
        yield f"{dst}attn_q.weight", read(f"{src}self_attn.q_proj.weight")
        yield f"{dst}attn_kv_a_mqa.weight", read(f"{src}self_attn.kv_a_proj_with_mqa.weight")
        yield f"{dst}attn_kv_a_norm.weight", read(f"{src}self_attn.kv_a_layernorm.weight")
        yield f"{dst}attn_k_b.weight", np.ascontiguousarray(k_b.transpose(0, 2, 1))
        yield f"{dst}attn_v_b.weight", np.ascontiguousarray(v_b)
    yield f"{dst}attn_output.weight", read(f"{src}self_attn.o_proj.weight")


def _mlp(config: dict[str, Any], read: Reader, src: str, dst: str, layer: int) -> Iterator[Any]:
    is_dense = layer < config.get("first_k_dense_replace", 1 << 30)
    for part in ("gate", "up", "down"):
        if is_dense:
            yield f"{dst}ffn_{part}.weight", read(f"{src}mlp.{part}_proj.weight")
            continue
        experts = [
            read(f"{src}mlp.experts.{i}.{part}_proj.weight")
            for i in range(config["n_routed_experts"])
        ]
        yield f"{dst}ffn_{part}_exps.weight", np.stack(experts)
        yield f"{dst}ffn_{part}_shexp.weight", read(f"{src}mlp.shared_experts.{part}_proj.weight")
    if not is_dense:
        yield f"{dst}ffn_gate_inp.weight", read(f"{src}mlp.gate.weight")


def _tensors(config: dict[str, Any], read: Reader) -> Iterator[tuple[str, np.ndarray]]:
    yield "token_embd.weight", read("model.embed_tokens.weight")
    for layer in range(config["num_hidden_layers"]):
        src, dst = f"model.layers.{layer}.", f"blk.{layer}."
        yield f"{dst}attn_norm.weight", read(f"{src}input_layernorm.weight")
        yield from _attention(config, read, src, dst)
        yield f"{dst}ffn_norm.weight", read(f"{src}post_attention_layernorm.weight")
        yield from _mlp(config, read, src, dst, layer)
    yield "output_norm.weight", read("model.norm.weight")
    if not config["tie_word_embeddings"]:
        yield "output.weight", read("lm_head.weight")


def _metadata(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    if "kv_lora_rank" not in config:
        writer.add_head_count_kv(config["num_key_value_heads"])
        return
    rank, rope = config["kv_lora_rank"], config["qk_rope_head_dim"]
    writer.add_head_count_kv(1)
    writer.add_q_lora_rank(0)
    writer.add_kv_lora_rank(rank)
    writer.add_key_length(rank + rope)
    writer.add_value_length(rank)
    writer.add_key_length_mla(config["qk_nope_head_dim"] + rope)
    writer.add_value_length_mla(config["v_head_dim"])
    writer.add_rope_dimension_count(rope)
    writer.add_leading_dense_block_count(config["first_k_dense_replace"])
    writer.add_expert_count(config["n_routed_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_shared_count(config["n_shared_experts"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_weights_scale(config["routed_scaling_factor"])
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SOFTMAX)


def _tokenizer(writer: gguf.GGUFWriter, vocab_size: int) -> None:
    """One token a byte (SentencePiece byte fallback); the rest can never match."""
    kinds = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256]
    filler = vocab_size - len(tokens)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens + [f"\u2603{i}\u2603" for i in range(filler)])
    writer.add_token_types(types + [kinds.NORMAL] * filler)
    writer.add_token_scores([0.0] * len(tokens) + [-1e9] * filler)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_space_prefix(False)
    writer.add_add_bos_token(False)


def write(checkpoint: Path, target: Path, format: str) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    writer = gguf.GGUFWriter(
        target, "deepseek2" if "kv_lora_rank" in config else "qwen2", use_temp_file=True
    )
    _metadata(writer, config)
    _tokenizer(writer, config["vocab_size"])
    for name, tensor in _tensors(config, _reader(checkpoint / "model.safetensors")):
        if tensor.ndim == 1 or "ffn_gate_inp" in name:
            writer.add_tensor(name, tensor)
            continue
        is_vocabulary = name in ("token_embd.weight", "output.weight")
        kind = KINDS["int8" if is_vocabulary and format == "int4" else format]
        writer.add_tensor(name, quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "int4")
