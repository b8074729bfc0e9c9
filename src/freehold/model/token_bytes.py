"""The bytes each token id stands for, from the decoder that tokenizer.json describes.

Three families: byte-level (GPT-2's map of bytes to printable characters: Llama 3, Qwen,
DeepSeek), pieces (▁ for a space, <0xE4> for a lone byte: Llama 2, Mistral) and whole words
(WordPiece, WordLevel). Knows nothing of text; read `tokenizer.py` next.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import tokenizers

from freehold.errors import CheckpointError

_BYTE_PIECE: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")

_KNOWN: Final = frozenset(
    {"ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece"}
)


def _gpt2_bytes() -> dict[str, int]:
    """GPT-2's bytes_to_unicode, turned round: printable bytes are themselves, and the rest
    take the characters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    mapped = {chr(byte): byte for byte in printable}
    return mapped | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTE_OF: Final = _gpt2_bytes()


class TokenBytes:
    """`table[token_id]` is that token's bytes, worked out once; b"" for an unknown id.

    `strips_leading_space`: the family writes a space before the first word, not part of the text.
    """

    def __init__(self, backend: tokenizers.Tokenizer, spec: Mapping[str, Any]) -> None:
        """`spec` is tokenizer.json parsed. Raises CheckpointError for a decoder unknown here."""
        self._backend = backend
        self._added = {
            token_id: token.content.encode()
            for token_id, token in backend.get_added_tokens_decoder().items()
        }
        self._known: dict[int, bytes] = {}
        self._to_bytes, self.strips_leading_space = _family(spec)

    def __getitem__(self, token_id: int) -> bytes:
        if (known := self._known.get(token_id)) is None:
            known = self._known[token_id] = self._find(token_id)
        return known

    def _find(self, token_id: int) -> bytes:
        if (added := self._added.get(token_id)) is not None:
            return added
        in_range = 0 <= token_id < 1 << 32
        token = self._backend.id_to_token(token_id) if in_range else None
        return b"" if token is None else self._to_bytes(token)


def _family(spec: Mapping[str, Any]) -> tuple[Callable[[str], bytes], bool]:
    steps = _steps(spec.get("decoder"))
    kinds = {step.get("type") for step in steps}
    if unknown := kinds - _KNOWN:
        raise CheckpointError(
            f"tokenizer.json has a decoder of type {unknown.pop()}, which is none of those "
            f"read here: {', '.join(sorted(_KNOWN))}."
        )
    if "ByteLevel" in kinds:
        return _byte_level, False
    if "WordPiece" in kinds or not kinds:
        prefix = next((step.get("prefix", "##") for step in steps), "")
        return lambda token: _word(token, prefix), True
    replacements = [("▁", " ")] if "Metaspace" in kinds else []
    for step in steps:
        if step["type"] == "Metaspace" and isinstance(step.get("replacement"), str):
            replacements = [(step["replacement"], " ")]
        pattern = step.get("pattern")
        if step["type"] == "Replace" and isinstance(pattern, dict) and "String" in pattern:
            replacements.append((pattern["String"], step.get("content", "")))
    has_fallback = "ByteFallback" in kinds
    strips = any(
        (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        or (step["type"] == "Strip" and step.get("content") == " " and step.get("start") == 1)
        for step in steps
    )
    return lambda token: _piece(token, replacements, has_fallback), strips


def _steps(decoder: object) -> list[dict[str, Any]]:
    if not isinstance(decoder, dict):
        return []
    if decoder.get("type") == "Sequence":
        return [step for inner in decoder.get("decoders", []) for step in _steps(inner)]
    return [decoder]


def _byte_level(token: str) -> bytes:
    try:
        return bytes([_BYTE_OF[char] for char in token])
    except KeyError:  # not written in the map: the token is its own text
        return token.encode()


def _piece(token: str, replacements: list[tuple[str, str]], has_fallback: bool) -> bytes:
    if has_fallback and (match := _BYTE_PIECE.fullmatch(token)):
        return bytes([int(match[1], 16)])
    for old, new in replacements:
        token = token.replace(old, new)
    return token.encode()


def _word(token: str, continuation: str) -> bytes:
    if continuation and token.startswith(continuation):
        return token[len(continuation) :].encode()
    return f" {token}".encode()
