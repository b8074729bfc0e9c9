"""Checkpoints whose config and weights disagree are refused before anything is packed."""

from __future__ import annotations

import numpy as np
import pytest
from tests.model import tiny

from freehold.errors import CheckpointError
from freehold.model.architectures import build_model, tensor_shapes
from freehold.model.config import ModelConfig, kv_bytes_per_token
from freehold.model.formats import Role, weight_format
from freehold.model.loading import load_model
from freehold.ops.reference import ReferenceOps
from freehold.types import CacheFormat, WeightFormat


class PackNothing(ReferenceOps):
    """Fails the test if a weight is packed before the checkpoint was found whole."""

    def weight(self, *_):
        raise AssertionError("packed before checking")

    def embedding_table(self, *_):
        raise AssertionError("packed before checking")


@pytest.fixture(params=["llama", "qwen2", "qwen3", "deepseek_v2", "deepseek_v3"])
def whole(request):
    config_json = tiny.VARIANTS[request.param]
    return config_json, tiny.random_tensors(ModelConfig.from_dict(config_json), seed=0)


def refusal(config_json, tensors) -> str:
    with pytest.raises(CheckpointError) as caught:
        build_model(config_json, tiny.Tensors(tensors), ops=PackNothing())
    assert caught.value.status == 400
    assert len(caught.value.message) < 400
    return caught.value.message


def test_any_missing_tensor_is_named(whole):
    config_json, tensors = whole
    for name in tensors:
        rest = {n: t for n, t in tensors.items() if n != name}
        assert name in refusal(config_json, rest)


def test_any_wrong_shape_is_named_with_both_shapes(whole):
    config_json, tensors = whole
    for name, tensor in tensors.items():
        wrong = np.zeros((3, *tensor.shape[1:]), np.float32)
        message = refusal(config_json, tensors | {name: wrong})
        assert name in message
        assert str(list(tensor.shape)) in message
        assert str(list(wrong.shape)) in message


def test_a_transposed_tensor_is_refused(whole):
    config_json, tensors = whole
    name = "model.layers.0.mlp.down_proj.weight"
    assert name in refusal(config_json, tensors | {name: tensors[name].T})


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_proj.lora_A.weight",
        "model.layers.99.mlp.up_proj.weight",
        "vision_tower.patch_embed.weight",
    ],
)
def test_an_unexpected_tensor_is_named(name, whole):
    config_json, tensors = whole
    message = refusal(config_json, tensors | {name: np.zeros((2, 2), np.float32)})
    assert name in message
    assert "config and weights disagree" in message


def test_many_missing_tensors_make_a_short_sentence(whole):
    config_json, _ = whole
    assert " more" in refusal(config_json, {})


@pytest.mark.parametrize("dtype", [np.int8, np.float64, np.uint8])
def test_a_type_that_cannot_be_read_is_named(dtype, whole):
    config_json, tensors = whole
    assert "model.norm.weight" in refusal(
        config_json, tensors | {"model.norm.weight": tensors["model.norm.weight"].astype(dtype)}
    )


def test_prediction_layers_and_stored_frequencies_are_passed_over():
    config_json = tiny.VARIANTS["deepseek_v3"]  # 3 layers and one for multi-token prediction
    tensors = tiny.random_tensors(ModelConfig.from_dict(config_json), seed=0)
    extra = {
        "model.layers.3.enorm.weight": np.zeros(2, np.float32),  # without eh_proj: not whole
        "model.layers.3.shared_head.norm.weight": np.zeros(2, np.float32),
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(4, np.float32),
    }
    build_model(config_json, tiny.Tensors(tensors | extra), ops=ReferenceOps())
    beyond = {"model.layers.4.eh_proj.weight": np.zeros((2, 2), np.float32)}
    assert "layers.4" in refusal(config_json, tensors | beyond)


def test_a_tied_head_stored_twice_is_passed_over_and_an_untied_one_is_required():
    config_json = tiny.VARIANTS["llama_tied"]
    tensors = tiny.random_tensors(ModelConfig.from_dict(config_json), seed=0)
    head = {"lm_head.weight": tensors["model.embed_tokens.weight"]}
    build_model(config_json, tiny.Tensors(tensors | head), ops=ReferenceOps())
    assert "lm_head.weight" in refusal(config_json | {"tie_word_embeddings": False}, tensors)


class TestFp8:
    @pytest.fixture
    def fp8(self):
        config_json = tiny.VARIANTS["qwen3_fp8"]
        tensors = tiny.random_tensors(ModelConfig.from_dict(config_json), seed=0)
        return config_json, tiny.fp8_tensors(tensors, (128, 128))

    def test_is_refused_where_the_config_does_not_say_it(self, fp8):
        config_json, tensors = fp8
        plain = {k: v for k, v in config_json.items() if k != "quantization_config"}
        assert "quantization_config" in refusal(plain, tensors)

    def test_is_refused_without_its_scales(self, fp8):
        config_json, tensors = fp8
        name = "model.layers.1.mlp.up_proj.weight_scale_inv"
        assert name in refusal(config_json, {n: t for n, t in tensors.items() if n != name})

    def test_is_refused_with_scales_of_another_block_shape(self, fp8):
        config_json, tensors = fp8
        name = "model.layers.1.mlp.up_proj.weight_scale_inv"
        assert name in refusal(config_json, tensors | {name: np.ones((1, 1), np.float32)})

    def test_scales_without_an_fp8_matrix_are_refused(self, fp8):
        config_json, tensors = fp8
        name = "model.layers.1.mlp.up_proj.weight"
        assert f"{name}_scale_inv" in refusal(
            config_json, tensors | {name: tensors[name].astype(np.float32)}
        )


def test_every_packed_matrix_is_let_go(whole):
    config_json, tensors = whole
    files = tiny.Tensors(tensors)
    build_model(config_json, files, ops=ReferenceOps())
    kept = {name for name, tensor in tensors.items() if tensor.ndim == 2} - files.released
    # The embedding stays mapped; the router is small
    assert {n for n in kept if not n.endswith(".gate.weight")} == {"model.embed_tokens.weight"}


def test_a_directory_in_shards_gives_the_same_model(tmp_path):
    one = load_model(tiny.write_checkpoint(tmp_path / "one"), ops=ReferenceOps())
    many = load_model(tiny.write_checkpoint(tmp_path / "many", num_shards=3), ops=ReferenceOps())
    x = np.random.default_rng(0).standard_normal((3, 64), np.float32)
    assert np.array_equal(one.layers[2].mlp(x), many.layers[2].mlp(x))
    assert np.array_equal(one.logits(x), many.logits(x))


@pytest.mark.parametrize("quantize", list(WeightFormat))
def test_every_role_has_a_format_and_the_head_never_less_than_8_bits(quantize):
    formats = {role: weight_format(role, quantize) for role in Role}
    assert formats[Role.HEAD] is not WeightFormat.INT4
    others = {format for role, format in formats.items() if role is not Role.HEAD}
    assert others == {quantize}


@pytest.mark.parametrize("format", list(CacheFormat))
def test_the_cache_takes_the_bytes_that_the_model_says(whole, format):
    config_json, tensors = whole
    files = tiny.Tensors(tensors)
    model = build_model(config_json, files, ops=ReferenceOps(), cache_format=format)
    if format is CacheFormat.INT8:
        assert model.cache_bytes_per_token == kv_bytes_per_token(model.config, format)
    caches = model.make_caches(num_blocks=5, block_size=16)
    assert sum(cache.num_bytes for cache in caches) == 5 * 16 * model.cache_bytes_per_token
    assert set(tensors) == set(tensor_shapes(model.config))
