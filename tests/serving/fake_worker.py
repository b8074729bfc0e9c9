"""A worker without a model: the real gRPC protocol on a real socket, tokens from a hash.

Token k of a request is a function of (prompt, seed, k) and its text a function of the token, as in
the real worker. For tests of the orchestrator; run as a program it is a process to kill.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import secrets
from contextlib import asynccontextmanager

from freehold.errors import Unavailable
from freehold.rpc import channel
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.rpc.v1.worker_pb2_grpc import WorkerServicer, add_WorkerServicer_to_server
from freehold.serving.convert import error_to_proto
from freehold.serving.lifecycle import bind
from freehold.serving.worker.registration import Registration


def token_at(request: pb.GenerateRequest, index: int) -> int:
    prompt = request.text or repr(request.chat) or repr(request.tokens)
    key = f"{prompt}|{request.sampling.seed}|{index}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=2).digest(), "big")


def expected_ids(request: pb.GenerateRequest) -> list[int]:
    return [token_at(request, k) for k in range(request.sampling.max_tokens)]


def text_of(token_id: int) -> str:
    return f"{token_id:x} "


class FakeWorker(WorkerServicer):
    def __init__(self, model="fake", revision="r1", token_seconds=0.0, max_num_requests=8):
        self.worker_id = secrets.token_hex(8)
        self.model = pb.ModelInfo(name=model, revision=revision, max_model_len=4096)
        self.token_seconds = token_seconds
        self.max_num_requests = max_num_requests
        self.requests: list[pb.GenerateRequest] = []
        self.num_active = 0
        self.num_left_early = 0
        self.is_draining = False
        self.hold = asyncio.Event()  # cleared: tokens stand still
        self.hold.set()

    async def Generate(self, request, context):
        self.requests.append(request)
        self.num_active += 1
        finished = False
        try:
            async for event in self.events(request):
                await context.write(event)
            finished = True
        finally:
            self.num_active -= 1
            self.num_left_early += not finished

    async def events(self, request):
        if self.is_draining or request.revision not in ("", self.model.revision):
            yield event(request, error=error_to_proto(Unavailable("Not here.")))
            return
        yield event(request, started=pb.Started(num_prompt_tokens=3, revision=self.model.revision))
        last = request.sampling.max_tokens - 1
        for k in range(len(request.resume_token_ids), last + 1):
            await self.hold.wait()
            if self.token_seconds:
                await asyncio.sleep(self.token_seconds)
            token_id = token_at(request, k)
            reason = "length" if k == last else ""
            token = pb.Token(token_id=token_id, text=text_of(token_id), finish_reason=reason)
            yield event(request, sequence=k, token=token)
        yield event(request, finished=pb.Finished(reason="length", num_output_tokens=last + 1))

    async def Tokenize(self, request, context):
        return pb.TokenizeReply(ids=list(request.text.encode()), max_model_len=4096)

    def stats(self):
        return pb.WorkerStats(worker_id=self.worker_id, num_running=self.num_active)

    def registration(self, orchestrator: str, address: str, cluster_token: str = ""):
        return Registration(
            orchestrator,
            worker_id=self.worker_id,
            address=address,
            cluster_token=cluster_token,
            max_num_requests=self.max_num_requests,
            models=lambda: [self.model],
            stats=self.stats,
            is_draining=lambda: self.is_draining,
        )


def event(request, **fields) -> pb.GenerateEvent:
    return pb.GenerateEvent(
        request_id=request.request_id, stream=request.stream, attempt=request.attempt, **fields
    )


@asynccontextmanager
async def serving(worker: FakeWorker, orchestrator: str | None = None, port: int = 0):
    """The worker on a socket, registered if an orchestrator is given; yields its address."""
    server = channel.server()
    add_WorkerServicer_to_server(worker, server)
    address = bind(server, "127.0.0.1", port)
    await server.start()
    task = None
    if orchestrator:
        registration = worker.registration(orchestrator, address)
        task = asyncio.create_task(registration.run())
    try:
        yield address
    finally:
        if task:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await registration.leave()
        await server.stop(grace=None)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--orchestrator", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--token-seconds", type=float, default=0.002)
    options = parser.parse_args()
    worker = FakeWorker(token_seconds=options.token_seconds)
    async with serving(worker, options.orchestrator, options.port) as address:
        print(address, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
