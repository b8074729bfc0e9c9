"""Draws one token a row: constraints and penalties on the rows that have them, then ops.sample.

A draw is a pure function of (logits row, sampling parameters, earlier tokens, seed, position).
Knows no blocks and no scheduling. Read `penalties.py` and `random.py` next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from freehold.engine.logprobs import Logprobs
from freehold.engine.penalties import Penalties
from freehold.engine.random import uniforms
from freehold.engine.request import Request
from freehold.engine.structured import Matcher
from freehold.ops import Array, Ops
from freehold.types import SamplingParams, TokenLogprob

_NUM_UNIFORMS = 64  # positions to work out at once: Philox costs the same for 1 and for 64


class Draw:
    """One request's side of sampling: what it has seen, and its stream of uniform numbers."""

    def __init__(
        self, sampling: SamplingParams, prompt_token_ids: Sequence[int], matcher: Matcher | None
    ) -> None:
        self.parameters = (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
        self.num_logprobs = sampling.num_logprobs
        self._seed = sampling.seed
        self._penalties = Penalties(sampling, prompt_token_ids)
        self._matcher = matcher
        self._uniforms: list[float] = []
        self._first_uniform = 0
        self.changes_logits = self._penalties.is_active or matcher is not None

    def observe(self, token_id: int) -> None:
        """An output token was drawn, or resumed."""
        self._penalties.observe(token_id)
        if self._matcher is not None:
            self._matcher.consume(token_id)

    def adjust(self, row: npt.NDArray[np.float32]) -> None:
        """Change one row of raw logits [vocab] in place."""
        if self._penalties.is_active:
            self._penalties.apply(row)
        if self._matcher is not None:
            row[self._matcher.forbidden()] = -np.inf

    def uniform(self, position: int) -> float:
        if self.parameters[0] == 0.0:  # greedy needs none
            return 0.0
        index = position - self._first_uniform
        if not 0 <= index < len(self._uniforms):
            self._first_uniform, index = position, 0
            self._uniforms = uniforms(self._seed, position, _NUM_UNIFORMS).tolist()
        return self._uniforms[index]

    @property
    def is_complete(self) -> bool:
        return self._matcher is not None and self._matcher.is_complete

    @property
    def error(self) -> str | None:
        return None if self._matcher is None else self._matcher.error


class Sample(NamedTuple):
    token_id: int
    logprobs: tuple[TokenLogprob, ...]  # the token's own first, then the greatest; () if unwanted


class Sampler:
    def __init__(self, ops: Ops, logprobs: Logprobs) -> None:
        self._ops = ops
        self._logprobs = logprobs

    def sample(
        self, requests: Sequence[Request], logits: Array, distances: Sequence[int] | None = None
    ) -> list[Sample]:
        """Draw the next token of each request from its row of logits [n, vocab], which is used
        up. The position of a draw is the index of the new token, the prompt's counted;
        `distances`: so many tokens after the next one."""
        draws = [request.draw for request in requests]
        scored = [i for i, draw in enumerate(draws) if draw.num_logprobs is not None]
        raw = logits[scored] if scored else None
        for i, draw in enumerate(draws):
            if draw.changes_logits:
                draw.adjust(logits[i])
        positions = [
            request.num_tokens + distance
            for request, distance in zip(requests, distances or [0] * len(requests), strict=True)
        ]
        numbers = [draw.uniform(at) for draw, at in zip(draws, positions, strict=True)]
        temperature, top_k, top_p, min_p = zip(*[draw.parameters for draw in draws], strict=True)
        token_ids: list[int] = self._ops.sample(
            logits,
            np.array(temperature, np.float32),
            np.array(top_k, np.int32),
            np.array(top_p, np.float32),
            np.array(min_p, np.float32),
            np.array(numbers, np.float64),
        ).tolist()
        entries: list[tuple[TokenLogprob, ...]] = [()] * len(requests)
        if scored:
            num_tops = [draws[i].num_logprobs or 0 for i in scored]
            of_rows = self._logprobs.of_rows(raw, [token_ids[i] for i in scored], num_tops)
            for i, entry in zip(scored, of_rows, strict=True):
                entries[i] = entry
        return [Sample(*pair) for pair in zip(token_ids, entries, strict=True)]
