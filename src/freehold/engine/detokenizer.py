"""From token ids to the text a client sees: whole characters, cut at the first stop string.

What comes out is a function of the token ids alone, and the final text a function of the decoded
text alone: token borders never change where it stops. Knows no request and no sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class DecodeStream(Protocol):
    def push(self, token_id: int, /) -> str: ...

    def flush(self) -> str: ...


class StopStrings:
    """Finds the stop string that is completed first (of two that end together, the longer).

    Knuth-Morris-Pratt: for each stop string, the length of its longest prefix that ends the text
    so far. The greatest of these is what has to be held back.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._borders = tuple(_borders(stop) for stop in self._stops)
        self._matched = [0] * len(self._stops)

    @property
    def num_held(self) -> int:
        """Characters at the text's end that may still become a stop string."""
        return max(self._matched, default=0)

    def find(self, text: str) -> tuple[int, int] | None:
        """Read on through `text`. If a stop string is completed: the end of it in `text`, and its
        length (which may reach back into earlier text)."""
        if not self._stops:
            return None
        for i, char in enumerate(text):
            longest = 0
            for s, stop in enumerate(self._stops):
                matched, borders = self._matched[s], self._borders[s]
                while matched and stop[matched] != char:
                    matched = borders[matched - 1]
                matched += stop[matched] == char
                self._matched[s] = matched
                if matched == len(stop):
                    longest = max(longest, matched)
            if longest:
                return i + 1, longest
        return None


def _borders(pattern: str) -> list[int]:
    """For each prefix, the length of its longest proper prefix that is also its suffix."""
    borders = [0] * len(pattern)
    k = 0
    for i in range(1, len(pattern)):
        while k and pattern[k] != pattern[i]:
            k = borders[k - 1]
        k += pattern[k] == pattern[i]
        borders[i] = k
    return borders


class OutputText:
    """The text of one request, token by token."""

    def __init__(
        self, stream: DecodeStream, stops: Sequence[str] = (), *, include_stop: bool = False
    ) -> None:
        self._stream = stream
        self._stops = StopStrings(stops)
        self._include_stop = include_stop
        self._held = ""
        self.is_stopped = False

    def push(self, token_id: int) -> str:
        """The text that is certain with this token; sets `is_stopped` at a stop string."""
        return self._release(self._stream.push(token_id))

    def finish(self) -> str:
        """What was held back, unfinished characters (as U+FFFD) too; nothing after a stop."""
        if self.is_stopped:
            return ""
        text = self._release(self._stream.flush())
        held, self._held = self._held, ""
        return text + held

    def _release(self, text: str) -> str:
        found = self._stops.find(text)
        known = self._held + text
        if found is not None:
            self.is_stopped = True
            end, length = found
            end += len(self._held)
            self._held = ""
            return known[: end if self._include_stop else end - length]
        certain = len(known) - self._stops.num_held
        self._held = known[certain:]
        return known[:certain]
