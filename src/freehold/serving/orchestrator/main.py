"""The orchestrator as a process: build its rooms, serve, drain on SIGTERM.

Read `service.py` next.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from freehold.rpc import channel
from freehold.rpc.v1.orchestrator_pb2_grpc import add_OrchestratorServicer_to_server
from freehold.serving.lifecycle import announce, bind, stop_event
from freehold.serving.orchestrator.admission import Admission
from freehold.serving.orchestrator.dispatch import Dispatcher
from freehold.serving.orchestrator.registry import Registry
from freehold.serving.orchestrator.service import OrchestratorService
from freehold.serving.orchestrator.settings import OrchestratorSettings


@dataclass(frozen=True, slots=True)
class Orchestrator:
    """A serving orchestrator; `address` is host:port."""

    address: str
    registry: Registry
    admission: Admission
    dispatcher: Dispatcher


async def run(settings: OrchestratorSettings, ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises ConfigError before serving."""
    stop = stop_event()
    async with serve(settings) as orchestrator:
        announce(orchestrator.address, ready, settings.ready_file)
        await stop.wait()


@contextlib.asynccontextmanager
async def serve(settings: OrchestratorSettings) -> AsyncIterator[Orchestrator]:
    """Serve inside the block; leaving it drains: nothing new, what runs may finish in time."""
    settings.check()
    registry = Registry(settings.cluster_token, settings.lease_seconds)
    admission = Admission(registry, settings.max_queue, settings.grace_seconds)
    registry.on_change = admission.pump
    dispatcher = Dispatcher(registry, admission, settings.bounds, settings.max_redispatches)
    server = channel.server()
    service = OrchestratorService(registry, admission, dispatcher)
    add_OrchestratorServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    address = bind(server, settings.host, settings.port)
    await server.start()
    sweeper = asyncio.create_task(_sweep(registry, admission, settings.lease_seconds))
    try:
        yield Orchestrator(address, registry, admission, dispatcher)
    finally:
        dispatcher.is_draining = True
        await _drained(dispatcher, settings.drain_seconds)
        await server.stop(grace=0.5)
        sweeper.cancel()
        await asyncio.gather(sweeper, return_exceptions=True)
        await registry.close()


async def _sweep(registry: Registry, admission: Admission, lease_seconds: float) -> None:
    while True:
        await asyncio.sleep(min(lease_seconds / 8, 0.25))
        registry.sweep()
        admission.sweep()


async def _drained(dispatcher: Dispatcher, drain_seconds: float) -> None:
    deadline = time.monotonic() + drain_seconds
    while dispatcher.num_streams and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
