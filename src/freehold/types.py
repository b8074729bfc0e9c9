"""The nouns every room shares: sampling parameters, chat messages, token events.

Frozen data, no behaviour beyond checking their own bounds. Knows no transport and no array
library. Read `engine/request.py` next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from freehold.errors import InvalidRequest

MAX_CHOICES = 16
MAX_STOP_STRINGS = 16
MAX_STOP_STRING_CHARS = 256
MAX_TOP_LOGPROBS = 20
MAX_LOGIT_BIAS = 1024
MAX_JSON_SCHEMA_BYTES = 64 * 1024


class WeightFormat(StrEnum):
    """How a linear's weights are held in memory. Activations are float32 outside kernels."""

    FLOAT32 = "float32"  # the truth; only the reference uses it for whole models
    BF16 = "bf16"
    INT8 = "int8"  # symmetric, one float32 scale an output channel
    INT4 = "int4"  # symmetric, one scale a group of `group_size` inputs


class Speculate(StrEnum):
    """Where guesses at the next tokens come from: the tokens themselves are the same with any."""

    OFF = "off"
    LOOKUP = "lookup"  # what followed the same words before, in prompt and answer
    MTP = "mtp"  # DeepSeek-V3's multi-token-prediction layer, if the checkpoint has it
    AUTO = "auto"  # whichever is more likely to be right


class CacheFormat(StrEnum):
    """How keys and values are held in the paged cache."""

    BF16 = "bf16"  # float32 in the reference
    INT8 = "int8"  # symmetric, one float32 scale a token and key head


class FinishReason(StrEnum):
    STOP = "stop"  # an EOS id, a stop id or a stop string
    LENGTH = "length"  # max_tokens or the context limit
    CANCELLED = "cancelled"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class ChatMessage:
    role: str  # "system" | "user" | "assistant" | "tool"
    content: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are drawn. Field names and meanings follow OpenAI and vLLM.

    `seed` is never None inside the house: the orchestrator draws one for a client that gave
    none, so that a resumed request draws the same tokens.
    """

    max_tokens: int | None = None  # None: until the context is full
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  # 0 is off
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0  # unsigned 64 bits
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_in_output: bool = False
    ignore_eos: bool = False
    num_logprobs: int | None = None  # None: none; 0: the chosen token only; k: top k beside it
    prompt_logprobs: int | None = None  # the same for prompt tokens (`echo` with logprobs)
    json_schema: str | None = None  # a JSON Schema the answer must satisfy

    def check(self) -> None:
        """Raise InvalidRequest naming the first field out of bounds."""
        _bounded("temperature", self.temperature, 0.0, 100.0)
        _bounded("top_p", self.top_p, 0.0, 1.0, low_open=True)
        _bounded("top_k", self.top_k, 0, 1 << 31)
        _bounded("min_p", self.min_p, 0.0, 1.0)
        _bounded("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _bounded("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _bounded("repetition_penalty", self.repetition_penalty, 0.0, 100.0, low_open=True)
        _bounded("seed", self.seed, 0, (1 << 64) - 1)
        if self.max_tokens is not None:
            _bounded("max_tokens", self.max_tokens, 1, 1 << 31)
        for name in ("num_logprobs", "prompt_logprobs"):
            if (value := getattr(self, name)) is not None:
                _bounded(name, value, 0, MAX_TOP_LOGPROBS)
        if len(self.stop) > MAX_STOP_STRINGS or any(
            not 1 <= len(s) <= MAX_STOP_STRING_CHARS for s in self.stop
        ):
            raise InvalidRequest(
                f"stop takes at most {MAX_STOP_STRINGS} strings of 1 to "
                f"{MAX_STOP_STRING_CHARS} characters each.",
                param="stop",
            )
        if len(self.logit_bias) > MAX_LOGIT_BIAS:
            raise InvalidRequest(
                f"logit_bias takes at most {MAX_LOGIT_BIAS} tokens.", param="logit_bias"
            )
        for value in self.logit_bias.values():
            _bounded("logit_bias", value, -100.0, 100.0)
        if self.json_schema is not None and len(self.json_schema) > MAX_JSON_SCHEMA_BYTES:
            raise InvalidRequest(
                f"The JSON schema is longer than {MAX_JSON_SCHEMA_BYTES} characters.",
                param="response_format",
            )


def _bounded(name: str, value: float, low: float, high: float, *, low_open: bool = False) -> None:
    if not (math.isfinite(value) and low <= value <= high) or (low_open and value == low):
        above = "above" if low_open else "from"
        raise InvalidRequest(
            f"{name} must be a number {above} {low:g} to {high:g}, not {value!r}.", param=name
        )


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural-log probability of one token under the raw (unscaled, unpenalised) logits."""

    token_id: int
    logprob: float
    text: str  # the token's own text; may hold U+FFFD where it is part of a character
    token_bytes: bytes


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One generated token of one request, as the engine emits it.

    Text is held back while it could be part of a stop string or an unfinished character, so
    `text` may be empty or cover several tokens. The event with `finish_reason` is the last; it
    may carry no token (`token_id` None: cancelled, deadline).
    """

    request_id: str
    index: int  # of this output token: 0, 1, 2 … (resumed tokens counted)
    token_id: int | None
    text: str
    logprob: TokenLogprob | None = None
    top_logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    # On the first event of a request only:
    num_prompt_tokens: int | None = None
    num_cached_tokens: int | None = None
    prompt_logprobs: tuple[tuple[TokenLogprob, ...] | None, ...] | None = None
    # One entry a prompt token, None for the first; entry 0 of each is the prompt's own token.
