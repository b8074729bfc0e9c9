"""The official, unmodified openai client against the gateway."""

from __future__ import annotations

import openai
import pytest
from pydantic import BaseModel
from tests.serving.gateway.fake_orchestrator import (
    CACHED_TOKENS,
    DEFAULT_TOKENS,
    DRAWN_SEED,
    MODEL,
    PROMPT_TOKENS,
    answer,
)
from tests.serving.gateway.house import MESSAGES, until

from freehold.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    FreeholdError,
    Overloaded,
    Unavailable,
)


async def test_chat_answers_with_usage_and_revision(house):
    reply = await house.openai.chat.completions.create(model=MODEL, messages=MESSAGES)
    choice = reply.choices[0]
    assert choice.message.content == answer(DRAWN_SEED, DEFAULT_TOKENS)
    assert (choice.message.role, choice.finish_reason, choice.index) == ("assistant", "length", 0)
    assert reply.usage.prompt_tokens == PROMPT_TOKENS
    assert reply.usage.completion_tokens == DEFAULT_TOKENS
    assert reply.usage.total_tokens == PROMPT_TOKENS + DEFAULT_TOKENS
    assert reply.usage.prompt_tokens_details.cached_tokens == CACHED_TOKENS
    assert reply.system_fingerprint == "rev1"
    assert reply.id == f"chatcmpl-{house.fake.requests[0].request_id}"
    assert reply._request_id == house.fake.requests[0].request_id


async def test_stream_joins_to_the_whole_answer(house):
    stream = await house.openai.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, seed=3
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == answer(3, DEFAULT_TOKENS)
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["length"]
    assert {c.system_fingerprint for c in chunks} == {"rev1"}
    assert len({c.id for c in chunks}) == 1
    assert all(c.usage is None for c in chunks)


async def test_usage_comes_in_one_chunk_of_its_own(house):
    stream = await house.openai.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert all("usage" in chunk.model_fields_set for chunk in chunks)
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == DEFAULT_TOKENS


async def test_reasoning_goes_apart_under_both_names(house):
    house.fake.num_reasoning_tokens = 3
    reply = await house.openai.chat.completions.create(model=MODEL, messages=MESSAGES, seed=1)
    message = reply.choices[0].message
    assert message.reasoning_content == message.reasoning == answer(1, 3)
    assert message.content == answer(1, DEFAULT_TOKENS).removeprefix(answer(1, 3))
    assert reply.usage.completion_tokens_details.reasoning_tokens == 3
    stream = await house.openai.chat.completions.create(
        model=MODEL, messages=MESSAGES, seed=1, stream=True
    )
    deltas = [chunk.choices[0].delta async for chunk in stream]
    assert "".join(getattr(d, "reasoning", "") for d in deltas) == answer(1, 3)
    assert "".join(getattr(d, "reasoning_content", "") for d in deltas) == answer(1, 3)


async def test_choices_have_consecutive_seeds_and_share_the_request_id(house):
    reply = await house.openai.chat.completions.create(
        model=MODEL, messages=MESSAGES, n=3, seed=40, max_tokens=4
    )
    assert [c.message.content for c in reply.choices] == [answer(40 + i, 4) for i in range(3)]
    assert [c.index for c in reply.choices] == [0, 1, 2]
    assert {r.request_id for r in house.fake.requests} == {house.fake.requests[0].request_id}
    assert sorted(r.stream for r in house.fake.requests) == [0, 1, 2]
    assert reply.usage.prompt_tokens == PROMPT_TOKENS  # counted once
    assert reply.usage.completion_tokens == 12


async def test_streamed_choices_are_told_apart_by_index(house):
    stream = await house.openai.chat.completions.create(
        model=MODEL, messages=MESSAGES, n=3, seed=40, max_tokens=4, stream=True
    )
    texts = ["", "", ""]
    async for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [answer(40 + i, 4) for i in range(3)]


async def test_logprobs_in_chat_shape(house):
    for top in (0, 2):
        reply = await house.openai.chat.completions.create(
            model=MODEL, messages=MESSAGES, logprobs=True, top_logprobs=top, max_tokens=3, seed=1
        )
        content = reply.choices[0].logprobs.content
        assert [entry.token for entry in content] == ["w1.0 ", "w1.1 ", "w1.2 "]
        assert bytes(content[0].bytes) == b"w1.0 "
        assert content[0].logprob == -0.5
        assert [len(entry.top_logprobs) for entry in content] == [top] * 3
    stream = await house.openai.chat.completions.create(
        model=MODEL, messages=MESSAGES, logprobs=True, max_tokens=3, seed=1, stream=True
    )
    tokens = [
        entry.token
        async for chunk in stream
        if chunk.choices[0].logprobs
        for entry in chunk.choices[0].logprobs.content
    ]
    assert tokens == ["w1.0 ", "w1.1 ", "w1.2 "]


