"""A worker's backend that forwards to an OpenAI-compatible server (vLLM, llama.cpp …).

The upstream tells no token ids: token_id is 0, `sequence` counts its deltas, and an answer that
has begun cannot be resumed by another worker, since there is nothing to resume it from; it ends
as Unavailable. A request of which nothing was emitted yet goes elsewhere like any other. Only the
configured URL is dialled: no redirects, no proxies. `upstream_wire.py` knows OpenAI's JSON.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing

import httpx

from freehold.errors import InvalidRequest, ModelNotFound, NotFound, Unavailable
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.rpc.v1 import worker_pb2 as worker_pb
from freehold.serving.worker import upstream_wire as wire
from freehold.serving.worker.settings import WorkerSettings
from freehold.types import FinishReason

log = logging.getLogger("freehold.worker")

PROBE_SECONDS = 2.0
CONNECT_TIMEOUT_SECONDS = 5.0
SILENCE_TIMEOUT_SECONDS = 300.0  # between two pieces of an answer
MAX_LINE_BYTES = 1 << 20
MAX_ERROR_BYTES = 1 << 16
MAX_MODELS_BYTES = 1 << 22


class _Running:
    """A stream, and how to end it as cancelled."""

    def __init__(self, request: pb.GenerateRequest) -> None:
        self.request = request
        self.is_cancelled = False
        self.scope: asyncio.Timeout | None = None

    def cancel(self) -> None:
        self.is_cancelled = True
        if self.scope is not None:
            self.scope.reschedule(0.0)

    async def next_event(
        self, events: AsyncGenerator[pb.GenerateEvent], deadline: float | None
    ) -> pb.GenerateEvent | None:
        """None after the last. TimeoutError at the deadline (loop time) or when cancelled."""
        if self.is_cancelled:
            raise TimeoutError
        try:
            async with asyncio.timeout_at(deadline) as self.scope:
                return await anext(events, None)
        finally:
            self.scope = None


class UpstreamBackend:
    def __init__(self, settings: WorkerSettings) -> None:
        assert settings.upstream_url is not None
        self._url = settings.upstream_url.rstrip("/")
        self._model = settings.upstream_model or settings.name or ""
        self._name = settings.name or self._model
        digest = hashlib.blake2b(f"{self._url}\0{self._model}".encode(), digest_size=8)
        self._revision = f"upstream-{digest.hexdigest()}"
        key = settings.upstream_api_key
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(SILENCE_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            follow_redirects=False,
            trust_env=False,
        )
        self.max_num_requests = settings.upstream_max_requests
        self._running: set[_Running] = set()
        self._info: pb.ModelInfo | None = None  # None: the upstream does not answer
        self._probe: asyncio.Task[None] | None = None
        self._on_change: Callable[[], None] = lambda: None
        self._requests_total = 0
        self._output_tokens_total = 0

    async def start(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        await self._look()
        self._probe = asyncio.create_task(self._keep_looking())

    async def stop(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        await self._client.aclose()

    def check_alive(self) -> None:
        """The upstream may go and come; this process stays."""

    @property
    def num_active(self) -> int:
        return len(self._running)

    def models(self) -> Sequence[pb.ModelInfo]:
        return [] if self._info is None else [self._info]

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            await self._look()

    async def _look(self) -> None:
        """Whether the upstream serves the model; `on_change` when that changes."""
        max_model_len: int | None = None
        try:
            url = f"{self._url}/models"
            async with self._client.stream("GET", url, timeout=PROBE_SECONDS) as response:
                body = await _bounded_body(response, MAX_MODELS_BYTES)
            max_model_len = wire.served_length(response.status_code, body, self._model)
        except httpx.HTTPError as error:
            log.info("the upstream does not answer: %s", type(error).__name__)
        info: pb.ModelInfo | None = None
        if max_model_len is not None:
            info = pb.ModelInfo(
                name=self._name,
                revision=self._revision,
                architecture="upstream",
                max_model_len=max_model_len,
            )
        if info != self._info or self._probe is None:
            there = "is served" if info else "is not served, or does not answer"
            log.warning("'%s' at %s: %s", self._model, self._url, there)
            self._info = info
            self._on_change()

    # Generate

    async def generate(self, request: pb.GenerateRequest) -> AsyncGenerator[pb.GenerateEvent]:
        self._check(request)
        path, body = wire.request_body(request, self._model)
        running = _Running(request)
        self._running.add(running)
        self._requests_total += 1
        reader = wire.AnswerReader(request, self._revision)
        deadline: float | None = None
        if request.timeout_seconds:
            deadline = asyncio.get_running_loop().time() + request.timeout_seconds
        try:
            async with aclosing(self._events(path, body, reader)) as events:
                while (event := await running.next_event(events, deadline)) is not None:
                    yield event
        except TimeoutError:  # the deadline, or `cancel` brought it forward
            reason = FinishReason.CANCELLED if running.is_cancelled else FinishReason.DEADLINE
            yield reader.end(reason)
        finally:
            self._running.discard(running)
            self._output_tokens_total += reader.num_deltas

    async def _events(
        self, path: str, body: dict[str, object], reader: wire.AnswerReader
    ) -> AsyncGenerator[pb.GenerateEvent]:
        try:
            async with self._client.stream("POST", self._url + path, json=body) as response:
                if response.status_code != 200:
                    raise wire.error_of(response, await _bounded_body(response, MAX_ERROR_BYTES))
                yield reader.start()
                async for line in _lines(response.aiter_bytes()):
                    for event in reader.read(line):
                        yield event
        except httpx.HTTPError as error:
            raise Unavailable(
                f"The upstream server of '{self._name}' broke off ({type(error).__name__})."
            ) from error
        if (last := reader.last()) is None:
            raise Unavailable(f"The upstream server of '{self._name}' ended without an end.")
        yield last

    def _check(self, request: pb.GenerateRequest) -> None:
        if request.model != self._name:
            raise ModelNotFound(
                f"This worker serves {self._name}, not '{request.model}'.", param="model"
            )
        if request.resume_token_ids:
            raise Unavailable(
                f"The answer of '{self._name}' broke off, and its upstream server tells no token "
                "ids to resume it from; ask again."
            )
        if request.revision not in ("", self._revision):
            raise Unavailable("This worker forwards to another upstream.")

    def cancel(self, request_id: str) -> bool:
        found = [r for r in self._running if r.request.request_id == request_id]
        for running in found:
            running.cancel()
        return bool(found)

    async def tokenize(self, request: pb.TokenizeRequest) -> pb.TokenizeReply:
        raise NotFound(f"'{self._name}' is served by an upstream that does not tokenize for us.")

    def stats(self) -> pb.WorkerStats:
        return pb.WorkerStats(
            num_running=len(self._running),
            requests_total=self._requests_total,
            output_tokens_total=self._output_tokens_total,
        )

    async def load(self, request: worker_pb.LoadRequest) -> pb.ModelInfo:
        raise InvalidRequest("This worker forwards to an upstream and loads no models.")

    async def unload(self, request: worker_pb.UnloadRequest) -> None:
        raise InvalidRequest("This worker forwards to an upstream and unloads no models.")


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """Lines of bounded length, whatever the upstream sends."""
    held = b""
    async for chunk in chunks:
        *lines, held = (held + chunk).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r")
        if len(held) > MAX_LINE_BYTES:
            raise Unavailable("The upstream server sent a line without an end.")
    if held:
        yield held


async def _bounded_body(response: httpx.Response, max_bytes: int) -> bytes:
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > max_bytes:
            break
    return body
