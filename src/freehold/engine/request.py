"""One request inside the engine: its tokens, where it stands, what it may still do.

Knows no blocks, no scheduling policy and no text. Read `scheduler.py` next.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from freehold.types import SamplingParams


class RequestState(Enum):
    WAITING = "waiting"  # no blocks held: new, or preempted
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(slots=True)
class Request:
    """Created by the caller with the first five fields; the rest is the engine's.

    `output_token_ids` may come filled: tokens that an earlier attempt already emitted. They are
    recomputed like a prompt, are not emitted again, and count as output for penalties, stop
    strings, max_tokens and sampling positions.
    """

    request_id: str
    prompt_token_ids: list[int]
    sampling: SamplingParams
    output_token_ids: list[int] = field(default_factory=list)
    deadline: float | None = None  # time.monotonic() seconds

    state: RequestState = RequestState.WAITING
    num_computed_tokens: int = 0
    num_cached_tokens: int = 0  # of those, taken from the prefix cache at first admission
    block_table: list[int] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_token_ids) + len(self.output_token_ids)
