"""OpenAI's JSON on the wire to an upstream: request bodies out, deltas of a stream in.

Pure translation: knows no connection. What the upstream says is not trusted: wrong shapes become
Unavailable, its messages are cut to a bounded length. Read `upstream.py` for who calls it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import orjson

from freehold.errors import (
    FreeholdError,
    InvalidRequest,
    InvalidSchema,
    NotFound,
    Overloaded,
    Unavailable,
)
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.serving.convert import DEFAULTED_FIELDS
from freehold.types import FinishReason

MAX_MESSAGE_CHARS = 500
DEFAULTS = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}  # vLLM's; strict servers lack them
REASONS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


def request_body(request: pb.GenerateRequest, model: str) -> tuple[str, dict[str, object]]:
    """The path below the upstream's URL, and the JSON body."""
    sampling = request.sampling
    if sampling.HasField("prompt_logprobs"):
        raise InvalidRequest(
            "This model is served by an upstream that gives no prompt logprobs.", param="echo"
        )
    body: dict[str, object] = {"model": model, "stream": True}
    body["stream_options"] = {"include_usage": True}
    if request.HasField("sampling"):
        body |= _sampling(sampling)
    has_logprobs = sampling.HasField("num_logprobs")
    if request.HasField("chat"):
        body["messages"] = [_message(message) for message in request.chat.messages]
        if has_logprobs:
            body |= {"logprobs": True, "top_logprobs": sampling.num_logprobs}
        return "/chat/completions", body
    body["prompt"] = list(request.tokens.ids) if request.HasField("tokens") else request.text
    if has_logprobs:
        body["logprobs"] = sampling.num_logprobs
    return "/completions", body


def _message(message: pb.ChatMessage) -> dict[str, str]:
    plain = {"role": message.role, "content": message.content}
    return plain | ({"name": message.name} if message.name else {})


def _sampling(sampling: pb.SamplingParams) -> dict[str, object]:
    body: dict[str, object] = {
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
    }
    for name in ("temperature", "top_p", "max_tokens"):
        if sampling.HasField(name):
            body[name] = getattr(sampling, name)
    if sampling.HasField("seed"):
        body["seed"] = sampling.seed & ((1 << 63) - 1)  # OpenAI's is a signed integer
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.logit_bias:
        body["logit_bias"] = {str(key): value for key, value in sampling.logit_bias.items()}
    if sampling.json_schema:
        body["response_format"] = _response_format(sampling.json_schema)
    for name, default in DEFAULTS.items():
        value = getattr(sampling, name)
        if value != default and (name not in DEFAULTED_FIELDS or sampling.HasField(name)):
            body[name] = value
    if sampling.stop_token_ids:
        body["stop_token_ids"] = list(sampling.stop_token_ids)
    if sampling.include_stop_in_output:
        body["include_stop_str_in_output"] = True
    if sampling.ignore_eos:
        body["ignore_eos"] = True
    return body


def _response_format(json_schema: str) -> dict[str, object]:
    try:
        schema = orjson.loads(json_schema)
    except orjson.JSONDecodeError as error:
        raise InvalidSchema(f"The schema is no JSON: {error}.", param="response_format") from None
    wrapped = {"name": "answer", "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": wrapped}


class AnswerReader:
    """The state of one streamed answer."""

    def __init__(self, request: pb.GenerateRequest, revision: str) -> None:
        self._request = request
        self._revision = revision
        self._reason: FinishReason | None = None
        self._usage: dict[str, Any] = {}
        self.num_deltas = 0

    def start(self) -> pb.GenerateEvent:
        return self._event(started=pb.Started(revision=self._revision))

    def read(self, line: bytes) -> Iterator[pb.GenerateEvent]:
        """The tokens in one line of the event stream."""
        if not line.startswith(b"data:"):
            return
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        try:
            yield from self._chunk(orjson.loads(data))
        except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError, ValueError) as error:
            raise Unavailable("The upstream server sent something that is no answer.") from error

    def _chunk(self, chunk: dict[str, Any]) -> Iterator[pb.GenerateEvent]:
        if error := chunk.get("error"):
            raise Unavailable(f"The upstream server failed: {_cut(error)}")
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk.get("choices", ()):
            delta = choice.get("delta") or choice
            answer = delta.get("content") or delta.get("text") or ""
            reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
            if answer or reasoning:
                token = pb.Token(text=answer, reasoning=reasoning)
                _read_logprobs(choice.get("logprobs"), token)
                self.num_deltas += 1
                yield self._event(sequence=self.num_deltas - 1, token=token)
            if reason := choice.get("finish_reason"):
                self._reason = REASONS.get(reason, FinishReason.STOP)

    def last(self) -> pb.GenerateEvent | None:
        """Finished, or None when the stream broke off."""
        return None if self._reason is None else self.end(self._reason)

    def end(self, reason: FinishReason) -> pb.GenerateEvent:
        usage = self._usage
        finished = pb.Finished(
            reason=reason,
            num_output_tokens=_count(usage.get("completion_tokens"), self.num_deltas),
            num_prompt_tokens=_count(usage.get("prompt_tokens"), 0),
        )
        return self._event(sequence=self.num_deltas, finished=finished)

    def _event(self, **fields: Any) -> pb.GenerateEvent:
        request = self._request
        return pb.GenerateEvent(
            request_id=request.request_id, stream=request.stream, attempt=request.attempt, **fields
        )


def _read_logprobs(logprobs: dict[str, Any] | None, token: pb.Token) -> None:
    """Chat's form only; its tokens have text and bytes but no ids."""
    if logprobs is None or not (content := logprobs.get("content")):
        return
    token.logprob.CopyFrom(_logprob(content[0]))
    token.top_logprobs.extend(map(_logprob, content[0].get("top_logprobs") or ()))


def _logprob(entry: dict[str, Any]) -> pb.TokenLogprob:
    text = entry["token"]
    raw = bytes(entry["bytes"]) if entry.get("bytes") is not None else text.encode()
    return pb.TokenLogprob(logprob=entry["logprob"], text=text, token_bytes=raw)


def _count(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 32 else otherwise


def served_length(status: int, body: bytes, model: str) -> int | None:
    """From the answer of /models: the model's context length (0: not told), None if not served."""
    if status != 200:
        return None
    try:
        for entry in orjson.loads(body)["data"]:
            if entry["id"] == model:
                return _count(entry.get("max_model_len"), 0)
    except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError):
        return None
    return None


def error_of(response: httpx.Response, body: bytes) -> FreeholdError:
    """The upstream's refusal as ours. Its own key and its redirects are not the client's fault."""
    status = response.status_code
    try:
        parsed = orjson.loads(body)
        message = _cut(parsed.get("error", parsed) if isinstance(parsed, dict) else parsed)
    except orjson.JSONDecodeError:
        message = f"status {status}"
    if status in (400, 413, 422):
        return InvalidRequest(f"The upstream server refused the request: {message}")
    if status == 404:
        return NotFound(f"The upstream server does not serve this: {message}")
    if status == 429:
        return Overloaded(
            "The upstream server is overloaded; try again later.",
            retry_after_seconds=_retry_after(response.headers.get("retry-after")),
        )
    if status in (401, 403):
        return Unavailable("The upstream server refused this worker's key.")
    return Unavailable(f"The upstream server answered with status {status}.")


def _retry_after(value: str | None) -> float:
    try:
        return min(max(float(value or 1.0), 0.0), 3600.0)
    except ValueError:
        return 1.0


def _cut(error: object) -> str:
    message = error.get("message", "") if isinstance(error, dict) else error
    return str(message)[:MAX_MESSAGE_CHARS]
