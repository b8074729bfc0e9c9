"""The gateway's ASGI application: guards, routes, and the border where every error becomes JSON.

Plain ASGI, because middleware that wraps streams costs a fifth of a proxy's time. Knows no process
(`main.py`) and no shape of answer (`openai_*.py`). Read `generation.py` next.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import orjson
from starlette.types import Receive, Scope, Send

import freehold
from freehold.errors import FreeholdError, ModelNotFound, Unavailable
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.rpc.v1 import orchestrator_pb2 as orchestrator_pb
from freehold.rpc.v1.orchestrator_pb2_grpc import OrchestratorStub
from freehold.serving.convert import error_from_proto, messages_to_proto
from freehold.serving.gateway import metrics as metrics_format
from freehold.serving.gateway.errors import (
    MethodNotAllowed,
    PathNotFound,
    error_headers,
    error_object,
    from_rpc,
)
from freehold.serving.gateway.exchange import (
    DONE,
    SAFE_HEADERS,
    ClientGone,
    Exchange,
    internal_error,
    read_headers,
)
from freehold.serving.gateway.generation import Generation, GenerationSpec
from freehold.serving.gateway.guard import SUBPROTOCOL, Guard
from freehold.serving.gateway.keys import KeyStore
from freehold.serving.gateway.log import log_failure, log_request
from freehold.serving.gateway.metrics import Metrics
from freehold.serving.gateway.openai_chat import ChatChunks, chat_completion
from freehold.serving.gateway.openai_completions import Completion
from freehold.serving.gateway.pages import PageFile, load_page
from freehold.serving.gateway.requests import ChatBody, CompletionBody, TokenizeBody
from freehold.serving.gateway.settings import GatewaySettings
from freehold.serving.gateway.websocket import ROUTE as STREAM_ROUTE
from freehold.serving.gateway.websocket import StreamConnection

PROBE_TIMEOUT_SECONDS = 2.0  # for health, models and statistics
TOKENIZE_TIMEOUT_SECONDS = 30.0
MODEL_PREFIX = "/v1/models/"

Handler = Callable[[Exchange], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Route:
    name: str  # in metrics and log
    method: str
    handler: Handler
    needs_key: bool = True


class App:
    def __init__(
        self,
        settings: GatewaySettings,
        stub: OrchestratorStub,
        keys: KeyStore,
        page: Mapping[str, PageFile] | None = None,
    ) -> None:
        self.is_draining = False
        self._num_exchanges = 0
        self._settings = settings
        self._stub = stub
        self._guard = Guard(settings, keys)
        self._metrics = Metrics()
        self._page = load_page() if page is None else page
        self._start_time = int(time.time())
        self._routes = self._table()

    def _table(self) -> dict[str, Route]:
        def route(path: str, method: str, handler: Handler, needs_key: bool = True) -> None:
            table[path] = Route(path, method, handler, needs_key)

        table: dict[str, Route] = {}
        route("/v1/chat/completions", "POST", self._chat)
        route("/v1/completions", "POST", self._completions)
        route("/v1/models", "GET", self._models)
        route("/tokenize", "POST", self._tokenize)
        route("/health", "GET", self._health, needs_key=False)
        route("/version", "GET", self._version, needs_key=False)
        route("/metrics", "GET", self._render_metrics, not self._settings.is_metrics_open)
        for path, file in self._page.items():
            table[path] = Route("page", "GET", partial(_send_page, file), needs_key=False)
        return table

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(Exchange(scope, receive, send, self._settings))
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)

    async def _http(self, exchange: Exchange) -> None:
        """The request boundary: whatever happens, one answer and one line in the log."""
        started = time.monotonic()
        self._num_exchanges += 1
        name = "unknown"
        status = 499
        try:
            try:
                self._guard.check_host(exchange.headers)
                route = self._route(exchange)
                name = route.name
                method = "GET" if exchange.method == "HEAD" else exchange.method
                if method != route.method:
                    raise MethodNotAllowed(f"This path takes only {route.method}.", route.method)
                if route.needs_key:
                    self._guard.check_key(exchange.headers)
                await route.handler(exchange)
            except FreeholdError as error:
                await exchange.reply_error(error)
            except ClientGone:
                raise
            except Exception as error:
                log_failure(exchange.request_id, error)
                if exchange.status:  # too late to say so: the connection is cut
                    status = 500
                    return
                await exchange.reply_error(internal_error())
            status = exchange.status
        except ClientGone:
            pass  # said by the status
        finally:
            self._num_exchanges -= 1
            self._metrics.request(name, status)
            seconds = time.monotonic() - started
            log_request(exchange.request_id, exchange.method, name, status, seconds)

    def _route(self, exchange: Exchange) -> Route:
        route = self._routes.get(exchange.path)
        if route is not None:
            return route
        if exchange.path.startswith(MODEL_PREFIX):
            return Route(f"{MODEL_PREFIX}{{id}}", "GET", self._model)
        raise PathNotFound("There is nothing at this path; the API is at /v1.")

    # Generation

    async def _chat(self, exchange: Exchange) -> None:
        body = ChatBody.parse(await exchange.json_body())
        spec = body.spec()

        async def answer() -> None:
            async with self._generation(exchange.request_id, spec) as generation:
                if not body.stream:
                    await exchange.reply_json(await chat_completion(body, generation))
                    return
                await generation.begin()
                chunks = ChatChunks(body, generation)
                await _stream(
                    exchange,
                    generation,
                    chunks.of,
                    chunks.usage_chunk if body.includes_usage else None,
                )

        await exchange.unless_gone(answer())

    async def _completions(self, exchange: Exchange) -> None:
        body = CompletionBody.parse(await exchange.json_body())
        spec = body.spec()

        async def answer() -> None:
            async with self._generation(exchange.request_id, spec) as generation:
                completion = Completion(body, generation)
                if not body.stream:
                    await exchange.reply_json(await completion.whole())
                    return
                await generation.begin()
                await _stream(
                    exchange,
                    generation,
                    completion.chunks,
                    completion.usage_chunk if body.includes_usage else None,
                )

        await exchange.unless_gone(answer())

    def _generation(self, request_id: str, spec: GenerationSpec) -> Generation:
        if self.is_draining:
            raise Unavailable("The gateway is shutting down.", retry_after_seconds=5.0)
        return Generation(
            self._stub, request_id, spec, self._metrics, self._settings.request_timeout_seconds
        )

    # Everything else

    async def _models(self, exchange: Exchange) -> None:
        models = [self._model_object(model) for model in await self._list_models()]
        await exchange.reply_json({"object": "list", "data": models})

    async def _model(self, exchange: Exchange) -> None:
        wanted = exchange.path.removeprefix(MODEL_PREFIX)
        for model in await self._list_models():
            if model.name == wanted:
                return await exchange.reply_json(self._model_object(model))
        raise ModelNotFound("No model of that name is served; GET /v1/models lists those that are.")

    async def _list_models(self) -> list[pb.ModelInfo]:
        async with _rpc():
            reply = await self._stub.ListModels(
                orchestrator_pb.ListModelsRequest(), timeout=PROBE_TIMEOUT_SECONDS
            )
        return list(reply.models)

    def _model_object(self, model: pb.ModelInfo) -> dict[str, Any]:
        return {
            "id": model.name,
            "object": "model",
            "created": self._start_time,
            "owned_by": "freehold",
            "max_model_len": model.max_model_len,
            "revision": model.revision,
            "architecture": model.architecture,
            "weight_format": model.weight_format,
        }

    async def _tokenize(self, exchange: Exchange) -> None:
        body = TokenizeBody.parse(await exchange.json_body())
        body.check()
        request = pb.TokenizeRequest(model=body.model)
        if body.messages is not None:
            request.chat.CopyFrom(messages_to_proto(body.messages))
        else:
            request.text = body.prompt or ""
        async with _rpc():
            reply = await self._stub.Tokenize(request, timeout=TOKENIZE_TIMEOUT_SECONDS)
        if reply.HasField("error"):
            raise error_from_proto(reply.error)
        await exchange.reply_json(
            {
                "count": len(reply.ids),
                "max_model_len": reply.max_model_len,
                "tokens": list(reply.ids),
            }
        )

    async def _health(self, exchange: Exchange) -> None:
        """200 "ready" only when a question asked now would be answered."""
        status = "unavailable"
        with suppress(grpc.aio.AioRpcError):
            reply = await self._stub.Health(pb.HealthRequest(), timeout=PROBE_TIMEOUT_SECONDS)
            status = reply.status
        if self.is_draining:
            status = "draining"
        await exchange.reply_json({"status": status}, 200 if status == "ready" else 503)

    async def _version(self, exchange: Exchange) -> None:
        await exchange.reply_json({"version": freehold.__version__})

    async def _render_metrics(self, exchange: Exchange) -> None:
        stats = None
        with suppress(grpc.aio.AioRpcError):  # said by freehold_orchestrator_up
            stats = await self._stub.Stats(pb.StatsRequest(), timeout=PROBE_TIMEOUT_SECONDS)
        headers = [(b"content-type", metrics_format.CONTENT_TYPE.encode())]
        await exchange.reply(200, self._metrics.render(stats), headers)

    # WebSocket

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = read_headers(scope)
        try:
            self._guard.check_host(headers)
            if scope["path"] != STREAM_ROUTE:
                raise PathNotFound(f"The WebSocket is at {STREAM_ROUTE}.")
            self._guard.check_origin(headers)
            key = self._guard.check_websocket_key(headers, scope["subprotocols"])
        except FreeholdError as error:
            self._metrics.request(STREAM_ROUTE, error.status)
            await _refuse_websocket(error, send)
            return
        offered = SUBPROTOCOL if SUBPROTOCOL in scope["subprotocols"] else None
        await receive()  # websocket.connect
        await send({"type": "websocket.accept", "subprotocol": offered})
        connection = StreamConnection(
            receive,
            send,
            self._settings,
            self._metrics,
            self._generation,
            lambda: self._guard.verified(key),
        )
        await connection.serve()

    @property
    def is_busy(self) -> bool:
        """An HTTP request or an answer over a WebSocket is under way."""
        return self._num_exchanges > 0 or self._metrics.num_streams > 0


async def _stream(
    exchange: Exchange,
    generation: Generation,
    chunks: Callable[[pb.GenerateEvent], Iterable[dict[str, Any]]],
    usage_chunk: Callable[[], dict[str, Any]] | None,
) -> None:
    """Server-sent events to the end; what fails on the way is the last event."""
    await exchange.start_events()
    last = DONE
    try:
        async for event in generation.events():
            for chunk in chunks(event):
                await exchange.send_event(chunk)
        if usage_chunk is not None:
            await exchange.send_event(usage_chunk())
    except FreeholdError as error:
        last = b"data: " + orjson.dumps({"error": error_object(error)}) + b"\n\n"
    await exchange.end_events(last)


async def _send_page(file: PageFile, exchange: Exchange) -> None:
    await exchange.reply(*file.answer(exchange.headers))


@asynccontextmanager
async def _rpc() -> AsyncIterator[None]:
    """A call to the orchestrator whose failure is an answer to the client."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from error


async def _refuse_websocket(error: FreeholdError, send: Send) -> None:
    """An HTTP answer in place of the handshake, so that a client sees the reason."""
    body = orjson.dumps({"error": error_object(error)})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *SAFE_HEADERS,
        *error_headers(error),
    ]
    await send(
        {"type": "websocket.http.response.start", "status": error.status, "headers": headers}
    )
    await send({"type": "websocket.http.response.body", "body": body})
