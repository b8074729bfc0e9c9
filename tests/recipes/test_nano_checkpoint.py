"""The shipped freehold-nano: small enough, loadable by transformers, its template plain jinja."""

import json
from pathlib import Path

import minijinja
import pytest
import torch
from recipes.nano.export import write_checkpoint
from recipes.nano.model import Linear, Nano, NanoConfig
from tokenizers import Tokenizer
from transformers import AutoTokenizer, DeepseekV3ForCausalLM

SHIPPED = Path(__file__).parents[2] / "src" / "freehold" / "models" / "nano"
TEXTS = [
    "The north dock is open from 9:00 to 17:30.",
    "根据资料：龘靐仪器厂的退款期限为三十天。",
    "😀👩‍👩‍👧 naïve café — Straße\t\n\n  x",
    "def f(x):\n    return {'a': x ** 2, \"b\": [1, 2, 3]}  # ok\r\n",
    "".join(chr(c) for c in range(1, 0x250)),
]
CHATS = [
    [{"role": "user", "content": "Hello"}],
    [
        {"role": "system", "content": "Passages:\n[1] {{ not a template }} <b>&"},
        {"role": "user", "content": "你好"},
        {"role": "assistant", "content": "你好！"},
        {"role": "user", "content": "再见"},
    ],
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))


@pytest.mark.parametrize("text", TEXTS)
def test_tokenizer_gives_every_byte_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_digits_and_citation_marks_are_tokens_of_their_own(tokenizer: Tokenizer) -> None:
    pieces = tokenizer.encode("room 4096 [12]").tokens
    assert pieces[-4:] == ["Ġ[", "1", "2", "]"]


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("generation_prompt", [True, False])
def test_template_renders_alike_in_transformers_and_minijinja(
    chat: list[dict[str, str]], generation_prompt: bool
) -> None:
    wanted = AutoTokenizer.from_pretrained(SHIPPED).apply_chat_template(
        chat, tokenize=False, add_generation_prompt=generation_prompt
    )
    environment = minijinja.Environment(templates={})
    special = json.loads((SHIPPED / "tokenizer_config.json").read_text(encoding="utf-8"))
    rendered = environment.render_str(
        (SHIPPED / "chat_template.jinja").read_text(encoding="utf-8"),
        messages=chat,
        bos_token=special["bos_token"],
        eos_token=special["eos_token"],
        add_generation_prompt=generation_prompt,
    )
    assert rendered == wanted
    assert rendered.startswith(special["bos_token"])
    assert rendered.endswith("<｜Assistant｜>") == generation_prompt


def test_shipped_weights_fit_the_package_and_answer_in_transformers() -> None:
    torch.set_num_threads(1)
    assert (SHIPPED / "model.safetensors").stat().st_size <= 24_000_000
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED)
    model, loading = DeepseekV3ForCausalLM.from_pretrained(
        SHIPPED, dtype=torch.bfloat16, output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    prompt = tokenizer.apply_chat_template(CHATS[0], tokenize=False, add_generation_prompt=True)
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    out = model.generate(ids, do_sample=False, max_new_tokens=40)[0, ids.shape[1] :]
    assert "Freehold" in tokenizer.decode(out, skip_special_tokens=True)


def test_training_model_has_the_logits_of_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = Nano(NanoConfig(vocab_size=512))
    for layer in model.layers:
        torch.nn.init.normal_(layer.self_attn.o_proj.weight, std=0.06)
    for routed in model.routers():
        routed.bias.normal_(std=0.1)
        routed.router.data *= 5
    kept_float = {id(routed.router) for routed in model.routers()}
    for p in model.parameters():
        if id(p) not in kept_float:
            p.data = p.data.bfloat16().float()
    write_checkpoint(model, tmp_path)
    theirs = DeepseekV3ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    monkeypatch.setattr(Linear, "compute", torch.float32)
    ids = torch.randint(0, 512, (3, 40))
    with torch.no_grad():
        delta = (model.logits(model(ids)) - theirs(ids).logits).abs().max()
    assert delta < 1e-4
