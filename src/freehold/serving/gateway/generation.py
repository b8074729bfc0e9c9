"""One client request as n gRPC streams: started together, merged, measured, cancelled together.

Both OpenAI's endpoints and the WebSocket go through here. Knows no HTTP and no JSON; yields the
orchestrator's events as they are. Read `openai_chat.py` next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc

from freehold.errors import DeadlineExceeded, FreeholdError, RequestCancelled, Unavailable
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.rpc.v1.orchestrator_pb2_grpc import OrchestratorStub
from freehold.serving.convert import error_from_proto, messages_to_proto, sampling_to_proto
from freehold.serving.gateway.errors import from_rpc
from freehold.serving.gateway.metrics import Metrics
from freehold.types import ChatMessage, FinishReason, SamplingParams

RPC_SLACK_SECONDS = 10.0
MIN_RATE_SECONDS = 0.01  # a shorter answer arrives in bursts: its tokens/s would say nothing
MERGE_QUEUE_EVENTS = 64  # read ahead of a slow client; gRPC's flow control holds back the rest

Prompt = tuple[ChatMessage, ...] | str | tuple[int, ...]  # a chat, a text, token ids


@dataclass(frozen=True, slots=True)
class GenerationSpec:
    """What is asked: every prompt is answered `num_choices` times, choice i with seed + i."""

    model: str
    prompts: tuple[Prompt, ...]
    num_choices: int
    sampling: SamplingParams
    unset: frozenset[str]  # sampling fields the client left to the model and the orchestrator

    @property
    def num_streams(self) -> int:
        return len(self.prompts) * self.num_choices


@dataclass(slots=True)
class Usage:
    """Tokens of the whole request; prompts count once, whatever n is."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    ttft_seconds: float | None = None
    tokens_per_second: float | None = None  # first to last token; None if too short to time


@dataclass(slots=True)
class _Choice:
    """What is known of one stream so far."""

    num_tokens: int = 0
    num_reasoning_tokens: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    last_token_time: float = 0.0
    finish_reason: str = ""


