"""The bodies of our endpoints, as OpenAI (and vLLM, for its extra fields) spells them.

Each becomes a GenerationSpec in the words of the house. Whether a prompt fits the context, a token
id the vocabulary, or a schema compiles, is the worker's to say. Read `openai_chat.py` next.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import orjson
from pydantic import Field, field_validator

from freehold.errors import InvalidRequest, InvalidSchema
from freehold.serving.convert import DEFAULTED_FIELDS
from freehold.serving.gateway.generation import GenerationSpec, Prompt
from freehold.serving.gateway.messages import read_messages
from freehold.serving.gateway.schema import HARMLESS, Body
from freehold.types import (
    MAX_CHOICES,
    MAX_LOGIT_BIAS,
    MAX_STOP_STRINGS,
    MAX_TOP_LOGPROBS,
    ChatMessage,
    SamplingParams,
)

MAX_PROMPTS = 64  # in one completion request
MAX_STREAMS = 128  # prompts × n
MAX_PROMPT_TOKENS = 1 << 18  # of one prompt given as ids
MAX_TOKEN_ID = (1 << 31) - 1
MAX_STOP_TOKEN_IDS = 256
DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's, for /v1/completions only
JSON_OBJECT_SCHEMA = '{"type":"object"}'

TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
ModelName = Annotated[str, Field(min_length=1, max_length=256)]


class StreamOptions(Body):
    include_usage: bool = False
    include_obfuscation: bool = False  # ours is never padded

    ignored: ClassVar[frozenset[str]] = frozenset()


class SampledBody(Body):
    """What chat and completion requests have in common."""

    model: ModelName
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    best_of: int | None = None
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=-(1 << 63), le=(1 << 64) - 1)] | None = None
    stop: list[str] = Field(default_factory=list, max_length=MAX_STOP_STRINGS)
    stop_token_ids: list[TokenId] = Field(default_factory=list, max_length=MAX_STOP_TOKEN_IDS)
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None
    response_format: dict[str, Any] | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _stop(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _logit_bias(cls, value: Any) -> Any:
        """JSON's keys are strings; ours are token ids."""
        if not isinstance(value, dict):
            return value
        if len(value) > MAX_LOGIT_BIAS:
            raise InvalidRequest(
                f"logit_bias takes at most {MAX_LOGIT_BIAS} tokens.", param="logit_bias"
            )
        if not all(
            key.isascii() and key.isdigit() and len(key) <= 10 and int(key) <= MAX_TOKEN_ID
            for key in value
        ):
            raise InvalidRequest(
                "logit_bias must be an object from token ids to numbers from -100 to 100.",
                param="logit_bias",
            )
        return {int(key): bias for key, bias in value.items()}

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def check(self) -> None:
        """Raise InvalidRequest for fields that do not go together."""
        if self.best_of is not None and self.best_of != self.n:
            raise InvalidRequest(
                "best_of is supported only where it equals n; leave it out.", param="best_of"
            )
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest(
                "stream_options is allowed only with stream: true.", param="stream_options"
            )

    def sampling(
        self, max_tokens: int | None, num_logprobs: int | None, prompt_logprobs: int | None = None
    ) -> SamplingParams:
        sampling = SamplingParams(
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=0 if self.top_k == -1 else self.top_k,  # vLLM's 'off'
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            logit_bias=self.logit_bias,
            seed=(self.seed or 0) % (1 << 64),
            stop=tuple(self.stop),
            stop_token_ids=tuple(self.stop_token_ids),
            include_stop_in_output=self.include_stop_str_in_output,
            ignore_eos=self.ignore_eos,
            num_logprobs=num_logprobs,
            prompt_logprobs=prompt_logprobs,
            json_schema=json_schema(self.response_format),
        )
        sampling.check()
        return sampling

    def spec_of(self, prompts: tuple[Prompt, ...], sampling: SamplingParams) -> GenerationSpec:
        unset = {"seed", *DEFAULTED_FIELDS} - self.model_fields_set
        spec = GenerationSpec(self.model, prompts, self.n, sampling, frozenset(unset))
        if spec.num_streams > MAX_STREAMS:
            raise InvalidRequest(
                f"{len(prompts)} prompts with n = {self.n} are {spec.num_streams} answers; one "
                f"request takes at most {MAX_STREAMS}.",
                param="n",
            )
        return spec


