"""Which requests run in the next step, and how many tokens of each.

What a request lacks, `num_tokens - num_computed_tokens`, may be a prompt, the rest of one behind a
cached prefix, a single token or a recomputation: all are served alike, in pieces that fit the
budget. Knows no model and no text. Read `step_budget.py` and `block_manager.py` next.

Invariants: every running request arrived before every waiting one; a running request holds
blocks for all tokens it knows; the oldest request can always have all blocks it needs, since
younger ones give theirs up and none longer than the whole cache is ever added. So no deadlock.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from freehold.engine.block_manager import BlockManager
from freehold.engine.request import Request, RequestState
from freehold.engine.step_budget import MIN_TOKENS, StepBudget


class Scheduled(NamedTuple):
    request: Request
    num_tokens: int  # to compute in this step, from num_computed_tokens on, drafts too


class Scheduler:
    def __init__(
        self, block_manager: BlockManager, budget: StepBudget, *, max_num_requests: int
    ) -> None:
        self.block_manager = block_manager
        self.budget = budget
        self.max_num_requests = max_num_requests
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
        """Single tokens first, then prompts, first come, first served, while budget and blocks
        last. So a long prompt holds nobody's tokens up, and no short prompt behind it for long:
        what does not fit gets half of the budget that is left, the next the other half.
        """
        self._secure_blocks()
        is_alone = len(self.running) + len(self.waiting) == 1
        left = self.budget.num_tokens_alone if is_alone else self.budget.num_tokens
        batch = []
        for request in self.running:
            if left and request.num_missing_tokens == 1:
                batch.append(Scheduled(request, 1))
                left -= 1
        prompts = deque(request for request in self.running if request.num_missing_tokens > 1)
        cut: int | None = None  # the first prompt in the batch that did not get all it lacks
        while left and (prompt := prompts.popleft() if prompts else self._admit()):
            has_next = bool(prompts) or self._may_admit
            piece = _piece(prompt.num_missing_tokens, left, has_next)
            if piece < prompt.num_missing_tokens and cut is None:
                cut = len(batch)
            batch.append(Scheduled(prompt, piece))
            left -= piece
        if left and cut is not None:  # the next could not come in after all
            prompt, piece = batch[cut]
            batch[cut] = Scheduled(prompt, min(prompt.num_missing_tokens, piece + left))
        return batch

    @property
    def _may_admit(self) -> bool:
        return bool(self.waiting) and len(self.running) < self.max_num_requests

    def _admit(self) -> Request | None:
        """Let the next waiting request run, if there is one and it finds its blocks."""
        # One spare block for each running request, lest the newcomer be preempted at once.
        if not self._may_admit or not self.block_manager.admit(
            self.waiting[0], spare=len(self.running)
        ):
            return None
        request = self.waiting.popleft()
        self.running.append(request)
        request.state = RequestState.RUNNING
        if not request.num_preemptions:
            request.num_cached_tokens = request.num_computed_tokens
        return request

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


def _piece(num_missing: int, left: int, has_next: bool) -> int:
    if num_missing <= left:
        return num_missing
    return left // 2 if has_next and left >= 2 * MIN_TOKENS else left
