"""Tokens to text and back: our byte-wise decoding against the tokenizers library's own, against
transformers, and against token ids that llama.cpp publishes for real vocabularies."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

from freehold.errors import CheckpointError, InvalidRequest
from freehold.model.tokenizer import Tokenizer

CORPUS = [
    "The quick brown fox jumps over the lazy dog, again and again; it's 1234 o'clock.",
    "今天天气很好，我们去公园散步。机器学习模型在本地运行。你好，世界！",
    "def f(x):\n    return {k: v for k, v in x.items() if v != '\\n'}  # comment\n\tTab",
    "👩‍👩‍👧‍👦 🎉 é ñ ü — café naïve Ελληνικά עברית",
] * 3

texts = st.lists(
    st.one_of(
        st.sampled_from([*CORPUS, "<|end|>", "<s>", " ", "  ", "\n", "▁", "<0xE4>"]),
        st.text(max_size=12),
        st.text("ab 的是🎉👩‍👧é\n\t", max_size=20),
    ),
    max_size=6,
).map("".join)


def byte_level() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def pieces() -> tokenizers.Tokenizer:
    """Llama 2's kind: ▁ for spaces, bytes where the vocabulary has no character."""
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)}
    chars = sorted({c for text in CORPUS for c in text.replace(" ", "▁") if c.isascii()} | {"▁"})
    for piece in [*chars, "▁t", "▁a", "th", "an"]:
        vocab.setdefault(piece, len(vocab))
    merges = [("▁", "t"), ("▁", "a"), ("t", "h"), ("a", "n")]
    backend = tokenizers.Tokenizer(models.BPE(vocab, merges, byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return backend


def save(directory: Path, backend: tokenizers.Tokenizer, **files: object) -> Path:
    backend.save(str(directory / "tokenizer.json"))
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    return directory


@pytest.fixture(scope="module", params=["byte_level", "pieces", "metaspace"])
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    backend = byte_level() if request.param == "byte_level" else pieces()
    if request.param == "metaspace":
        backend.normalizer = None
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    backend.add_special_tokens(["<s>", "<|end|>"])
    return Tokenizer.load(save(tmp_path_factory.mktemp(request.param), backend))


@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_stream_and_whole_decode_equal_the_library(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    for skip in (True, False):
        expected = tokenizer.backend.decode(ids, skip_special_tokens=skip)
        if "\ufffd" not in expected:
            assert tokenizer.decode(ids, skip_special_tokens=skip) == expected
        stream = tokenizer.new_stream(skip_special_tokens=skip)
        pushed = [stream.push(token_id) for token_id in ids]
        assert "".join(pushed) + stream.flush() == tokenizer.decode(ids, skip)
        if "\ufffd" not in text:
            assert "\ufffd" not in "".join(pushed)


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 420), max_size=40))
def test_stream_of_arbitrary_ids_equals_whole_decode(tokenizer: Tokenizer, ids: list[int]) -> None:
    stream = tokenizer.new_stream()
    text = "".join(stream.push(token_id) for token_id in ids) + stream.flush()
    assert text == tokenizer.decode(ids)
    joined = b"".join(tokenizer.token_bytes(i) for i in ids if not tokenizer.is_special(i))
    whole = joined.decode("utf-8", "replace")
    assert text in (whole, whole.removeprefix(" "))


