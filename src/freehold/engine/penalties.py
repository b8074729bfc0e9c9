"""What changes a row of logits before the draw: bias and the three penalties, sparsely.

Meanings and order are vLLM's: logit_bias is added; repetition_penalty divides positive and
multiplies negative logits of tokens in prompt or output; frequency and presence are subtracted
for tokens in the output. Only the tokens concerned are touched.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from freehold.types import SamplingParams


class Penalties:
    """The tokens one request has seen, and how often it has put them out itself."""

    def __init__(self, sampling: SamplingParams, prompt_token_ids: Iterable[int]) -> None:
        self._bias_ids = np.fromiter(sampling.logit_bias.keys(), np.int64)
        self._bias = np.fromiter(sampling.logit_bias.values(), np.float32)
        self._repetition = np.float32(sampling.repetition_penalty)
        self._frequency = np.float32(sampling.frequency_penalty)
        self._presence = np.float32(sampling.presence_penalty)
        self._counts_tokens = bool(
            self._repetition != 1.0 or self._frequency != 0.0 or self._presence != 0.0
        )
        self.is_active = self._counts_tokens or len(self._bias_ids) > 0
        # Distinct tokens in order of appearance; the arrays double when full.
        seen = prompt_token_ids if self._repetition != 1.0 else ()
        self._index_of = {token_id: i for i, token_id in enumerate(dict.fromkeys(seen))}
        self._ids = np.zeros(len(self._index_of) + 64, np.int64)
        self._ids[: len(self._index_of)] = list(self._index_of)
        self._counts = np.zeros(len(self._ids), np.float32)  # in the output

    def observe(self, token_id: int) -> None:
        """Count one output token."""
        if self._counts_tokens:
            index = self._index(token_id)  # which may replace the array
            self._counts[index] += 1.0

    def apply(self, row: npt.NDArray[np.float32]) -> None:
        """Change one row of logits [vocab] in place."""
        row[self._bias_ids] += self._bias
        if not self._counts_tokens:
            return
        num_seen = len(self._index_of)
        ids, counts = self._ids[:num_seen], self._counts[:num_seen]
        values = row[ids]
        values = np.where(values > 0, values / self._repetition, values * self._repetition)
        values -= self._frequency * counts
        values -= self._presence * (counts > 0)
        row[ids] = values

    def _index(self, token_id: int) -> int:
        index = self._index_of.setdefault(token_id, len(self._index_of))
        if index == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._ids[index] = token_id
        return index
