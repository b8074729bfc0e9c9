"""Which requests run in the next step, and how many tokens of each.

One rule, `min(num_tokens - num_computed_tokens, budget)`, covers whole prompts, pieces of them,
cached prefixes, single tokens and recomputation. Knows no model and no text.
Read `block_manager.py` next.

Invariants: every running request arrived before every waiting one; a running request holds
blocks for all tokens it knows; the oldest request can always have all blocks it needs, since
younger ones give theirs up and none longer than the whole cache is ever added. So no deadlock.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from freehold.engine.block_manager import BlockManager
from freehold.engine.request import Request, RequestState


class Scheduled(NamedTuple):
    request: Request
    num_tokens: int  # to compute in this step, from num_computed_tokens on, drafts too


class Scheduler:
    def __init__(
        self, block_manager: BlockManager, *, max_num_requests: int, max_num_batched_tokens: int
    ) -> None:
        self.block_manager = block_manager
        self.max_num_requests = max_num_requests
        self.max_num_batched_tokens = max_num_batched_tokens
        self.waiting: deque[Request] = deque()  # both in order of arrival
        self.running: list[Request] = []
        self.preemptions_total = 0
        self._num_arrivals = 0

    def add(self, request: Request) -> None:
        request.arrival = self._num_arrivals
        self._num_arrivals += 1
        request.state = RequestState.WAITING
        self.waiting.append(request)

    def schedule(self) -> list[Scheduled]:
        """First come, first served, while blocks and budget last.

        A request comes in only when those before it leave budget over. So of the running ones
        only the last can lack more than one token: the others get theirs before a long prompt
        takes its piece.
        """
        self._secure_blocks()
        budget = self.max_num_batched_tokens
        batch = []
        for request in self.running:
            if num_tokens := min(request.num_tokens - request.num_computed_tokens, budget):
                batch.append(Scheduled(request, num_tokens))
                budget -= num_tokens
        while budget and self.waiting and len(self.running) < self.max_num_requests:
            request = self.waiting[0]
            # One spare block for each running request, lest the newcomer be preempted at once.
            if not self.block_manager.admit(request, spare=len(self.running)):
                break
            self.running.append(self.waiting.popleft())
            request.state = RequestState.RUNNING
            if not request.num_preemptions:
                request.num_cached_tokens = request.num_computed_tokens
            num_tokens = min(request.num_tokens - request.num_computed_tokens, budget)
            batch.append(Scheduled(request, num_tokens))
            budget -= num_tokens
        return batch

    def finish(self, request: Request) -> None:
        """Take a request out, wherever it is, and its blocks back."""
        if request.state is RequestState.RUNNING:
            self.running.remove(request)
            self.block_manager.free(request)
        else:
            self.waiting.remove(request)
        request.state = RequestState.FINISHED

    def check(self) -> None:
        """Assert the invariants above; for tests."""
        self.block_manager.check([*self.running, *self.waiting])
        arrivals = [request.arrival for request in [*self.running, *self.waiting]]
        assert arrivals == sorted(arrivals), "order of arrival"
        assert not any(request.block_table for request in self.waiting)
        missing = [request.num_tokens - request.num_computed_tokens for request in self.running]
        assert all(num == 1 for num in missing[:-1]), "a long prompt before others' single tokens"

    def _secure_blocks(self) -> None:
        """Oldest first, every running request gets blocks for its newest token."""
        num_secured = 0
        while num_secured < len(self.running):
            if self.block_manager.grow(self.running[num_secured]):
                num_secured += 1
            else:
                self._preempt(self.running.pop())  # the most recently arrived

    def _preempt(self, request: Request) -> None:
        self.block_manager.free(request)
        request.state = RequestState.WAITING
        request.num_preemptions += 1
        self.preemptions_total += 1
        self.waiting.appendleft(request)
