"""A snapshot of an engine: gauges now, counters (in `_total`) since it started."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineStats:
    num_running: int
    num_waiting: int
    num_blocks: int
    num_free_blocks: int  # those that keep a cached prefix count as free
    outstanding_tokens: int  # prompt tokens not yet computed + output tokens still allowed
    requests_total: int
    prompt_tokens_total: int
    cached_prompt_tokens_total: int
    output_tokens_total: int
    preemptions_total: int
    draft_tokens_total: int  # guessed and computed along
    accepted_tokens_total: int  # of those, the ones that were then drawn
    steps_total: int
    step_seconds_total: float

    @property
    def kv_usage(self) -> float:
        """Part of the blocks that requests hold, 0 … 1."""
        return 1.0 - self.num_free_blocks / self.num_blocks
