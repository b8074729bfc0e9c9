"""Seeded random tiny checkpoints: real Hugging Face directories of every architecture and variant.

`write_checkpoint(path, variant)` writes config, weights, tokenizer, chat template and generation
config, so the directory can be served. NumPy and safetensors only: no torch is imported.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from freehold.model.architectures import tensor_shapes
from freehold.model.config import ModelConfig

VOCAB_SIZE = 320  # 256 bytes, 7 special tokens, the rest ids that the tokenizer does not have
BOS, EOS, END_OF_TURN = "<|bos|>", "<|eos|>", "<|end|>"
SPECIAL = [BOS, EOS, END_OF_TURN, "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]
BOS_ID, EOS_ID, END_OF_TURN_ID = 256, 257, 258
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

BASE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": BOS_ID,
    "eos_token_id": EOS_ID,
    "torch_dtype": "float32",
}
LLAMA = BASE | {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "head_dim": 16}
QWEN2 = BASE | {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 2,
}
QWEN3 = BASE | {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "head_dim": 32,  # 4 heads of 32 are not hidden_size: q_proj is not square
    "use_sliding_window": False,
    "sliding_window": None,
}
DEEPSEEK = BASE | {
    "num_key_value_heads": 4,
    "q_lora_rank": 48,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 24,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "attention_bias": False,
}
DEEPSEEK_V2 = DEEPSEEK | {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "topk_method": "greedy",
    "scoring_func": "softmax",
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": False,
    "routed_scaling_factor": 1.0,
}
DEEPSEEK_V3 = DEEPSEEK | {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "n_group": 4,
    "topk_group": 2,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "num_nextn_predict_layers": 1,
    "n_shared_experts": 1,
}
YARN = {
    "type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 32,
    "beta_slow": 1,
}
FP8 = {
    "quant_method": "fp8",
    "fmt": "e4m3",
    "activation_scheme": "dynamic",
    "weight_block_size": [128, 128],
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
DEEPSEEK_YARN = YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}
GROUP_LIMITED = {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2}

VARIANTS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "llama_tied": LLAMA | {"tie_word_embeddings": True},
    "llama_biases": LLAMA | {"attention_bias": True, "mlp_bias": True},
    "llama_all_heads_own_keys": LLAMA | {"num_key_value_heads": 4},
    "llama_linear_rope": LLAMA | {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "llama_llama3_rope": LLAMA | {"rope_scaling": LLAMA3_ROPE, "rope_theta": 500000.0},
    "llama_yarn": LLAMA | {"rope_scaling": YARN},
    "llama_many_eos": LLAMA | {"eos_token_id": [EOS_ID, END_OF_TURN_ID]},
    "qwen2": QWEN2,
    "qwen2_tied_yarn": QWEN2 | {"rope_scaling": YARN, "tie_word_embeddings": True},
    "qwen2_windows": QWEN2
    | {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
    "qwen3": QWEN3,
    "qwen3_window_types": QWEN3
    | {
        "use_sliding_window": True,
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "qwen3_biases": QWEN3 | {"attention_bias": True},
    "qwen3_yarn_parameters": QWEN3
    | {"rope_theta": None, "rope_parameters": YARN | {"rope_type": "yarn", "rope_theta": 1e6}},
    "deepseek_v2": DEEPSEEK_V2,
    "deepseek_v2_lite": DEEPSEEK_V2
    | {"q_lora_rank": None, "rope_scaling": YARN | {"mscale": 0.707, "mscale_all_dim": 0.707}},
    "deepseek_v2_groups": DEEPSEEK_V2 | GROUP_LIMITED | {"routed_scaling_factor": 16.0},
    "deepseek_v2_biases": DEEPSEEK_V2 | {"attention_bias": True, "mlp_bias": True},
    "deepseek_v3": DEEPSEEK_V3,
    "deepseek_v3_tied": DEEPSEEK_V3 | {"tie_word_embeddings": True},
    "deepseek_v3_no_q_lora": DEEPSEEK_V3 | {"q_lora_rank": None},
    "deepseek_v3_yarn": DEEPSEEK_V3 | {"rope_scaling": DEEPSEEK_YARN},
    "deepseek_v3_uneven_mscale": DEEPSEEK_V3
    | {"rope_scaling": DEEPSEEK_YARN | {"mscale": 0.7, "mscale_all_dim": 1.2}},
    "deepseek_v3_halves_rope": DEEPSEEK_V3 | {"rope_interleave": False},
    "deepseek_v3_plain_weights": DEEPSEEK_V3
    | {"norm_topk_prob": False, "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.0},
    "deepseek_v3_biases": DEEPSEEK_V3 | {"attention_bias": True},
    "deepseek_v3_all_dense": DEEPSEEK_V3 | {"first_k_dense_replace": 3},
    # Odd sizes, so that FP8 has whole and partial 128 × 128 blocks
    "deepseek_v3_fp8": DEEPSEEK_V3
    | {"hidden_size": 160, "intermediate_size": 272, "quantization_config": FP8},
    "qwen3_fp8": QWEN3 | {"hidden_size": 160, "intermediate_size": 272, "quantization_config": FP8},
}

STORED = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
DTYPES = {
    "F32": np.float32,
    "BF16": ml_dtypes.bfloat16,
    "F16": np.float16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
}


def write_checkpoint(
    path: Path | str,
    variant: str = "deepseek_v3",
    *,
    seed: int = 0,
    dtype: str = "float32",
    num_shards: int = 1,
    decisive: bool = False,
    mtp: bool = False,
    **overrides: Any,
) -> Path:
    """Write a servable directory; `overrides` change config.json (and the shapes with it). `mtp`:
    with the multi-token-prediction layer that DeepSeek-V3's config announces.

    A variant with `quantization_config` stores the layers' matrices as FP8. The weights of a
    variant depend on its shapes and the seed alone.
    """
    path = Path(path)
    config_json = VARIANTS[variant] | overrides
    config = replace(ModelConfig.from_dict(config_json), has_mtp=mtp)
    random = random_tensors(config, seed, decisive=decisive)
    tensors = {name: tensor.astype(STORED[dtype]) for name, tensor in random.items()}
    if config.quantization:
        tensors = fp8_tensors(tensors, config.quantization.block_shape)
    write_directory(path, config_json, tensors, num_shards=num_shards)
    return path


def write_dequantized_twin(path: Path | str, fp8_path: Path | str, dtype: str = "float32") -> Path:
    """The same model as an FP8 directory, its blocks multiplied out and stored as `dtype`."""
    path, fp8_path = Path(path), Path(fp8_path)
    config_json = json.loads((fp8_path / "config.json").read_text())
    rows, columns = config_json.pop("quantization_config")["weight_block_size"]
    tensors = {}
    stored = read_tensors(fp8_path / "model.safetensors")
    for name, tensor in stored.items():
        if name.endswith("_scale_inv"):
            continue
        wide = tensor.astype(np.float32)
        scales = stored.get(f"{name}_scale_inv")
        if scales is not None:
            blown_up = np.kron(scales, np.ones((rows, columns), np.float32))
            wide = wide * blown_up[: wide.shape[0], : wide.shape[1]]
        tensors[name] = wide.astype(STORED[dtype])
    write_directory(path, config_json, tensors)
    return path


def read_tensors(file: Path) -> dict[str, np.ndarray]:
    """A whole safetensors file; the safetensors library gives NumPy no float8 or bfloat16."""
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(content[start:], np.uint8)[slice(*entry["data_offsets"])]
        .view(DTYPES[entry["dtype"]])
        .reshape(entry["shape"])
        for name, entry in header.items()
    }


class Tensors:
    """Arrays in memory with the face of a Checkpoint; counts what is released."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self.tensors = tensors
        self.released: set[str] = set()

    def names(self) -> Iterable[str]:
        return self.tensors.keys()

    def info(self, name: str) -> TensorInfo:
        tensor = self.tensors[name]
        dtypes = {np.dtype(dtype): spelled for spelled, dtype in DTYPES.items()}
        return TensorInfo(dtypes.get(tensor.dtype, str(tensor.dtype)), tensor.shape)

    def tensor(self, name: str) -> np.ndarray:
        return self.tensors[name]

    def release(self, name: str) -> None:
        self.released.add(name)


