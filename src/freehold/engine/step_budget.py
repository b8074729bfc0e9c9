"""How many tokens a step may compute, so that it ends in time for those who wait for theirs.

The kernels' speed is not known beforehand and falls with the context: it is measured, step by
step. No token depends on it, only when it comes. Read `scheduler.py` next.
"""

from __future__ import annotations

MIN_TOKENS = 16  # fewer cost a step about as much, and prompts have to get on
_ALONE = 2.5  # times as long may a step take that only a newcomer can wait for
_WEIGHT = 0.3  # of the newest step in the moving average


class StepBudget:
    """At most `max_tokens`, and what takes about `max_seconds` (None: any time)."""

    def __init__(self, max_tokens: int, max_seconds: float | None) -> None:
        self._max_tokens = max_tokens
        self._max_seconds = max_seconds
        self._seconds_per_token: float | None = None

    @property
    def num_tokens(self) -> int:
        """Of a step that several requests share."""
        return self._in_time(1)

    @property
    def num_tokens_alone(self) -> int:
        """Of a step with one request."""
        return self._in_time(_ALONE)

    def _in_time(self, factor: float) -> int:
        if self._max_seconds is None or self._seconds_per_token is None:
            return self._max_tokens
        in_time = int(factor * self._max_seconds / self._seconds_per_token)
        return min(self._max_tokens, max(MIN_TOKENS, in_time))

    def observe(self, num_tokens: int, seconds: float) -> None:
        """A step has taken that long. Small ones say nothing: they wait for memory."""
        if num_tokens < MIN_TOKENS:
            return
        found = seconds / num_tokens
        known = self._seconds_per_token
        self._seconds_per_token = found if known is None else known + _WEIGHT * (found - known)
