"""Which guesses at next tokens a step computes along, so that several can be drawn at once.

A guess costs a row, and memory-bound rows cost little: as many are taken as make the expected
tokens a second greatest. Knows nothing of sampling: drawing what each row says and comparing
(`Engine._draw`) gives the tokens of plain decoding. Read `lookup.py` next.
"""

from __future__ import annotations

from collections.abc import Sequence

from freehold.engine.block_manager import BlockManager
from freehold.engine.lookup import Lookup
from freehold.engine.request import Request, RequestState
from freehold.engine.scheduler import Scheduled
from freehold.engine.step_budget import StepBudget
from freehold.engine.step_cost import StepCost
from freehold.types import Speculate

MAX_DRAFTS = 15  # of one request
MAX_ROWS = 64  # of a step with drafts; each has its row of logits
MIN_GAIN = 1.02  # expected; less is not worth the risk of a wrong estimate


class Speculator:
    def __init__(self, mode: Speculate, block_manager: BlockManager, budget: StepBudget) -> None:
        self.step_cost = StepCost()
        self.draft_tokens_total = 0
        self.accepted_tokens_total = 0
        self._block_manager = block_manager
        self._mode = mode
        self._budget = budget
        self._drafted: list[tuple[Request, int]] = []  # of this step, with how many

    def lookup(self, prompt_token_ids: Sequence[int]) -> Lookup | None:
        """A request's index, or None if none is to be kept."""
        return None if self._mode is Speculate.OFF else Lookup(prompt_token_ids)

    def add_drafts(self, batch: list[Scheduled]) -> list[Scheduled]:
        """The batch, its decoding requests with drafts where that pays and blocks are free.

        Nobody waits or is preempted for a draft: they come after everything else is placed.
        """
        num_rows = sum(num_tokens for _, num_tokens in batch)
        room = min(MAX_ROWS, self._budget.num_tokens) - num_rows
        decoding = [i for i, (request, _) in enumerate(batch) if _is_decoding(request)]
        if room <= 0 or not decoding:
            return batch
        chances = [self._chances(batch[i].request) for i in decoding]
        counts = self._num_drafts(chances, num_rows, room)
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

    def _chances(self, request: Request) -> list[float]:
        if request.lookup is None:
            return []
        num_left = request.max_output_tokens - len(request.output_token_ids)
        return request.lookup.chances(min(MAX_DRAFTS, num_left - 1))

    def _num_drafts(self, chances: list[list[float]], num_rows: int, room: int) -> list[int]:
        """How many drafts of each decoding request: the likeliest, as many as pay."""
        counts = [0] * len(chances)
        ranked = [(chance, i) for i, each in enumerate(chances) for chance in each]
        if not ranked:
            return counts
        ranked.sort(reverse=True)
        cost = self.step_cost.of
        # Of a step that also computes a prompt, decoding is charged what it adds.
        base = cost(len(chances)) - cost(num_rows)
        expected = float(len(chances))
        best, num_best = MIN_GAIN * expected / (cost(num_rows) + base), 0
        for n, (chance, _) in enumerate(ranked[:room], 1):
            expected += chance
            rate = expected / (cost(num_rows + n) + base)
            if rate > best:
                best, num_best = rate, n
        for _, i in ranked[:num_best]:
            counts[i] += 1
        return counts

    def _with_drafts(self, scheduled: Scheduled, count: int) -> Scheduled:
        request = scheduled.request
        assert request.lookup is not None
        count = self._block_manager.grow_for_drafts(request, count)
        request.drafts = request.lookup.drafts(count)
        self._drafted.append((request, count))
        return Scheduled(request, scheduled.num_tokens + count)


def _is_decoding(request: Request) -> bool:
    return request.num_missing_tokens == 1 and bool(request.output_token_ids)