class Generation:
    """An async context manager; leaving it cancels what still runs, which frees its blocks.

    `begin()` waits for the first token, so that what fails before it can still be an HTTP status.
    Then iterate `events()`. Both raise a FreeholdError when any stream fails.
    """

    def __init__(
        self,
        stub: OrchestratorStub,
        request_id: str,
        spec: GenerationSpec,
        metrics: Metrics,
        timeout_seconds: float,
    ) -> None:
        self.request_id = request_id
        self.spec = spec
        self.revision = ""
        self._stub = stub
        self._metrics = metrics
        self._timeout_seconds = timeout_seconds
        self._choices = [_Choice() for _ in range(spec.num_streams)]
        self._num_unfinished = spec.num_streams
        self._calls: list[grpc.aio.UnaryStreamCall[pb.GenerateRequest, pb.GenerateEvent]] = []
        self._merged: AsyncGenerator[pb.GenerateEvent] | None = None
        self._held: list[pb.GenerateEvent] = []
        self._start_time = time.monotonic()
        self._first_token_time = 0.0
        self._last_token_time = 0.0

    async def __aenter__(self) -> Self:
        requests = [self._request(stream) for stream in range(self.spec.num_streams)]
        self._metrics.generation_started(self.spec.num_streams)
        # The orchestrator keeps the deadline; the call's own is for one that hangs.
        limit = self._timeout_seconds + RPC_SLACK_SECONDS
        self._calls = [self._stub.Generate(request, timeout=limit) for request in requests]
        self._merged = merge(self._calls)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for call in self._calls:
            call.cancel()
        if self._merged is not None:
            await self._merged.aclose()
        self._metrics.generation_ended(self.spec.num_streams)
        if self.revision:  # a model of that name exists, so it may be a label
            usage = self.usage()
            self._metrics.tokens(
                self.spec.model, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens
            )
            if kind is None and not self._num_unfinished:
                self._metrics.finished(
                    self.spec.model,
                    [choice.finish_reason for choice in self._choices],
                    time.monotonic() - self._start_time,
                )

    async def begin(self) -> None:
        """Wait for the first token of any stream."""
        while (event := await self._next()) is not None:
            self._held.append(event)
            if event.WhichOneof("event") != "started":
                return

    async def events(self) -> AsyncIterator[pb.GenerateEvent]:
        """Every event once, in each stream's order; ends when all streams have finished."""
        held, self._held = self._held, []
        for earlier in held:
            yield earlier
        while (event := await self._next()) is not None:
            yield event

    def usage(self) -> Usage:
        usage = Usage()
        for choice in self._choices:
            usage.completion_tokens += choice.num_tokens
            usage.reasoning_tokens += choice.num_reasoning_tokens
        for choice in self._choices[:: self.spec.num_choices]:
            usage.prompt_tokens += choice.num_prompt_tokens
            usage.cached_tokens += choice.num_cached_tokens
        if self._first_token_time:
            usage.ttft_seconds = self._first_token_time - self._start_time
            span = self._last_token_time - self._first_token_time
            if usage.completion_tokens > 1 and span >= MIN_RATE_SECONDS:
                usage.tokens_per_second = (usage.completion_tokens - 1) / span
        return usage

    async def _next(self) -> pb.GenerateEvent | None:
        """The next event that is not a repeat; None when all streams have finished."""
        assert self._merged is not None, "enter the context first"
        try:
            while self._num_unfinished:
                event = await anext(self._merged)
                if self._observe(event):
                    return event
        except StopAsyncIteration:
            raise Unavailable("The answer broke off before its end; try again.") from None
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from error
        return None

    def _observe(self, event: pb.GenerateEvent) -> bool:
        """Account for one event; raises what it reports. False: a repeat, to be dropped."""
        choice = self._choices[event.stream]
        kind = event.WhichOneof("event")
        if kind == "token":
            if event.sequence < choice.num_tokens:
                return False
            if event.sequence > choice.num_tokens:
                raise FreeholdError("A token was lost between processes; try again.")
            self._observe_token(choice, event.token)
        elif kind == "started":
            choice.num_prompt_tokens = event.started.num_prompt_tokens
            choice.num_cached_tokens = event.started.num_cached_tokens
            self.revision = event.started.revision or self.spec.model
        elif kind == "finished":
            finished = event.finished
            _check_finish(finished.reason)
            choice.finish_reason = finished.reason
            choice.num_tokens = finished.num_output_tokens or choice.num_tokens
            choice.num_prompt_tokens = finished.num_prompt_tokens or choice.num_prompt_tokens
            if finished.reasoning and not finished.text:
                choice.num_reasoning_tokens = choice.num_tokens
            self._num_unfinished -= 1
        elif kind == "error":
            raise error_from_proto(event.error)
        return kind is not None

    def _observe_token(self, choice: _Choice, token: pb.Token) -> None:
        now = time.monotonic()
        if not self._first_token_time:
            self._first_token_time = now
            self._metrics.first_token(self.spec.model, now - self._start_time)
        if choice.last_token_time:
            self._metrics.next_token(self.spec.model, now - choice.last_token_time)
        choice.last_token_time = self._last_token_time = now
        choice.num_tokens += 1
        if token.reasoning:  # reasoning goes before the answer, so it is a count, too
            choice.num_reasoning_tokens = choice.num_tokens

    def _request(self, stream: int) -> pb.GenerateRequest:
        spec = self.spec
        prompt = spec.prompts[stream // spec.num_choices]
        sampling = sampling_to_proto(spec.sampling, unset=spec.unset)
        if "seed" not in spec.unset:
            sampling.seed = (spec.sampling.seed + stream % spec.num_choices) % (1 << 64)
        request = pb.GenerateRequest(
            request_id=self.request_id,
            stream=stream,
            model=spec.model,
            sampling=sampling,
            timeout_seconds=self._timeout_seconds,
        )
        if isinstance(prompt, str):
            request.text = prompt
        elif isinstance(prompt[0], int):
            request.tokens.ids.extend(prompt)
        else:
            request.chat.CopyFrom(messages_to_proto(prompt))
        return request


def _check_finish(reason: str) -> None:
    """OpenAI has no word for an answer cut off by us, so that is an error, never a finish."""
    if reason == FinishReason.DEADLINE:
        raise DeadlineExceeded("The deadline passed before the answer was finished.")
    if reason == FinishReason.CANCELLED:
        raise RequestCancelled("The answer was cancelled before it was finished.")


async def merge(calls: list[Any]) -> AsyncGenerator[pb.GenerateEvent]:
    """Events of all calls as they come; the first exception of any call ends it."""
    if len(calls) == 1:
        async for event in calls[0]:
            yield event
        return
    queue: asyncio.Queue[pb.GenerateEvent | Exception | None] = asyncio.Queue(MERGE_QUEUE_EVENTS)
    readers = [asyncio.create_task(_read_into(queue, call)) for call in calls]
    try:
        num_open = len(calls)
        while num_open:
            item = await queue.get()
            if item is None:
                num_open -= 1
            elif isinstance(item, Exception):
                raise item
            else:
                yield item
    finally:
        for reader in readers:
            reader.cancel()


async def _read_into(
    queue: asyncio.Queue[pb.GenerateEvent | Exception | None],
    call: AsyncIterator[pb.GenerateEvent],
) -> None:
    try:
        async for event in call:
            await queue.put(event)
        await queue.put(None)
    except Exception as error:  # raised again by `merge`, in the request's own task
        await queue.put(error)
