"""Admission: a bounded first-in-first-out queue in front of the workers, a line for each model.

It admits, refuses (Overloaded with a time to come back) or lets wait until the deadline, and asks
the balancer which node takes a ticket. Knows no prompt and no token. Read `dispatch.py` next.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from freehold.balance import prefix_affinity
from freehold.errors import (
    DeadlineExceeded,
    FreeholdError,
    ModelNotFound,
    Overloaded,
    Unavailable,
)
from freehold.serving.orchestrator.registry import Node, Registry

MAX_RETRY_AFTER_SECONDS = 60.0
THROUGHPUT_WINDOW_SECONDS = 30.0


@dataclass(eq=False, slots=True)
class Ticket:
    """One stream's wish for a node; a re-dispatched stream keeps its ticket."""

    model: str
    prefix_key: bytes  # digest of the prompt's leading part
    cost_tokens: int  # estimated prompt tokens + output tokens still allowed
    deadline: float | None  # time.monotonic() seconds
    revision: str | None = None  # once started, only this one continues it
    avoided: set[str] = field(default_factory=set)  # nodes that failed it, used if no other is
    future: asyncio.Future[Assignment] | None = None
    without_node_since: float | None = None


class Assignment:
    """A ticket's place on a node; `close` gives it back."""

    def __init__(self, node: Node, cost_tokens: int, on_close: Callable[[], None]) -> None:
        self.node = node
        self._remaining = cost_tokens
        self._on_close: Callable[[], None] | None = on_close
        node.num_requests += 1
        node.outstanding_tokens += cost_tokens

    def progress(self, num_tokens: int) -> None:
        """So many tokens of the estimated cost are done."""
        done = min(num_tokens, self._remaining)
        self._remaining -= done
        self.node.outstanding_tokens -= done

    def close(self) -> None:
        """Idempotent."""
        if (on_close := self._on_close) is not None:
            self._on_close = None
            self.progress(self._remaining)
            self.node.num_requests -= 1
            on_close()


