"""A worker's place at the orchestrator: register, keep the lease alive, leave.

Knows no engine: what it tells comes from callables. When the orchestrator restarts or has let
the lease go, it registers again. Read `serving/orchestrator/registry.py` for the other side.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from freehold.rpc.channel import connect
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.rpc.v1 import orchestrator_pb2 as orchestrator_pb
from freehold.rpc.v1.orchestrator_pb2_grpc import OrchestratorStub
from freehold.serving.convert import error_from_proto

log = logging.getLogger("freehold.worker")

CALL_TIMEOUT_SECONDS = 5.0
RETRY_SECONDS = (0.1, 1.0)  # first and longest wait between tries to register
HEARTBEAT_SECONDS = 1.0


class Registration:
    def __init__(
        self,
        orchestrator: str,
        *,
        worker_id: str,
        address: str,
        cluster_token: str,
        max_num_requests: int,
        models: Callable[[], Sequence[pb.ModelInfo]],
        stats: Callable[[], pb.WorkerStats],
        is_draining: Callable[[], bool],
        registered: asyncio.Event | None = None,  # set at the first registration
    ) -> None:
        self._worker_id = worker_id
        self._address = address
        self._cluster_token = cluster_token
        self._max_num_requests = max_num_requests
        self._models = models
        self._stats = stats
        self._is_draining = is_draining
        self._registered = registered or asyncio.Event()
        self._channel = connect(orchestrator)
        self._stub: Any = OrchestratorStub(self._channel)  # type: ignore[no-untyped-call]
        self._lease_id = ""
        self._lease_seconds = 0.0
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Send the next heartbeat now: something changed that the orchestrator should know."""
        self._wake.set()

    async def run(self) -> None:
        """Hold the lease until cancelled. Raises the refusal of an orchestrator (a wrong token)."""
        while True:
            await self._register()
            while await self._heartbeat():
                await self._pause()

    async def leave(self) -> None:
        """Deregister if registered, and hang up. An absent orchestrator is not an error."""
        if self._lease_id:
            request = orchestrator_pb.DeregisterRequest(
                worker_id=self._worker_id, lease_id=self._lease_id
            )
            try:
                await self._stub.Deregister(request, timeout=1.0)
            except grpc.aio.AioRpcError as error:
                log.info("could not deregister: %s", error.code())
        await self._channel.close(grace=None)

    async def _register(self) -> None:
        wait, longest = RETRY_SECONDS
        while True:
            request = orchestrator_pb.RegisterRequest(
                worker_id=self._worker_id,
                address=self._address,
                models=self._models(),
                cluster_token=self._cluster_token,
                max_num_requests=self._max_num_requests,
            )
            try:
                reply = await self._stub.Register(request, timeout=CALL_TIMEOUT_SECONDS)
            except grpc.aio.AioRpcError as error:
                log.info("the orchestrator does not answer (%s); trying again", error.code())
                await asyncio.sleep(wait)
                wait = min(2 * wait, longest)
                continue
            if reply.HasField("error"):
                raise error_from_proto(reply.error)
            self._lease_id, self._lease_seconds = reply.lease_id, reply.lease_seconds
            self._registered.set()
            return

    async def _heartbeat(self) -> bool:
        """False when the worker has to register again; a silent orchestrator may come back."""
        request = orchestrator_pb.HeartbeatRequest(
            worker_id=self._worker_id,
            lease_id=self._lease_id,
            stats=self._stats(),
            models=self._models(),
            draining=self._is_draining(),
        )
        try:
            timeout = min(CALL_TIMEOUT_SECONDS, self._lease_seconds)
            reply = await self._stub.Heartbeat(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            log.info("no heartbeat: the orchestrator does not answer (%s)", error.code())
            return True
        return bool(reply.known)

    async def _pause(self) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(min(HEARTBEAT_SECONDS, self._lease_seconds / 3)):
                await self._wake.wait()
        except TimeoutError:
            return
