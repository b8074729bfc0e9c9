"""Requests in, token events out, one step at a time.

`step()` is the whole loop: scheduler → model runner → sampler → events. Synchronous and for one
thread, except `prepare`, which any thread may call. Knows no transport and no threads.
Read `request.py` next.
"""

from __future__ import annotations

import heapq
import logging
import time
from dataclasses import replace
from typing import Protocol

from freehold import __version__
from freehold.engine.admission import check_request, max_output_tokens
from freehold.engine.block_manager import BlockManager
from freehold.engine.config import EngineConfig, num_cache_blocks
from freehold.engine.detokenizer import DecodeStream, OutputText
from freehold.engine.logprobs import Logprobs, TokenNames
from freehold.engine.model_runner import Model, ModelRunner
from freehold.engine.prefix_store import PrefixStore
from freehold.engine.request import Request, RequestState
from freehold.engine.sampler import Draw, Sample, Sampler
from freehold.engine.scheduler import Scheduled, Scheduler
from freehold.engine.speculator import Speculator
from freehold.engine.stats import EngineStats
from freehold.engine.step_budget import StepBudget
from freehold.engine.structured import GrammarCompiler
from freehold.errors import FreeholdError, InvalidRequest, InvalidSchema
from freehold.ops import Array, Ops
from freehold.types import FinishReason, TokenEvent

log = logging.getLogger(__name__)

NO_SAMPLE = Sample(-1, ())


class Tokenizer(TokenNames, Protocol):
    """What the engine needs of a tokenizer; `freehold.model.tokenizer` has the real one."""

    @property
    def eos_token_ids(self) -> frozenset[int]: ...

    def new_stream(self) -> DecodeStream: ...