class Admission:
    def __init__(
        self,
        registry: Registry,
        max_queue: int,
        grace_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._max_queue = max_queue
        self._grace_seconds = grace_seconds
        self._clock = clock
        self._started_at = clock()
        self._lines: dict[str, deque[Ticket]] = {}
        self._finish_times: deque[float] = deque(maxlen=1024)
        self.num_queued = 0
        self.num_running = 0
        self.requests_total = 0
        self.rejected_total = 0

    async def admit(self, ticket: Ticket) -> Assignment:
        """A new request's place on a node, waiting in line for it.

        Raises ModelNotFound, Overloaded, DeadlineExceeded, or Unavailable when the model is known
        but no worker served it for the grace period.
        """
        self.requests_total += 1
        try:
            self._check_model(ticket.model)
            if not self._lines.get(ticket.model) and (assignment := self._assign(ticket)):
                return assignment
            if self.num_queued >= self._max_queue:
                raise Overloaded(
                    f"{self.num_queued} requests wait already; come back later.",
                    retry_after_seconds=self.retry_after_seconds(),
                )
            return await self._wait(ticket, first=False)
        except FreeholdError:
            self.rejected_total += 1
            raise

    async def readmit(self, ticket: Ticket) -> Assignment:
        """The next place for a stream whose worker died: before all that wait, whatever the bound.

        Raises DeadlineExceeded or Unavailable.
        """
        return self._assign(ticket) or await self._wait(ticket, first=True)

    def retry_after_seconds(self) -> float:
        """When the queue will have moved on, by the rate of the last half minute: 1 to 60 s."""
        now = self._clock()
        while self._finish_times and self._finish_times[0] < now - THROUGHPUT_WINDOW_SECONDS:
            self._finish_times.popleft()
        if not self._finish_times:
            return 5.0
        elapsed = max(now - self._finish_times[0], 1.0)
        seconds = math.ceil((self.num_queued + 1) * elapsed / len(self._finish_times))
        return float(min(max(seconds, 1), MAX_RETRY_AFTER_SECONDS))

    # The line

    async def _wait(self, ticket: Ticket, *, first: bool) -> Assignment:
        future: asyncio.Future[Assignment] = asyncio.get_running_loop().create_future()
        ticket.future, ticket.without_node_since = future, None
        line = self._lines.setdefault(ticket.model, deque())
        line.appendleft(ticket) if first else line.append(ticket)
        self.num_queued += 1
        self._pump_line(ticket.model)  # those before it may wait for another revision
        left = None if ticket.deadline is None else ticket.deadline - self._clock()
        try:
            async with asyncio.timeout(left):
                return await future
        except TimeoutError:
            _give_back(future)
            raise DeadlineExceeded(
                "The deadline passed while the request waited for a worker."
            ) from None
        except BaseException:
            _give_back(future)
            raise
        finally:
            self._leave(ticket)

    def _leave(self, ticket: Ticket) -> None:
        line = self._lines.get(ticket.model)
        if line is not None and ticket in line:
            line.remove(ticket)
            self.num_queued -= 1
            if not line:
                del self._lines[ticket.model]

    def pump(self) -> None:
        """Give places to those who wait, first come first served. Called on every change."""
        for model in list(self._lines):
            self._pump_line(model)

    def _pump_line(self, model: str) -> None:
        for ticket in list(self._lines.get(model, ())):
            if not any(n.num_requests < n.max_requests for n in self._candidates(ticket, None)):
                return
            assert ticket.future is not None
            if not ticket.future.done() and (assignment := self._assign(ticket)):
                self._leave(ticket)
                ticket.future.set_result(assignment)

    def sweep(self) -> None:
        """Refuse those whose model has had no worker for the grace period."""
        now = self._clock()
        for ticket in [t for line in self._lines.values() for t in line]:
            assert ticket.future is not None
            if self._candidates(ticket, ticket.revision):
                ticket.without_node_since = None
            elif ticket.without_node_since is None:
                ticket.without_node_since = now
            elif now - ticket.without_node_since > self._grace_seconds and not ticket.future.done():
                ticket.future.set_exception(self._no_worker(ticket))

    # Nodes

    def _candidates(self, ticket: Ticket, revision: str | None) -> list[Node]:
        return self._registry.candidates(ticket.model, revision)

    def _assign(self, ticket: Ticket) -> Assignment | None:
        nodes = self._candidates(ticket, ticket.revision)
        nodes = [node for node in nodes if node.worker_id not in ticket.avoided] or nodes
        chosen = prefix_affinity([node.state() for node in nodes], ticket.prefix_key)
        if chosen is None:
            return None
        node = next(node for node in nodes if node.worker_id == chosen.node_id)
        self.num_running += 1
        return Assignment(node, ticket.cost_tokens, self._closed)

    def _closed(self) -> None:
        self.num_running -= 1
        self._finish_times.append(self._clock())
        self.pump()

    def _check_model(self, model: str) -> None:
        if self._registry.is_known(model):
            return
        # Just started: workers of a running house have not registered again yet.
        young = self._clock() - self._started_at < self._grace_seconds
        if young and not self._registry.has_ever_had_workers:
            return
        raise self.model_not_found(model)

    def model_not_found(self, model: str) -> ModelNotFound:
        names = ", ".join(info.name for info in self._registry.models()) or "none at the moment"
        return ModelNotFound(f"No model is named '{model[:256]}'; served: {names}.", param="model")

    def _no_worker(self, ticket: Ticket) -> FreeholdError:
        if not self._registry.is_known(ticket.model):
            return self.model_not_found(ticket.model)
        which = "" if ticket.revision is None else " in the revision this answer began with"
        return Unavailable(
            f"No worker serves '{ticket.model}'{which} now; try again later.",
            retry_after_seconds=self._grace_seconds or 1.0,
        )


def _give_back(future: asyncio.Future[Assignment]) -> None:
    """A place that came in the same instant in which its waiter left."""
    if future.done() and not future.cancelled() and future.exception() is None:
        future.result().close()
