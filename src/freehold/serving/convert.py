"""Between protobuf and the types of the house, both ways.

Knows no process and no socket. What does not fit a protobuf field is an InvalidRequest here, so
no ValueError of the protobuf library reaches a client. Read `freehold/types.py` beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from freehold import errors
from freehold.errors import FreeholdError, InvalidRequest
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.types import ChatMessage, SamplingParams, TokenLogprob

# What a request may leave to the model's own defaults.
DEFAULTED_FIELDS = ("temperature", "top_p", "top_k", "repetition_penalty")
# Fields of the same name and type on both sides, none of them optional.
_PLAIN_FIELDS = (
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "include_stop_in_output",
    "ignore_eos",
)
_OPTIONAL_FIELDS = ("max_tokens", "num_logprobs", "prompt_logprobs")


def sampling_to_proto(
    sampling: SamplingParams, *, unset: Collection[str] = ()
) -> pb.SamplingParams:
    """`unset` are left open: the orchestrator draws a seed, the model has DEFAULTED_FIELDS."""
    proto = pb.SamplingParams(json_schema=sampling.json_schema or "")
    try:
        for name in (*_PLAIN_FIELDS, *DEFAULTED_FIELDS, "seed"):
            if name not in unset:
                setattr(proto, name, getattr(sampling, name))
        for name in _OPTIONAL_FIELDS:
            if (value := getattr(sampling, name)) is not None:
                setattr(proto, name, value)
        proto.stop.extend(sampling.stop)
        proto.stop_token_ids.extend(sampling.stop_token_ids)
        proto.logit_bias.update(sampling.logit_bias)
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"A sampling parameter is out of range: {error}.") from error
    return proto


def sampling_from_proto(
    proto: pb.SamplingParams, defaults: Mapping[str, float] = MappingProxyType({})
) -> SamplingParams:
    """Checked; raises InvalidRequest naming the first field out of bounds. What is unset is the
    `defaults`', else as in SamplingParams."""
    optional = (*DEFAULTED_FIELDS, *_OPTIONAL_FIELDS)
    given = {name: getattr(proto, name) for name in optional if proto.HasField(name)}
    plain = {name: getattr(proto, name) for name in _PLAIN_FIELDS}
    values: dict[str, Any] = {**defaults, **plain, **given}
    sampling = SamplingParams(
        **values,
        seed=proto.seed,
        stop=tuple(proto.stop),
        stop_token_ids=tuple(proto.stop_token_ids),
        logit_bias=dict(proto.logit_bias),
        json_schema=proto.json_schema or None,
    )
    sampling.check()
    return sampling


def messages_to_proto(messages: Iterable[ChatMessage]) -> pb.ChatPrompt:
    return pb.ChatPrompt(
        messages=[
            pb.ChatMessage(role=m.role, content=m.content, name=m.name or "") for m in messages
        ]
    )


def messages_from_proto(prompt: pb.ChatPrompt) -> list[ChatMessage]:
    return [ChatMessage(m.role, m.content, m.name or None) for m in prompt.messages]


def logprob_to_proto(logprob: TokenLogprob) -> pb.TokenLogprob:
    return pb.TokenLogprob(
        token_id=logprob.token_id,
        logprob=logprob.logprob,
        text=logprob.text,
        token_bytes=logprob.token_bytes,
    )


def logprob_from_proto(proto: pb.TokenLogprob) -> TokenLogprob:
    return TokenLogprob(proto.token_id, proto.logprob, proto.text, proto.token_bytes)


def _error_classes(root: type[FreeholdError]) -> Iterator[type[FreeholdError]]:
    yield root
    for child in root.__subclasses__():
        yield from _error_classes(child)


# A code names one class; a test holds that no two classes share one.
ERROR_CLASS_BY_CODE = {
    cls.code: cls
    for cls in _error_classes(FreeholdError)
    if cls.__module__ == errors.__name__ and (cls is FreeholdError or "code" in vars(cls))
}


def error_to_proto(error: FreeholdError) -> pb.Error:
    return pb.Error(
        status=error.status,
        type=error.type,
        code=error.code,
        message=error.message,
        param=error.param or "",
        retry_after_seconds=error.retry_after_seconds or 0.0,
    )


def error_from_proto(proto: pb.Error) -> FreeholdError:
    """The exception the other process raised. A code we do not know keeps its words and status."""
    cls = ERROR_CLASS_BY_CODE.get(proto.code, FreeholdError)
    error = cls(
        proto.message,
        param=proto.param or None,
        retry_after_seconds=proto.retry_after_seconds or None,
    )
    if cls is FreeholdError and proto.code != FreeholdError.code:
        error.status, error.type, error.code = proto.status, proto.type, proto.code
    return error
