"""Log-probabilities under the raw logits, of drawn tokens and of prompt tokens.

Knows how to name a token (its text and bytes), nothing of how it was drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from freehold.engine.model_runner import ModelRunner, StepRows
from freehold.engine.request import Request
from freehold.ops import Array, Ops
from freehold.types import TokenLogprob

MAX_LOGIT_ROWS = 64  # of prompt logits at once: [64, vocab] float32 is 39 MB at 152 k tokens


class TokenNames(Protocol):
    def token_text(self, token_id: int, /) -> str: ...

    def token_bytes(self, token_id: int, /) -> bytes: ...


class Logprobs:
    def __init__(self, ops: Ops, tokenizer: TokenNames) -> None:
        self._ops = ops
        self._tokenizer = tokenizer

    def of_rows(
        self, logits: Array, token_ids: Sequence[int], num_tops: Sequence[int]
    ) -> list[tuple[TokenLogprob, ...]]:
        """For each row of logits [n, vocab]: its token first, then its num_tops[i] greatest."""
        chosen, top_ids, top_values = self._ops.logprobs(
            logits, np.asarray(token_ids, np.int32), max(num_tops)
        )
        rows = zip(
            token_ids, chosen.tolist(), top_ids.tolist(), top_values.tolist(), num_tops, strict=True
        )
        return [
            (self._entry(token_id, logprob), *map(self._entry, ids[:num], values[:num]))
            for token_id, logprob, ids, values, num in rows
        ]

    def score_prompt(self, runner: ModelRunner, step: StepRows) -> None:
        """Extend `prompt_logprobs` of the requests that want them by this step's rows."""
        for i, (request, num_tokens) in enumerate(step.batch):
            if request.needs_prompt_logprobs:
                first_row = int(step.query_starts[i])
                self._score_rows(runner, request, step.hidden[first_row : first_row + num_tokens])

    def _score_rows(self, runner: ModelRunner, request: Request, hidden: Array) -> None:
        num_top = request.sampling.prompt_logprobs
        assert num_top is not None
        prompt, scored = request.prompt_token_ids, request.prompt_logprobs
        if not scored:
            scored.append(None)
        # The row of token t predicts token t + 1. After a preemption, earlier rows come again.
        first = request.num_computed_tokens
        while (start := len(scored)) < min(first + len(hidden) + 1, len(prompt)):
            rows = hidden[start - 1 - first :][:MAX_LOGIT_ROWS]
            token_ids = prompt[start : start + len(rows)]
            logits = runner.logits(rows[: len(token_ids)])
            scored.extend(self.of_rows(logits, token_ids, [num_top] * len(token_ids)))

    def _entry(self, token_id: int, logprob: float) -> TokenLogprob:
        names = self._tokenizer
        return TokenLogprob(
            token_id, logprob, names.token_text(token_id), names.token_bytes(token_id)
        )
