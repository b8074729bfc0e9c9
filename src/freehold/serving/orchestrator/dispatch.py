"""Dispatch: one stream from admission to its last event, over as many workers as it takes.

Remembers prompt and emitted ids, and on a worker's death sends both to another worker of the same
revision; the client sees no gap and no repeat. Knows no text and no policy. `ledger.py` holds the
numbering, `admission.py` finds the place; read `worker/service.py` next.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

import grpc

from freehold.errors import (
    DeadlineExceeded,
    FreeholdError,
    InvalidRequest,
    RequestCancelled,
    Unavailable,
)
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.serving.bounds import Bounds, check_generate, check_prompt, prompt_bytes
from freehold.serving.convert import error_from_proto, error_to_proto
from freehold.serving.orchestrator.admission import Admission, Assignment, Ticket
from freehold.serving.orchestrator.ledger import SequenceGap, StreamLedger
from freehold.serving.orchestrator.registry import Registry
from freehold.types import FinishReason

log = logging.getLogger("freehold.orchestrator")

PREFIX_BYTES = 1024  # of the prompt, that choose the preferred node
BYTES_A_TOKEN = 4  # for estimates before a worker has tokenized
ASSUMED_OUTPUT_TOKENS = 1024  # outstanding tokens of a request without max_tokens, and at most
RETRY_SECONDS = 0.1  # before a third attempt without a new token, doubled before each further one
DEADLINE_SLACK_SECONDS = 2.0  # after which the orchestrator ends what its worker has not


class _Stream:
    """A ledger with what is needed to break the stream off from outside."""

    def __init__(self, request: pb.GenerateRequest) -> None:
        self.ledger = StreamLedger(request)
        self.is_cancelled = False
        self.call: grpc.aio.UnaryStreamCall[pb.GenerateRequest, pb.GenerateEvent] | None = None
        self.ticket: Ticket | None = None

    def cancel(self) -> None:
        self.is_cancelled = True
        waiting = None if self.ticket is None else self.ticket.future
        if self.call is not None:
            self.call.cancel()
        elif waiting is not None and not waiting.done():
            waiting.set_exception(RequestCancelled("The request was cancelled."))


class _AttemptFailed(Exception):
    """This worker will not finish the stream; another one may. `told`: the worker's own words."""

    def __init__(self, message: str, told: FreeholdError | None = None) -> None:
        super().__init__(message)
        self.told = told


