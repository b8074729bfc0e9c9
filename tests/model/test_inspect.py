"""The report: figures that add up, from headers alone, and the same refusals as loading."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import pytest
import tests.model.tiny as tiny
from safetensors.numpy import load_file, save_file

from freehold.errors import CheckpointError, UnsupportedArchitecture
from freehold.model.architectures import tensor_shapes
from freehold.model.config import ModelConfig, kv_bytes_per_token
from freehold.model.inspect import idle_parameters, inspect
from freehold.model.safetensors_file import SafetensorsFile
from freehold.types import WeightFormat


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_figures_add_up_for_every_variant(tmp_path: Path, variant: str) -> None:
    path = tiny.write_checkpoint(tmp_path / "m", variant)
    report = inspect(path)
    stored = tiny.read_tensors(path / "model.safetensors")
    weights = {name: t for name, t in stored.items() if not name.endswith("_scale_inv")}
    assert report.num_parameters == sum(prod(t.shape) for t in weights.values())
    assert report.stored_bytes == sum(t.nbytes for t in stored.values())
    assert sum(report.stored_bytes_by_kind.values()) == report.stored_bytes
    assert sum(report.stored_bytes_by_format.values()) == report.stored_bytes
    assert report.loaded_bytes_by_format["bf16"] == sum(report.loaded_bytes_by_kind.values())
    formats = report.loaded_bytes_by_format
    assert formats["bf16"] > formats["int8"] > formats["int4"]
    assert report.context == report.max_context == report.max_context_that_fits == 512
    assert report.fits
    assert json.loads(json.dumps(report.to_dict()))["fits"] is True


def test_active_parameters_leave_out_experts_not_chosen(tmp_path: Path) -> None:
    report = inspect(tiny.write_checkpoint(tmp_path, "deepseek_v3"))
    expert = 3 * 64 * 32  # gate, up and down of one
    assert report.num_parameters - report.num_active_parameters == 2 * (8 - 3) * expert
    assert report.stored_bytes_by_kind["experts"] == 2 * 8 * expert * 4
    assert report.stored_bytes_by_kind["router"] == 2 * (8 * 64 + 8) * 4
    held = report.loaded_bytes_by_kind
    idle = held["experts"] * (8 - 3) // 8
    assert report.read_bytes_per_token == sum(held.values()) - held["embedding"] - idle
    dense = inspect(tiny.write_checkpoint(tmp_path / "dense", "qwen3"))
    assert dense.num_active_parameters == dense.num_parameters
    assert dense.stored_bytes_by_kind["norm"] == (64 + 3 * (2 * 64 + 2 * 32)) * 4


def test_cache_of_latent_and_grouped_attention(tmp_path: Path) -> None:
    latent = inspect(tiny.write_checkpoint(tmp_path / "a", "deepseek_v3"))
    assert (latent.attention, latent.kv_bytes_per_token) == ("latent", 3 * (32 + 8) * 2)
    grouped = inspect(tiny.write_checkpoint(tmp_path / "b", "llama"))
    assert (grouped.attention, grouped.kv_bytes_per_token) == ("grouped", 3 * 2 * 2 * 16 * 2)


def test_stored_formats_are_told_apart_and_scales_go_with_their_weight(tmp_path: Path) -> None:
    report = inspect(tiny.write_checkpoint(tmp_path, "deepseek_v3_fp8", dtype="bfloat16"))
    assert set(report.stored_bytes_by_format) == {"F8_E4M3", "BF16", "F32"}
    assert "unread" not in report.stored_bytes_by_kind


def test_prediction_layers_count_as_unread(tmp_path: Path) -> None:
    path = tiny.write_checkpoint(tmp_path, "deepseek_v3")
    before = inspect(path)
    tensors = load_file(path / "model.safetensors")
    extra = tensors["model.layers.2.self_attn.o_proj.weight"]
    save_file(
        tensors | {"model.layers.3.self_attn.o_proj.weight": extra}, path / "model.safetensors"
    )
    after = inspect(path)
    assert after.stored_bytes_by_kind == before.stored_bytes_by_kind | {"unread": extra.nbytes}
    assert after.num_parameters == before.num_parameters


def test_context_and_rounding_asked_for_are_those_reported(tmp_path: Path) -> None:
    path = tiny.write_checkpoint(tmp_path, "qwen2")
    short, long = inspect(path, WeightFormat.INT4, 1), inspect(path, WeightFormat.INT4, 10**9)
    assert (short.quantize, short.context, long.context) == ("int4", 1, 512)
    assert long.needed_bytes - short.needed_bytes == 511 * short.kv_bytes_per_token


def test_model_larger_than_the_machine_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny.write_checkpoint(tmp_path, "qwen2")
    needed = inspect(path).needed_bytes
    for free, fits, tokens in ((needed, True, 512), (needed - 1, False, 511), (0, False, 0)):
        monkeypatch.setattr("freehold.model.inspect.available_bytes", lambda free=free: free)
        report = inspect(path)
        assert (report.fits, report.max_context_that_fits) == (fits, tokens)


def test_no_weights_are_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny.write_checkpoint(tmp_path, "deepseek_v3_fp8")

    def touched(*_: object) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(SafetensorsFile, "tensor", touched)
    monkeypatch.setattr(SafetensorsFile, "sample", touched)
    assert inspect(path).num_parameters > 0


def test_unknown_architecture_is_refused_with_those_supported(tmp_path: Path) -> None:
    path = tiny.write_checkpoint(tmp_path, "llama")
    (path / "config.json").write_text('{"architectures": ["MambaForCausalLM"]}')
    with pytest.raises(UnsupportedArchitecture, match=r"'MambaForCausalLM'.*DeepseekV3ForCausalLM"):
        inspect(path)


def test_config_and_weights_that_disagree_are_refused(tmp_path: Path) -> None:
    path = tiny.write_checkpoint(tmp_path, "llama")
    config = json.loads((path / "config.json").read_text()) | {"intermediate_size": 128}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"has the shape \[96, 64\].*implies \[128, 64\]"):
        inspect(path)


DEEPSEEK_V3 = {
    "architectures": ["DeepseekV3ForCausalLM"], "vocab_size": 129280, "hidden_size": 7168,
    "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61,
    "num_attention_heads": 128, "num_key_value_heads": 128, "n_shared_experts": 1,
    "n_routed_experts": 256, "routed_scaling_factor": 2.5, "kv_lora_rank": 512,
    "q_lora_rank": 1536, "qk_rope_head_dim": 64, "v_head_dim": 128, "qk_nope_head_dim": 128,
    "topk_method": "noaux_tc", "n_group": 8, "topk_group": 4, "num_experts_per_tok": 8,
    "first_k_dense_replace": 3, "norm_topk_prob": True, "scoring_func": "sigmoid",
    "max_position_embeddings": 163840, "rms_norm_eps": 1e-6,
}  # fmt: skip


def test_deepseek_v3_has_the_parameters_its_paper_says() -> None:
    """671 B, 37 B of them active, and 70 KB of cache a token (technical report, §4.2)."""
    config = ModelConfig.from_dict(DEEPSEEK_V3)
    shapes = tensor_shapes(config)
    total = sum(prod(shape) for shape in shapes.values())
    assert round(total / 1e9) == 671
    assert 37e9 <= total - idle_parameters(config, shapes) < 38e9
    assert kv_bytes_per_token(config) == 61 * 576 * 2
