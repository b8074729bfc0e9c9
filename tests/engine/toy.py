"""A model and a tokenizer, tiny and exact, with the faces the engine needs.

The model's logits are a hash of (token, position) of every key it reads back through the paged
cache, so that one wrong slot, block table, position or stale block changes every later token.
"""

from __future__ import annotations

import codecs
import time
from types import SimpleNamespace

import numpy as np
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from freehold.ops import BatchLayout
from freehold.ops.reference import ReferenceOps

WORDS = ["the", "he", "hel", "hello", "wor", "world", "ab", "bc", "abc", "er", "in", "on", "你好"]
EOS = ("<eos>", "<end>")
NUM_PADDING = 6  # ids the model has and the tokenizer has not


def _mix(x):
    """splitmix64's finaliser, on uint64 arrays."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


class ToyModel:
    """`eos_bias` is added to the EOS logits, to end answers soon (or never, below -20).

    `step_seconds` is slept in each forward, for tests that must catch a request in the middle.
    """

    cache_bytes_per_token = 16
    has_mtp = False

    def __init__(
        self, vocab_size: int, eos: tuple[int, ...], context=512, eos_bias=0.0, step_seconds=0.0
    ):
        self.config = SimpleNamespace(
            vocab_size=vocab_size, max_position_embeddings=context, eos_token_ids=eos
        )
        self.ops = ReferenceOps()  # of which the engine itself calls sample and logprobs
        self.eos_bias = np.float32(eos_bias)
        self.step_seconds = step_seconds

    def make_caches(self, num_blocks, block_size):
        return [np.full((num_blocks * block_size, 2), -1, np.int64)]

    def forward(self, token_ids, layout: BatchLayout, caches):
        (cache,) = caches
        time.sleep(self.step_seconds)
        cache[layout.slots] = np.stack([token_ids, layout.positions], axis=1)
        hashes = np.zeros(len(token_ids), np.uint64)
        for r, table in enumerate(layout.block_tables):
            rows = slice(layout.query_starts[r], layout.query_starts[r + 1])
            keys = np.arange(layout.context_lens[r])
            size = layout.block_size
            content = cache[table[keys // size].astype(np.int64) * size + keys % size]
            token, position = content.astype(np.uint64).T
            with np.errstate(over="ignore"):
                prefix = np.cumsum(_mix(_mix(token + np.uint64(1)) + position))
            hashes[rows] = prefix[layout.positions[rows]]
        shifts = np.array([0, 16, 32, 48], np.uint64)
        return ((hashes[:, None] >> shifts) & np.uint64(0xFFFF)).astype(np.float32)

    def logits(self, hidden):
        shifts = np.array([0, 16, 32, 48], np.uint64)
        hashes = (hidden.astype(np.uint64) << shifts).sum(axis=1, dtype=np.uint64)
        ids = np.arange(self.config.vocab_size, dtype=np.uint64)
        with np.errstate(over="ignore"):
            mixed = _mix(hashes[:, None] + _mix(ids + np.uint64(7)))
        logits = (mixed >> np.uint64(40)).astype(np.float32) * np.float32(8 / 2**24)
        logits[:, list(self.config.eos_token_ids)] += self.eos_bias
        return logits


class ToyStream:
    def __init__(self, tokenizer, skip_special_tokens):
        self._tokenizer, self._skip = tokenizer, skip_special_tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id):
        if self._skip and self._tokenizer.is_special(token_id):
            return ""
        return self._decoder.decode(self._tokenizer.token_bytes(token_id))

    def flush(self):
        return self._decoder.decode(b"", final=True)


class ToyTokenizer:
    """Byte-level: all 256 bytes, some words (one of two Chinese characters), two EOS tokens."""

    def __init__(self):
        to_char = _byte_chars()
        self._bytes = [bytes([b]) for b in range(256)] + [word.encode() for word in WORDS]
        vocab = {"".join(to_char[b] for b in piece): i for i, piece in enumerate(self._bytes)}
        self.backend = Backend(models.BPE(vocab, []))
        self.backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.backend.decoder = decoders.ByteLevel()
        self.backend.add_special_tokens([AddedToken(text, special=True) for text in EOS])
        self._special = range(len(self._bytes), len(self._bytes) + len(EOS))
        self._bytes += [text.encode() for text in EOS]
        self.eos_token_ids = frozenset(self._special)
        self.vocab_size = len(self._bytes)

    def encode(self, text, add_special_tokens=True):
        return self.backend.encode(text).ids

    def decode(self, ids, skip_special_tokens=True):
        kept = [i for i in ids if not (skip_special_tokens and self.is_special(i))]
        return b"".join(map(self.token_bytes, kept)).decode("utf-8", "replace")

    def token_bytes(self, token_id):
        return self._bytes[token_id] if token_id < len(self._bytes) else b""

    def token_text(self, token_id):
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def is_special(self, token_id):
        return token_id in self._special

    def new_stream(self, skip_special_tokens=True):
        return ToyStream(self, skip_special_tokens)


def _byte_chars() -> list[str]:
    """GPT-2's printable character for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    chars = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    return [chars[b] for b in range(256)]


def toy(**options):
    """A model and its tokenizer; options are ToyModel's."""
    tokenizer = ToyTokenizer()
    vocab_size = tokenizer.vocab_size + NUM_PADDING
    return ToyModel(vocab_size, tuple(tokenizer.eos_token_ids), **options), tokenizer
