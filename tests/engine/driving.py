"""Runs an engine to the end, checking conservation after every step, and keeps what happened."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from freehold.engine import Engine, EngineConfig, Request
from freehold.types import FinishReason, SamplingParams, TokenEvent


@dataclass
class Outcome:
    """Of one request."""

    events: list[TokenEvent] = field(default_factory=list)
    pieces: list[int] = field(default_factory=list)  # tokens computed in each of its steps

    @property
    def token_ids(self):
        return [e.token_id for e in self.events if e.token_id is not None]

    @property
    def text(self):
        return "".join(e.text for e in self.events)

    @property
    def logprobs(self):
        return [e.logprob.logprob for e in self.events if e.logprob is not None]

    @property
    def finish_reason(self):
        return self.events[-1].finish_reason


class Driver:
    def __init__(self, model, tokenizer, **config):
        config = {"max_step_seconds": None} | config  # pieces that no slow machine changes
        self.engine = Engine(model, tokenizer, EngineConfig(**config))
        self.outcomes: dict[str, Outcome] = defaultdict(Outcome)
        self._schedule = self.engine.scheduler.schedule
        self.engine.scheduler.schedule = self._recorded_schedule

    def _recorded_schedule(self):
        batch = self._schedule()
        assert sum(n for _, n in batch) <= self.engine.config.max_num_batched_tokens
        for request, num_tokens in batch:
            assert num_tokens > 0
            self.outcomes[request.request_id].pieces.append(num_tokens)
        return batch

    def step(self):
        for event in self.engine.step():
            events = self.outcomes[event.request_id].events
            assert not events or events[-1].finish_reason is None, "an event after the last"
            events.append(event)
        self.engine.scheduler.check()

    def run(self, *requests, max_steps=5000):
        for request in requests:
            self.engine.add(request)
        for _ in range(max_steps):
            if not self.engine.has_work:
                break
            self.step()
        assert not self.engine.has_work, "the engine does not come to an end"
        stats = self.engine.stats()
        assert (stats.num_free_blocks, stats.outstanding_tokens) == (stats.num_blocks, 0)
        return [self.outcomes[request.request_id] for request in requests]


def a_request(name, prompt, output=(), **sampling):
    return Request(str(name), list(prompt), SamplingParams(**sampling), list(output))


def assert_equals_naive(outcome: Outcome, want):
    assert outcome.token_ids == want.token_ids
    assert outcome.text == want.text
    assert outcome.finish_reason is want.finish_reason
    assert outcome.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)
