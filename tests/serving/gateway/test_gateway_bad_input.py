"""Every wrong request gets one clear sentence, the right code, and reaches nothing behind us."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.serving.gateway.fake_orchestrator import MODEL
from tests.serving.gateway.house import MESSAGES

SECRET = "my-secret-prompt"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": SECRET}]}
COMPLETION = {"model": MODEL, "prompt": SECRET}
DEEP = {"a": 1}
for _ in range(300):
    DEEP = {"a": DEEP}


def image(url="data:image/png;base64,AAAA"):
    return [{"type": "image_url", "image_url": {"url": url}}]


# What is changed in a good chat request, the field named, and words of the sentence.
BAD_CHATS = [
    ({"model": None}, "model", "required"),
    ({"model": 3}, "model", "string"),
    ({"model": ""}, "model", "empty"),
    ({"model": "m" * 257}, "model", "256"),
    ({"messages": None}, "messages", "required"),
    ({"messages": []}, "messages", "from 1 to"),
    ({"messages": "hi"}, "messages", "array"),
    ({"messages": MESSAGES * 2049}, "messages", "not 2049"),
    ({"messages": ["hi"]}, "messages.0", "object"),
    ({"messages": [{"content": "x"}]}, "messages.0.role", "one of"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role", "one of"),
    ({"messages": [{"role": ["user"], "content": "x"}]}, "messages.0.role", "one of"),
    ({"messages": [{"role": "user"}]}, "messages.0.content", "string"),
    ({"messages": [{"role": "user", "content": None}]}, "messages.0.content", "string"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "string"),
    ({"messages": [{"role": "user", "content": []}]}, "messages.0.content", "text parts"),
    ({"messages": [{"role": "user", "content": image()}]}, "messages.0.content", "images"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages.0.content",
        "without a text",
    ),
    ({"messages": [{"role": "user", "content": "x", "name": ""}]}, "messages.0.name", "string"),
    ({"messages": [{"role": "user", "content": "x", "colour": 1}]}, "messages.0", "not known"),
    (
        {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}]},
        "messages.0.tool_calls",
        "not supported",
    ),
    ({"n": 0}, "n", "at least 1"),
    ({"n": 17}, "n", "at most 16"),
    ({"n": 10**30}, "n", "integer"),
    ({"n": "3"}, "n", "integer"),
    ({"n": True}, "n", "integer"),
    ({"n": 2, "best_of": 3}, "best_of", "equals n"),
    ({"max_tokens": 0}, "max_tokens", "from 1 to"),
    ({"max_tokens": -5}, "max_tokens", "from 1 to"),
    ({"max_tokens": 10**12}, "max_tokens", "from 1 to"),
    ({"max_tokens": 1.5}, "max_tokens", "integer"),
    ({"max_completion_tokens": 10**12}, "max_completion_tokens", "max_completion_tokens must be"),
    ({"temperature": -0.1}, "temperature", "from 0"),
    ({"temperature": "hot"}, "temperature", "number"),
    ({"temperature": True}, "temperature", "number"),
    ({"temperature": 1e300}, "temperature", "from 0"),
    ({"top_p": 0}, "top_p", "above 0"),
    ({"top_p": 1.1}, "top_p", "to 1"),
    ({"top_k": -2}, "top_k", "from 0"),
    ({"min_p": 2}, "min_p", "from 0 to 1"),
    ({"presence_penalty": 3}, "presence_penalty", "from -2 to 2"),
    ({"frequency_penalty": -3}, "frequency_penalty", "from -2 to 2"),
    ({"repetition_penalty": 0}, "repetition_penalty", "above 0"),
    ({"seed": 1 << 64}, "seed", "integer"),
    ({"seed": -(1 << 63) - 1}, "seed", "integer"),
    ({"seed": 1.5}, "seed", "integer"),
    ({"stop": 5}, "stop", "array"),
    ({"stop": [5]}, "stop.0", "string"),
    ({"stop": ["a"] * 17}, "stop", "at most 16"),
    ({"stop": ""}, "stop", "1 to"),
    ({"stop": "x" * 257}, "stop", "256"),
    ({"stop_token_ids": [-1]}, "stop_token_ids.0", "at least 0"),
    ({"stop_token_ids": [1] * 257}, "stop_token_ids", "at most 256"),
    ({"logit_bias": [1]}, "logit_bias", "object"),
    ({"logit_bias": {"x": 1}}, "logit_bias", "token ids"),
    ({"logit_bias": {"-1": 1}}, "logit_bias", "token ids"),
    ({"logit_bias": {"²": 1}}, "logit_bias", "token ids"),
    ({"logit_bias": {"99999999999": 1}}, "logit_bias", "token ids"),
    ({"logit_bias": {"1": 101}}, "logit_bias", "-100 to 100"),
    ({"logit_bias": {"1": "much"}}, "logit_bias.1", "number"),
    ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias", "1024"),
    ({"logprobs": 3}, "logprobs", "true or false"),
    ({"top_logprobs": 3}, "top_logprobs", "logprobs: true"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "at most 20"),
    ({"stream": "yes"}, "stream", "true or false"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "stream: true"),
    ({"stream": True, "stream_options": 1}, "stream_options", "object"),
    (
        {"stream": True, "stream_options": {"usage": True}},
        "stream_options.usage",
        "spelling",
    ),
    ({"response_format": "json"}, "response_format", "object"),
    ({"response_format": {"type": "xml"}}, "response_format", "one of"),
    ({"response_format": {"type": "json_schema"}}, "response_format", "schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": []}}},
        "response_format",
        "object",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": DEEP}}},
        "response_format",
        "too deeply",
    ),
    (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"schema": {"x": "y" * 70_000}},
            }
        },
        "response_format",
        "longer than",
    ),
    ({"tools": [{"type": "function"}]}, "tools", "not supported"),
    ({"tool_choice": "required"}, "tool_choice", "not supported"),
    ({"functions": [{}]}, "functions", "not supported"),
    ({"audio": {"voice": "x"}}, "audio", "not supported"),
    ({"modalities": ["text", "audio"]}, "modalities", "Only text"),
    ({"reasoning_effort": "high"}, "reasoning_effort", "cannot be set"),
    ({"max_token": 5}, "max_token", "spelling"),
    ({"echo": True}, "echo", "spelling"),
    ({"x" * 5000: 1}, "x" * 100, "spelling"),
    ({"a\nb": 1}, "a\\nb", "spelling"),
]

BAD_COMPLETIONS = [
    ({"prompt": None}, "prompt", "required"),
    ({"prompt": ""}, "prompt", "empty"),
    ({"prompt": []}, "prompt", "must be"),
    ({"prompt": ["a", ""]}, "prompt", "empty"),
    ({"prompt": ["a", 1]}, "prompt", "must be"),
    ({"prompt": [1, "a"]}, "prompt", "must be"),
    ({"prompt": [[1], "a"]}, "prompt", "must be"),
    ({"prompt": [[]]}, "prompt", "from 1 to"),
    ({"prompt": [-1]}, "prompt", "token ids"),
    ({"prompt": [1 << 31]}, "prompt", "token ids"),
    ({"prompt": [1.5]}, "prompt", "must be"),
    ({"prompt": [True]}, "prompt", "must be"),
    ({"prompt": {"a": 1}}, "prompt", "must be"),
    ({"prompt": ["a"] * 65}, "prompt", "at most 64"),
    ({"prompt": ["a"] * 64, "n": 3}, "n", "at most 128"),
    ({"logprobs": 21}, "logprobs", "at most 20"),
    ({"logprobs": True}, "logprobs", "integer"),
    ({"max_tokens": 0}, "max_tokens", "from 1 to"),
    ({"suffix": "x"}, "suffix", "not supported"),
    ({"best_of": 5}, "best_of", "equals n"),
    ({"messages": []}, "messages", "spelling"),
]

BAD_TOKENIZE = [
    ({"prompt": None}, "prompt", "either"),
    ({"messages": MESSAGES}, "prompt", "either"),
    ({"prompt": 5}, "prompt", "string"),
    ({"max_tokens": 5}, "max_tokens", "spelling"),
]

TABLE = [
    *(("/v1/chat/completions", CHAT, *row) for row in BAD_CHATS),
    *(("/v1/completions", COMPLETION, *row) for row in BAD_COMPLETIONS),
    *(("/tokenize", COMPLETION, *row) for row in BAD_TOKENIZE),
]


def check_error(response, status: int, code: str | None = None) -> dict:
    """The whole contract of an error answer."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    message = body["error"]["message"]
    assert message.endswith(".")
    assert len(message) < 300
    assert "\n" not in message
    for leak in (SECRET, "Traceback", "pydantic", "freehold.", "/src/", "site-packages"):
        assert leak not in response.text
    if code is not None:
        assert body["error"]["code"] == code
    return body["error"]


