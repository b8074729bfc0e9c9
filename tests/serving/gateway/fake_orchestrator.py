"""An orchestrator without workers: the real gRPC protocol on a real socket, tokens from the seed.

Token k of a stream is the text `w{seed}.{k} `, so a test knows every answer in advance. What goes
wrong, and how fast tokens come, is set on the instance.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from freehold.errors import FreeholdError, ModelNotFound
from freehold.rpc import channel
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.rpc.v1 import orchestrator_pb2 as orchestrator_pb
from freehold.rpc.v1.orchestrator_pb2_grpc import (
    OrchestratorServicer,
    add_OrchestratorServicer_to_server,
)
from freehold.serving.convert import error_to_proto
from freehold.serving.lifecycle import bind

MODEL = "fake"
DRAWN_SEED = 7  # what this orchestrator draws for a client that gave none
PROMPT_TOKENS = 5
CACHED_TOKENS = 2
DEFAULT_TOKENS = 8


def word(seed: int, index: int) -> str:
    return f"w{seed}.{index} "


def answer(seed: int, num_tokens: int) -> str:
    return "".join(word(seed, k) for k in range(num_tokens))


class FakeOrchestrator(OrchestratorServicer):
    def __init__(self) -> None:
        self.requests: list[pb.GenerateRequest] = []
        self.num_active = 0
        self.num_left_early = 0
        self.num_written = 0
        self.token_seconds = 0.0
        self.num_reasoning_tokens = 0
        self.error: FreeholdError | None = None
        self.error_at = 0  # the token before which the error comes
        self.breaks_at: int | None = None  # the token before which the stream just ends
        self.repeats = False  # every token comes twice
        self.finish_reason = "length"
        self.words: list[bytes] = []  # what the logprobs say the tokens are
        self.hold = asyncio.Event()  # cleared: streams stand still before their first event
        self.hold.set()

    async def Generate(self, request, context):
        self.requests.append(request)
        self.num_active += 1
        is_whole = False
        try:
            await self.hold.wait()
            async for event in self._events(request):
                await context.write(event)
                self.num_written += 1
            is_whole = True
        finally:
            self.num_active -= 1
            self.num_left_early += not is_whole

    async def _events(self, request):
        def event(**fields):
            return pb.GenerateEvent(request_id=request.request_id, stream=request.stream, **fields)

        sampling = request.sampling
        if request.model != MODEL:
            unknown = ModelNotFound(f"No model '{request.model}' is served.", param="model")
            yield event(error=error_to_proto(unknown))
            return
        if self.error is not None and self.error_at == 0:
            yield event(error=error_to_proto(self.error))
            return
        seed = sampling.seed if sampling.HasField("seed") else DRAWN_SEED
        num_tokens = sampling.max_tokens if sampling.HasField("max_tokens") else DEFAULT_TOKENS
        yield event(started=self._started(request))
        for k in range(num_tokens):
            if self.token_seconds:
                await asyncio.sleep(self.token_seconds)
            if self.error is not None and self.error_at == k:
                yield event(error=error_to_proto(self.error))
                return
            if self.breaks_at == k:
                return
            token = self._token(sampling, seed, k)
            for _ in range(2 if self.repeats else 1):
                yield event(sequence=k, token=token)
        finished = pb.Finished(reason=self.finish_reason, num_output_tokens=num_tokens)
        yield event(sequence=num_tokens, finished=finished)

    def _started(self, request):
        started = pb.Started(
            num_prompt_tokens=PROMPT_TOKENS, num_cached_tokens=CACHED_TOKENS, revision="rev1"
        )
        if not request.HasField("chat"):
            started.prompt_text = request.text or "token ids"
        if request.sampling.HasField("prompt_logprobs"):
            words = [w.encode() for w in started.prompt_text.split(" ")]
            pieces = [words[0], *(b" " + w for w in words[1:])]
            started.prompt_logprobs.add()
            for piece in pieces[1:]:
                started.prompt_logprobs.add(top=[logprob(piece), logprob(b"other")])
        return started

    def _token(self, sampling, seed, k):
        text = word(seed, k)
        token = pb.Token(token_id=k)
        if k < self.num_reasoning_tokens:
            token.reasoning = text
        else:
            token.text = text
        if sampling.HasField("num_logprobs"):
            token.logprob.CopyFrom(logprob(self.words[k] if self.words else text.encode()))
            token.top_logprobs.extend([logprob(b"top")] * sampling.num_logprobs)
        return token

    async def Tokenize(self, request, context):
        if request.model != MODEL:
            unknown = ModelNotFound(f"No model '{request.model}' is served.", param="model")
            return pb.TokenizeReply(error=error_to_proto(unknown))
        text = request.text or "".join(m.content for m in request.chat.messages)
        return pb.TokenizeReply(ids=list(text.encode()), max_model_len=4096)

    async def ListModels(self, request, context):
        model = pb.ModelInfo(name=MODEL, revision="rev1", max_model_len=4096)
        slashed = pb.ModelInfo(name="org/fake", revision="rev2", max_model_len=4096)
        return orchestrator_pb.ListModelsReply(models=[model, slashed])

    async def Health(self, request, context):
        return pb.HealthReply(status="ready", version="0")

    async def Stats(self, request, context):
        worker = pb.WorkerStats(
            worker_id="w1",
            num_running=2,
            num_waiting=3,
            num_blocks=10,
            num_free_blocks=4,
            draft_tokens_total=8,
            accepted_tokens_total=5,
        )
        return orchestrator_pb.OrchestratorStats(workers=[worker], num_queued=4)


def logprob(piece: bytes) -> pb.TokenLogprob:
    return pb.TokenLogprob(
        token_id=1, logprob=-0.5, text=piece.decode(errors="replace"), token_bytes=piece
    )


@asynccontextmanager
async def serving(fake: FakeOrchestrator):
    """On a socket; yields its address."""
    server = channel.server()
    add_OrchestratorServicer_to_server(fake, server)
    address = bind(server, "127.0.0.1", 0)
    await server.start()
    try:
        yield address
    finally:
        await server.stop(grace=None)
