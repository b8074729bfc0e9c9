"""Text to token ids and back, over tokenizer.json and the Rust `tokenizers` library.

Encoding is the library's. Decoding is done here on bytes: each token stands for some bytes, and
text is the UTF-8 of their concatenation. So a stream costs constant time a token and equals the
whole decode by construction. Knows nothing of chat; read `chat_template.py` next.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import tokenizers

from freehold.errors import CheckpointError, InvalidRequest
from freehold.model import json_file
from freehold.model.generation_config import eos_token_ids
from freehold.model.token_bytes import TokenBytes

MAX_TOKENIZER_BYTES: Final = 128 << 20
MAX_TOKEN_ID: Final = 1 << 24
_SPECIAL_NAMES: Final = ("bos_token", "eos_token", "unk_token", "pad_token")


class Tokenizer:
    """A loaded tokenizer. Safe to use from several threads."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        token_bytes: TokenBytes,
        *,
        special_tokens: Mapping[str, str] | None = None,
        eos_token_ids: Iterable[int] = (),
        surround: tuple[list[int], list[int]] | None = None,
    ) -> None:
        """`surround` is put around a text with special tokens, None where the backend does it.

        `special_tokens` maps "bos_token" and the like to their text.
        """
        self.backend = backend
        self.special_tokens = dict(special_tokens or {})
        self.eos_token_ids = frozenset(eos_token_ids)
        self._surround = surround
        self._bytes = token_bytes
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        """One more than the largest id."""
        added = backend.get_added_tokens_decoder()
        self._special_ids = frozenset(i for i, token in added.items() if token.special)

    @classmethod
    def load(cls, directory: str | Path) -> Tokenizer:
        """Read tokenizer.json and, where they exist, tokenizer_config.json,
        special_tokens_map.json, config.json and generation_config.json.

        Raises CheckpointError naming the file that is missing or malformed.
        """
        directory = Path(directory)
        spec, backend = _load_backend(directory)
        settings = json_file.read_optional_object(directory / "tokenizer_config.json")
        named = json_file.read_optional_object(directory / "special_tokens_map.json") | settings
        _add_tokens(backend, settings.get("added_tokens_decoder"))
        special = {key: text for key in _SPECIAL_NAMES if (text := _content(named.get(key)))}
        eos = {
            token_id
            for file in ("config.json", "generation_config.json")
            for token_id in eos_token_ids(json_file.read_optional_object(directory / file), file)
        }
        if (eos_id := backend.token_to_id(special.get("eos_token", ""))) is not None:
            eos.add(eos_id)
        return cls(
            backend,
            TokenBytes(backend, spec),
            special_tokens=special,
            eos_token_ids=eos,
            surround=_surround(backend, settings, special),
        )

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of the whole text, never truncated or padded.

        Raises InvalidRequest for a str that is not Unicode text (a lone surrogate in it).
        """
        outer = add_special_tokens and self._surround is None
        try:
            ids: list[int] = self.backend.encode(text, add_special_tokens=outer).ids
        except TypeError:
            raise InvalidRequest(
                "The text holds half of a surrogate pair, which is not a character; remove it."
            ) from None
        if add_special_tokens and self._surround is not None:
            before, after = self._surround
            return [*before, *ids, *after]
        return ids

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of the ids; U+FFFD where their bytes are not UTF-8."""
        stream = self.new_stream(skip_special_tokens)
        pieces = [self._bytes[i] for i in ids if not stream.skips(i)]
        return stream.feed(b"".join(pieces)) + stream.flush()

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token adds to the text; b"" for an id the vocabulary does not have."""
        return self._bytes[token_id]

    def token_text(self, token_id: int) -> str:
        """The token's own text, with U+FFFD where it is part of a character."""
        return self._bytes[token_id].decode("utf-8", "replace")

    def is_special(self, token_id: int) -> bool:
        return token_id in self._special_ids

    def new_stream(self, skip_special_tokens: bool = True) -> DecodeStream:
        return DecodeStream(self._bytes, self._special_ids if skip_special_tokens else frozenset())