class Dispatcher:
    def __init__(
        self, registry: Registry, admission: Admission, bounds: Bounds, max_redispatches: int
    ) -> None:
        self._registry = registry
        self._admission = admission
        self._bounds = bounds
        self._max_redispatches = max_redispatches
        self._streams: dict[str, dict[int, _Stream]] = {}  # request_id → stream → state
        self.is_draining = False
        self.redispatches_total = 0

    @property
    def num_streams(self) -> int:
        return sum(len(streams) for streams in self._streams.values())

    async def generate(self, request: pb.GenerateRequest) -> AsyncGenerator[pb.GenerateEvent]:
        """The stream's events, ended by Finished or Error; raises nothing a user can cause.

        Leaving early (the client's RPC ended) breaks off the worker's part.
        """
        ledger = StreamLedger(request)
        try:
            self._check(request)
            with self._tracked(request) as stream:
                ledger = stream.ledger
                async with aclosing(self._run(stream)) as events:
                    async for event in events:
                        yield event
        except FreeholdError as error:
            yield ledger.failed(error_to_proto(error))
        except Exception:
            log.exception("a stream of request %s failed", request.request_id[:128])
            internal = FreeholdError("The orchestrator failed on this request; see its log.")
            yield ledger.failed(error_to_proto(internal))

    def cancel(self, request_id: str) -> bool:
        """End all streams of the request as cancelled. False when there is none."""
        streams = list(self._streams.get(request_id, {}).values())
        for stream in streams:
            stream.cancel()
        return bool(streams)

    def _check(self, request: pb.GenerateRequest) -> None:
        if self.is_draining:
            raise Unavailable("The orchestrator is shutting down.", retry_after_seconds=5.0)
        check_generate(request, self._bounds)
        if request.attempt or request.resume_token_ids or request.revision:
            raise InvalidRequest("attempt, resume_token_ids and revision are the orchestrator's.")
        if request.stream in self._streams.get(request.request_id, {}):
            raise InvalidRequest("A request of that id and stream is running.", param="request_id")

    @contextmanager
    def _tracked(self, request: pb.GenerateRequest) -> Iterator[_Stream]:
        if not request.sampling.HasField("seed"):
            request.sampling.seed = secrets.randbits(64)
        stream = _Stream(request)
        self._streams.setdefault(request.request_id, {})[request.stream] = stream
        try:
            yield stream
        finally:
            streams = self._streams[request.request_id]
            del streams[request.stream]
            if not streams:
                del self._streams[request.request_id]

    async def _run(self, stream: _Stream) -> AsyncGenerator[pb.GenerateEvent]:
        ledger, admission = stream.ledger, self._admission
        ticket = stream.ticket = make_ticket(ledger.request)
        num_failures = 0  # in a row, without a new token
        try:
            assignment = await admission.admit(ticket)
            while True:
                num_tokens = len(ledger.token_ids)
                try:
                    async with aclosing(self._attempt(stream, assignment, ticket)) as events:
                        async for event in events:
                            yield event
                    return
                except _AttemptFailed as failure:
                    log.warning("request %s: %s", ledger.request.request_id, failure)
                    told = failure.told
                finally:
                    assignment.close()
                if ledger.finish_reason:  # all tokens came, only the word that it is the end not
                    yield ledger.finished(ledger.finish_reason)
                    return
                num_failures = 1 if len(ledger.token_ids) > num_tokens else num_failures + 1
                if num_failures > self._max_redispatches:
                    raise told or Unavailable(
                        f"{num_failures} workers in a row failed on this request; the last "
                        "emitted token stands, try again later."
                    )
                ticket.avoided.add(assignment.node.worker_id)
                ticket.revision = ledger.revision
                ledger.next_attempt()
                self.redispatches_total += 1
                if num_failures > 1:  # a worker's word that it leaves may be on its way
                    await asyncio.sleep(RETRY_SECONDS * 2 ** (num_failures - 2))
                assignment = await admission.readmit(ticket)
        except RequestCancelled:
            yield ledger.finished(FinishReason.CANCELLED)
        except DeadlineExceeded:
            if not ledger.token_ids:
                raise
            yield ledger.finished(FinishReason.DEADLINE)

    async def _attempt(
        self, stream: _Stream, assignment: Assignment, ticket: Ticket
    ) -> AsyncGenerator[pb.GenerateEvent]:
        """Events of the present attempt up to the last; raises _AttemptFailed, RequestCancelled."""
        ledger, node = stream.ledger, assignment.node
        if stream.is_cancelled:
            raise RequestCancelled("The request was cancelled.")
        left = 0.0 if ticket.deadline is None else max(ticket.deadline - time.monotonic(), 0.001)
        call = node.stub.Generate(
            ledger.worker_request(left), timeout=left + DEADLINE_SLACK_SECONDS if left else None
        )
        stream.call = call
        node.calls.add(call)
        try:
            async for event in call:
                if event.WhichOneof("event") == "error" and event.error.code == Unavailable.code:
                    raise _AttemptFailed(event.error.message, error_from_proto(event.error))
                if not ledger.accept(event):
                    continue
                if event.HasField("token"):
                    assignment.progress(1)
                elif event.HasField("started"):
                    assignment.progress(estimate_prompt_tokens(ledger.request))
                yield event
                if ledger.is_finished:
                    return
            raise _AttemptFailed(f"worker {node.worker_id} ended the stream without an end")
        except SequenceGap as gap:
            raise _AttemptFailed(f"worker {node.worker_id}: {gap}") from gap
        except grpc.aio.AioRpcError as error:
            self._broken(stream, assignment, error)
        except asyncio.CancelledError:
            # Either our own task is cancelled (the client left), or `call.cancel()` was called.
            task = asyncio.current_task()
            if (task is not None and task.cancelling()) or not call.cancelled():
                raise
            self._broken(stream, assignment, None)
        finally:
            stream.call = None
            node.calls.discard(call)
            call.cancel()

    def _broken(
        self, stream: _Stream, assignment: Assignment, error: grpc.aio.AioRpcError | None
    ) -> None:
        """Raise what a broken call means: cancelled, deadline, or the worker's failure."""
        node = assignment.node
        if stream.is_cancelled:
            raise RequestCancelled("The request was cancelled.")
        code = None if error is None else error.code()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise DeadlineExceeded("The deadline passed before the answer was finished.")
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise InvalidRequest(
                "A message of this answer is larger than 16 MiB; ask for fewer prompt logprobs."
            )
        if code is grpc.StatusCode.UNAVAILABLE:
            self._registry.mark_dead(node, "its connection broke")
        detail = "it is gone" if error is None else f"{code} {error.details()}"
        raise _AttemptFailed(f"worker {node.worker_id} broke off: {detail}")

    async def tokenize(self, request: pb.TokenizeRequest) -> pb.TokenizeReply:
        """Answered by any worker of the model; errors travel in the reply."""
        try:
            check_prompt(request, self._bounds)
            return await self._tokenize(request)
        except FreeholdError as error:
            return pb.TokenizeReply(error=error_to_proto(error))

    async def _tokenize(self, request: pb.TokenizeRequest) -> pb.TokenizeReply:
        while nodes := self._registry.candidates(request.model, None):
            node = min(nodes, key=lambda n: n.num_requests)
            try:
                reply: pb.TokenizeReply = await node.stub.Tokenize(request, timeout=30.0)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise Unavailable("The worker did not answer; try again.") from error
                self._registry.mark_dead(node, "its connection broke")
                continue
            return reply
        if self._registry.is_known(request.model):
            raise Unavailable(f"No worker serves '{request.model}' now; try again later.")
        raise self._admission.model_not_found(request.model)


