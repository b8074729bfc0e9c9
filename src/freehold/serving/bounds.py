"""How large a request may be when it reaches the orchestrator or a worker.

Checks sizes and shapes only; whether a prompt fits a model's context is the engine's to say.
Read `orchestrator/dispatch.py` next.
"""

from __future__ import annotations

from dataclasses import dataclass

from freehold.errors import InvalidRequest
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.serving.convert import sampling_from_proto
from freehold.types import SamplingParams

MAX_REQUEST_ID_CHARS = 128
MAX_MODEL_NAME_CHARS = 256
MAX_STREAMS = 4096  # n choices of several prompts
MAX_TIMEOUT_SECONDS = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Bounds:
    max_prompt_bytes: int = 4 * 1024 * 1024
    max_messages: int = 2048
    max_prompt_tokens: int = 1 << 20
    max_stop_token_ids: int = 256


def check_generate(request: pb.GenerateRequest, bounds: Bounds) -> SamplingParams:
    """The checked sampling parameters; raises InvalidRequest naming what is out of bounds."""
    _length("request_id", request.request_id, MAX_REQUEST_ID_CHARS)
    _length("model", request.model, MAX_MODEL_NAME_CHARS)
    if request.stream >= MAX_STREAMS:
        raise InvalidRequest(f"One request takes at most {MAX_STREAMS} streams.", param="n")
    if not 0.0 <= request.timeout_seconds <= MAX_TIMEOUT_SECONDS:
        raise InvalidRequest(
            f"timeout_seconds must be from 0 to {MAX_TIMEOUT_SECONDS:.0f}.", param="timeout_seconds"
        )
    if len(request.resume_token_ids) > bounds.max_prompt_tokens:
        raise InvalidRequest("Too many resumed tokens.", param="resume_token_ids")
    check_prompt(request, bounds)
    if not request.HasField("sampling"):
        return SamplingParams()
    if len(request.sampling.stop_token_ids) > bounds.max_stop_token_ids:
        raise InvalidRequest(
            f"stop_token_ids takes at most {bounds.max_stop_token_ids} ids.",
            param="stop_token_ids",
        )
    return sampling_from_proto(request.sampling)


def check_prompt(request: pb.GenerateRequest | pb.TokenizeRequest, bounds: Bounds) -> None:
    """Raises InvalidRequest for a prompt that is missing, empty or too large."""
    kind = request.WhichOneof("prompt")
    if kind is None:
        raise InvalidRequest(
            "The request has no prompt: give messages or a prompt.", param="prompt"
        )
    if kind == "chat":
        num_messages = len(request.chat.messages)
        if not 1 <= num_messages <= bounds.max_messages:
            raise InvalidRequest(
                f"A chat takes from 1 to {bounds.max_messages} messages, not {num_messages}.",
                param="messages",
            )
    if kind == "tokens" and isinstance(request, pb.GenerateRequest):
        num_ids = len(request.tokens.ids)
        if not 1 <= num_ids <= bounds.max_prompt_tokens:
            raise InvalidRequest(
                f"A prompt takes from 1 to {bounds.max_prompt_tokens} token ids, not {num_ids}.",
                param="prompt",
            )
        return
    if (num_bytes := prompt_bytes(request)) > bounds.max_prompt_bytes:
        raise InvalidRequest(
            f"The prompt has {num_bytes} bytes; at most {bounds.max_prompt_bytes} are taken.",
            param="messages" if kind == "chat" else "prompt",
        )


def prompt_bytes(request: pb.GenerateRequest | pb.TokenizeRequest) -> int:
    """Size of the prompt's text as UTF-8, role names included; 0 for token ids."""
    kind = request.WhichOneof("prompt")
    if kind == "chat":
        return request.chat.ByteSize()
    return len(request.text.encode()) if kind == "text" else 0


def _length(name: str, value: str, limit: int) -> None:
    if not 1 <= len(value) <= limit:
        raise InvalidRequest(f"{name} must have from 1 to {limit} characters.", param=name)