class TensorInfo(NamedTuple):
    dtype: str
    shape: tuple[int, ...]


def random_tensors(
    config: ModelConfig, seed: int, *, decisive: bool = False
) -> dict[str, np.ndarray]:
    """float32. By default lively: every layer matters, greedy answers wander, logits have a
    standard deviation of about 3. `decisive`: choices are clear, as a trained model's are, so that
    rounding to bfloat16 (0.2 %) seldom moves one: the residual stream is mostly embedding, and the
    head's rows differ in size, so that few tokens compete."""
    rng, shapes = np.random.default_rng(seed), tensor_shapes(config)
    return {name: _random(rng, name, shape, decisive=decisive) for name, shape in shapes.items()}


def _random(
    rng: np.random.Generator, name: str, shape: tuple[int, ...], *, decisive: bool
) -> np.ndarray:
    noise = rng.standard_normal(shape, np.float32)
    width = np.float32(shape[-1] ** -0.5)
    if name.endswith("norm.weight"):
        return 1 + np.float32(0.1) * noise
    if len(shape) == 1:  # biases
        return np.float32(0.1) * noise
    if name == "model.embed_tokens.weight":
        return noise * width * np.float32(8 if decisive else 3)
    if name == "lm_head.weight" and decisive:
        row_sizes = np.exp(np.float32(1.5) * rng.standard_normal((shape[0], 1), np.float32))
        return np.float32(0.8) * width * row_sizes * noise
    if name == "lm_head.weight":
        return 3 * width * noise
    writes_to_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
    return noise * width * np.float32(0.2 if decisive and writes_to_residual else 1)


