"""POST /v1/completions: a generation in the shape of OpenAI's legacy text completions.

Several prompts, `echo` and the legacy logprobs (tokens, token_logprobs, top_logprobs,
text_offset) live here. Knows no HTTP. Read `app.py` next.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterable, Sequence
from typing import Any

from freehold.rpc.v1 import messages_pb2 as pb
from freehold.serving.gateway.generation import Generation, Usage
from freehold.serving.gateway.openai_chat import finite, usage_object
from freehold.serving.gateway.requests import CompletionBody


class _Logprobs:
    """The legacy shape, gathered token by token; offsets count characters of the choice's text."""

    def __init__(self) -> None:
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._clear()

    def add(self, own: pb.TokenLogprob, top: Sequence[pb.TokenLogprob]) -> None:
        self._append(token_name(own), own.token_bytes)
        self._logprobs.append(finite(own.logprob))
        self._tops.append({token_name(t): finite(t.logprob) for t in top})

    def add_first(self, token_bytes: bytes) -> None:
        """The first token of a prompt: nothing stands before it to predict it from."""
        self._append(token_bytes.decode(errors="replace"), token_bytes)
        self._logprobs.append(None)
        self._tops.append(None)

    def _append(self, name: str, token_bytes: bytes) -> None:
        self._tokens.append(name)
        self._offsets.append(self._offset)
        self._offset += len(self._decoder.decode(token_bytes))

    def take(self) -> dict[str, Any]:
        """What was gathered since the last time."""
        taken = {
            "tokens": self._tokens,
            "token_logprobs": self._logprobs,
            "top_logprobs": self._tops,
            "text_offset": self._offsets,
        }
        self._clear()
        return taken

    def _clear(self) -> None:
        self._tokens: list[str] = []
        self._logprobs: list[float | None] = []
        self._tops: list[dict[str, float] | None] = []
        self._offsets: list[int] = []


class Completion:
    """The choices of one request while they come; used by the stream and by the whole answer."""

    def __init__(self, body: CompletionBody, generation: Generation) -> None:
        self._body = body
        self._generation = generation
        self._logprobs = [_Logprobs() for _ in range(generation.spec.num_streams)]
        self._frame = {
            "id": f"cmpl-{generation.request_id}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.model,
        }

    def chunks(self, event: pb.GenerateEvent) -> Iterable[dict[str, Any]]:
        """The event as chunks of a stream: none or one."""
        text, finish_reason = self._take(event)
        has_prompt = self._body.echo and event.HasField("started")
        is_scored = self._body.logprobs is not None and event.HasField("token")
        if text or finish_reason or has_prompt or (is_scored and not self._body.is_echo_only):
            tail = {"usage": None} if self._body.includes_usage else {}
            yield self._answer([self._choice(event.stream, text, finish_reason)], tail)

    def usage_chunk(self) -> dict[str, Any]:
        return self._answer([], {"usage": usage_object(self._usage())})

    async def whole(self) -> dict[str, Any]:
        texts: list[list[str]] = [[] for _ in self._logprobs]
        reasons = ["" for _ in self._logprobs]
        async for event in self._generation.events():
            text, finish_reason = self._take(event)
            texts[event.stream].append(text)
            reasons[event.stream] = finish_reason or ""
        choices = [
            self._choice(index, "".join(pieces), reasons[index])
            for index, pieces in enumerate(texts)
        ]
        return self._answer(choices, {"usage": usage_object(self._usage())})

    def _take(self, event: pb.GenerateEvent) -> tuple[str, str | None]:
        """The event's text and finish reason, its logprobs put by."""
        logprobs = self._logprobs[event.stream]
        if event.HasField("started"):
            if not self._body.echo:
                return "", None
            prompt_logprobs(event.started, logprobs)
            return event.started.prompt_text, None
        if event.HasField("token"):
            if self._body.is_echo_only:
                return "", None
            token = event.token
            if token.HasField("logprob"):
                logprobs.add(token.logprob, token.top_logprobs)
            return token.reasoning + token.text, None
        finished = event.finished
        if self._body.is_echo_only:
            return "", "length"
        return finished.reasoning + finished.text, finished.reason

    def _choice(self, index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
        has_logprobs = self._body.logprobs is not None
        return {
            "index": index,
            "text": text,
            "logprobs": self._logprobs[index].take() if has_logprobs else None,
            "finish_reason": finish_reason,
        }

    def _answer(self, choices: list[dict[str, Any]], tail: dict[str, Any]) -> dict[str, Any]:
        return {
            **self._frame,
            "system_fingerprint": self._generation.revision,
            "choices": choices,
            **tail,
        }

    def _usage(self) -> Usage:
        usage = self._generation.usage()
        if self._body.is_echo_only:
            usage.completion_tokens = 0
        return usage


def prompt_logprobs(started: pb.Started, into: _Logprobs) -> None:
    """The prompt's tokens with their probabilities; entry 0 of each is the token itself.

    The first token has no entry. Its text is what the others leave of the prompt: nothing where it
    is a beginning-of-text mark that the tokenizer added.
    """
    entries = started.prompt_logprobs
    if not entries:
        return
    rest = b"".join(entry.top[0].token_bytes for entry in entries[1:] if entry.top)
    whole = started.prompt_text.encode()
    first = whole.removesuffix(rest) if len(whole) > len(rest) else b""
    into.add_first(first)
    for entry in entries[1:]:
        into.add(entry.top[0], entry.top[1:])


def token_name(token: pb.TokenLogprob) -> str:
    """Its text; a part of a character by its bytes, as OpenAI does, so that no two are alike."""
    if "\ufffd" not in token.text:
        return token.text
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.token_bytes)
