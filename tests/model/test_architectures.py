"""Every architecture and variant against transformers, on seeded random tiny checkpoints."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.model import tiny  # noqa: E402
from tests.model.paging import PagedRun, greedy, in_chunks  # noqa: E402

from freehold.model.config import SUPPORTED_ARCHITECTURES  # noqa: E402
from freehold.model.loading import load_model  # noqa: E402
from freehold.model.model import Step  # noqa: E402
from freehold.model.rope import RopeTables  # noqa: E402
from freehold.ops import BatchLayout  # noqa: E402
from freehold.ops.create import create  # noqa: E402
from freehold.types import CacheFormat, WeightFormat  # noqa: E402

MAX_DIFFERENCE = 1e-4
MIN_AGREEMENT = 0.995
ONE_OF_EACH = [
    "llama",
    "qwen2",
    "qwen2_windows",
    "qwen3",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v2_lite",
]
TOKENS = np.random.default_rng(1).integers(0, tiny.VOCAB_SIZE, 150)

needs_native = pytest.mark.skipif(
    importlib.util.find_spec("freehold._native") is None, reason="the native library is not built"
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """variant, dtype → its directory, written once; decisive where it is for bfloat16."""

    @functools.cache
    def write(variant: str, dtype: str = "float32"):
        path = tmp_path_factory.mktemp(f"{variant}_{dtype}")
        return tiny.write_checkpoint(path, variant, dtype=dtype, decisive=dtype == "bfloat16")

    return write


@pytest.fixture(scope="module")
def reference_model(checkpoint):
    """variant → our model in the float32 truth."""
    return functools.cache(lambda variant: load(checkpoint(variant)))


@pytest.fixture(scope="module")
def transformers_model(checkpoint, tmp_path_factory):
    """variant → transformers' own; of FP8 checkpoints, the dequantised twin."""

    @functools.cache
    def load_with_transformers(variant: str, dtype: str = "float32"):
        path = checkpoint(variant, dtype)
        if "quantization_config" in tiny.VARIANTS[variant]:
            path = tiny.write_dequantized_twin(tmp_path_factory.mktemp("twin"), path)
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        assert not any(info.values()), info  # every tensor found its place
        return model.eval()

    return load_with_transformers


def load(path, ops="reference", quantize=None):
    return load_model(path, ops=create(ops, num_threads=1), quantize=quantize)


def wanted_logits(model, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(tokens[None].astype(np.int64))).logits[0].numpy()


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_logits_equal_those_of_transformers(variant, reference_model, transformers_model):
    wanted = wanted_logits(transformers_model(variant), TOKENS)
    whole = in_chunks(reference_model(variant), TOKENS, [len(TOKENS)])
    assert wanted.std() > 2  # else a small difference would mean nothing
    assert np.abs(whole - wanted).max() <= MAX_DIFFERENCE


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_logits_do_not_depend_on_how_tokens_are_divided_into_steps(variant, reference_model):
    model = reference_model(variant)
    whole = in_chunks(model, TOKENS, [len(TOKENS)])
    for sizes in ([1], [7], [1, 16, 9, 100, 1], [120, 1]):
        assert np.array_equal(in_chunks(model, TOKENS, sizes), whole)


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_64_greedy_tokens_equal_those_of_transformers(variant, reference_model, transformers_model):
    prompt = TOKENS[:20]
    found = greedy(reference_model(variant), prompt, 64)
    # Transformers, given the prompt and our tokens, would have chosen each of them itself: so by
    # induction its own greedy decoding gives the same 64
    fed = np.concatenate([prompt, found[:-1]])
    wanted = wanted_logits(transformers_model(variant), fed)[len(prompt) - 1 :].argmax(axis=1)
    assert np.array_equal(found, wanted)
    if not reference_model(variant).config.tie_word_embeddings:  # those like to repeat themselves
        assert len(set(found.tolist())) > 5  # a loop on one token would prove little


