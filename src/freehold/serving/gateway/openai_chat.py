"""POST /v1/chat/completions: a generation in the shape of OpenAI's chat completions.

Knows how answers look, not how they come: see `generation.py`. Read `openai_completions.py` next.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from freehold.rpc.v1 import messages_pb2 as pb
from freehold.serving.gateway.generation import Generation, Usage
from freehold.serving.gateway.requests import ChatBody


class ChatChunks:
    """Each event of a generation as chunks of a stream; `usage_chunk()` goes last, if asked."""

    def __init__(self, body: ChatBody, generation: Generation) -> None:
        self._wants_logprobs = body.logprobs
        self._begun: set[int] = set()
        self._generation = generation
        self._frame = {
            "id": f"chatcmpl-{generation.request_id}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": body.model,
        }
        self._tail = {"usage": None} if body.includes_usage else {}

    def of(self, event: pb.GenerateEvent) -> Iterable[dict[str, Any]]:
        index = event.stream
        if event.HasField("started"):
            return
        if index not in self._begun:
            self._begun.add(index)
            yield self._chunk(index, {"role": "assistant", "content": ""})
        if event.HasField("token"):
            token = event.token
            delta = _delta(token.text, token.reasoning)
            if delta or self._wants_logprobs:
                logprobs = [token_logprob(token)] if self._wants_logprobs else None
                yield self._chunk(index, delta, logprobs)
        else:
            finished = event.finished
            delta = _delta(finished.text, finished.reasoning)
            yield self._chunk(index, delta, finish_reason=finished.reason)

    def usage_chunk(self) -> dict[str, Any]:
        return {
            **self._frame,
            "system_fingerprint": self._generation.revision,
            "choices": [],
            "usage": usage_object(self._generation.usage()),
        }

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: list[dict[str, Any]] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        return {
            **self._frame,
            "system_fingerprint": self._generation.revision,
            "choices": [
                {
                    "index": index,
                    "delta": delta,
                    "logprobs": None if logprobs is None else logprobs_object(logprobs),
                    "finish_reason": finish_reason,
                }
            ],
            **self._tail,
        }


async def chat_completion(body: ChatBody, generation: Generation) -> dict[str, Any]:
    """The whole answer as one object."""
    choices = [_Answer() for _ in range(generation.spec.num_streams)]
    async for event in generation.events():
        choices[event.stream].add(event)
    return {
        "id": f"chatcmpl-{generation.request_id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.model,
        "system_fingerprint": generation.revision,
        "choices": [
            {
                "index": index,
                "message": choice.message(),
                "logprobs": logprobs_object(choice.logprobs) if body.logprobs else None,
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(choices)
        ],
        "usage": usage_object(generation.usage()),
    }


class _Answer:
    """One choice while it is gathered."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.reasonings: list[str] = []
        self.logprobs: list[dict[str, Any]] = []
        self.finish_reason = ""

    def add(self, event: pb.GenerateEvent) -> None:
        if event.HasField("started"):
            return
        piece = event.token if event.HasField("token") else event.finished
        self.texts.append(piece.text)
        self.reasonings.append(piece.reasoning)
        if isinstance(piece, pb.Finished):
            self.finish_reason = piece.reason
        elif piece.HasField("logprob"):
            self.logprobs.append(token_logprob(piece))

    def message(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(self.texts), "refusal": None}
        if reasoning := "".join(self.reasonings):
            message |= {"reasoning_content": reasoning, "reasoning": reasoning}
        return message


def _delta(text: str, reasoning: str) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if reasoning:
        delta["reasoning_content"] = delta["reasoning"] = reasoning
    if text:
        delta["content"] = text
    return delta


def logprobs_object(content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"content": content, "refusal": None}


def token_logprob(token: pb.Token) -> dict[str, Any]:
    return {
        **_logprob(token.logprob),
        "top_logprobs": [_logprob(top) for top in token.top_logprobs],
    }


def _logprob(logprob: pb.TokenLogprob) -> dict[str, Any]:
    return {
        "token": logprob.text,
        "logprob": finite(logprob.logprob),
        "bytes": list(logprob.token_bytes),
    }


def finite(logprob: float) -> float:
    """JSON has no -inf: OpenAI writes -9999.0 for a token that could not be drawn."""
    return max(logprob, -9999.0)


def usage_object(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