def make_ticket(request: pb.GenerateRequest) -> Ticket:
    max_tokens = ASSUMED_OUTPUT_TOKENS
    if request.sampling.HasField("max_tokens"):
        max_tokens = min(request.sampling.max_tokens, ASSUMED_OUTPUT_TOKENS)
    timeout = request.timeout_seconds
    return Ticket(
        model=request.model,
        prefix_key=prefix_key(request),
        cost_tokens=estimate_prompt_tokens(request) + max_tokens,
        deadline=time.monotonic() + timeout if timeout else None,
    )


def estimate_prompt_tokens(request: pb.GenerateRequest) -> int:
    if request.HasField("tokens"):
        return len(request.tokens.ids)
    return prompt_bytes(request) // BYTES_A_TOKEN + 1


def prefix_key(request: pb.GenerateRequest) -> bytes:
    """Digest of the prompt's leading part: equal for the turns of one chat, and for one text's
    continuations."""
    digest = hashlib.blake2b(request.model.encode(), digest_size=16)
    kind = request.WhichOneof("prompt")
    if kind == "chat":
        left = PREFIX_BYTES
        for message in request.chat.messages:
            digest.update(f"\0{message.role}\0{message.content[:left]}".encode())
            left -= len(message.content)
            if message.role == "user" or left <= 0:
                break  # later messages differ from turn to turn
    elif kind == "text":
        digest.update(request.text[:PREFIX_BYTES].encode())
    else:
        digest.update(repr(request.tokens.ids[: PREFIX_BYTES // BYTES_A_TOKEN]).encode())
    return digest.digest()