@pytest.mark.parametrize(("path", "good", "change", "param", "words"), TABLE)
async def test_a_wrong_field_is_named(house, path, good, change, param, words):
    response = await house.http.post(path, json=good | change)
    error = check_error(response, 400)
    assert error["param"] == param
    assert words in error["message"]
    assert error["type"] == "invalid_request_error"
    assert house.fake.requests == []


@pytest.mark.parametrize(
    "change",
    [
        {"tools": []},
        {"tool_choice": "auto"},
        {"modalities": ["text"]},
        {"user": "u", "store": True, "metadata": {"a": "b"}, "service_tier": "auto"},
        {"n": None, "stop": None, "temperature": None, "stream": None, "tools": None},
        {"n": 2, "best_of": 2},
        {"top_k": -1},
        {"logit_bias": {}},
        {"stop": []},
        {"seed": -5},
        {"temperature": 0},
    ],
)
async def test_fields_that_change_nothing_are_taken(house, change):
    response = await house.http.post("/v1/chat/completions", json=CHAT | change)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense " + SECRET.encode(),
        b'{"model": NaN}',
        b'{"model": "\\ud800"}',
        b"\xff\xfe",
        b"[]",
        b"null",
        b'"text"',
        b"[" * 100_000,
        b'{"a":' * 5000,
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/tokenize"])
async def test_a_body_that_is_no_json_object_is_refused(house, path, body):
    check_error(await house.http.post(path, content=body), 400)


