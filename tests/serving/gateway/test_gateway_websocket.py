"""The `websockets` client on /v1/stream."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest
from tests.serving.gateway.fake_orchestrator import (
    CACHED_TOKENS,
    DEFAULT_TOKENS,
    MODEL,
    PROMPT_TOKENS,
    answer,
)
from tests.serving.gateway.house import MESSAGES, keeping_house, until
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from freehold.errors import Unavailable


def open_stream(house, **options):
    options.setdefault("additional_headers", {"Authorization": f"Bearer {house.key}"})
    return connect(house.socket_url, compression=None, **options)


async def send(socket, **frame) -> None:
    await socket.send(json.dumps(frame))


async def start(socket, request_id: str, **fields) -> None:
    request = {"model": MODEL, "messages": MESSAGES, "seed": 1, **fields}
    await send(socket, type="start", id=request_id, **request)


async def receive(socket) -> dict:
    return json.loads(await asyncio.wait_for(socket.recv(), 5))


async def frames_until_end(socket) -> list[dict]:
    frames = [await receive(socket)]
    while frames[-1]["type"] == "token":
        frames.append(await receive(socket))
    return frames


async def test_tokens_then_usage(house):
    house.fake.token_seconds = 0.02
    async with open_stream(house) as socket:
        await start(socket, "r1")
        *tokens, usage = await frames_until_end(socket)
    assert "".join(t["text"] for t in tokens) == answer(1, DEFAULT_TOKENS)
    assert [t["sequence"] for t in tokens] == list(range(DEFAULT_TOKENS + 1))
    assert tokens[0] == {
        "type": "token",
        "id": "r1",
        "index": 0,
        "sequence": 0,
        "text": "w1.0 ",
        "reasoning": None,
        "finish_reason": None,
    }
    assert [t["finish_reason"] for t in tokens if t["finish_reason"]] == ["length"]
    assert tokens[-1]["finish_reason"] == "length"
    assert usage.pop("ttft_seconds") > 0
    assert 0 < usage.pop("tokens_per_second") < 60
    assert usage == {
        "type": "usage",
        "id": "r1",
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": DEFAULT_TOKENS,
        "cached_tokens": CACHED_TOKENS,
    }


async def test_key_as_subprotocol_is_answered_with_the_protocol_alone(house):
    offered = ["freehold.v1", f"freehold-key.{house.key}"]
    async with open_stream(house, additional_headers={}, subprotocols=offered) as socket:
        assert socket.subprotocol == "freehold.v1"
        await start(socket, "r1")
        assert (await frames_until_end(socket))[-1]["type"] == "usage"


@pytest.mark.parametrize(
    "options",
    [
        {"additional_headers": {}},
        {"additional_headers": {"Authorization": "Bearer fh-wrong"}},
        {"additional_headers": {"Authorization": "Basic abc"}},
        {"additional_headers": {}, "subprotocols": ["freehold.v1", "freehold-key.fh-wrong"]},
    ],
)
async def test_without_a_good_key_the_handshake_is_refused(house, options):
    with pytest.raises(InvalidStatus) as caught:
        await open_stream(house, **options).__aenter__()
    assert caught.value.response.status_code == 401
    error = json.loads(caught.value.response.body)["error"]
    assert error["code"] == "invalid_api_key"


async def test_only_our_own_page_may_connect(house):
    async with open_stream(house, origin=house.url):
        pass
    for origin in ("http://evil.example", "null", "http://localhost:1"):
        with pytest.raises(InvalidStatus) as caught:
            await open_stream(house, origin=origin).__aenter__()
        assert caught.value.response.status_code == 403


async def test_several_requests_run_on_one_connection(house):
    house.fake.token_seconds = 0.002
    async with open_stream(house) as socket:
        for i in range(4):
            await start(socket, f"r{i}", seed=i)
        texts = {f"r{i}": "" for i in range(4)}
        order, ended = [], set()
        while len(ended) < 4:
            frame = await receive(socket)
            order.append(frame["id"])
            if frame["type"] == "token":
                texts[frame["id"]] += frame["text"]
            else:
                assert frame["type"] == "usage"
                ended.add(frame["id"])
    assert texts == {f"r{i}": answer(i, DEFAULT_TOKENS) for i in range(4)}
    assert order != sorted(order)  # they were interleaved


async def test_choices_are_told_apart_and_each_finishes(house):
    async with open_stream(house) as socket:
        await start(socket, "r1", n=2, seed=5, max_tokens=3)
        *tokens, usage = await frames_until_end(socket)
    for index in (0, 1):
        mine = [t for t in tokens if t["index"] == index]
        assert "".join(t["text"] for t in mine) == answer(5 + index, 3)
        assert [t["sequence"] for t in mine] == [0, 1, 2, 3]
        assert mine[-1]["finish_reason"] == "length"
    assert usage["completion_tokens"] == 6


async def test_reasoning_has_its_own_field(house):
    house.fake.num_reasoning_tokens = 2
    async with open_stream(house) as socket:
        await start(socket, "r1")
        *tokens, _ = await frames_until_end(socket)
    assert "".join(t["reasoning"] or "" for t in tokens) == answer(1, 2)
    assert "".join(t["text"] for t in tokens) == answer(1, 8).removeprefix(answer(1, 2))


async def test_cancel_frees_the_request_and_is_acknowledged_last(house):
    house.fake.token_seconds = 0.005
    async with open_stream(house) as socket:
        await start(socket, "r1", max_tokens=100_000, n=2)
        assert (await receive(socket))["type"] == "token"
        await send(socket, type="cancel", id="r1")
        last = (await frames_until_end(socket))[-1]
        assert last == {"type": "cancel", "id": "r1"}
        await until(lambda: house.fake.num_active == 0)
        await start(socket, "r1", max_tokens=2)  # the id is free again, the connection alive
        assert (await frames_until_end(socket))[-1]["type"] == "usage"


async def test_a_cancel_right_behind_its_start_is_acknowledged(house):
    async with open_stream(house) as socket:
        for i in range(20):
            await start(socket, f"r{i}", max_tokens=100_000)
            await send(socket, type="cancel", id=f"r{i}")
            assert (await frames_until_end(socket))[-1] == {"type": "cancel", "id": f"r{i}"}
    await until(lambda: house.fake.num_active == 0)


async def test_cancelling_what_has_ended_says_nothing(house):
    async with open_stream(house) as socket:
        await start(socket, "r1")
        await frames_until_end(socket)
        await send(socket, type="cancel", id="r1")
        await start(socket, "r2")
        assert {f["id"] for f in await frames_until_end(socket)} == {"r2"}


async def test_closing_cancels_everything(house):
    house.fake.token_seconds = 0.005
    async with open_stream(house) as socket:
        for i in range(3):
            await start(socket, f"r{i}", max_tokens=100_000)
        await until(lambda: house.fake.num_active == 3)
    await until(lambda: house.fake.num_active == 0)
    assert house.fake.num_left_early == 3


async def test_a_broken_connection_cancels_too(house):
    house.fake.token_seconds = 0.005
    connection = await open_stream(house)
    await start(connection, "r1", max_tokens=100_000)
    await receive(connection)
    connection.transport.abort()
    await until(lambda: house.fake.num_active == 0)


BAD_FRAMES = [
    ("not json", None, 400, "valid JSON"),
    ("[1]", None, 400, "object"),
    ("{}", None, 400, "id must be"),
    ('{"id": "", "type": "start"}', None, 400, "id must be"),
    (json.dumps({"id": "x" * 65, "type": "start"}), None, 400, "id must be"),
    ('{"id": 5, "type": "start"}', None, 400, "id must be"),
    ('{"id": "a\\u0000b", "type": "start"}', None, 400, "id must be"),
    ('{"id": "r", "type": "begin"}', "r", 400, "type must be"),
    ('{"id": "r", "type": "start"}', "r", 400, "required"),
    (
        json.dumps({"id": "r", "type": "start", "model": MODEL, "messages": MESSAGES, "n": 17}),
        "r",
        400,
        "n must be at most 16",
    ),
    (
        json.dumps({"id": "r", "type": "start", "model": "nobody", "messages": MESSAGES}),
        "r",
        404,
        "nobody",
    ),
    (
        json.dumps(
            {"id": "r", "type": "start", "model": MODEL, "messages": MESSAGES, "logprobs": True}
        ),
        "r",
        400,
        "logprobs",
    ),
    (b"\x00\x01", None, 400, "text"),
]


@pytest.mark.parametrize(("frame", "request_id", "status", "words"), BAD_FRAMES)
async def test_a_bad_frame_is_answered_and_the_connection_stays(
    house, frame, request_id, status, words
):
    async with open_stream(house) as socket:
        await socket.send(frame)
        error = await receive(socket)
        assert (error["type"], error["id"], error["status"]) == ("error", request_id, status)
        assert words in error["error"]["message"]
        await start(socket, "next")
        assert (await frames_until_end(socket))[-1]["type"] == "usage"


async def test_a_running_id_is_refused_and_goes_on(house):
    house.fake.token_seconds = 0.01
    async with open_stream(house) as socket:
        await start(socket, "r1", max_tokens=20)
        await start(socket, "r1")
        frames = []
        while not frames or frames[-1]["type"] != "usage":
            frames.append(await receive(socket))
    errors = [f for f in frames if f["type"] == "error"]
    assert [e["status"] for e in errors] == [409]
    assert "".join(f["text"] for f in frames if f["type"] == "token") == answer(1, 20)


async def test_a_connection_runs_only_so_many(house):
    house.fake.token_seconds = 0.01
    async with open_stream(house) as socket:
        for i in range(5):
            await start(socket, f"r{i}", max_tokens=100_000)
        frame = await receive(socket)
        while frame["type"] == "token":
            frame = await receive(socket)
        assert (frame["id"], frame["status"]) == ("r4", 429)


async def test_an_error_in_mid_stream_ends_the_request_only(house):
    house.fake.error, house.fake.error_at = Unavailable("Gone."), 2
    async with open_stream(house) as socket:
        await start(socket, "r1")
        *tokens, error = await frames_until_end(socket)
        assert len(tokens) == 2
        assert error["status"] == 503
        assert error["error"]["message"] == "Gone."
        house.fake.error = None
        await start(socket, "r2")
        assert (await frames_until_end(socket))[-1]["type"] == "usage"


async def test_an_oversized_frame_closes_the_connection(house):
    async with open_stream(house) as socket:
        await socket.send("x" * (256 * 1024 + 1))
        with pytest.raises(ConnectionClosed) as caught:
            await socket.recv()
        assert caught.value.rcvd.code == 1009


async def test_a_revoked_key_starts_nothing_more(house):
    async with open_stream(house) as socket:
        await start(socket, "r1")
        await frames_until_end(socket)
        house.gateway.keys.revoke("test")
        await start(socket, "r2")
        error = await receive(socket)
        assert (error["id"], error["status"]) == ("r2", 401)
        with pytest.raises(ConnectionClosed) as caught:
            await socket.recv()
        assert caught.value.rcvd.code == 1008
    assert len(house.fake.requests) == 1


async def test_a_reader_that_stalls_holds_back_the_orchestrator_and_is_dropped(tmp_path):
    """Neither tokens nor frames pile up in the gateway for a client that takes nothing."""
    async with keeping_house(tmp_path, send_timeout_seconds=1.5) as house:
        small = socket.socket()
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = house.gateway.address.split(":")
        small.connect((host, int(port)))
        connection = await open_stream(house, sock=small, max_queue=1)
        await start(connection, "r1", max_tokens=10_000_000)
        await until(lambda: house.fake.num_written > 1000)
        connection.transport.pause_reading()
        counts = []
        while len(counts) < 4 or len(set(counts[-4:])) > 1:
            counts.append(house.fake.num_written)
            await asyncio.sleep(0.1)
            assert len(counts) < 100, "the orchestrator was never held back"
        assert house.fake.num_written < 1_000_000
        await until(lambda: house.fake.num_active == 0)  # dropped after the send timeout
        connection.transport.abort()