class DecodeStream:
    """Decodes one output token by token: the pushes and the flush together equal `decode`."""

    __slots__ = ("_bytes", "_decoder", "_skipped", "_strip")

    def __init__(self, token_bytes: TokenBytes, skipped: frozenset[int]) -> None:
        self._bytes = token_bytes
        self._skipped = skipped
        self._strip = token_bytes.strips_leading_space
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """The text this token completes; '' while its character is unfinished."""
        if token_id in self._skipped:
            return ""
        return self.feed(self._bytes[token_id])

    def flush(self) -> str:
        """What is left at the end: U+FFFD for an unfinished character, or ''."""
        return self.feed(b"", final=True)

    def skips(self, token_id: int) -> bool:
        return token_id in self._skipped

    def feed(self, data: bytes, final: bool = False) -> str:
        """Push bytes instead of a token."""
        text = self._decoder.decode(data, final)
        if self._strip and text:  # only the very first character of the text
            self._strip = False
            return text.removeprefix(" ")
        return text


def _load_backend(directory: Path) -> tuple[dict[str, Any], tokenizers.Tokenizer]:
    path = directory / "tokenizer.json"
    if not path.exists():
        raise CheckpointError(
            "The model directory has no tokenizer.json; save its tokenizer with transformers, "
            "which writes one."
        )
    text = json_file.read_text(path, MAX_TOKENIZER_BYTES)
    spec = json_file.parse_object(text, path.name)
    try:
        backend = tokenizers.Tokenizer.from_str(text)
        largest = max(backend.get_vocab(with_added_tokens=True).values(), default=-1)
    except Exception as error:  # a foreign border: the library raises nothing narrower
        reason = str(error).splitlines()[0][:200]
        raise CheckpointError(f"tokenizer.json cannot be read: {reason}.") from None
    if not 0 <= largest < MAX_TOKEN_ID:
        raise CheckpointError(
            f"tokenizer.json must number its tokens below {MAX_TOKEN_ID:,}; the largest is "
            f"{largest:,}."
        )
    # What a file says of lengths is for training batches: silently cut prompts otherwise.
    backend.no_truncation()
    backend.no_padding()
    return spec, backend


def _add_tokens(backend: tokenizers.Tokenizer, declared: object) -> None:
    """Add what tokenizer_config.json declares and tokenizer.json does not have."""
    if declared is None:
        return
    if not isinstance(declared, dict):
        raise CheckpointError("added_tokens_decoder in tokenizer_config.json must be an object.")
    known = backend.get_added_tokens_decoder()
    entries = {
        int(key): entry
        for key, entry in declared.items()
        if key.isdecimal() and isinstance(entry, dict) and _content(entry)
    }
    if len(entries) < len(declared):
        raise CheckpointError(
            "added_tokens_decoder in tokenizer_config.json must map ids to tokens with content."
        )
    for token_id, entry in sorted(entries.items()):
        if token_id in known:
            continue
        flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
        options = {flag: entry[flag] for flag in flags if isinstance(entry.get(flag), bool)}
        content = entry["content"]
        backend.add_tokens([tokenizers.AddedToken(content, **options)])
        if backend.token_to_id(content) != token_id:
            raise CheckpointError(
                f"tokenizer_config.json gives the token {content!r} the id {token_id}, but "
                f"tokenizer.json makes it {backend.token_to_id(content)}."
            )


def _content(token: object) -> str | None:
    """A special token is written as its text or as an object that has it."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) and text else None


def _surround(
    backend: tokenizers.Tokenizer, settings: Mapping[str, Any], special: Mapping[str, str]
) -> tuple[list[int], list[int]] | None:
    """What add_bos_token and add_eos_token ask for; None where neither is said.

    Where one of them is said it rules over the post-processor of tokenizer.json, as it did in
    transformers 4 for Llama's tokenizer class: DeepSeek's files state their BOS only here.
    """
    asked = {name: settings.get(f"add_{name}") for name in ("bos_token", "eos_token")}
    if all(value is None for value in asked.values()):
        return None
    ids: list[list[int]] = []
    for name in ("bos_token", "eos_token"):
        if not asked[name] or name not in special:
            ids.append([])
        elif (token_id := backend.token_to_id(special[name])) is not None:
            ids.append([token_id])
        else:
            raise CheckpointError(
                f"tokenizer_config.json asks to add the {name} {special[name]!r}, which "
                "tokenizer.json does not have."
            )
    return ids[0], ids[1]
