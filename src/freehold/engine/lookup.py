"""Prompt lookup: what followed the last few tokens where they stood before, in prompt or output.

After Saxena's prompt lookup decoding, as an index that takes a token in constant time, and that
keeps score of its own guesses whether or not anyone computes them. Knows no requests and no cost.
"""

from __future__ import annotations

from collections.abc import Iterable

# Of guesses after 1, 2–3, 4–7, 8–15, and 16 or more matching tokens: how many are right, before
# this request has shown its own rates.
_PRIOR = (0.15, 0.5, 0.7, 0.8, 0.9)
RATE_MEMORY = 0.9  # weight of the past in the running rate


class Lookup:
    def __init__(self, token_ids: Iterable[int]) -> None:
        self._tokens: list[int] = []
        # Where the token after it stands, the latest time: of each token, and of each pair
        self._after_one: dict[int, int] = {}
        self._after_two: dict[int, int] = {}
        self._latest = -1
        self._source = 0  # where the next token is expected to stand already; 0: nowhere
        self._num_matching = 0  # tokens before it that match the latest ones
        self._rates = list(_PRIOR)
        for token_id in token_ids:
            self._append(token_id)

    def append(self, token_id: int) -> None:
        """Take an output token in."""
        if self._source:
            level = _level(self._num_matching)
            is_right = self._tokens[self._source] == token_id
            self._rates[level] = self._rates[level] * RATE_MEMORY + is_right * (1 - RATE_MEMORY)
        self._append(token_id)

    def drafts(self, count: int) -> list[int]:
        """The next `count` tokens if the text goes on as it did before; none without a match."""
        if not self._source:
            return []
        drafts = self._tokens[self._source : self._source + count]
        # A copy that runs into the present repeats itself from there.
        period = len(drafts)
        while len(drafts) < count:
            drafts.append(drafts[-period])
        return drafts

    def rate(self, index: int) -> float:
        """How likely the draft of that index is right if those before it are; 0: there is none."""
        return self._rates[_level(self._num_matching + index)] if self._source else 0.0

    def _append(self, token_id: int) -> None:
        tokens, source = self._tokens, self._source
        pair = self._latest << 32 | token_id
        if source and tokens[source] == token_id:
            self._source = source + 1
            self._num_matching += 1
        elif pair in self._after_two:
            self._source = self._after_two[pair]
            self._num_matching = 2
        else:
            self._source = self._after_one.get(token_id, 0)
            self._num_matching = 1
        tokens.append(token_id)
        self._after_one[token_id] = self._after_two[pair] = len(tokens)
        self._latest = token_id


def _level(num_matching: int) -> int:
    return min(num_matching.bit_length(), len(_PRIOR)) - 1
