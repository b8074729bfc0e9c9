"""The gateway as a process: bind, serve with uvicorn, drain on SIGTERM.

Read `app.py` next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import uvicorn

from freehold.errors import ConfigError
from freehold.rpc import channel
from freehold.rpc.v1.orchestrator_pb2_grpc import OrchestratorStub
from freehold.serving.gateway.app import App
from freehold.serving.gateway.keys import KeyStore
from freehold.serving.gateway.settings import GatewaySettings
from freehold.serving.lifecycle import announce, format_address, stop_event

log = logging.getLogger("freehold.gateway")

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 30
CLOSE_SECONDS = 2  # for connections that are still open after the drain


@dataclass(frozen=True, slots=True)
class Gateway:
    """A serving gateway; `address` is host:port."""

    address: str
    app: App
    keys: KeyStore


async def run(settings: GatewaySettings, ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises ConfigError before serving.

    Start it with `uvloop.run(run(settings))`.
    """
    stop = stop_event()
    async with serve(settings) as gateway:
        if not gateway.keys.has_active():
            log.warning("There is no API key yet: make one with `freehold keys add NAME`.")
        announce(gateway.address, ready, settings.ready_file)
        await stop.wait()


@contextlib.asynccontextmanager
async def serve(settings: GatewaySettings) -> AsyncIterator[Gateway]:
    """Serve inside the block; leaving it drains: nothing new, what runs may finish in time."""
    settings.check()
    with contextlib.ExitStack() as stack:
        keys = stack.enter_context(contextlib.closing(KeyStore(settings.keys_path)))
        listener = stack.enter_context(contextlib.closing(_listen(settings.host, settings.port)))
        async with channel.connect(settings.orchestrator) as link:
            app = App(settings, OrchestratorStub(link), keys)  # type: ignore[no-untyped-call]
            server = _Server(_uvicorn_config(settings, app))
            task = asyncio.create_task(server.serve(sockets=[listener]))
            while not (server.started or task.done()):
                await asyncio.sleep(0.005)
            try:
                if task.done():
                    await task
                host, port = listener.getsockname()[:2]
                yield Gateway(format_address(host, port), app, keys)
            finally:
                app.is_draining = True
                await _drained(app, settings.drain_seconds)
                server.should_exit = True
                await task


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: `run` has its own, and ends with code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _uvicorn_config(settings: GatewaySettings, app: App) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=settings.max_body_bytes,
        ws_per_message_deflate=False,  # 14 KiB a connection instead of 64
        lifespan="off",
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,  # ours names no query string: see log.py
        proxy_headers=False,
        server_header=False,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=CLOSE_SECONDS,
        backlog=BACKLOG,
    )


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; ConfigError when the address cannot be bound."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {format_address(host, port)} ({error.strerror}); the port is taken "
            "or the host is not ours: choose another with --port or --host."
        ) from error
    return listener


async def _drained(app: App, drain_seconds: float) -> None:
    deadline = time.monotonic() + drain_seconds
    while app.is_busy and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
