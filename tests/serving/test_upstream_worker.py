"""The forwarding worker against a real HTTP server that speaks OpenAI's protocol."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import time
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, RedirectResponse, StreamingResponse
from starlette.routing import Route
from test_orchestrator_streams import collect, orchestrator, registered, until

from freehold.errors import ConfigError
from freehold.rpc.channel import connect
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.rpc.v1 import worker_pb2 as worker_pb
from freehold.rpc.v1.worker_pb2_grpc import WorkerStub
from freehold.serving.convert import messages_to_proto, sampling_to_proto
from freehold.serving.worker import WorkerSettings, serve
from freehold.types import ChatMessage, SamplingParams

numbers = itertools.count()
WORDS = ["Hello", " wörld", " 你好", "!"]


class Upstream:
    """An OpenAI-compatible server with the answers a test wants."""

    def __init__(self) -> None:
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.mode = "answer"
        self.num_streaming = 0
        self.num_elsewhere = 0

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/models", self.models),
                Route("/v1/chat/completions", self.answer, methods=["POST"]),
                Route("/v1/completions", self.answer, methods=["POST"]),
                Route("/elsewhere", self.elsewhere, methods=["GET", "POST"]),
            ]
        )

    async def models(self, request):
        if self.mode == "gone":
            return JSONResponse({"error": "gone"}, 500)
        return JSONResponse({"data": [{"id": "far", "max_model_len": 4096}]})

    async def elsewhere(self, request):
        self.num_elsewhere += 1
        return JSONResponse({})

    async def answer(self, request):
        self.bodies.append(await request.json())
        self.headers.append(dict(request.headers))
        error = {"error": {"message": "because of " + "x" * 2000}}
        if self.mode == "redirect":
            return RedirectResponse("/elsewhere", 307)
        if self.mode.startswith("status "):
            return JSONResponse(error, int(self.mode.split()[1]), {"retry-after": "7"})
        is_chat = request.url.path.endswith("chat/completions")
        return StreamingResponse(self.chunks(is_chat), media_type="text/event-stream")

    async def chunks(self, is_chat):
        self.num_streaming += 1
        try:
            if is_chat:
                yield chunk({"delta": {"role": "assistant", "reasoning_content": "Hm."}})
            for word in WORDS:
                yield chunk({"delta": {"content": word}} if is_chat else {"text": word})
                if self.mode == "break":
                    return
                if self.mode == "garbage":
                    yield "data: [1, {broken\n\n"
                if self.mode == "endless":
                    yield "data: " + "x" * (1 << 21)
                while self.mode == "hang":
                    yield ": still here\n\n"
                    await asyncio.sleep(0.02)
            yield chunk({"delta": {}, "text": "", "finish_reason": "length"})
            usage = {"prompt_tokens": 11, "completion_tokens": 42}
            yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n"
            yield "data: [DONE]\n\n"
        finally:
            self.num_streaming -= 1


def chunk(choice: dict) -> str:
    return f"data: {json.dumps({'choices': [{'index': 0} | choice]}, ensure_ascii=False)}\n\n"


@asynccontextmanager
async def http(upstream: Upstream):
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(upstream.app(), log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None
    task = asyncio.create_task(server.serve([listener]))
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        server.should_exit = server.force_exit = True
        await task


@asynccontextmanager
async def forwarding(**settings):
    upstream = Upstream()
    async with http(upstream) as url:
        settings = {"upstream_model": "far", "name": "near", "upstream_api_key": "k"} | settings
        options = WorkerSettings(upstream_url=url, drain_seconds=0.5, **settings)
        async with serve(options) as worker:
            channel = connect(worker.address)
            try:
                yield upstream, worker, WorkerStub(channel)
            finally:
                await channel.close(grace=None)


def chat(**fields) -> pb.GenerateRequest:
    sampling = fields.pop("sampling", SamplingParams(max_tokens=9, seed=(1 << 64) - 1))
    return pb.GenerateRequest(
        request_id=f"u{next(numbers)}",
        model="near",
        chat=messages_to_proto([ChatMessage("user", "hi")]),
        sampling=sampling_to_proto(sampling),
        **fields,
    )


async def test_a_chat_is_forwarded_and_its_deltas_come_back_counted():
    async with forwarding() as (upstream, _, stub):
        events = await collect(stub, chat())
        assert events[0].started.revision.startswith("upstream-")
        tokens = [e for e in events if e.HasField("token")]
        assert [e.sequence for e in tokens] == [0, 1, 2, 3, 4]
        assert "".join(e.token.text for e in tokens) == "".join(WORDS)
        assert tokens[0].token.reasoning == "Hm."
        last = events[-1].finished
        assert last.reason == "length"
        assert (last.num_prompt_tokens, last.num_output_tokens) == (11, 42)
        (body,) = upstream.bodies
        assert body["model"] == "far"
        assert body["messages"] == [{"role": "user", "content": "hi"}]
        assert body["stream_options"] == {"include_usage": True}
        assert 0 <= body["seed"] < 1 << 63
        assert "top_k" not in body
        assert upstream.headers[0]["authorization"] == "Bearer k"


async def test_a_completion_is_forwarded_as_one():
    async with forwarding() as (upstream, _, stub):
        request = chat()
        request.text = "once"
        events = await collect(stub, request)
        assert "".join(e.token.text for e in events) == "".join(WORDS)
        assert upstream.bodies[0]["prompt"] == "once"


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("redirect", "unavailable"),
        ("status 400", "invalid_value"),
        ("status 401", "unavailable"),
        ("status 404", "not_found"),
        ("status 429", "overloaded"),
        ("status 500", "unavailable"),
        ("break", "unavailable"),
        ("garbage", "unavailable"),
        ("endless", "unavailable"),
    ],
)
async def test_what_goes_wrong_upstream_is_one_clear_error(mode, code):
    async with forwarding() as (upstream, worker, stub):
        upstream.mode = mode
        events = await collect(stub, chat())
        assert events[-1].error.code == code
        assert 10 < len(events[-1].error.message) < 700
        assert upstream.num_elsewhere == 0
        assert worker.backend.num_active == 0
        if mode == "status 429":
            assert events[-1].error.retry_after_seconds == 7


async def test_cancel_deadline_and_a_client_that_leaves_close_the_upstream_stream():
    async with forwarding() as (upstream, worker, stub):
        upstream.mode = "hang"
        events = await collect(stub, chat(timeout_seconds=0.3))
        assert events[-1].finished.reason == "deadline"
        await until(lambda: upstream.num_streaming == 0)

        request = chat()
        answer = asyncio.create_task(collect(stub, request))
        await until(lambda: upstream.num_streaming == 1)
        assert (await stub.Cancel(pb.CancelRequest(request_id=request.request_id))).found
        assert (await answer)[-1].finished.reason == "cancelled"
        await until(lambda: upstream.num_streaming == 0)

        call = stub.Generate(chat())
        assert (await call.read()).HasField("started")
        call.cancel()
        await until(lambda: upstream.num_streaming == 0 and worker.backend.num_active == 0)


async def test_an_upstream_that_goes_takes_its_model_with_it_until_it_is_back(monkeypatch):
    monkeypatch.setattr("freehold.serving.worker.upstream.PROBE_SECONDS", 0.1)
    async with (
        orchestrator() as (running, stub),
        forwarding(orchestrator=running.address) as (upstream, _, _),
    ):
        await until(lambda: [m.name for m in running.registry.models()] == ["near"])
        upstream.mode = "gone"
        await until(lambda: not running.registry.models())
        upstream.mode = "answer"
        await until(lambda: running.registry.models())
        events = await collect(stub, chat())
        assert events[-1].finished.reason == "length"


async def test_an_answer_that_broke_off_upstream_is_not_resumed_but_said_to_be_broken():
    async with (
        orchestrator(grace_seconds=0.5) as (running, stub),
        forwarding(orchestrator=running.address) as (upstream, _, _),
    ):
        await registered(running, 1)
        upstream.mode = "break"
        began = time.monotonic()
        events = await collect(stub, chat())
        assert [e.token.text for e in events if e.HasField("token")] == ["", "Hello"]
        assert events[-1].error.code == "unavailable"
        assert "ask again" in events[-1].error.message
        assert len(upstream.bodies) == 1
        assert time.monotonic() - began < 3


async def test_it_loads_and_tokenizes_nothing_and_says_so():
    async with forwarding() as (_, _, stub):
        assert (await stub.Load(worker_pb.LoadRequest(path="x"))).error.code == "invalid_value"
        reply = await stub.Tokenize(pb.TokenizeRequest(model="near", text="x"))
        assert reply.error.code == "not_found"
        (event,) = await collect(stub, chat(sampling=SamplingParams(json_schema="{")))
        assert event.error.code == "invalid_json_schema"


@pytest.mark.parametrize(
    "url", ["ftp://host/v1", "http://", "file:///etc", "http://me:pw@host/v1", "http://h/v1?key=x"]
)
def test_urls_that_are_no_plain_server_are_refused(url):
    with pytest.raises(ConfigError):
        WorkerSettings(upstream_url=url, upstream_model="m").check()


def test_secrets_do_not_show_in_the_settings():
    shown = repr(WorkerSettings(upstream_api_key="secret-key", cluster_token="secret-token"))
    assert "secret" not in shown
