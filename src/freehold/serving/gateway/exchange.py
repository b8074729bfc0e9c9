"""One HTTP request and its answer over raw ASGI: bounded reading, JSON, server-sent events.

Knows no route and no model. Read `app.py` next.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

import orjson
from starlette.types import Message, Receive, Scope, Send

from freehold.errors import FreeholdError, RequestTooLarge
from freehold.serving.gateway.errors import BodyTimeout, error_headers, error_object
from freehold.serving.gateway.schema import parse_json_object
from freehold.serving.gateway.settings import GatewaySettings

Headers = Sequence[tuple[bytes, bytes]]

# On every answer, WebSocket refusals too.
SAFE_HEADERS: Headers = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_NO_STORE = (b"cache-control", b"no-store")
_JSON = (b"content-type", b"application/json")
_EVENT_STREAM: Headers = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold tokens back
)
LINGER_SECONDS = 1.0
LINGER_BODIES = 4  # times the largest body
DONE = b"data: [DONE]\n\n"


class ClientGone(Exception):
    """The client closed the connection, or takes nothing any more: nobody is left to answer."""


class Exchange:
    """`status` is 0 until the answer starts."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, settings: GatewaySettings):
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers = read_headers(scope)
        self.request_id = uuid.uuid4().hex
        self.status = 0
        self._is_answered = False
        self._receive = receive
        self._send = send
        self._settings = settings

    async def json_body(self) -> dict[str, Any]:
        """Raises RequestTooLarge without reading on, BodyTimeout, InvalidRequest, ClientGone."""
        limit = self._settings.max_body_bytes
        length = self.headers.get("content-length", "0")
        if length.isdigit() and int(length) > limit:
            raise _too_large(limit)
        body = bytearray()
        try:
            async with asyncio.timeout(self._settings.body_timeout_seconds):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise _too_large(limit)
                    if not message.get("more_body", False):
                        return parse_json_object(bytes(body))
        except TimeoutError:
            raise BodyTimeout("The body did not arrive in time; send it without pauses.") from None

    async def reply(self, status: int, body: bytes, headers: Headers) -> None:
        await self._start(status, [*headers, (b"content-length", str(len(body)).encode())])
        await self._put({"type": "http.response.body", "body": body, "more_body": False})

    async def reply_json(self, value: Any, status: int = 200, headers: Headers = ()) -> None:
        await self.reply(status, orjson.dumps(value), [_JSON, _NO_STORE, *headers])

    async def reply_error(self, error: FreeholdError) -> None:
        """Before the answer started: status and error object. After: nothing can be said."""
        body = orjson.dumps({"error": error_object(error)})
        headers = [_JSON, _NO_STORE, *error_headers(error)]
        if error.status not in (408, 413):
            await self.reply(error.status, body, headers)
            return
        # The rest of the body is not wanted. Closing at once would reset the connection and take
        # the answer with it, so a little more is read and thrown away.
        length = (b"content-length", str(len(body)).encode())
        await self._start(error.status, [*headers, length, (b"connection", b"close")])
        await self._put({"type": "http.response.body", "body": body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                await self._discard(LINGER_BODIES * self._settings.max_body_bytes)
        await self._put({"type": "http.response.body", "body": b"", "more_body": False})

    async def _discard(self, num_bytes: int) -> None:
        while num_bytes > 0:
            message = await self._receive()
            num_bytes -= len(message.get("body", b""))
            if not message.get("more_body", False):
                return

    async def start_events(self) -> None:
        await self._start(200, _EVENT_STREAM)

    async def send_event(self, value: Any) -> None:
        """One server-sent event; waits while the client's buffer is full."""
        await self._put(
            {
                "type": "http.response.body",
                "body": b"data: " + orjson.dumps(value) + b"\n\n",
                "more_body": True,
            }
        )

    async def end_events(self, last: bytes = DONE) -> None:
        await self._put({"type": "http.response.body", "body": last, "more_body": False})

    async def unless_gone(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the work; cancel it and raise ClientGone if the client leaves first."""
        task = asyncio.ensure_future(work)
        watcher = asyncio.ensure_future(self._gone())
        try:
            await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
            if not (task.done() or self._is_answered):
                raise ClientGone
            await task
        finally:
            watcher.cancel()
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _start(self, status: int, headers: Headers) -> None:
        self.status = status
        await self._put(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    *headers,
                    *SAFE_HEADERS,
                    (b"x-request-id", self.request_id.encode()),
                ],
            }
        )

    async def _put(self, message: Message) -> None:
        # Set first: uvicorn reports "disconnect" as soon as an answer is complete.
        self._is_answered = not message.get("more_body", True)
        try:
            async with asyncio.timeout(self._settings.send_timeout_seconds):
                await self._send(message)
        except TimeoutError:
            raise ClientGone from None


def read_headers(scope: Scope) -> dict[str, str]:
    """Names in lower case. Of a repeated header the last counts, but for Host: all, joined, so
    that two of them never pass a check made on one."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name == "host" and name in headers:
            value = f"{headers[name]},{value}"
        headers[name] = value
    return headers


def internal_error() -> FreeholdError:
    return FreeholdError("The gateway failed on this request; see its log.")


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"The body is larger than {limit} bytes; send less.")
