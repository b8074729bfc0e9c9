"""Strategies for request bodies: good in most fields, absurd in some, so both outcomes come."""

from __future__ import annotations

from hypothesis import strategies as st
from tests.serving.gateway.fake_orchestrator import MODEL

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


def json_values():
    """Anything JSON can say."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(-(1 << 63), (1 << 64) - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | TEXT
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
        max_leaves=8,
    )


_PARTS = st.lists(
    st.fixed_dictionaries({"type": st.sampled_from(["text", "text", "image_url"]), "text": TEXT}),
    min_size=1,
    max_size=3,
)
_MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant", "developer", "tool"]),
        "content": TEXT | _PARTS,
    },
    optional={"name": TEXT, "reasoning": TEXT, "tool_calls": st.just([])},
)
_SAMPLED_FIELDS = {
    "model": st.just(MODEL),
    "n": st.integers(1, 3),
    "best_of": st.integers(1, 2),
    "max_tokens": st.integers(1, 5),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0.01, 1),
    "top_k": st.integers(-1, 50),
    "min_p": st.floats(0, 1),
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.integers(-2, 2),
    "repetition_penalty": st.floats(0.5, 2),
    "logit_bias": st.dictionaries(st.integers(0, 9).map(str), st.floats(-100, 100), max_size=3),
    "seed": st.integers(-5, (1 << 64) - 1),
    "stop": st.none() | TEXT | st.lists(st.text("ab", min_size=1), max_size=4),
    "stop_token_ids": st.lists(st.integers(0, 100), max_size=3),
    "include_stop_str_in_output": st.booleans(),
    "ignore_eos": st.booleans(),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
    "response_format": st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "json_object", "json_schema"])},
        optional={"json_schema": st.fixed_dictionaries({"schema": json_values()})},
    ),
    "user": TEXT,
    "tools": st.just([]),
}
CHAT_FIELDS = {
    **_SAMPLED_FIELDS,
    "messages": st.lists(_MESSAGE, min_size=1, max_size=3),
    "max_completion_tokens": st.integers(1, 5),
    "logprobs": st.booleans(),
    "top_logprobs": st.integers(0, 3),
}
COMPLETION_FIELDS = {
    **_SAMPLED_FIELDS,
    "prompt": TEXT
    | st.lists(TEXT, max_size=3)
    | st.lists(st.integers(0, 100), max_size=5)
    | st.lists(st.lists(st.integers(0, 100), max_size=3), max_size=3),
    "logprobs": st.integers(0, 5),
    "echo": st.booleans(),
}
_REQUIRED = ("model", "messages", "prompt")


def bodies(fields):
    """A body of these fields, mostly good; at times one field holds anything, or is unknown."""
    good = st.fixed_dictionaries(
        {name: fields[name] for name in _REQUIRED if name in fields},
        optional={name: value for name, value in fields.items() if name not in _REQUIRED},
    )
    spoilt = st.dictionaries(st.sampled_from(sorted(fields)) | TEXT, json_values(), max_size=1)
    return st.builds(lambda body, more: {**body, **more}, good, spoilt | st.just({}))
