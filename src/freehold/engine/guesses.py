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

    def rate(self, index: int) -> float:
        """How likely the draft of that index is right if those before it are; 0: there is none."""
        found = self._lookup.rate(index) if self._lookup is not None else 0.0
        if self._ahead is None:
            return found
        if self._is_confirmed:
            return found if index else max(found, self._ahead_rate)
        if self._follows_lookup:
            return found
        return 0.0 if index else self._ahead_rate

    def drafts(self, count: int) -> list[int]:
        """What is likely to come next: the text as it went on before, or the MTP layer's guess."""
        if self._ahead is not None and not self._follows_lookup:
            return [self._ahead][:count]
        return self._lookup.drafts(count) if self._lookup is not None else []

    @property
    def _is_confirmed(self) -> bool:
        """Both sources say the same."""
        return self._lookup is not None and self._lookup.drafts(1) == [self._ahead]

    @property
    def _follows_lookup(self) -> bool:
        """Whether its guess is the MTP layer's as well, or the likelier one."""
        if self._lookup is None:
            return False
        return self._is_confirmed or self._lookup.rate(0) > self._ahead_rate