async def open_post(house, header: bytes):
    reader, writer = await asyncio.open_connection(*house.gateway.address.split(":"))
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Authorization: Bearer " + house.key.encode() + b"\r\n" + header + b"\r\n\r\n"
    )
    return reader, writer


async def read_answer(reader) -> tuple[bytes, dict]:
    """Status line and body of what comes until the server closes."""
    head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
    return head.partition(b"\r\n")[0], json.loads(body)["error"]


async def test_a_declared_body_that_is_too_large_is_refused_unread(house):
    reader, writer = await open_post(house, b"Content-Length: 99999999999")
    status, error = await read_answer(reader)
    assert status.startswith(b"HTTP/1.1 413 ")
    assert error["code"] == "request_too_large"
    writer.close()


@pytest.mark.parametrize("num_chunks", [5, 15])  # 5/4 and 15/4 of the largest body
async def test_a_body_somewhat_too_large_gets_its_answer(house, num_chunks):
    async def chunks():
        for _ in range(num_chunks):
            yield b"x" * (64 * 1024)

    check_error(await house.http.post("/v1/completions", content=chunks()), 413)
    declared = await house.http.post("/v1/completions", content=b"x" * num_chunks * 64 * 1024)
    check_error(declared, 413)


async def test_an_endless_body_is_cut_off(house):
    _, writer = await open_post(house, b"Transfer-Encoding: chunked")
    sent = 0

    async def send_for_ever() -> None:
        nonlocal sent
        while sent < 100 * 1024 * 1024:
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            await writer.drain()
            sent += 0x10000

    with pytest.raises(ConnectionError):
        await send_for_ever()
    assert sent > 5 * 256 * 1024  # it was heard out for a while, then not


async def test_a_slow_body_times_out(house):
    reader, writer = await open_post(house, b"Content-Length: 1000")
    writer.write(b"{")
    status, error = await read_answer(reader)
    assert status.startswith(b"HTTP/1.1 408 ")
    assert error["code"] == "request_timeout"
    writer.close()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("POST", "/", 405, "method_not_allowed"),
        ("GET", "/v1/stream", 404, "unknown_url"),
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("GET", "/v1/models/", 404, "model_not_found"),
        ("GET", "/%00", 404, "unknown_url"),
        ("GET", "/v1/chat/completions/", 404, "unknown_url"),
    ],
)
async def test_wrong_methods_and_paths(house, method, path, status, code):
    response = await house.http.request(method, path)
    check_error(response, status, code)
    assert ("allow" in response.headers) == (status == 405)
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer fh-wrong"},
        {"Authorization": "Bearer " + "x" * 10_000},
        {"Authorization": "Basic Zm9vOmJhcg=="},
        {"Authorization": b"Bearer \xc3\xa9"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/tokenize"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/fake"),
    ],
)
async def test_without_a_good_key_nothing_is_answered(house, method, path, headers):
    del house.http.headers["Authorization"]
    response = await house.http.request(method, path, headers=headers, content=b"{")
    check_error(response, 401, "invalid_api_key")
    assert response.headers["www-authenticate"] == "Bearer"


async def test_a_revoked_key_is_refused_at_once(house):
    assert (await house.http.get("/v1/models")).status_code == 200
    house.gateway.keys.revoke("test")
    check_error(await house.http.get("/v1/models"), 401)


async def test_the_log_holds_no_prompt_and_no_key(house, caplog):
    caplog.set_level("DEBUG")
    await house.http.post("/v1/chat/completions", json=CHAT)
    await house.http.post("/v1/chat/completions", json=CHAT | {"n": 99})
    await house.http.get(f"/v1/models?key={house.key}")
    house.fake.error = RuntimeError  # makes the servicer itself fail
    failed = await house.http.post("/v1/chat/completions", json=CHAT)
    check_error(failed, 500, "internal_error")
    ours = [r.getMessage() for r in caplog.records if r.name.startswith(("freehold", "uvicorn"))]
    assert any("/v1/chat/completions 200" in line for line in ours)
    for line in ours:
        assert SECRET not in line
        assert house.key not in line