async def test_every_sampling_field_reaches_the_orchestrator(house):
    await house.openai.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": t} for t in ("a", "b")]},
        ],
        max_completion_tokens=9,
        temperature=0.5,
        top_p=0.25,
        presence_penalty=1,
        frequency_penalty=-1,
        logit_bias={"17": -100},
        seed=-1,
        stop=["x", "y"],
        user="someone",
        extra_body={
            "top_k": 5,
            "min_p": 0.125,
            "repetition_penalty": 1.5,
            "ignore_eos": True,
            "stop_token_ids": [8],
        },
    )
    request = house.fake.requests[0]
    sent = request.sampling
    assert [(m.role, m.content) for m in request.chat.messages] == [
        ("system", "Be brief."),
        ("user", "a\nb"),
    ]
    assert (sent.max_tokens, sent.temperature, sent.top_p) == (9, 0.5, 0.25)
    assert (sent.presence_penalty, sent.frequency_penalty) == (1, -1)
    assert dict(sent.logit_bias) == {17: -100}
    assert sent.seed == (1 << 64) - 1
    assert list(sent.stop) == ["x", "y"]
    assert (sent.top_k, sent.min_p, sent.repetition_penalty) == (5, 0.125, 1.5)
    assert sent.ignore_eos
    assert list(sent.stop_token_ids) == [8]
    assert request.timeout_seconds > 0


async def test_no_seed_is_left_to_the_orchestrator(house):
    await house.openai.chat.completions.create(model=MODEL, messages=MESSAGES)
    sampling = house.fake.requests[0].sampling
    for name in ("seed", "temperature", "top_p", "top_k", "repetition_penalty"):
        assert not sampling.HasField(name), "left to the orchestrator and the model"


async def test_response_formats_become_schemas(house):
    class Person(BaseModel):
        name: str

    create = house.openai.chat.completions.create
    await create(model=MODEL, messages=MESSAGES, response_format={"type": "text"})
    await create(model=MODEL, messages=MESSAGES, response_format={"type": "json_object"})
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    await create(
        model=MODEL,
        messages=MESSAGES,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )
    sent = [request.sampling.json_schema for request in house.fake.requests]
    assert sent == [
        "",
        '{"type":"object"}',
        '{"type":"object","properties":{"a":{"type":"integer"}}}',
    ]


async def test_an_answer_can_be_sent_back_as_history(house):
    house.fake.num_reasoning_tokens = 2
    reply = await house.openai.chat.completions.create(model=MODEL, messages=MESSAGES)
    history = [*MESSAGES, reply.choices[0].message, *MESSAGES]
    await house.openai.chat.completions.create(model=MODEL, messages=history)
    roles = [m.role for m in house.fake.requests[1].chat.messages]
    assert roles == ["user", "assistant", "user"]


async def test_closing_a_stream_cancels_it_at_the_orchestrator(house):
    house.fake.token_seconds = 0.01
    stream = await house.openai.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, max_tokens=100_000, n=2
    )
    async for _ in stream:
        break
    assert house.fake.num_active == 2
    await stream.close()
    await until(lambda: house.fake.num_active == 0)
    assert house.fake.num_left_early == 2


async def test_leaving_before_the_first_token_cancels(house):
    house.fake.hold.clear()
    with pytest.raises(openai.APITimeoutError):
        await house.openai.with_options(timeout=0.1).chat.completions.create(
            model=MODEL, messages=MESSAGES
        )
    await until(lambda: house.fake.num_active == 0)
    assert house.fake.num_left_early == 1


ERRORS = [
    (ContextLengthExceeded("Too long."), openai.BadRequestError),
    (Overloaded("Full.", retry_after_seconds=3.2), openai.RateLimitError),
    (Unavailable("Gone."), openai.InternalServerError),
    (DeadlineExceeded("Late."), openai.InternalServerError),
    (FreeholdError("Broken."), openai.InternalServerError),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("error", "raised"), ERRORS)
async def test_errors_before_the_first_token_are_statuses(house, error, raised, stream):
    house.fake.error = error
    with pytest.raises(raised) as caught:
        await house.openai.chat.completions.create(model=MODEL, messages=MESSAGES, stream=stream)
    assert caught.value.status_code == error.status
    assert caught.value.body == {
        "message": error.message,
        "type": error.type,
        "param": None,
        "code": error.code,
    }
    if isinstance(error, Overloaded):
        assert caught.value.response.headers["retry-after"] == "4"


async def test_an_error_after_the_first_token_ends_the_stream(house):
    house.fake.error, house.fake.error_at = Unavailable("Gone."), 3
    stream = await house.openai.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, seed=1
    )
    texts: list[str] = []

    async def read() -> None:
        async for chunk in stream:
            texts.append(chunk.choices[0].delta.content or "")  # noqa: PERF401 (it raises half-way)

    with pytest.raises(openai.APIError, match="Gone"):
        await read()
    assert "".join(texts) == answer(1, 3)


