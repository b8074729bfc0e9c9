"""config.json: released ones parse, both spellings of rope mean the same, the rest is refused."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.model import tiny

from freehold.errors import CheckpointError, UnsupportedArchitecture
from freehold.model.config import SUPPORTED_ARCHITECTURES, ModelConfig, kv_bytes_per_token
from freehold.model.rope import RopeTables, inverse_frequencies
from freehold.ops.reference import ReferenceOps
from freehold.types import CacheFormat

RELEASED = Path(
    os.environ.get("FREEHOLD_DATA", Path(__file__).parents[3] / "shared" / "data")
).joinpath("models", "configs")


def released_configs():
    found = sorted(RELEASED.glob("*.json")) if RELEASED.is_dir() else []
    return [pytest.param(path, id=path.stem) for path in found] or [
        pytest.param(None, marks=pytest.mark.skip(reason="released configs are not here"))
    ]


@pytest.mark.parametrize("path", released_configs())
def test_released_configs_parse_or_are_refused_by_name(path):
    values = json.loads(path.read_text())
    if values["architectures"][0] not in SUPPORTED_ARCHITECTURES:
        with pytest.raises(UnsupportedArchitecture, match=values["architectures"][0]):
            ModelConfig.from_dict(values)
        return
    config = ModelConfig.from_dict(values)
    assert config.vocab_size == values["vocab_size"]
    assert config.eos_token_ids == (values["eos_token_id"],)
    assert (config.mla is not None) == ("kv_lora_rank" in values)
    assert (config.quantization is not None) == ("quantization_config" in values)


@pytest.mark.parametrize("path", released_configs())
def test_rotary_frequencies_of_released_configs_equal_those_of_transformers(path):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    values = json.loads(path.read_text())
    if values["architectures"][0] not in SUPPORTED_ARCHITECTURES:
        pytest.skip("not supported")
    rope = ModelConfig.from_dict(values).rope
    theirs = transformers.AutoConfig.for_model(
        **{k: v for k, v in values.items() if k not in ("auto_map", "quantization_config")}
    )
    kind = theirs.rope_parameters["rope_type"]
    assert kind == rope.type
    found = inverse_frequencies(rope, theirs.head_dim if hasattr(theirs, "head_dim") else 128)
    if kind != "default":
        wanted, attention_factor = ROPE_INIT_FUNCTIONS[kind](theirs)
        assert rope.attention_factor == pytest.approx(attention_factor)
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-6)
    else:
        exponents = np.arange(0, 2 * len(found), 2) / (2 * len(found))
        np.testing.assert_allclose(found, float(values["rope_theta"]) ** -exponents, rtol=1e-5)


def test_an_unknown_architecture_is_refused_with_those_supported():
    with pytest.raises(UnsupportedArchitecture) as caught:
        ModelConfig.from_dict(tiny.LLAMA | {"architectures": ["MixtralForCausalLM"]})
    for name in ("MixtralForCausalLM", *SUPPORTED_ARCHITECTURES):
        assert name in caught.value.message


@pytest.mark.parametrize("named", [None, [], "", 7, [None], {"a": 1}])
def test_a_config_that_names_no_architecture_is_refused_unless_its_type_does(named):
    values = tiny.LLAMA | {"architectures": named}
    if not named:
        assert ModelConfig.from_dict(values).architecture == "LlamaForCausalLM"
    with pytest.raises(UnsupportedArchitecture):
        ModelConfig.from_dict(values | {"model_type": "gpt_neox", "architectures": named or None})


def test_both_spellings_of_rope_mean_the_same():
    old = tiny.LLAMA | {"rope_theta": 5e5, "rope_scaling": tiny.LLAMA3_ROPE}
    new = tiny.LLAMA | {"rope_parameters": tiny.LLAMA3_ROPE | {"rope_theta": 5e5}}
    new.pop("rope_theta")
    assert ModelConfig.from_dict(old).rope == ModelConfig.from_dict(new).rope


# (starting from, changes, the field that the refusal names)
REFUSED = [
    (tiny.LLAMA, {"hidden_act": "gelu"}, "hidden_act"),
    (tiny.LLAMA, {"sliding_window": 4096}, "sliding_window"),
    (tiny.QWEN2, {"use_sliding_window": True, "sliding_window": 0}, "sliding_window"),
    (tiny.QWEN3, {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
    (tiny.QWEN3, {"layer_types": ["sliding_attention"] * 3}, "sliding_window"),
    (tiny.LLAMA, {"layer_types": ["sliding_attention"] * 3}, "layer_types"),
    (tiny.QWEN3, {"layer_types": "full_attention"}, "layer_types"),
    (tiny.LLAMA, {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    (tiny.LLAMA, {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling.type"),
    (tiny.LLAMA, {"rope_scaling": {"rope_type": "longrope"}}, "rope_scaling.rope_type"),
    (tiny.LLAMA, {"rope_scaling": {"type": "default", "mrope_section": [1, 2]}}, "mrope_section"),
    (tiny.LLAMA, {"rope_scaling": {"type": "linear"}}, "rope_scaling.factor"),
    (tiny.LLAMA, {"rope_scaling": {"type": "linear", "factor": -1}}, "rope_scaling.factor"),
    (tiny.LLAMA, {"rope_scaling": "yarn"}, "rope_scaling"),
    (tiny.LLAMA, {"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "full_att"),
    (tiny.LLAMA, {"rope_scaling": tiny.YARN, "rope_theta": 1.0}, "rope_theta"),
    (
        tiny.LLAMA,
        {"rope_scaling": tiny.LLAMA3_ROPE | {"high_freq_factor": 1.0}},
        "high_freq_factor",
    ),
    (tiny.LLAMA, {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quant_method"),
    (tiny.LLAMA, {"quantization_config": {"quant_method": "fp8"}}, "weight_block_size"),
    (tiny.LLAMA, {"quantization_config": tiny.FP8 | {"fmt": "e5m2"}}, "fmt"),
    (tiny.LLAMA, {"quantization_config": tiny.FP8 | {"activation_scheme": "static"}}, "activation"),
    (tiny.LLAMA, {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    (tiny.LLAMA, {"residual_multiplier": 0.2}, "residual_multiplier"),
    (tiny.LLAMA, {"num_local_experts": 8}, "num_local_experts"),
    (tiny.QWEN3, {"mlp_bias": True}, "mlp_bias"),
    (tiny.LLAMA, {"hidden_size": None}, "hidden_size"),
    (tiny.LLAMA, {"hidden_size": 2, "head_dim": None}, "head_dim"),
    (tiny.LLAMA, {"hidden_size": -64}, "hidden_size"),
    (tiny.LLAMA, {"hidden_size": 64.0}, "hidden_size"),
    (tiny.LLAMA, {"hidden_size": True}, "hidden_size"),
    (tiny.LLAMA, {"hidden_size": "64"}, "hidden_size"),
    (tiny.LLAMA, {"num_hidden_layers": 10**9}, "num_hidden_layers"),
    (tiny.LLAMA, {"num_key_value_heads": 3}, "num_key_value_heads"),
    (tiny.LLAMA, {"head_dim": 15}, "head_dim"),
    (tiny.LLAMA, {"rms_norm_eps": float("nan")}, "rms_norm_eps"),
    (tiny.LLAMA, {"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
    (tiny.LLAMA, {"eos_token_id": ["<eos>"]}, "eos_token_id"),
    (tiny.LLAMA, {"eos_token_id": -1}, "eos_token_id"),
    (tiny.DEEPSEEK_V3, {"moe_layer_freq": 2}, "moe_layer_freq"),
    (tiny.DEEPSEEK_V3, {"topk_method": "greedy"}, "topk_method"),
    (tiny.DEEPSEEK_V3, {"scoring_func": "softmax"}, "scoring_func"),
    (tiny.DEEPSEEK_V2, {"topk_method": "noaux_tc"}, "topk_method"),
    (tiny.DEEPSEEK_V2, {"norm_topk_prob": True}, "norm_topk_prob"),
    (tiny.DEEPSEEK_V3, {"n_group": 3}, "n_group"),
    (tiny.DEEPSEEK_V3, {"n_group": 8}, "n_group"),
    (tiny.DEEPSEEK_V3, {"n_group": None}, "n_group"),
    (tiny.DEEPSEEK_V3, {"topk_group": 5}, "topk_group"),
    (tiny.DEEPSEEK_V3, {"num_experts_per_tok": 5}, "num_experts_per_tok"),
    (tiny.DEEPSEEK_V3, {"num_key_value_heads": 1}, "num_key_value_heads"),
    (tiny.DEEPSEEK_V3, {"kv_lora_rank": None}, "kv_lora_rank"),
    (tiny.DEEPSEEK_V3, {"qk_rope_head_dim": 7}, "qk_rope_head_dim"),
    (tiny.DEEPSEEK_V3, {"index_topk": 2048}, "index_topk"),
]


@pytest.mark.parametrize(
    ("base", "changes", "field"), REFUSED, ids=[f"{f}-{i}" for i, (_, _, f) in enumerate(REFUSED)]
)
def test_what_is_wrong_or_not_implemented_is_refused_by_name(base, changes, field):
    ModelConfig.from_dict(base)
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.from_dict(base | changes)
    assert field in caught.value.message
    assert caught.value.message.endswith(".")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(variant=st.sampled_from(sorted(tiny.VARIANTS)), data=st.data())
def test_no_value_of_any_field_escapes_the_error_tree(variant, data):
    values = dict(tiny.VARIANTS[variant])
    field = data.draw(st.sampled_from([*sorted(values), "rope_scaling", "layer_types"]))
    values[field] = data.draw(JSON)
    with contextlib.suppress(CheckpointError):
        ModelConfig.from_dict(values)


def test_cache_bytes_of_released_shapes():
    v3 = tiny.DEEPSEEK_V3 | {
        "num_hidden_layers": 61,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
    }
    assert kv_bytes_per_token(ModelConfig.from_dict(v3)) == 61 * 576 * 2  # V3 report: 70 KB
    llama = tiny.LLAMA | {
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    }
    assert kv_bytes_per_token(ModelConfig.from_dict(llama)) == 131072  # Llama 3.1 8B
    assert kv_bytes_per_token(ModelConfig.from_dict(llama), CacheFormat.INT8) == 32 * 2 * 8 * 132


def test_rope_tables_keep_their_values_as_they_grow():
    rope = ModelConfig.from_dict(tiny.VARIANTS["deepseek_v3_yarn"]).rope
    tables = RopeTables(rope, 8, ReferenceOps())
    small = [table.copy() for table in tables.up_to(3)]
    grown = tables.up_to(5000)
    assert len(grown[0]) >= 5000 > len(small[0]) >= 3
    for before, after in zip(small, grown, strict=True):
        assert np.array_equal(before, after[: len(before)])
    assert all(np.array_equal(a, b) for a, b in zip(tables.up_to(10), grown, strict=True))


@pytest.mark.parametrize(("stored", "ids"), [([1, 5], (1, 5)), (7, (7,)), (None, ()), ([], ())])
def test_several_eos_ids_one_or_none(stored, ids):
    assert ModelConfig.from_dict(tiny.LLAMA | {"eos_token_id": stored}).eos_token_ids == ids