def fp8_tensors(
    tensors: dict[str, np.ndarray], block_shape: tuple[int, int]
) -> dict[str, np.ndarray]:
    """The layers' matrices but the router as float8_e4m3fn, each with its `_scale_inv`."""
    result: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or ".layers." not in name or name.endswith("gate.weight"):
            result[name] = tensor
            continue
        rows, columns = block_shape
        wide = tensor.astype(np.float32)
        scales = np.zeros([-(-n // b) for n, b in zip(wide.shape, block_shape, strict=True)])
        for i, j in np.ndindex(scales.shape):
            block = wide[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
            scales[i, j] = np.abs(block).max() / 448  # the greatest E4M3
            block /= scales[i, j]
        result[name] = wide.astype(ml_dtypes.float8_e4m3fn)
        result[f"{name}_scale_inv"] = scales.astype(np.float32)
    return result


def write_directory(
    path: Path,
    config_json: dict[str, Any],
    tensors: dict[str, np.ndarray],
    *,
    num_shards: int = 1,
) -> None:
    path.mkdir(parents=True, exist_ok=True)
    _write_json(path / "config.json", config_json)
    _write_weights(path, tensors, num_shards)
    _write_tokenizer(path)
    _write_json(
        path / "generation_config.json",
        {"bos_token_id": BOS_ID, "eos_token_id": [EOS_ID, END_OF_TURN_ID]},
    )


def _write_weights(path: Path, tensors: dict[str, np.ndarray], num_shards: int) -> None:
    if num_shards == 1:
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    weight_map = {}
    for shard in range(num_shards):
        file_name = f"model-{shard + 1:05d}-of-{num_shards:05d}.safetensors"
        mine = names[shard::num_shards]
        save_file({n: tensors[n] for n in mine}, path / file_name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(mine, file_name)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    _write_json(path / "model.safetensors.index.json", index)


def _write_tokenizer(path: Path) -> None:
    """Byte-level: token b is byte b, then the special tokens."""
    characters = byte_characters()
    tokenizer = Tokenizer(models.BPE({characters[b]: b for b in range(256)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    tokenizer.save(str(path / "tokenizer.json"))
    _write_json(
        path / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": END_OF_TURN,
            "add_bos_token": False,
            "model_max_length": 512,
            "chat_template": CHAT_TEMPLATE,
        },
    )


def byte_characters() -> list[str]:
    """GPT-2's printable character for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    characters = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    return [characters[b] for b in range(256)]


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