@pytest.mark.parametrize("reason", ["deadline", "cancelled"])
async def test_an_answer_cut_off_by_us_is_an_error_not_a_finish(house, reason):
    house.fake.finish_reason = reason
    with pytest.raises(openai.APIStatusError) as caught:
        await house.openai.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert caught.value.status_code == {"deadline": 504, "cancelled": 499}[reason]


async def test_a_stream_that_just_ends_is_an_error(house):
    house.fake.breaks_at = 2
    with pytest.raises(openai.InternalServerError, match="broke off"):
        await house.openai.chat.completions.create(model=MODEL, messages=MESSAGES)


async def test_repeated_tokens_are_dropped(house):
    house.fake.repeats = True
    reply = await house.openai.chat.completions.create(model=MODEL, messages=MESSAGES, seed=1)
    assert reply.choices[0].message.content == answer(1, DEFAULT_TOKENS)


async def test_unknown_model_and_wrong_key(house):
    with pytest.raises(openai.NotFoundError) as caught:
        await house.openai.chat.completions.create(model="nobody", messages=MESSAGES)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError) as refused:
        await house.openai.with_options(api_key="fh-wrong").models.list()
    assert refused.value.code == "invalid_api_key"


async def test_models_are_listed_and_found_also_with_a_slash(house):
    listed = await house.openai.models.list()
    assert [model.id for model in listed.data] == [MODEL, "org/fake"]
    assert (await house.openai.models.retrieve(MODEL)).id == MODEL
    assert (await house.http.get("/v1/models/org/fake")).json()["revision"] == "rev2"
    with pytest.raises(openai.NotFoundError):
        await house.openai.models.retrieve("nobody")


async def test_completion_of_several_prompts_and_choices(house):
    reply = await house.openai.completions.create(
        model=MODEL, prompt=["one", "two"], n=2, seed=10, max_tokens=2
    )
    assert [c.text for c in reply.choices] == [answer(10, 2), answer(11, 2)] * 2
    assert [c.index for c in reply.choices] == [0, 1, 2, 3]
    by_stream = sorted(house.fake.requests, key=lambda r: r.stream)
    assert [r.text for r in by_stream] == ["one", "one", "two", "two"]
    assert reply.usage.prompt_tokens == 2 * PROMPT_TOKENS


async def test_completion_of_token_ids_and_its_default_length(house):
    for prompt in ([1, 2, 3], [[1, 2, 3]]):
        reply = await house.openai.completions.create(model=MODEL, prompt=prompt)
        assert reply.usage.completion_tokens == 16
        assert list(house.fake.requests[-1].tokens.ids) == [1, 2, 3]


async def test_completion_stream_with_usage(house):
    stream = await house.openai.completions.create(
        model=MODEL, prompt="x", seed=1, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].text for c in chunks[:-1]) == answer(1, 16)
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 16


async def test_echo_with_logprobs_in_the_legacy_shape(house):
    for stream in (False, True):
        reply = await house.openai.completions.create(
            model=MODEL,
            prompt="the prompt here",
            echo=True,
            logprobs=1,
            max_tokens=2,
            seed=1,
            stream=stream,
        )
        parts = [c async for c in reply] if stream else [reply]
        text = "".join(part.choices[0].text for part in parts)
        gathered = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for part in parts:
            for name, values in gathered.items():
                values.extend(getattr(part.choices[0].logprobs, name))
        assert text == "the prompt here" + answer(1, 2)
        assert gathered["tokens"] == ["the", " prompt", " here", "w1.0 ", "w1.1 "]
        assert gathered["token_logprobs"] == [None, -0.5, -0.5, -0.5, -0.5]
        assert gathered["top_logprobs"][:2] == [None, {"other": -0.5}]
        for token, offset in zip(gathered["tokens"], gathered["text_offset"], strict=True):
            assert text[offset:].startswith(token)


async def test_scoring_a_prompt_takes_no_output_token(house):
    reply = await house.openai.completions.create(
        model=MODEL, prompt="the prompt", echo=True, logprobs=0, max_tokens=0
    )
    assert reply.choices[0].text == "the prompt"
    assert reply.choices[0].logprobs.tokens == ["the", " prompt"]
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.completion_tokens == 0


async def test_legacy_logprobs_name_parts_of_characters_by_their_bytes(house):
    house.fake.words = [b"a", *(bytes([byte]) for byte in "é".encode()), b"b"]
    reply = await house.openai.completions.create(model=MODEL, prompt="x", logprobs=0, max_tokens=4)
    logprobs = reply.choices[0].logprobs
    assert logprobs.tokens == ["a", "bytes:\\xc3", "bytes:\\xa9", "b"]
    assert logprobs.text_offset == [0, 1, 1, 2]
