"""One step of the model: a batch of requests in, a row of hidden states a token out.

Lays tokens, positions, slots and block tables out as arrays, and owns the paged caches. Knows no
policy and no sampling. Read `model/deepseek_v3.py` next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from freehold.engine.request import Request
from freehold.engine.scheduler import Scheduled
from freehold.ops import Array, BatchLayout, Cache, Ops


class ModelConfig(Protocol):
    @property
    def vocab_size(self) -> int: ...

    @property
    def max_position_embeddings(self) -> int: ...

    @property
    def eos_token_ids(self) -> tuple[int, ...]: ...


class Model(Protocol):
    """What the engine needs of a model; `freehold.model` has the real ones."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def ops(self) -> Ops: ...

    @property
    def cache_bytes_per_token(self) -> int: ...

    def make_caches(self, num_blocks: int, block_size: int, /) -> list[Cache]: ...

    def forward(
        self, token_ids: npt.NDArray[np.int32], layout: BatchLayout, caches: list[Cache], /
    ) -> Array: ...

    def logits(self, hidden: Array, /) -> Array: ...

    @property
    def has_mtp(self) -> bool: ...

    def look_ahead(
        self,
        hidden: Array,
        next_token_ids: npt.NDArray[np.int32],
        layout: BatchLayout,
        caches: list[Cache],
        /,
    ) -> Array:
        """With `has_mtp` only: rows of `forward` and the tokens that came after them → hidden
        rows for the tokens after those."""
        ...


class Piece(NamedTuple):
    """Some consecutive tokens of a request, for one forward."""

    request: Request
    start: int  # position of the first
    token_ids: list[int]


@dataclass(frozen=True, slots=True)
class StepRows:
    batch: list[Scheduled]
    starts: list[int]  # position of each request's first row
    query_starts: npt.NDArray[np.int32]  # [num_requests + 1]
    hidden: Array  # [num_tokens, hidden]

    def complete(self) -> tuple[list[Request], list[int]]:
        """The requests of which this step has computed the last known token, and the rows of
        those tokens: each of these draws its next token now. The rows of drafts come after them,
        request by request: first of those whose draws need nothing but their own row."""
        requests: list[Request] = []
        rows: list[int] = []
        draft_rows: list[int] = []
        later_rows: list[int] = []
        for end, (request, num_tokens) in zip(
            self.query_starts[1:].tolist(), self.batch, strict=True
        ):
            num_drafts = len(request.drafts)
            if request.num_computed_tokens + num_tokens == request.num_tokens + num_drafts:
                requests.append(request)
                rows.append(end - num_drafts - 1)
                of_request = later_rows if request.draw.changes_logits else draft_rows
                of_request.extend(range(end - num_drafts, end))
        return requests, rows + draft_rows + later_rows


class ModelRunner:
    def __init__(self, model: Model, num_blocks: int, block_size: int) -> None:
        self._model = model
        self._block_size = block_size
        self._caches = model.make_caches(num_blocks, block_size)

    def cache_memory(self) -> list[npt.NDArray[np.uint8]]:
        """All layers', by block: writable views [num_blocks, bytes]."""
        ops, size = self._model.ops, self._block_size
        return [part for cache in self._caches for part in ops.cache_memory(cache, size)]

    def forward(self, batch: list[Scheduled]) -> StepRows:
        pieces = []
        for request, num_tokens in batch:
            start = request.num_computed_tokens
            known = request.token_ids(start, start + num_tokens)
            pieces.append(Piece(request, start, known + request.drafts))
        token_ids, layout = self._lay_out(pieces)
        hidden = self._model.forward(token_ids, layout, self._caches)
        return StepRows(batch, [piece.start for piece in pieces], layout.query_starts, hidden)

    def logits(self, hidden: Array) -> Array:
        """hidden [n, hidden] → float32 [n, vocab], the caller's to change in place."""
        return self._model.logits(hidden)

    @property
    def has_mtp(self) -> bool:
        return self._model.has_mtp

    def look_ahead(self, step: StepRows) -> tuple[list[Request], Array]:
        """After the draws: take the step's tokens into the MTP layer's cache, each with the one
        that came after it. The requests that have drawn, and hidden rows to guess from."""
        pieces: list[Piece] = []
        rows: list[int] = []
        for (request, _), start, row in zip(
            step.batch, step.starts, step.query_starts.tolist(), strict=False
        ):
            stop = request.num_computed_tokens  # 0 for those that have ended
            if start < stop:
                pieces.append(Piece(request, start, request.token_ids(start + 1, stop + 1)))
                rows.extend(range(row, row + stop - start))
        if not pieces:
            return [], step.hidden[:0]
        next_token_ids, layout = self._lay_out(pieces)
        hidden = self._model.look_ahead(step.hidden[rows], next_token_ids, layout, self._caches)
        drawn = [i for i, piece in enumerate(pieces) if piece.request.is_decoding]
        last_rows = layout.query_starts[1:][drawn] - 1
        return [pieces[i].request for i in drawn], hidden[last_rows]

    def _lay_out(self, pieces: list[Piece]) -> tuple[npt.NDArray[np.int32], BatchLayout]:
        num_requests = len(pieces)
        tokens: list[int] = []
        block_tables = np.full(
            (num_requests, max(len(piece.request.block_table) for piece in pieces)), -1, np.int32
        )
        for i, (request, _, token_ids) in enumerate(pieces):
            tokens += token_ids
            block_tables[i, : len(request.block_table)] = request.block_table
        counts = np.array([len(piece.token_ids) for piece in pieces], np.int32)
        starts = np.array([piece.start for piece in pieces], np.int32)
        query_starts = np.zeros(num_requests + 1, np.int32)
        np.cumsum(counts, out=query_starts[1:])
        rows = np.repeat(np.arange(num_requests), counts)
        positions = np.arange(len(tokens), dtype=np.int32) + (starts - query_starts[:-1])[rows]
        blocks = block_tables[rows, positions // self._block_size].astype(np.int64)
        layout = BatchLayout(
            positions=positions,
            slots=blocks * self._block_size + positions % self._block_size,
            query_starts=query_starts,
            context_lens=starts + counts,
            block_tables=block_tables,
            block_size=self._block_size,
        )
        return np.array(tokens, np.int32), layout
