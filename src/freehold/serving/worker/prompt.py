"""From a request's prompt to token ids: renders the chat template, tokenizes.

Long prompts go to a thread, so that the event loop keeps serving others. Knows no engine. Read
`engine_backend.py` next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from freehold.engine.detokenizer import DecodeStream
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.serving.bounds import prompt_bytes
from freehold.serving.convert import messages_from_proto
from freehold.types import ChatMessage

MAX_BYTES_ON_LOOP = 8 * 1024  # below a millisecond to render and tokenize


class Tokenizer(Protocol):
    """What a worker needs of `freehold.model.tokenizer.Tokenizer`."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]: ...

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str: ...

    def is_special(self, token_id: int) -> bool: ...

    def new_stream(self) -> DecodeStream: ...


class Template(Protocol):
    """What a worker needs of `freehold.model.chat_template.ChatTemplate`."""

    def render(
        self, messages: Sequence[ChatMessage], add_generation_prompt: bool = True
    ) -> str: ...


@dataclass(frozen=True, slots=True)
class Prompt:
    token_ids: list[int]
    text: str


async def read_prompt(
    request: pb.GenerateRequest | pb.TokenizeRequest, tokenizer: Tokenizer, template: Template
) -> Prompt:
    """Raises TemplateError when the template refuses the messages."""
    if prompt_bytes(request) > MAX_BYTES_ON_LOOP:
        return await asyncio.to_thread(_read, request, tokenizer, template)
    return _read(request, tokenizer, template)


def _read(
    request: pb.GenerateRequest | pb.TokenizeRequest, tokenizer: Tokenizer, template: Template
) -> Prompt:
    kind = request.WhichOneof("prompt")
    if kind == "chat":
        text = template.render(messages_from_proto(request.chat))
        # The template writes its special tokens itself.
        return Prompt(tokenizer.encode(text, add_special_tokens=False), text)
    if isinstance(request, pb.GenerateRequest) and kind == "tokens":
        ids = list(request.tokens.ids)
        # Ids outside the vocabulary are the engine's to refuse, in its own words.
        return Prompt(ids, "")
    return Prompt(tokenizer.encode(request.text), request.text)
