"""One request inside the engine: its tokens, where it stands, what it may still do.

Knows no scheduling policy; the block table and the text are carried here, and worked on by
`block_manager.py` and `detokenizer.py`. Read `scheduler.py` next.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from freehold.types import FinishReason, SamplingParams, TokenLogprob

if TYPE_CHECKING:
    from freehold.engine.detokenizer import OutputText
    from freehold.engine.guesses import Guesses
    from freehold.engine.sampler import Draw


class RequestState(Enum):
    WAITING = "waiting"  # no blocks held: new, or preempted
    RUNNING = "running"
    FINISHED = "finished"


def _no_blocks() -> array[int]:
    return array("i")


@dataclass(slots=True, eq=False)
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
    num_preemptions: int = 0
    max_output_tokens: int = 0  # max_tokens, or what the context leaves
    is_started: bool = False  # its first event is out
    resumed_finish: FinishReason | None = None  # an earlier attempt emitted the last token already
    arrival: int = 0  # the scheduler's count of requests when this one came
    block_table: array[int] = field(default_factory=_no_blocks)  # int32
    num_cacheable_blocks: int = 0  # leading blocks already offered to the prefix cache
    block_hashes: list[bytes] = field(default_factory=list)  # chained, one a full block
    prompt_logprobs: list[tuple[TokenLogprob, ...] | None] = field(default_factory=list)
    drafts: list[int] = field(default_factory=list)  # guesses this step computes along; else none
    guesses: Guesses | None = None  # None: no speculation

    # Set by Engine.prepare
    text: OutputText = field(init=False, repr=False)
    draw: Draw = field(init=False, repr=False)

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_token_ids) + len(self.output_token_ids)

    @property
    def num_missing_tokens(self) -> int:
        """Known tokens still to compute."""
        return self.num_tokens - self.num_computed_tokens

    @property
    def num_outstanding_tokens(self) -> int:
        """Tokens still to compute or to draw: the work this request may yet cost."""
        return (
            len(self.prompt_token_ids)
            + max(self.max_output_tokens, len(self.output_token_ids))
            - self.num_computed_tokens
        )

    @property
    def is_decoding(self) -> bool:
        """All it lacks is the token it has drawn last."""
        return bool(self.output_token_ids) and self.num_missing_tokens == 1

    @property
    def needs_prompt_logprobs(self) -> bool:
        """Still to be gathered: they are all there before the first token is drawn."""
        return self.sampling.prompt_logprobs is not None and not self.output_token_ids

    def token_ids(self, start: int, stop: int) -> list[int]:
        """Tokens start … stop - 1, counted over prompt and output together."""
        num_prompt = len(self.prompt_token_ids)
        if start >= num_prompt:
            return self.output_token_ids[start - num_prompt : stop - num_prompt]
        return (
            self.prompt_token_ids[start:stop] + self.output_token_ids[: max(0, stop - num_prompt)]
        )