def test_unfinished_character_waits_and_flush_gives_what_is_left(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("x🦊")
    stream = tokenizer.new_stream()
    pushed = [stream.push(token_id) for token_id in ids]
    assert len(ids) >= 3, "the emoji must span several tokens for this test to mean something"
    assert pushed[-1] == "🦊"
    assert "".join(pushed[:-1]) == "x"
    assert stream.flush() == ""
    stream = tokenizer.new_stream()
    assert "".join(stream.push(token_id) for token_id in ids[:-1]).strip() == "x"
    assert stream.flush() == "\ufffd"


def test_token_bytes_are_the_bytes_of_the_text(tokenizer: Tokenizer) -> None:
    for text in CORPUS[:4]:
        joined = b"".join(tokenizer.token_bytes(i) for i in tokenizer.encode(text))
        assert joined.decode() in (text, f" {text}")


def test_unknown_ids_have_no_bytes(tokenizer: Tokenizer) -> None:
    for token_id in (-1, tokenizer.vocab_size, 1 << 32, 1 << 70):
        assert tokenizer.token_bytes(token_id) == b""
        assert tokenizer.token_text(token_id) == ""
    assert tokenizer.token_bytes(tokenizer.vocab_size - 1) != b""


def test_added_tokens_are_their_own_text(tmp_path: Path) -> None:
    backend = byte_level()
    backend.add_tokens([AddedToken("é▁x"), AddedToken("ĠĊ")])  # also where the map has the chars
    tokenizer = Tokenizer.load(save(tmp_path, backend))
    for content in ("é▁x", "ĠĊ"):
        token_id = tokenizer.backend.token_to_id(content)
        assert tokenizer.token_bytes(token_id) == content.encode()
        assert not tokenizer.is_special(token_id)
    assert tokenizer.decode(tokenizer.encode("aé▁xb")) == "aé▁xb"


def test_byte_fallback_and_byte_map_give_single_bytes(tmp_path: Path) -> None:
    fallback = Tokenizer.load(save(tmp_path, pieces()))
    assert fallback.token_bytes(fallback.backend.token_to_id("<0xE4>")) == b"\xe4"
    mapped = Tokenizer.load(save(tmp_path, byte_level()))
    singles = {mapped.token_bytes(i) for i in range(mapped.vocab_size)}
    assert {bytes([byte]) for byte in range(256)} <= singles


def test_streaming_is_linear_in_the_number_of_tokens(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(save(tmp_path, byte_level()))
    ids = tokenizer.encode(CORPUS[1]) * 2000

    def seconds(part: list[int]) -> float:
        stream = tokenizer.new_stream()
        start = time.perf_counter()
        for token_id in part:
            stream.push(token_id)
        return time.perf_counter() - start

    short = min(seconds(ids[: len(ids) // 16]) for _ in range(5))
    assert min(seconds(ids) for _ in range(3)) < 16 * short * 4  # quadratic would be 256 times


def test_truncation_and_padding_of_the_file_are_reset(tmp_path: Path) -> None:
    backend = byte_level()
    backend.enable_truncation(4)
    backend.enable_padding(length=16)
    tokenizer = Tokenizer.load(save(tmp_path, backend))
    assert len(tokenizer.encode("x")) == 1
    assert tokenizer.decode(tokenizer.encode(CORPUS[0])) == CORPUS[0]


def test_eos_ids_come_from_all_three_configurations(tmp_path: Path) -> None:
    backend = byte_level()
    backend.add_special_tokens(["<|end|>"])
    save(
        tmp_path,
        backend,
        config={"eos_token_id": 3},
        generation_config={"eos_token_id": [4, 5]},
        tokenizer_config={"eos_token": {"content": "<|end|>"}},
    )
    end = backend.token_to_id("<|end|>")
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.eos_token_ids == {3, 4, 5, end}
    assert tokenizer.special_tokens == {"eos_token": "<|end|>"}


@pytest.mark.parametrize("add_bos", [True, False])
@pytest.mark.parametrize("add_eos", [True, False, None])
def test_added_bos_and_eos_equal_transformers(
    tmp_path: Path, add_bos: bool, add_eos: bool | None
) -> None:
    transformers = pytest.importorskip("transformers")
    backend = byte_level()
    backend.add_special_tokens(["<s>", "</s>"])
    config = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": add_bos}
    if add_eos is not None:
        config["add_eos_token"] = add_eos
    save(tmp_path, backend, tokenizer_config=config)
    # Handed over, not from_pretrained: transformers 4 reads the flags from the file for Llama's
    # tokenizers (which DeepSeek names), transformers 5 no longer does.
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), **config
    )
    ours = Tokenizer.load(tmp_path)
    for text in ("Hello", "", "<s>again 你好"):
        assert ours.encode(text) == theirs.encode(text)
        assert ours.encode(text, False) == theirs.encode(text, add_special_tokens=False)


def test_post_processor_rules_where_the_configuration_is_silent(tmp_path: Path) -> None:
    backend = byte_level()
    backend.add_special_tokens(["<s>"])
    bos = backend.token_to_id("<s>")
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", bos)]
    )
    tokenizer = Tokenizer.load(save(tmp_path, backend, tokenizer_config={"bos_token": "<s>"}))
    assert tokenizer.encode("x")[0] == bos
    assert tokenizer.encode("x", add_special_tokens=False)[0] != bos


def test_tokens_declared_only_in_tokenizer_config_are_added(tmp_path: Path) -> None:
    backend = byte_level()
    next_id = backend.get_vocab_size()
    declared = {str(next_id): {"content": "<think>"}, str(next_id + 1): _special("<|end|>")}
    save(tmp_path, backend, tokenizer_config={"added_tokens_decoder": declared})
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode("<think><|end|>") == [next_id, next_id + 1]
    assert tokenizer.is_special(next_id + 1)
    assert not tokenizer.is_special(next_id)
    assert tokenizer.vocab_size == next_id + 2


def _special(content: str) -> dict[str, object]:
    return {"content": content, "special": True}


def test_lone_surrogate_is_a_request_error(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(save(tmp_path, byte_level()))
    with pytest.raises(InvalidRequest, match="surrogate"):
        tokenizer.encode("bad \ud800 text")


BAD = {
    "not JSON": ("tokenizer", "{", "tokenizer.json is not valid JSON"),
    "no model": ("tokenizer", "{}", "tokenizer.json cannot be read"),
    "not an object": ("tokenizer", "[]", "tokenizer.json must hold a JSON object"),
    "deep nesting": ("tokenizer", "[" * 100_000, "tokenizer.json is not valid JSON"),
    "negative id": (
        "tokenizer",
        '{"version":"1.0","model":{"type":"BPE","vocab":{"a":-1},"merges":[]}}',
        "tokenizer.json cannot be read",
    ),
    "huge id": (
        "tokenizer",
        '{"version":"1.0","model":{"type":"BPE","vocab":{"a":4000000000},"merges":[]}}',
        "number its tokens below",
    ),
    "foreign decoder": (
        "tokenizer",
        '{"version":"1.0","decoder":{"type":"CTC","pad_token":"a","word_delimiter_token":"b",'
        '"cleanup":false},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}',
        "decoder of type CTC",
    ),
    "config not JSON": ("tokenizer_config", "nope", "tokenizer_config.json is not valid JSON"),
    "added tokens a list": (
        "tokenizer_config",
        '{"added_tokens_decoder": []}',
        "added_tokens_decoder in tokenizer_config.json must be an object",
    ),
    "added token without content": (
        "tokenizer_config",
        '{"added_tokens_decoder": {"9999": {}}}',
        "added_tokens_decoder in tokenizer_config.json must map ids",
    ),
    "added token at another id": (
        "tokenizer_config",
        '{"added_tokens_decoder": {"9999": {"content": "<x>"}}}',
        "gives the token '<x>' the id 9999",
    ),
    "unknown BOS": (
        "tokenizer_config",
        '{"add_bos_token": true, "bos_token": "<nowhere>"}',
        "asks to add the bos_token '<nowhere>'",
    ),
    "EOS not an id": ("generation_config", '{"eos_token_id": "two"}', "eos_token_id in generation"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_give_one_clear_sentence(tmp_path: Path, case: str) -> None:
    file, content, expected = BAD[case]
    save(tmp_path, byte_level())
    (tmp_path / f"{file}.json").write_text(content)
    with pytest.raises(CheckpointError, match=expected) as caught:
        Tokenizer.load(tmp_path)
    assert str(tmp_path) not in caught.value.message
    assert "\n" not in caught.value.message


def test_directory_without_tokenizer_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)


DATA = Path(os.environ.get("FREEHOLD_TEST_DATA", "/nonexistent")) / "tokenizers"


@pytest.mark.parametrize("name", ["deepseek-llm", "gpt-2"])
def test_published_ids_of_real_vocabularies_decode_to_their_texts(
    tmp_path: Path, name: str
) -> None:
    """llama.cpp keeps texts and the ids that Hugging Face's own tokenizer gave them."""
    gguf = pytest.importorskip("gguf")
    path = DATA / f"ggml-vocab-{name}.gguf"
    if not path.exists():
        pytest.skip("set FREEHOLD_TEST_DATA to a folder with tokenizers/ggml-vocab-*.gguf")
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ", 1)) for m in fields["tokenizer.ggml.merges"].contents()]
    backend = tokenizers.Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([tokens[i] for i, kind in enumerate(types) if kind != 1])
    tokenizer = Tokenizer.load(save(tmp_path, backend))
    inputs = path.with_suffix(".gguf.inp").read_text().removesuffix("\n__ggml_vocab_test__\n")
    outputs = path.with_suffix(".gguf.out").read_text().splitlines()
    pairs = list(zip(inputs.split("\n__ggml_vocab_test__\n"), outputs, strict=True))
    assert len(pairs) > 40
    for text, line in pairs:
        ids = [int(number) for number in line.split()]
        stream = tokenizer.new_stream()
        assert "".join(stream.push(token_id) for token_id in ids) + stream.flush() == text
        assert tokenizer.decode(ids) == text
        if name == "gpt-2":  # its pre-tokenizer is ByteLevel's own; DeepSeek's is not in GGUF
            assert tokenizer.encode(text) == ids
