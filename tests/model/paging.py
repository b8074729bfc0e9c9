"""Runs a model over its paged caches in any division into steps, with shuffled block tables."""

from __future__ import annotations

import numpy as np

from freehold.model.model import Model
from freehold.ops import BatchLayout

BLOCK_SIZE = 8


class PagedRun:
    """Several requests in one set of caches; block tables are dealt out in random order."""

    def __init__(self, model: Model, num_requests: int = 1, max_tokens: int = 512, seed: int = 7):
        self._model = model
        per_request = -(-max_tokens // BLOCK_SIZE)
        num_blocks = num_requests * per_request + 3  # some blocks belong to nobody
        dealt = np.random.default_rng(seed).permutation(num_blocks).astype(np.int32)
        tables = dealt[: num_requests * per_request]
        self._tables = tables.reshape(num_requests, per_request)
        self._lengths = np.zeros(num_requests, np.int32)
        self._caches = model.make_caches(num_blocks, BLOCK_SIZE)

    def step(self, tokens: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """{request: its next token ids} in one forward → {request: logits [n, vocab]}."""
        requests = list(tokens)
        counts = [len(tokens[r]) for r in requests]
        starts = self._lengths[requests]
        self._lengths[requests] += counts
        positions = np.concatenate(
            [np.arange(s, s + n) for s, n in zip(starts, counts, strict=True)]
        )
        tables = self._tables[requests].copy()
        for row, r in enumerate(requests):
            tables[row, -(-self._lengths[r] // BLOCK_SIZE) :] = -1
        blocks = tables[np.repeat(np.arange(len(requests)), counts), positions // BLOCK_SIZE]
        bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        layout = BatchLayout(
            positions=positions.astype(np.int32),
            slots=blocks.astype(np.int64) * BLOCK_SIZE + positions % BLOCK_SIZE,
            query_starts=bounds,
            context_lens=self._lengths[requests],
            block_tables=tables,
            block_size=BLOCK_SIZE,
        )
        ids = np.concatenate([tokens[r] for r in requests]).astype(np.int32)
        logits = self._model.logits(self._model.forward(ids, layout, self._caches))
        return {r: logits[bounds[i] : bounds[i + 1]] for i, r in enumerate(requests)}


def in_chunks(model: Model, tokens: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Logits of every position, the tokens fed `sizes` at a time (the last size repeats)."""
    run, logits, start = PagedRun(model), [], 0
    while start < len(tokens):
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        logits.append(run.step({0: tokens[start : start + size]})[0])
        start += size
    return np.concatenate(logits)


def greedy(model: Model, prompt: np.ndarray, num_tokens: int) -> np.ndarray:
    """Token ids decoded one by one."""
    run, found, fed = PagedRun(model), [], prompt
    for _ in range(num_tokens):
        found.append(int(run.step({0: fed})[0][-1].argmax()))
        fed = np.array(found[-1:])
    return np.array(found)
