"""One request's guesses at its next tokens, from all sources, each with its chance of being right.

Knows no cost and no other request. Read `lookup.py` next.
"""

from __future__ import annotations

from freehold.engine.lookup import RATE_MEMORY, Lookup

_MTP_PRIOR = 0.7  # DeepSeek-V3's report says 0.85 to 0.9


class Guesses:
    def __init__(self, lookup: Lookup | None) -> None:
        self._lookup = lookup
        self._ahead: int | None = None  # the MTP layer's guess at the next token
        self._ahead_rate = _MTP_PRIOR

    def append(self, token_id: int) -> None:
        """Take an output token in."""
        if self._ahead is not None:
            is_right = token_id == self._ahead
            self._ahead_rate = self._ahead_rate * RATE_MEMORY + is_right * (1 - RATE_MEMORY)
            self._ahead = None
        if self._lookup is not None:
            self._lookup.append(token_id)

    def look_ahead(self, token_id: int) -> None:
        """The MTP layer guesses this to be the next token."""
        self._ahead = token_id

    def chances(self, count: int) -> list[float]:
        """For each of `drafts(count)`, that it and all before it are right, by the record."""
        found = self._lookup.chances(count) if self._lookup is not None else []
        if self._ahead is None or not count:
            return found
        if self._is_confirmed:
            return [max(found[0], self._ahead_rate), *found[1:]]
        return found if self._prefers(found) else [self._ahead_rate]

    def drafts(self, count: int) -> list[int]:
        """What is likely to come next: the text as it went on before, or the MTP layer's guess."""
        found = self._lookup.chances(1) if self._lookup is not None else []
        if self._ahead is None or self._is_confirmed or self._prefers(found):
            return self._lookup.drafts(count) if self._lookup is not None else []
        return [self._ahead][:count]

    @property
    def _is_confirmed(self) -> bool:
        """Both sources say the same."""
        return self._lookup is not None and self._lookup.drafts(1) == [self._ahead]

    def _prefers(self, chances: list[float]) -> bool:
        """Whether the lookup's guess, with these chances, is the likelier one."""
        return bool(chances) and chances[0] > self._ahead_rate
