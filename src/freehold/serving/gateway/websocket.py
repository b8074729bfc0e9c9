"""WebSocket /v1/stream: several chat requests by id on one connection, as JSON frames.

client → start (id and the fields of a chat request) | cancel (id)
server → token … then exactly one of usage | error | cancel, which ends the id

Back-pressure: a frame is sent only when the last one has left the buffer, and tokens are read from
the orchestrator only when there is room to send them. Read `generation.py` beside it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson
from starlette.types import Receive, Send

from freehold.errors import AuthenticationFailed, FreeholdError, InvalidRequest
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.serving.gateway.errors import TooManyRequests, error_object
from freehold.serving.gateway.exchange import ClientGone, internal_error
from freehold.serving.gateway.generation import Generation, GenerationSpec
from freehold.serving.gateway.log import log_failure
from freehold.serving.gateway.metrics import Metrics
from freehold.serving.gateway.requests import ChatBody
from freehold.serving.gateway.schema import parse_json_object
from freehold.serving.gateway.settings import GatewaySettings

MAX_ID_CHARS = 64
ROUTE = "/v1/stream"
POLICY_VIOLATION = 1008


class DuplicateId(InvalidRequest):
    """The id names a request that is still running on this connection."""

    status = 409
    code = "duplicate_id"


class StreamConnection:
    """`check_key` raises AuthenticationFailed once the connection's key has been revoked."""

    def __init__(
        self,
        receive: Receive,
        send: Send,
        settings: GatewaySettings,
        metrics: Metrics,
        generation: Callable[[str, GenerationSpec], Generation],
        check_key: Callable[[], object],
    ) -> None:
        self._receive = receive
        self._raw_send = send
        self._settings = settings
        self._metrics = metrics
        self._generation = generation
        self._check_key = check_key
        self._running: dict[str, asyncio.Task[None]] = {}  # ids whose last frame is yet to come
        self._tasks: set[asyncio.Task[None]] = set()  # those, and the ones sending that frame
        self._lock = asyncio.Lock()
        self._gone = asyncio.Event()

    async def serve(self) -> None:
        """Until the client leaves; then everything it still had running is cancelled."""
        reader = asyncio.create_task(self._read())
        gone = asyncio.create_task(self._gone.wait())
        try:
            await asyncio.wait((reader, gone), return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                reader.result()  # raises our own faults; a client's have been answered
        except ClientGone:
            pass
        finally:
            tasks = [reader, gone, *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> None:
        while (message := await self._receive())["type"] != "websocket.disconnect":
            request_id: str | None = None
            try:
                text = message.get("text")
                if text is None:
                    raise InvalidRequest("Frames are JSON text, not bytes.")
                frame = parse_json_object(text)
                request_id = _read_id(frame)
                if frame.get("type") == "start":
                    self._start(request_id, frame)
                elif frame.get("type") == "cancel":
                    await self._cancel(request_id)
                else:
                    raise InvalidRequest("type must be one of: start, cancel.", param="type")
            except FreeholdError as error:
                await self._refuse(request_id, error)
                if isinstance(error, AuthenticationFailed):
                    await self._raw_send({"type": "websocket.close", "code": POLICY_VIOLATION})
                    return

    def _start(self, request_id: str, frame: dict[str, Any]) -> None:
        self._check_key()
        if request_id in self._running:
            raise DuplicateId(f"A request with id '{request_id}' is running.", param="id")
        if len(self._tasks) >= self._settings.max_requests_per_connection:
            raise TooManyRequests(
                f"This connection runs {len(self._tasks)} requests, as many as it may; wait for "
                "one to end.",
                retry_after_seconds=1.0,
            )
        fields = {name: value for name, value in frame.items() if name not in ("type", "id")}
        body = ChatBody.parse({**fields, "stream": True})
        if body.logprobs:
            raise InvalidRequest(
                "Frames carry no logprobs; ask POST /v1/chat/completions.", param="logprobs"
            )
        spec = body.spec()
        task = self._running[request_id] = asyncio.create_task(self._run(request_id, spec))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _cancel(self, request_id: str) -> None:
        """Acknowledged if it still ran; an id that has just ended gets its own last frame."""
        task = self._running.pop(request_id, None)
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self._send({"type": "cancel", "id": request_id})

    async def _run(self, request_id: str, spec: GenerationSpec) -> None:
        status = 499  # unless it comes to its end
        try:
            try:
                last = await self._answer(request_id, spec)
                ended = 200
            except FreeholdError as error:
                last, ended = _error_frame(request_id, error), error.status
            except ClientGone:
                raise
            except Exception as error:  # the request boundary
                log_failure(request_id, error)
                last, ended = _error_frame(request_id, internal_error()), 500
            del self._running[request_id]
            status = ended
            await self._send(last)
        except ClientGone:
            self._gone.set()
        finally:
            self._metrics.request(ROUTE, status)

    async def _answer(self, request_id: str, spec: GenerationSpec) -> dict[str, Any]:
        """Sends the token frames, returns the usage frame."""
        async with self._generation(uuid.uuid4().hex, spec) as generation:
            sequences = [0] * spec.num_streams
            async for event in generation.events():
                for frame in _token_frames(request_id, event, sequences):
                    await self._send(frame)
            return _usage_frame(request_id, generation)

    async def _refuse(self, request_id: str | None, error: FreeholdError) -> None:
        self._metrics.request(ROUTE, error.status)
        await self._send(_error_frame(request_id, error))

    async def _send(self, frame: Mapping[str, Any]) -> None:
        """Raises ClientGone when the client has left or has taken nothing for too long."""
        text = orjson.dumps(frame).decode()
        try:
            async with asyncio.timeout(self._settings.send_timeout_seconds), self._lock:
                await self._raw_send({"type": "websocket.send", "text": text})
        except OSError:  # TimeoutError, and uvicorn's ClientDisconnected
            raise ClientGone from None


def _read_id(frame: Mapping[str, Any]) -> str:
    request_id = frame.get("id")
    if (
        not isinstance(request_id, str)
        or not 1 <= len(request_id) <= MAX_ID_CHARS
        or not request_id.isprintable()
    ):
        raise InvalidRequest(
            f"id must be a string of 1 to {MAX_ID_CHARS} printable characters.", param="id"
        )
    return request_id


def _token_frames(
    request_id: str, event: pb.GenerateEvent, sequences: list[int]
) -> Iterable[dict[str, Any]]:
    """`sequences` holds each choice's next number; the frame that ends it has a number, too."""
    if event.HasField("started"):
        return
    is_last = event.HasField("finished")
    piece = event.finished if is_last else event.token
    sequence = sequences[event.stream] if is_last else event.sequence
    sequences[event.stream] = sequence + 1
    if is_last or piece.text or piece.reasoning:
        yield {
            "type": "token",
            "id": request_id,
            "index": event.stream,
            "sequence": sequence,
            "text": piece.text,
            "reasoning": piece.reasoning or None,
            "finish_reason": event.finished.reason if is_last else None,
        }


def _usage_frame(request_id: str, generation: Generation) -> dict[str, Any]:
    usage = generation.usage()
    return {
        "type": "usage",
        "id": request_id,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "ttft_seconds": usage.ttft_seconds,
        "tokens_per_second": usage.tokens_per_second,
    }


def _error_frame(request_id: str | None, error: FreeholdError) -> dict[str, Any]:
    return {
        "type": "error",
        "id": request_id,
        "status": error.status,
        "error": error_object(error),
    }
