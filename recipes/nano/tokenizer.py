"""Trains the byte-level BPE tokenizer on the generator's text and writes its four files.

Digits and punctuation stand alone so that numbers and citations copy exactly. Knows nothing of the
model; `data.py` makes the text.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from recipes.nano import data, words

VOCAB_SIZE = 16384
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
PAD, USER, ASSISTANT = "<｜▁pad▁｜>", "<｜User｜>", "<｜Assistant｜>"
SPECIALS = [BOS, EOS, PAD, USER, ASSISTANT]
NUM_CHATS = 60_000
CHAT_TEMPLATE = (
    "{{- bos_token -}}\n"
    "{%- for message in messages -%}\n"
    "{%- if message.role == 'system' -%}{{- message.content -}}\n"
    "{%- elif message.role == 'user' -%}{{- '<｜User｜>' + message.content -}}\n"
    "{%- elif message.role == 'assistant' -%}\n"
    "{{- '<｜Assistant｜>' + message.content + '<｜end▁of▁sentence｜>' -}}\n"
    "{%- endif -%}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<｜Assistant｜>' -}}{%- endif -%}\n"
)
# Merges are learned with a space allowed before any word. Text is then split with no space taken
# before Chinese, so that a name has the same tokens after "[1] " as inside a sentence: learning to
# copy stalled without that. (The few thousand "space + character" entries go unused.)
LEARNED_WORDS = Regex(r"\p{N}| ?[\p{L}\p{M}]+| ?[^\s\p{L}\p{N}\p{M}]|\s+(?!\S)|\s+")
WORDS = Regex(r"\p{N}|\p{Han}+| ?(?:(?!\p{Han})[\p{L}\p{M}])+| ?[^\s\p{L}\p{N}\p{M}]|\s+(?!\S)|\s+")


def texts(seed: int) -> Iterator[str]:
    """Text to learn merges from: chats, and every common character often enough to be a token."""
    for index in range(NUM_CHATS):
        yield "\n".join(m["content"] for m in data.chat(seed, index))
    for _ in range(40):
        yield " ".join(words.HANZI)
        yield " ".join(words.EVERYDAY) + "\n" + " ".join(w.capitalize() for w in words.EVERYDAY)


def split_by(pattern: Regex) -> pre_tokenizers.PreTokenizer:
    """Words by `pattern`, then bytes as printable characters."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def train_tokenizer(seed: int) -> Tokenizer:
    """A byte-level BPE of `VOCAB_SIZE` entries over `texts(seed)`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split_by(LEARNED_WORDS)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=12,
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(seed), trainer)
    tokenizer.pre_tokenizer = split_by(WORDS)
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "model_max_length": 2048,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
    )
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def encode_chat(
    tokenizer: Tokenizer, messages: list[dict[str, str]]
) -> tuple[list[int], list[int]]:
    """Token ids of the rendered chat, and 1 for each id that the assistant has to say."""
    bos, eos, user, assistant = (tokenizer.token_to_id(t) for t in (BOS, EOS, USER, ASSISTANT))
    ids, said = [bos], [0]
    for message in messages:
        content = tokenizer.encode(message["content"], add_special_tokens=False).ids
        role = message["role"]
        head = {"system": [], "user": [user], "assistant": [assistant]}[role]
        tail = [eos] if role == "assistant" else []
        ids += head + content + tail
        said += [0] * len(head) + [int(role == "assistant")] * (len(content) + len(tail))
    return ids, said
