"""How a JSON body becomes a checked request: strict types, one clear sentence for the first fault.

Fields that cannot matter here are dropped; fields whose meaning we cannot honour are refused, and
so is every unknown one, since a misspelt field that is silently ignored is worse. Knows no
endpoint. Read `requests.py` next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from freehold.errors import InvalidRequest

# OpenAI fields that say nothing about the answer.
HARMLESS = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)

# Field → (what it may say although we do not have it, what we say to anything else).
UNSUPPORTED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "tools": (([],), "Tools are not supported; leave tools out."),
    "tool_choice": (("none", "auto"), "Tools are not supported; leave tool_choice out."),
    "functions": (([],), "Functions are not supported; leave functions out."),
    "function_call": (("none", "auto"), "Functions are not supported; leave function_call out."),
    "audio": ((), "Audio is not supported; leave audio out."),
    "modalities": ((["text"],), 'Only text is answered; modalities may only be ["text"].'),
    "prediction": ((), "Predicted outputs are not supported; leave prediction out."),
    "web_search_options": ((), "Nothing is searched on the web; leave web_search_options out."),
    "reasoning_effort": ((), "Reasoning effort cannot be set; leave reasoning_effort out."),
    "verbosity": (("medium",), "Verbosity cannot be set; leave verbosity out."),
    "suffix": (("",), "A suffix is not supported; leave suffix out."),
    "use_beam_search": ((False,), "Beam search is not supported; leave use_beam_search out."),
}

_SENTENCES = {
    "missing": "{param} is required.",
    "extra_forbidden": "{param} is not a field of this request; check its spelling.",
    "int_type": "{param} must be an integer.",
    "int_from_float": "{param} must be an integer.",
    "float_type": "{param} must be a number.",
    "string_type": "{param} must be a string.",
    "bool_type": "{param} must be true or false.",
    "list_type": "{param} must be an array.",
    "dict_type": "{param} must be an object.",
    "model_type": "{param} must be an object.",
    "model_attributes_type": "{param} must be an object.",
    "literal_error": "{param} must be one of: {expected}.",
    "greater_than_equal": "{param} must be at least {ge}.",
    "less_than_equal": "{param} must be at most {le}.",
    "string_too_short": "{param} must not be empty.",
    "string_too_long": "{param} must have at most {max_length} characters.",
    "too_short": "{param} must have at least {min_length} entries.",
    "too_long": "{param} must have at most {max_length} entries.",
}
MAX_PARAM_CHARS = 100  # names of fields come from the client


class Body(BaseModel):
    """Base of all request bodies. `null` anywhere at the top means: as if left out."""

    model_config = ConfigDict(strict=True, extra="forbid", protected_namespaces=())
    ignored: ClassVar[frozenset[str]] = HARMLESS

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Raises InvalidRequest naming the first field that is wrong."""
        fields = {
            name: value
            for name, value in body.items()
            if value is not None and name not in cls.ignored
        }
        for name, (neutral, sentence) in UNSUPPORTED.items():
            if name in fields and name not in cls.model_fields:
                if not any(fields[name] == value for value in neutral):
                    raise InvalidRequest(sentence, param=name)
                del fields[name]
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise _first_fault(error) from None  # the cause holds what the client sent


def _first_fault(error: ValidationError) -> InvalidRequest:
    fault = error.errors(include_url=False, include_input=False)[0]
    param = ".".join(str(part) for part in fault["loc"])[:MAX_PARAM_CHARS]
    if not param.isprintable():
        param = param.encode("unicode_escape").decode()[:MAX_PARAM_CHARS]
    sentence = _SENTENCES.get(fault["type"], "{param} is not valid.")
    return InvalidRequest(sentence.format(param=param, **fault.get("ctx", {})), param=param)


def parse_json_object(data: bytes | str) -> dict[str, Any]:
    """The object in a body or frame. Raises InvalidRequest, without echoing what was sent."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest(f"This is not valid JSON (at {where}).") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The JSON must be an object.")
    return value