class ChatBody(SampledBody):
    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None

    @field_validator("messages", mode="before")
    @classmethod
    def _messages(cls, value: Any) -> Any:
        return read_messages(value)

    def spec(self) -> GenerationSpec:
        self.check()
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest(
                "top_logprobs is allowed only with logprobs: true.", param="top_logprobs"
            )
        num_logprobs = (self.top_logprobs or 0) if self.logprobs else None
        name = "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"
        try:
            sampling = self.sampling(getattr(self, name), num_logprobs)
        except InvalidRequest as error:
            if error.param != "max_tokens":
                raise
            sentence = error.message.replace("max_tokens", name)
            raise InvalidRequest(sentence, param=name) from None
        return self.spec_of((tuple(self.messages),), sampling)


class CompletionBody(SampledBody):
    prompt: list[str | list[int]]
    max_tokens: int | None = DEFAULT_COMPLETION_TOKENS
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    echo: bool = False

    @field_validator("prompt", mode="before")
    @classmethod
    def _prompt(cls, value: Any) -> Any:
        return read_prompts(value)

    @property
    def is_echo_only(self) -> bool:
        """`max_tokens: 0` with echo scores the prompt: one token is drawn and thrown away."""
        return self.echo and self.max_tokens == 0

    def spec(self) -> GenerationSpec:
        self.check()
        max_tokens = 1 if self.is_echo_only else self.max_tokens
        prompts = tuple(p if isinstance(p, str) else tuple(p) for p in self.prompt)
        return self.spec_of(
            prompts,
            self.sampling(max_tokens, self.logprobs, self.logprobs if self.echo else None),
        )


class TokenizeBody(Body):
    model: ModelName
    prompt: str | None = None
    messages: list[ChatMessage] | None = None

    ignored: ClassVar[frozenset[str]] = HARMLESS

    @field_validator("messages", mode="before")
    @classmethod
    def _messages(cls, value: Any) -> Any:
        return read_messages(value)

    def check(self) -> None:
        if (self.prompt is None) == (self.messages is None):
            raise InvalidRequest("Give either prompt or messages.", param="prompt")


def read_prompts(value: Any) -> list[str | list[int]]:
    """OpenAI's four forms (a string, strings, ids, lists of ids) as a list of prompts."""
    form = "prompt must be a string, an array of strings, or (arrays of) token ids."
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value:
        raise InvalidRequest(form, param="prompt")
    if type(value[0]) is int:
        value = [value]
    if len(value) > MAX_PROMPTS:
        raise InvalidRequest(
            f"One request takes at most {MAX_PROMPTS} prompts, not {len(value)}.", param="prompt"
        )
    if len({type(prompt) for prompt in value}) > 1:
        raise InvalidRequest(form, param="prompt")
    return [_read_prompt(prompt, form) for prompt in value]


def _read_prompt(prompt: Any, form: str) -> str | list[int]:
    if isinstance(prompt, str):
        if not prompt:
            raise InvalidRequest("A prompt must not be empty.", param="prompt")
        return prompt
    if not isinstance(prompt, list):
        raise InvalidRequest(form, param="prompt")
    if not 1 <= len(prompt) <= MAX_PROMPT_TOKENS:
        raise InvalidRequest(
            f"A prompt takes from 1 to {MAX_PROMPT_TOKENS} token ids, not {len(prompt)}.",
            param="prompt",
        )
    if not all(type(token) is int and 0 <= token <= MAX_TOKEN_ID for token in prompt):
        raise InvalidRequest(form, param="prompt")
    return prompt


def json_schema(response_format: dict[str, Any] | None) -> str | None:
    """The schema an answer must satisfy, as JSON; None: plain text."""
    if response_format is None:
        return None
    kind = response_format.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return JSON_OBJECT_SCHEMA
    if kind != "json_schema":
        raise InvalidRequest(
            "response_format.type must be one of: text, json_object, json_schema.",
            param="response_format",
        )
    wrapper = response_format.get("json_schema")
    schema = wrapper.get("schema") if isinstance(wrapper, dict) else None
    if not isinstance(schema, dict):
        raise InvalidRequest(
            "response_format.json_schema.schema must be a JSON Schema object.",
            param="response_format",
        )
    try:
        return orjson.dumps(schema).decode()
    except orjson.JSONEncodeError:
        raise InvalidSchema(
            "The JSON schema is nested too deeply.", param="response_format"
        ) from None
