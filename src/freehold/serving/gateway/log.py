"""What the gateway writes down: one line a request, and where a fault of ours arose.

Never a prompt, a key, a header or a query string: exception messages may quote what a client sent,
so of an exception only its type and the place are written.
"""

from __future__ import annotations

import logging
import traceback

log = logging.getLogger("freehold.gateway")


def log_request(request_id: str, method: str, route: str, status: int, seconds: float) -> None:
    log.info("%s %s %s %d %.3f s", request_id, method, route, status, seconds)


def log_failure(request_id: str, error: BaseException) -> None:
    frames = traceback.extract_tb(error.__traceback__)
    place = " < ".join(f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in frames[::-1])
    log.error("request %s failed: %s at %s", request_id[:64], type(error).__name__, place)
