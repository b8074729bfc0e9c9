"""The worker's gRPC face, the same over an engine and over an upstream server.

Knows no model. Errors leave as Error messages, never as a bare status with a traceback: this is
the one place where foreign exceptions end. Read `engine_backend.py` next.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import psutil

import freehold
from freehold.errors import FreeholdError, Unavailable
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.rpc.v1 import worker_pb2 as worker_pb
from freehold.rpc.v1.worker_pb2_grpc import WorkerServicer
from freehold.serving.bounds import Bounds, check_generate, check_prompt
from freehold.serving.convert import error_to_proto
from freehold.serving.worker.backend import Backend

log = logging.getLogger("freehold.worker")


class WorkerService(WorkerServicer):
    def __init__(self, backend: Backend, worker_id: str, bounds: Bounds) -> None:
        self._backend = backend
        self._worker_id = worker_id
        self._bounds = bounds
        self._process = psutil.Process()
        self.is_ready = False
        self.is_draining = False

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> None:
        async def stream() -> None:
            self._check_taking()
            check_generate(request, self._bounds)
            async with aclosing(self._backend.generate(request)) as events:
                async for event in events:
                    await context.write(event)

        if (error := await self._caught(stream)) is not None:
            await context.write(
                pb.GenerateEvent(
                    request_id=request.request_id,
                    stream=request.stream,
                    attempt=request.attempt,
                    error=error,
                )
            )

    async def Cancel(self, request: pb.CancelRequest, context: Any) -> pb.CancelReply:
        return pb.CancelReply(found=self._backend.cancel(request.request_id))

    async def Tokenize(self, request: pb.TokenizeRequest, context: Any) -> pb.TokenizeReply:
        reply = pb.TokenizeReply()

        async def tokenize() -> None:
            self._check_taking()
            check_prompt(request, self._bounds)
            reply.CopyFrom(await self._backend.tokenize(request))

        error = await self._caught(tokenize)
        return reply if error is None else pb.TokenizeReply(error=error)

    async def Health(self, request: pb.HealthRequest, context: Any) -> pb.HealthReply:
        status = "ready" if self.is_ready else "starting"
        return pb.HealthReply(
            status="draining" if self.is_draining else status,
            version=freehold.__version__,
            models=self._backend.models() if self.is_ready else (),
        )

    async def Stats(self, request: pb.StatsRequest, context: Any) -> pb.WorkerStats:
        return self.stats()

    def stats(self) -> pb.WorkerStats:
        stats = self._backend.stats()
        stats.worker_id = self._worker_id
        stats.resident_bytes = self._process.memory_info().rss
        return stats

    async def Load(self, request: worker_pb.LoadRequest, context: Any) -> worker_pb.LoadReply:
        reply = worker_pb.LoadReply()

        async def load() -> None:
            self._check_taking()
            reply.model.CopyFrom(await self._backend.load(request))

        error = await self._caught(load)
        return reply if error is None else worker_pb.LoadReply(error=error)

    async def Unload(self, request: worker_pb.UnloadRequest, context: Any) -> worker_pb.UnloadReply:
        async def unload() -> None:
            self._check_taking()
            await self._backend.unload(request)

        return worker_pb.UnloadReply(error=await self._caught(unload))

    def _check_taking(self) -> None:
        if self.is_draining:
            raise Unavailable("This worker is shutting down; ask another.")
        if not self.is_ready:
            raise Unavailable("This worker is still starting; ask another or wait.")

    async def _caught(self, act: Callable[[], Awaitable[None]]) -> pb.Error | None:
        try:
            await act()
        except FreeholdError as error:
            return error_to_proto(error)
        except Exception:
            log.exception("a request failed in this worker")
            return error_to_proto(FreeholdError("The worker failed on this request; see its log."))
        return None