@pytest.mark.parametrize("variant", ONE_OF_EACH)
def test_a_request_has_the_same_logits_alone_and_in_a_crowd(variant, reference_model):
    model, rng = reference_model(variant), np.random.default_rng(3)
    prompts = {r: rng.integers(0, tiny.VOCAB_SIZE, n) for r, n in enumerate([33, 1, 8, 70, 16])}
    crowd = PagedRun(model, len(prompts), max_tokens=96)
    first = crowd.step({r: p[: len(p) // 2 + 1] for r, p in prompts.items()})
    rest = {r: p[len(p) // 2 + 1 :] for r, p in prompts.items() if len(p) > 1}
    second = crowd.step(rest)
    for r, prompt in prompts.items():
        together = np.concatenate([first[r], second[r]]) if r in second else first[r]
        assert np.array_equal(together, in_chunks(model, prompt, [len(prompt)]))


@pytest.mark.parametrize("variant", ["deepseek_v3_fp8", "qwen3_fp8"])
@pytest.mark.parametrize("quantize", ["float32", "int8", "int4"])
def test_fp8_checkpoint_equals_its_dequantised_twin(variant, quantize, checkpoint, tmp_path):
    twin = tiny.write_dequantized_twin(tmp_path, checkpoint(variant))
    found, wanted = (
        in_chunks(load(path, quantize=WeightFormat(quantize)), TOKENS, [64])
        for path in (checkpoint(variant), twin)
    )
    assert np.array_equal(found, wanted)


@needs_native
@pytest.mark.parametrize("architecture", SUPPORTED_ARCHITECTURES)
def test_native_bfloat16_chooses_as_transformers_does(architecture, checkpoint, transformers_model):
    tokens = np.random.default_rng(2).integers(0, tiny.VOCAB_SIZE, 400)
    agreements = {}
    for variant, config_json in tiny.VARIANTS.items():
        if config_json["architectures"] != [architecture]:
            continue
        model = load(checkpoint(variant, "bfloat16"), "native", WeightFormat.BF16)
        wanted = wanted_logits(transformers_model(variant, "bfloat16"), tokens).argmax(axis=1)
        found = in_chunks(model, tokens, [len(tokens)]).argmax(axis=1)
        agreements[variant] = float((found == wanted).mean())
    assert np.mean(list(agreements.values())) >= MIN_AGREEMENT, agreements
    assert min(agreements.values()) >= 0.985, agreements  # no variant hides behind the others


@needs_native
@pytest.mark.parametrize("variant", ONE_OF_EACH)
@pytest.mark.parametrize("quantize", ["bf16", "int8", "int4"])
def test_native_logits_do_not_depend_on_how_tokens_are_divided(variant, quantize, checkpoint):
    model = load(checkpoint(variant, "bfloat16"), "native", WeightFormat(quantize))
    whole = in_chunks(model, TOKENS, [len(TOKENS)])
    for sizes in ([1], [1, 16, 9, 100, 1]):
        assert np.array_equal(in_chunks(model, TOKENS, sizes), whole)


@pytest.mark.parametrize("variant", ["deepseek_v3_yarn", "deepseek_v2_lite"])
def test_absorbed_attention_equals_the_papers_expanded_form(variant, reference_model):
    """DeepSeek-V2 equations 37 to 47: per-head keys and values made from the latent."""
    model = reference_model(variant)
    attention, dims = model.layers[0].attention, model.config.mla
    x = np.random.default_rng(0).standard_normal((40, model.config.hidden_size), np.float32)
    captured = {}

    class Capture:
        """Ops that keep what the attention kernel is given, and what it gives."""

        def __getattr__(self, name):
            return getattr(model.ops, name)

        def latent_attention(self, q, latent, *rest, value_dim):
            mixed = model.ops.latent_attention(q, latent, *rest, value_dim=value_dim)
            captured.update(latent=latent, q_pe=q[..., value_dim:], mixed=mixed)
            return mixed

    layout = prompt_layout(len(x))
    cos, sin = RopeTables(model.config.rope, dims.qk_rope_head_dim, model.ops).up_to(len(x))
    watched = dataclasses.replace(attention, ops=Capture())
    watched(
        x,
        Step(layout, cos, sin),
        attention.make_cache(len(layout.block_tables[0]), 8, CacheFormat.BF16),
    )
    c, k_pe = np.split(captured["latent"].astype(np.float64), [dims.kv_lora_rank], axis=1)
    nope = dims.qk_nope_head_dim
    q_nope = attention.query(x).reshape(len(x), -1, dims.qk_head_dim)[..., :nope]
    w_uk = attention.key_up.values.transpose(0, 2, 1)  # [heads, nope, rank]
    w_uv = attention.value_up.values  # [heads, v_head_dim, rank]
    keys = np.einsum("hdr,tr->thd", w_uk, c)  # k_C = W_UK c
    values = np.einsum("hdr,tr->thd", w_uv, c)  # v_C = W_UV c
    scores = np.einsum("nhd,thd->hnt", q_nope, keys)
    scores += np.einsum("nhd,td->hnt", captured["q_pe"], k_pe)
    scores *= attention.softmax_scale
    scores[:, ~np.tri(len(x), dtype=bool)] = -np.inf
    p = np.exp(scores - scores.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    expanded = np.einsum("hnt,thd->nhd", p, values)
    absorbed = np.einsum("hdr,nhr->nhd", w_uv, captured["mixed"])
    assert np.abs(expanded).max() > 0.5
    assert np.abs(absorbed - expanded).max() < 1e-5


def prompt_layout(n: int) -> BatchLayout:
    """One fresh request of n tokens in blocks of 8, in order."""
    return BatchLayout(
        positions=np.arange(n, dtype=np.int32),
        slots=np.arange(n, dtype=np.int64),
        query_starts=np.array([0, n], np.int32),
        context_lens=np.array([n], np.int32),
        block_tables=np.arange(-(-n // 8), dtype=np.int32)[None],
        block_size=8,
    )
