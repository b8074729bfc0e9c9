"""DeepSeek-V3's multi-token-prediction layer, beside transformers' decoder layer."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.model import tiny  # noqa: E402

from freehold.errors import CheckpointError  # noqa: E402
from freehold.model.config import ModelConfig, kv_bytes_per_token, with_tensors  # noqa: E402
from freehold.model.inspect import inspect  # noqa: E402
from freehold.model.loading import load_model  # noqa: E402
from freehold.ops import BatchLayout  # noqa: E402
from freehold.ops.create import create  # noqa: E402

TOKENS = np.random.default_rng(3).integers(0, tiny.VOCAB_SIZE, 60).astype(np.int32)
LAYER = "model.layers.3."
BLOCK_SIZE = 8


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.write_checkpoint(tmp_path_factory.mktemp("mtp"), "deepseek_v3", mtp=True)


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_model(checkpoint, ops=create("reference"))


def looked_ahead(model, sizes):
    """Logits of every position but the last, the tokens fed `sizes` at a time."""
    num_blocks = -(-len(TOKENS) // BLOCK_SIZE)
    caches, found, start = model.make_caches(num_blocks, BLOCK_SIZE), [], 0
    for size in sizes:
        stop = min(start + size, len(TOKENS) - 1)
        layout = BatchLayout(
            positions=np.arange(start, stop, dtype=np.int32),
            slots=np.arange(start, stop, dtype=np.int64),
            query_starts=np.array([0, stop - start], np.int32),
            context_lens=np.array([stop], np.int32),
            block_tables=np.arange(num_blocks, dtype=np.int32)[None],
            block_size=BLOCK_SIZE,
        )
        hidden = model.forward(TOKENS[start:stop], layout, caches)
        ahead = model.look_ahead(hidden, TOKENS[start + 1 : stop + 1], layout, caches)
        found.append(model.logits(ahead))
        start = stop
    return np.concatenate(found)


def rms_norm(x, weight):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-6) * weight


def transformers_model(path):
    return transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def test_guesses_equal_those_of_the_report_over_transformers_layers(checkpoint, model, tmp_path):
    """h' = norm(layer(eh_proj [enorm Emb(t_i+1); hnorm h_i])), by a model of that one layer."""
    tensors = tiny.read_tensors(checkpoint / "model.safetensors")
    own = {k.removeprefix(LAYER): v for k, v in tensors.items() if k.startswith(LAYER)}
    one_layer = {
        "model.embed_tokens.weight": tensors["model.embed_tokens.weight"],
        "lm_head.weight": tensors["lm_head.weight"],
        "model.norm.weight": own.pop("shared_head.norm.weight"),
    }
    enorm, hnorm, eh_proj = (own.pop(f"{name}.weight") for name in ("enorm", "hnorm", "eh_proj"))
    one_layer |= {f"model.layers.0.{name}": tensor for name, tensor in own.items()}
    config = json.loads((checkpoint / "config.json").read_text())
    config |= {"num_hidden_layers": 1, "first_k_dense_replace": 0}
    tiny.write_directory(tmp_path, config, one_layer)

    ids = torch.tensor(TOKENS[None].astype(np.int64))
    with torch.no_grad():
        hidden = transformers_model(checkpoint).model(ids).last_hidden_state[0, :-1].numpy()
        embedded = tensors["model.embed_tokens.weight"][TOKENS[1:]]
        parts = np.concatenate([rms_norm(embedded, enorm), rms_norm(hidden, hnorm)], axis=-1)
        mixed = torch.tensor(parts @ eh_proj.T)[None]
        wanted = transformers_model(tmp_path)(inputs_embeds=mixed).logits[0].numpy()

    found = looked_ahead(model, [len(TOKENS)])
    assert wanted.std() > 2
    assert np.abs(found - wanted).max() < 1e-4
    assert (found.argmax(-1) == wanted.argmax(-1)).all()


@pytest.mark.parametrize("ops", ["reference", "native"])
def test_guesses_do_not_depend_on_how_tokens_are_divided_into_steps(ops, checkpoint):
    if ops == "native":
        pytest.importorskip("freehold._native")
    model = load_model(checkpoint, ops=create(ops, num_threads=1))
    whole = looked_ahead(model, [60])
    assert np.array_equal(looked_ahead(model, [7] * 9), whole)
    assert np.array_equal(looked_ahead(model, [1] * 59), whole)


def test_its_cache_and_weights_are_counted(checkpoint, model, tmp_path):
    tensors = tiny.read_tensors(checkpoint / "model.safetensors")
    without = tiny.write_checkpoint(tmp_path, "deepseek_v3")
    assert model.config.has_mtp
    assert len(model.make_caches(2, 16)) == 4
    plain = ModelConfig.from_dict(tiny.VARIANTS["deepseek_v3"])
    assert with_tensors(plain, tensors) == model.config
    assert kv_bytes_per_token(model.config) * 3 == kv_bytes_per_token(plain) * 4
    more, less = inspect(checkpoint), inspect(without)
    extra = sum(tensor.size for name, tensor in tensors.items() if name.startswith(LAYER))
    assert more.num_parameters - less.num_parameters == extra
    assert more.needed_bytes > less.needed_bytes


def test_copies_of_embedding_and_head_are_passed_over_and_half_a_layer_refused(
    checkpoint, model, tmp_path
):
    tensors = tiny.read_tensors(checkpoint / "model.safetensors")
    copies = {
        f"{LAYER}embed_tokens.weight": tensors["model.embed_tokens.weight"],
        f"{LAYER}shared_head.head.weight": tensors["lm_head.weight"],
    }
    config = json.loads((checkpoint / "config.json").read_text())
    tiny.write_directory(tmp_path / "copies", config, tensors | copies)
    again = load_model(tmp_path / "copies", ops=create("reference"))
    assert np.array_equal(looked_ahead(again, [60]), looked_ahead(model, [60]))
    del tensors[f"{LAYER}hnorm.weight"]
    tiny.write_directory(tmp_path / "half", config, tensors)
    with pytest.raises(CheckpointError, match=r"layers\.3\.hnorm"):
        load_model(tmp_path / "half", ops=create("reference"))
