"""Errors as HTTP sees them: OpenAI's error object, its status and headers, for whatever is raised.

Knows which foreign exceptions reach the request boundary (gRPC's) and what they mean to a client.
Read `freehold/errors.py` beside it.
"""

from __future__ import annotations

import math
from typing import Any

import grpc

from freehold.errors import (
    DeadlineExceeded,
    FreeholdError,
    InvalidRequest,
    NotFound,
    RequestCancelled,
    Unavailable,
)


class MethodNotAllowed(InvalidRequest):
    """A known path, asked with a method it does not have."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed  # the Allow header


class PathNotFound(NotFound):
    """No such path."""

    code = "unknown_url"


class HostNotAllowed(InvalidRequest):
    """The Host or Origin header names a site that this gateway is not (DNS rebinding)."""

    status = 403
    code = "host_not_allowed"


class BodyTimeout(InvalidRequest):
    """The body did not arrive in time."""

    status = 408
    code = "request_timeout"


class TooManyRequests(InvalidRequest):
    """One connection runs as many requests as it may."""

    status = 429
    type = "rate_limit_error"
    code = "too_many_requests"


def error_object(error: FreeholdError) -> dict[str, Any]:
    """`{"message", "type", "param", "code"}`, as OpenAI's clients read it."""
    return {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
    }


def error_headers(error: FreeholdError) -> list[tuple[bytes, bytes]]:
    """Headers that go with the status: Retry-After, Allow, WWW-Authenticate."""
    headers: list[tuple[bytes, bytes]] = []
    if error.status in (429, 503):
        seconds = max(1, math.ceil(error.retry_after_seconds or 1.0))
        headers.append((b"retry-after", str(seconds).encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allowed.encode()))
    return headers


def from_rpc(error: grpc.aio.AioRpcError) -> FreeholdError:
    """What a broken call to the orchestrator means. Its details stay out of the answer."""
    code = error.code()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("The deadline passed before the answer was finished.")
    if code is grpc.StatusCode.CANCELLED:
        return RequestCancelled("The request was cancelled.")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return InvalidRequest("The request is larger than the orchestrator takes; shorten it.")
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unavailable(
            "The orchestrator cannot be reached now; try again shortly.", retry_after_seconds=2.0
        )
    return FreeholdError("The orchestrator failed on this request; see its log.")