class Engine:
    """`available_bytes` bounds a cache whose size the configuration leaves open; `revision` names
    the weights."""

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        config: EngineConfig | None = None,
        *,
        revision: str = "",
        available_bytes: int = 4 << 30,
    ) -> None:
        config = config or EngineConfig()
        max_positions = model.config.max_position_embeddings
        num_blocks = num_cache_blocks(
            config,
            bytes_per_token=model.cache_bytes_per_token,
            max_position_embeddings=max_positions,
            available=available_bytes,
        )
        self.config = config
        self.max_model_len = min(
            max_positions, config.max_model_len or max_positions, num_blocks * config.block_size
        )
        self._runner = ModelRunner(model, num_blocks, config.block_size)
        self.block_manager = BlockManager(
            num_blocks,
            config.block_size,
            prefix_cache=config.enable_prefix_cache,
            revision=revision,
            store=self._open_store(model.ops, revision),
        )
        self.scheduler = Scheduler(
            self.block_manager,
            StepBudget(config.max_num_batched_tokens, config.max_step_seconds),
            max_num_requests=config.max_num_requests,
        )
        self._speculator = Speculator(
            config.speculate,
            self.block_manager,
            self.scheduler.budget,
            has_mtp=self._runner.has_mtp,
        )
        self._tokenizer = tokenizer
        self._vocab_size = model.config.vocab_size
        self._eos_token_ids = tokenizer.eos_token_ids | set(model.config.eos_token_ids)
        self._grammars = GrammarCompiler(tokenizer, self._vocab_size, self._eos_token_ids)
        self._logprobs = Logprobs(model.ops, tokenizer)
        self._sampler = Sampler(model.ops, self._logprobs)

        self._live: dict[str, Request] = {}
        self._deadlines: list[tuple[float, int, Request]] = []  # a heap
        self._events: list[TokenEvent] = []  # of this step, and of cancellations before it
        self._failures: list[tuple[str, FreeholdError]] = []
        self._requests_total = 0
        self._prompt_tokens_total = 0
        self._cached_prompt_tokens_total = 0
        self._output_tokens_total = 0
        self._steps_total = 0
        self._step_seconds_total = 0.0

    def _open_store(self, ops: Ops, revision: str) -> PrefixStore | None:
        config = self.config
        if config.prefix_store is None or not config.enable_prefix_cache:
            return None
        identity = f"{__version__} {revision} {ops.cache_layout} {config.block_size}"
        memory = self._runner.cache_memory()
        try:
            return PrefixStore(config.prefix_store, config.prefix_store_bytes, identity, memory)
        except OSError as error:
            log.warning("prefixes cannot be kept in %s: %s", config.prefix_store, error.strerror)
            return None

    # Requests in

    def add(self, request: Request) -> None:
        """Take a request on. Raises InvalidRequest (ContextLengthExceeded, InvalidSchema …)
        before anything is held."""
        self.prepare(request)
        self.enqueue(request)

    def prepare(self, request: Request) -> None:
        """Check a request and make its text, sampling and grammar state. Touches nothing else, so
        that any thread may call it; a schema can take a second to compile."""
        sampling = request.sampling
        check_request(request, self._vocab_size)
        request.max_output_tokens = max_output_tokens(request, self.max_model_len)
        matcher = None
        if sampling.json_schema is not None:
            matcher = self._grammars.matcher(sampling.json_schema)
        request.draw = Draw(sampling, request.prompt_token_ids, matcher)
        request.guesses = self._speculator.guesses(request.prompt_token_ids)
        request.text = OutputText(
            self._tokenizer.new_stream(),
            sampling.stop,
            include_stop=sampling.include_stop_in_output,
        )
        for i, token_id in enumerate(request.output_token_ids):
            _, request.resumed_finish = self._read(request, token_id, i + 1)
        if request.draw.error is not None:
            raise InvalidSchema(
                f"The resumed tokens do not follow the JSON schema: {request.draw.error}.",
                param="response_format",
            )

    def enqueue(self, request: Request) -> None:
        """Queue a prepared request."""
        if request.request_id in self._live:
            raise InvalidRequest(
                f"A request named {request.request_id!r} is running already; use a new id.",
                param="request_id",
            )
        self._live[request.request_id] = request
        self._requests_total += 1
        self.scheduler.add(request)
        if request.deadline is not None:
            heapq.heappush(self._deadlines, (request.deadline, request.arrival, request))
        if request.resumed_finish is not None:  # the earlier attempt had emitted its last token
            self._finish(request, request.resumed_finish)

    def cancel(self, request_id: str) -> bool:
        """Stop a request and free its blocks at once; its last event comes with the next step.
        False if there is no such request."""
        if (request := self._live.get(request_id)) is None:
            return False
        self._finish(request, FinishReason.CANCELLED)
        return True

    def discard(self, request_id: str) -> None:
        """Free what a request holds, without an event: nobody is listening any more."""
        if (request := self._live.pop(request_id, None)) is not None:
            self.scheduler.finish(request)

    def discard_running(self) -> None:
        """After a failed step: drop all running requests. Waiting ones hold nothing and stay."""
        for request in list(self.scheduler.running):
            self.discard(request.request_id)

    # Tokens out

    def step(self) -> list[TokenEvent]:
        """Run the next batch; the events of one request are in order."""
        started = time.perf_counter()
        self._expire()
        num_tokens = 0
        if batch := self.scheduler.schedule():
            batch = self._speculator.add_drafts(batch)
            num_tokens = sum(scheduled.num_tokens for scheduled in batch)
            self._compute(batch)
        events, self._events = self._events, []
        seconds = time.perf_counter() - started
        self.scheduler.budget.observe(num_tokens, seconds)
        self._steps_total += 1
        self._step_seconds_total += seconds
        return events

    def take_failures(self) -> list[tuple[str, FreeholdError]]:
        """Requests that ended with an error of their own since the last call (no event tells)."""
        failures, self._failures = self._failures, []
        return failures

    @property
    def has_work(self) -> bool:
        return bool(self._live or self._events)

    def is_live(self, request_id: str) -> bool:
        return request_id in self._live

    def stats(self) -> EngineStats:
        """A snapshot; any thread may ask."""
        return EngineStats(
            num_running=len(self.scheduler.running),
            num_waiting=len(self.scheduler.waiting),
            num_blocks=self.block_manager.num_blocks,
            num_free_blocks=self.block_manager.num_free_blocks,
            outstanding_tokens=sum(r.num_outstanding_tokens for r in list(self._live.values())),
            requests_total=self._requests_total,
            prompt_tokens_total=self._prompt_tokens_total,
            cached_prompt_tokens_total=self._cached_prompt_tokens_total,
            output_tokens_total=self._output_tokens_total,
            preemptions_total=self.scheduler.preemptions_total,
            draft_tokens_total=self._speculator.draft_tokens_total,
            accepted_tokens_total=self._speculator.accepted_tokens_total,
            steps_total=self._steps_total,
            step_seconds_total=self._step_seconds_total,
        )

    def _compute(self, batch: list[Scheduled]) -> None:
        started = time.perf_counter()
        rows = self._runner.forward(batch)
        requests, drawing_rows = rows.complete()
        logits = self._runner.logits(rows.hidden[drawing_rows]) if requests else None
        self._logprobs.score_prompt(self._runner, rows)
        for request, num_tokens in batch:
            request.num_computed_tokens += num_tokens - len(request.drafts)
            self.block_manager.commit(request)
        if requests:
            self._draw(requests, logits)
        self._speculator.settle()
        self._speculator.look_ahead(self._runner, rows)
        if len(drawing_rows) == len(rows.hidden):
            self._speculator.step_cost.observe(len(drawing_rows), time.perf_counter() - started)

    def _draw(self, requests: list[Request], logits: Array) -> None:
        """Draw a token of each request from its row; where it is what the draft says, the row
        after it holds for the next one too, and so on: exactly the draws of single steps.

        Draws that those before them change (penalties, a grammar) wait for them; the others, which
        `complete` puts first, are drawn together.
        """
        drawing, distances = list(requests), [0] * len(requests)
        for request in requests:
            if request.drafts and not request.draw.changes_logits:
                drawing += [request] * len(request.drafts)
                distances += range(1, len(request.drafts) + 1)
        samples = self._sampler.sample(drawing, logits[: len(drawing)], distances)
        ahead, row = len(requests), len(drawing)
        waiting = []
        for request, sample in zip(requests, samples, strict=False):
            num_drafts = len(request.drafts)
            is_right = self._take(request, sample)
            if request.draw.changes_logits:
                if is_right:
                    waiting.append((request, row))
                row += num_drafts
                continue
            for drawn in samples[ahead : ahead + num_drafts]:
                is_right = is_right and self._take(request, drawn)
            ahead += num_drafts
        while waiting:
            requests = [request for request, _ in waiting]
            samples = self._sampler.sample(requests, logits[[row for _, row in waiting]])
            waiting = [
                (request, row + 1)
                for (request, row), sample in zip(waiting, samples, strict=True)
                if self._take(request, sample)
            ]

    def _take(self, request: Request, sample: Sample) -> bool:
        """Put a drawn token out; whether it was the next draft, which then counts as computed."""
        request.output_token_ids.append(sample.token_id)
        num_output = len(request.output_token_ids)
        text, reason = self._read(request, sample.token_id, num_output)
        if request.draw.error is not None:
            self._fail(request, num_output)
            return False
        self._output_tokens_total += 1
        self._emit(request, num_output - 1, text, reason, sample)
        if is_drafted := request.drafts[:1] == [sample.token_id]:
            del request.drafts[0]
        if reason is not None:
            self._drop(request)
            return False
        if not is_drafted:
            return False
        request.num_computed_tokens += 1
        self.block_manager.commit(request)
        return True

    def _read(
        self, request: Request, token_id: int, num_output: int
    ) -> tuple[str, FinishReason | None]:
        """Take an output token into text and sampling state: the text that is certain with it,
        and whether it is the last."""
        sampling = request.sampling
        is_stop = token_id in sampling.stop_token_ids or (
            token_id in self._eos_token_ids and not sampling.ignore_eos
        )
        request.draw.observe(token_id)
        if request.guesses is not None:
            request.guesses.append(token_id)
        text = ""
        if not is_stop or sampling.include_stop_in_output:
            text = request.text.push(token_id)
        if is_stop or request.text.is_stopped or request.draw.is_complete:
            return text + request.text.finish(), FinishReason.STOP
        if num_output >= request.max_output_tokens:
            # A last unfinished character may yet complete a stop string.
            text += request.text.finish()
            return text, FinishReason.STOP if request.text.is_stopped else FinishReason.LENGTH
        return text, None

    def _emit(
        self,
        request: Request,
        index: int,
        text: str,
        reason: FinishReason | None,
        sample: Sample = NO_SAMPLE,
    ) -> None:
        has_token = sample is not NO_SAMPLE
        event = TokenEvent(
            request.request_id,
            index,
            sample.token_id if has_token else None,
            text,
            sample.logprobs[0] if sample.logprobs else None,
            sample.logprobs[1:],
            reason,
        )
        self._events.append(event if request.is_started else self._start(request, event))

    def _start(self, request: Request, event: TokenEvent) -> TokenEvent:
        """Add what only the first event carries."""
        request.is_started = True
        num_prompt = len(request.prompt_token_ids)
        num_cached = min(request.num_cached_tokens, num_prompt)
        self._prompt_tokens_total += num_prompt
        self._cached_prompt_tokens_total += num_cached
        scored = request.prompt_logprobs
        return replace(
            event,
            num_prompt_tokens=num_prompt,
            num_cached_tokens=num_cached,
            prompt_logprobs=tuple(scored) if len(scored) == num_prompt else None,
        )

    # The ends of a request

    def _finish(self, request: Request, reason: FinishReason) -> None:
        """End a request between tokens."""
        text = "" if request.resumed_finish else request.text.finish()
        self._emit(request, len(request.output_token_ids), text, reason)
        self._drop(request)

    def _fail(self, request: Request, num_output: int) -> None:
        why = f"after {num_output} tokens: {request.draw.error}"
        error = InvalidSchema(
            f"The JSON schema could not be enforced {why}; simplify it.", param="response_format"
        )
        self._failures.append((request.request_id, error))
        self._drop(request)

    def _drop(self, request: Request) -> None:
        del self._live[request.request_id]
        self.scheduler.finish(request)

    def _expire(self) -> None:
        while self._deadlines and (
            self._deadlines[0][0] <= time.monotonic()
            or self._deadlines[0][2].state is RequestState.FINISHED
        ):
            request = heapq.heappop(self._deadlines)[2]
            if request.state is not RequestState.FINISHED:
                self._finish(request, FinishReason.DEADLINE)
