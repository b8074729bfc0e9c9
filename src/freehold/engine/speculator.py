"""Which guesses at next tokens a step computes along, so that several can be drawn at once.

A guess costs a row, and while a step waits for memory rows cost little: as many are taken as make
the expected tokens a second greatest, and none in steps of many rows. Knows nothing of sampling:
drawing what each row says and comparing (`Engine._draw`) gives the tokens of plain decoding. Read
`guesses.py` next.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from freehold.engine.block_manager import BlockManager
from freehold.engine.guesses import Guesses
from freehold.engine.lookup import Lookup
from freehold.engine.model_runner import ModelRunner, StepRows
from freehold.engine.request import Request, RequestState
from freehold.engine.scheduler import Scheduled
from freehold.engine.step_budget import StepBudget
from freehold.engine.step_cost import MAX_ROWS, StepCost
from freehold.types import Speculate

MAX_DRAFTS = MAX_ROWS - 1  # of one request
MAX_UNUSED = 16  # steps without a draft after which the MTP layer is asked this seldom
MIN_GAIN = 1.03  # expected; less is not worth the risk of a wrong estimate


class Speculator:
    def __init__(
        self,
        mode: Speculate,
        block_manager: BlockManager,
        budget: StepBudget,
        *,
        has_mtp: bool,
    ) -> None:
        self.step_cost = StepCost()
        self.draft_tokens_total = 0
        self.accepted_tokens_total = 0
        self._block_manager = block_manager
        self._budget = budget
        self._has_lookup = mode in (Speculate.LOOKUP, Speculate.AUTO)
        self._has_mtp = has_mtp and mode in (Speculate.MTP, Speculate.AUTO)
        self._num_unused = 0  # steps in a row in which no guess was worth its row
        self._drafted: list[tuple[Request, int]] = []  # of this step, with how many

    def guesses(self, prompt_token_ids: Sequence[int]) -> Guesses | None:
        """A new request's, or None if none are to be made."""
        if not self._has_lookup and not self._has_mtp:
            return None
        return Guesses(Lookup(prompt_token_ids) if self._has_lookup else None)

    def add_drafts(self, batch: list[Scheduled]) -> list[Scheduled]:
        """The batch, its decoding requests with drafts where that pays and blocks are free.

        Nobody waits or is preempted for a draft: they come after everything else is placed.
        """
        num_rows = sum(num_tokens for _, num_tokens in batch)
        room = min(MAX_ROWS, self._budget.num_tokens) - num_rows
        decoding = [i for i, (request, _) in enumerate(batch) if request.is_decoding]
        if room <= 0 or not decoding:
            self._num_unused += 1
            return batch
        counts = self._num_drafts([batch[i].request for i in decoding], num_rows, room)
        self._num_unused = 0 if any(counts) else self._num_unused + 1
        for i, count in zip(decoding, counts, strict=True):
            if count:
                batch[i] = self._with_drafts(batch[i], count)
        return batch

    def settle(self) -> None:
        """The step is over: count, and take the blocks of refused drafts back."""
        for request, count in self._drafted:
            self.draft_tokens_total += count
            self.accepted_tokens_total += count - len(request.drafts)
            request.drafts.clear()
            if request.state is RequestState.RUNNING:
                self._block_manager.shrink(request)
        self._drafted.clear()

    def look_ahead(self, runner: ModelRunner, step: StepRows) -> None:
        """Have the MTP layer guess at the next token of each request that has drawn one.

        Its cache is kept whole always. The head, which costs more, is asked only now and then
        while its guesses are not used: too many streams, or wrong too often.
        """
        if not self._has_mtp:
            return
        requests, hidden = runner.look_ahead(step)
        if not requests or (self._num_unused >= MAX_UNUSED and self._num_unused % MAX_UNUSED):
            return
        guessed = runner.logits(hidden).argmax(axis=-1).tolist()
        for request, token_id in zip(requests, guessed, strict=True):
            assert request.guesses is not None
            request.guesses.look_ahead(token_id)

    def _num_drafts(self, requests: list[Request], num_rows: int, room: int) -> list[int]:
        """How many drafts of each decoding request: the likeliest, as many as pay."""
        counts = [0] * len(requests)
        ranked = [
            (-rate, i, 1)
            for i, request in enumerate(requests)
            if request.guesses and (rate := request.guesses.rate(0)) and _max_drafts(request)
        ]
        if not ranked:
            return counts
        heapq.heapify(ranked)
        cost = self.step_cost.of
        # Of a step that also computes a prompt, decoding is charged what it adds.
        base = cost(len(requests)) - cost(num_rows)
        expected = float(len(requests))
        best, num_best = MIN_GAIN * expected / (cost(num_rows) + base), 0
        enough = best * self.step_cost.of_a_row(num_rows)
        chosen: list[int] = []
        while ranked and len(chosen) < room and -ranked[0][0] > enough:
            negated, i, count = ranked[0]
            chance = -negated
            expected += chance
            chosen.append(i)
            rate = expected / (cost(num_rows + len(chosen)) + base)
            if rate > best:
                best, num_best = rate, len(chosen)
            guesses = requests[i].guesses
            if guesses and count < _max_drafts(requests[i]):
                heapq.heapreplace(ranked, (-chance * guesses.rate(count), i, count + 1))
            else:
                heapq.heappop(ranked)
        for i in chosen[:num_best]:
            counts[i] += 1
        return counts

    def _with_drafts(self, scheduled: Scheduled, count: int) -> Scheduled:
        request = scheduled.request
        assert request.guesses is not None
        count = self._block_manager.grow_for_drafts(request, count)
        request.drafts = request.guesses.drafts(count)
        self._drafted.append((request, count))
        return Scheduled(request, scheduled.num_tokens + count)


def _max_drafts(request: Request) -> int:
    """The last token it may draw need not be guessed: nothing comes after it."""
    return min(MAX_DRAFTS, request.max_output_tokens - len(request.output_token_ids) - 1)
