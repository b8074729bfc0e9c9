"""The worker as a process: load, serve, register, drain on SIGTERM.

Read `service.py` next.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from freehold.rpc import channel
from freehold.rpc.v1.worker_pb2_grpc import add_WorkerServicer_to_server
from freehold.serving.lifecycle import announce, bind, stop_event
from freehold.serving.worker.backend import Backend
from freehold.serving.worker.engine_backend import EngineBackend, Loader
from freehold.serving.worker.loading import checkpoint_loader
from freehold.serving.worker.registration import Registration
from freehold.serving.worker.service import WorkerService
from freehold.serving.worker.settings import WorkerSettings
from freehold.serving.worker.upstream import UpstreamBackend

WATCH_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Worker:
    """A serving worker; `address` is host:port."""

    worker_id: str
    address: str
    backend: Backend
    registered: asyncio.Event  # set once the orchestrator knows it, or at once if it has none
    failed: asyncio.Task[None]  # raises when this process can serve no more


async def run(settings: WorkerSettings, ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Raises ConfigError, CheckpointError or NotEnoughMemory before serving, the orchestrator's
    refusal (AuthenticationFailed), and Unavailable when the engine broke.
    """
    stop = asyncio.create_task(stop_event().wait())
    started = asyncio.Event()
    serving = asyncio.create_task(_serve_until(stop, started, settings, ready))
    await asyncio.wait([stop, serving], return_when=asyncio.FIRST_COMPLETED)
    if not serving.done() and not started.is_set():  # still loading: nothing to drain
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        return
    try:
        await serving
    finally:
        stop.cancel()


async def _serve_until(
    stop: asyncio.Task[bool],
    started: asyncio.Event,
    settings: WorkerSettings,
    ready: Callable[[str], None] | None,
) -> None:
    async with serve(settings) as worker:
        started.set()
        registered = asyncio.create_task(worker.registered.wait())
        await asyncio.wait([stop, worker.failed, registered], return_when="FIRST_COMPLETED")
        if registered.done():
            announce(worker.address, ready, settings.ready_file)
        registered.cancel()
        await asyncio.wait([stop, worker.failed], return_when="FIRST_COMPLETED")
        if worker.failed.done():
            worker.failed.result()


@contextlib.asynccontextmanager
async def serve(settings: WorkerSettings, loader: Loader | None = None) -> AsyncIterator[Worker]:
    """Serve inside the block; leaving it drains, deregisters and stops the engine.

    `loader` stands in for reading a checkpoint from disk.
    """
    settings.check()
    backend = _backend(settings, loader)
    registered = asyncio.Event()
    worker_id = secrets.token_hex(8)
    service = WorkerService(backend, worker_id, settings.bounds)
    server = channel.server()
    add_WorkerServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    address = bind(server, settings.host, settings.port)
    registration: Registration | None = None
    if settings.orchestrator:
        registration = Registration(
            settings.orchestrator,
            worker_id=worker_id,
            address=settings.advertise or address,
            cluster_token=settings.cluster_token,
            max_num_requests=backend.max_num_requests,
            models=backend.models,
            stats=service.stats,
            is_draining=lambda: service.is_draining,
            registered=registered,
        )
    else:
        registered.set()
    async with contextlib.AsyncExitStack() as stack:
        await server.start()
        stack.push_async_callback(server.stop, 0.5)
        stack.push_async_callback(backend.stop)
        await backend.start(registration.wake if registration else lambda: None)
        service.is_ready = True
        if registration is not None:
            stack.push_async_callback(registration.leave)
        failed = asyncio.create_task(_until_failed(backend, registration))
        stack.push_async_callback(_end, failed)
        try:
            yield Worker(worker_id, address, backend, registered, failed)
        finally:
            service.is_draining = True
            if registration is not None:
                registration.wake()
            await _drained(backend, settings.drain_seconds)


def _backend(settings: WorkerSettings, loader: Loader | None) -> Backend:
    if settings.model is None:
        return UpstreamBackend(settings)
    return EngineBackend(
        loader or checkpoint_loader(settings),
        settings.model,
        settings.name or settings.model.resolve().name,
        settings.quantize,
        model_root=settings.model_root,
        max_num_requests=settings.engine.max_num_requests,
        drain_seconds=settings.drain_seconds,
    )


async def _until_failed(backend: Backend, registration: Registration | None) -> None:
    """Holds the lease and watches the engine; ends only by raising."""
    tasks = [asyncio.create_task(_watch(backend))]
    if registration is not None:
        tasks.append(asyncio.create_task(registration.run()))
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _watch(backend: Backend) -> None:
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        backend.check_alive()


async def _drained(backend: Backend, drain_seconds: float) -> None:
    deadline = time.monotonic() + drain_seconds
    while backend.num_active and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
