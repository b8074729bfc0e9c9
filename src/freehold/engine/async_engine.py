"""The engine on its own thread, for asyncio: commands in, events out.

The event loop is woken once a step, not once a token. Everything that touches the engine runs on
its thread, but `prepare` and `stats`. Knows no transport. Read `engine.py` next.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from enum import Enum
from queue import SimpleQueue

from freehold.engine.engine import Engine
from freehold.engine.request import Request
from freehold.engine.stats import EngineStats
from freehold.errors import FreeholdError, InvalidRequest, Unavailable
from freehold.types import TokenEvent

log = logging.getLogger(__name__)

MAX_FAILED_STEPS = 3  # in a row; then the engine counts as broken

Stream = asyncio.Queue[TokenEvent | FreeholdError]


class AsyncEngineState(Enum):
    NEW = "new"
    RUNNING = "running"
    STOPPED = "stopped"
    DEAD = "dead"  # steps failed again and again; start a new process


class AsyncEngine:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.state = AsyncEngineState.NEW
        self._commands: SimpleQueue[Callable[[], None] | None] = SimpleQueue()  # None: stop
        self._streams: dict[str, Stream] = {}  # the event loop's
        self._sinks: dict[str, Stream] = {}  # the engine thread's: those the engine knows
        self._thread = threading.Thread(target=self._run, name="freehold-engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        assert self.state is AsyncEngineState.NEW, "an engine starts once"
        self._loop = asyncio.get_running_loop()
        self.state = AsyncEngineState.RUNNING
        self._thread.start()

    async def stop(self) -> None:
        """End the thread after the step it is in; open streams fail with Unavailable."""
        if self.state is AsyncEngineState.NEW:
            self.state = AsyncEngineState.STOPPED
        if self.state is AsyncEngineState.RUNNING:
            self.state = AsyncEngineState.STOPPED
            self._commands.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)
        self._fail_streams("This worker is shutting down; send the request again.")

    async def generate(self, request: Request) -> AsyncIterator[TokenEvent]:
        """The events of one request, up to the one with `finish_reason`.

        Raises what `Engine.add` raises, and Unavailable if the engine stops or breaks. Leaving
        the iterator early cancels the request and frees its blocks.
        """
        self._check_running()
        request_id = request.request_id
        if request_id in self._streams:
            raise InvalidRequest(
                f"A request named {request_id!r} is running already; use a new id.",
                param="request_id",
            )
        stream = self._streams[request_id] = Stream()
        is_over = True
        try:
            if request.sampling.json_schema is not None:
                await asyncio.to_thread(self.engine.prepare, request)
                self._check_running()
            else:
                self.engine.prepare(request)
            is_over = False
            self._commands.put(lambda: self._enqueue(request, stream))
            while not is_over:
                item = await stream.get()
                if isinstance(item, FreeholdError):
                    is_over = True
                    raise item
                is_over = item.finish_reason is not None
                yield item
        finally:
            del self._streams[request_id]
            if not is_over:
                self._commands.put(lambda: self._abandon(request_id))

    def cancel(self, request_id: str) -> bool:
        """End a request; its stream gets a last event with CANCELLED. False if there is none."""
        if request_id not in self._streams:
            return False
        self._commands.put(lambda: self._cancel(request_id))
        return True

    def stats(self) -> EngineStats:
        return self.engine.stats()

    def _check_running(self) -> None:
        if self.state is not AsyncEngineState.RUNNING:
            raise Unavailable(f"This engine is {self.state.value}; ask another worker.")

    # On the event loop, called from the engine thread

    def _deliver(self, items: list[tuple[Stream, TokenEvent | FreeholdError]]) -> None:
        for stream, item in items:
            stream.put_nowait(item)

    def _fail_streams(self, message: str) -> None:
        for stream in self._streams.values():
            stream.put_nowait(Unavailable(message))

    # On the engine thread

    def _run(self) -> None:
        num_failed = 0
        while True:
            try:
                if not self._obey():
                    return
                self._step()
                num_failed = 0
            except Exception:  # the engine thread's border: foreign errors end here
                log.exception("a step of the engine failed")
                num_failed += 1
                if num_failed == MAX_FAILED_STEPS:
                    self._die()
                    return
                self._drop_running()

    def _obey(self) -> bool:
        """Carry out all commands, sleeping on the queue while there is no work."""
        while not self._commands.empty() or not self.engine.has_work:
            command = self._commands.get()
            if command is None:
                return False
            command()
        return True

    def _enqueue(self, request: Request, stream: Stream) -> None:
        self._sinks[request.request_id] = stream
        try:
            self.engine.enqueue(request)
        except FreeholdError as error:
            del self._sinks[request.request_id]
            self._post([(stream, error)])

    def _cancel(self, request_id: str) -> None:
        self.engine.cancel(request_id)

    def _abandon(self, request_id: str) -> None:
        self.engine.discard(request_id)
        self._sinks.pop(request_id, None)

    def _step(self) -> None:
        events = self.engine.step()
        items: list[tuple[Stream, TokenEvent | FreeholdError]] = []
        for event in events:
            # An id that was abandoned and used again has a new sink: its old events are gone.
            if (stream := self._sinks.get(event.request_id)) is not None:
                items.append((stream, event))
                if event.finish_reason is not None:
                    del self._sinks[event.request_id]
        for request_id, error in self.engine.take_failures():
            if (stream := self._sinks.pop(request_id, None)) is not None:
                items.append((stream, error))
        if items:
            self._post(items)

    def _drop_running(self) -> None:
        """Fail what the failed step may have touched; waiting requests go on."""
        self.engine.discard_running()
        error = Unavailable("The engine failed in the middle of this request; send it again.")
        lost = [key for key in self._sinks if not self.engine.is_live(key)]
        self._post([(self._sinks.pop(key), error) for key in lost])

    def _die(self) -> None:
        assert self._loop is not None
        self.state = AsyncEngineState.DEAD
        message = "This engine has failed repeatedly and stopped; ask another worker."
        self._loop.call_soon_threadsafe(self._fail_streams, message)

    def _post(self, items: list[tuple[Stream, TokenEvent | FreeholdError]]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._deliver, items)
