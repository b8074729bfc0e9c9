"""A worker's backend that runs an engine in this process: prompts to requests, events to messages.

Holds the served model and swaps it: the new one is loaded beside the old, which drains and goes.
Knows no socket. `stream.py` turns events into messages; read `engine/async_engine.py` next.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from freehold.engine import AsyncEngine, AsyncEngineState, Engine, Request
from freehold.errors import InvalidRequest, ModelNotFound, Unavailable
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.rpc.v1 import worker_pb2 as worker_pb
from freehold.serving.convert import sampling_from_proto
from freehold.serving.worker.prompt import Prompt, Template, Tokenizer, read_prompt
from freehold.serving.worker.stream import MessageStream, ThinkTags
from freehold.serving.worker.threads import in_daemon_thread
from freehold.types import FinishReason, TokenEvent, WeightFormat

log = logging.getLogger("freehold.worker")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model as it comes from disk, its engine not started yet."""

    engine: Engine
    tokenizer: Tokenizer
    template: Template
    think_tags: ThinkTags
    revision: str  # digest of checkpoint and weight format
    architecture: str
    weight_format: str
    sampling_defaults: Mapping[str, float] = field(default_factory=dict)


Loader = Callable[[Path, WeightFormat | None], LoadedModel]


@dataclass(eq=False)
class ServedModel:
    """A loaded model under its public name, and the streams it is busy with."""

    name: str
    loaded: LoadedModel
    engine: AsyncEngine
    running: dict[str, set[str]] = field(default_factory=dict)  # request_id → engine's request ids
    num_active: int = 0
    cancelled: set[str] = field(default_factory=set)  # engine ids, before the engine had them

    def info(self) -> pb.ModelInfo:
        return pb.ModelInfo(
            name=self.name,
            revision=self.loaded.revision,
            architecture=self.loaded.architecture,
            max_model_len=self.loaded.engine.max_model_len,
            weight_format=self.loaded.weight_format,
        )

    @contextmanager
    def busy_with(self, request: pb.GenerateRequest) -> Iterator[str]:
        """Yields the engine's id for this stream and attempt."""
        engine_id = f"{request.request_id}/{request.stream}/{request.attempt}"
        self.running.setdefault(request.request_id, set()).add(engine_id)
        self.num_active += 1
        try:
            yield engine_id
        finally:
            self.num_active -= 1
            self.cancelled.discard(engine_id)
            self.running[request.request_id].discard(engine_id)
            if not self.running[request.request_id]:
                del self.running[request.request_id]

    def cancel(self, request_id: str) -> bool:
        engine_ids = self.running.get(request_id, set())
        for engine_id in engine_ids:
            if not self.engine.cancel(engine_id):
                self.cancelled.add(engine_id)
        return bool(engine_ids)


class EngineBackend:
    def __init__(
        self,
        loader: Loader,
        path: Path,
        name: str,
        weight_format: WeightFormat | None,
        *,
        model_root: Path | None,
        max_num_requests: int,
        drain_seconds: float,
    ) -> None:
        self._loader = loader
        self._path = path
        self._name = name
        self._weight_format = weight_format
        self._model_root = model_root
        self._drain_seconds = drain_seconds
        self.max_num_requests = max_num_requests
        self._served: ServedModel | None = None
        self._leaving: dict[ServedModel, asyncio.Task[None]] = {}
        self._changing = asyncio.Lock()
        self._on_change: Callable[[], None] = lambda: None

    async def start(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._served = await self._load(self._path, self._name, self._weight_format)

    async def stop(self) -> None:
        served, self._served = self._served, None
        for task in self._leaving.values():
            task.cancel()
        engines = [model.engine for model in [*self._leaving, *([served] if served else [])]]
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)
        await asyncio.gather(*(engine.stop() for engine in engines))

    def check_alive(self) -> None:
        if self._served is not None and self._served.engine.state is AsyncEngineState.DEAD:
            raise Unavailable("The engine failed again and again; this worker ends.")

    @property
    def num_active(self) -> int:
        return sum(model.num_active for model in self._all())

    def models(self) -> Sequence[pb.ModelInfo]:
        return [] if self._served is None else [self._served.info()]

    def _all(self) -> list[ServedModel]:
        return [*([self._served] if self._served else []), *self._leaving]

    # Generate

    async def generate(self, request: pb.GenerateRequest) -> AsyncGenerator[pb.GenerateEvent]:
        served = self._find(request.model, request.revision)
        sampling = sampling_from_proto(request.sampling, served.loaded.sampling_defaults)
        deadline = time.monotonic() + request.timeout_seconds if request.timeout_seconds else None
        loaded = served.loaded
        with served.busy_with(request) as engine_id:
            prompt = await read_prompt(request, loaded.tokenizer, loaded.template)
            engine_request = Request(
                engine_id, prompt.token_ids, sampling, list(request.resume_token_ids), deadline
            )
            messages = self._messages(request, served, prompt)
            messages.replay(engine_request.output_token_ids, sampling)
            if engine_id in served.cancelled:
                yield messages.end(FinishReason.CANCELLED)
                return
            token_events = served.engine.generate(engine_request)
            async with aclosing(cast(AsyncGenerator[TokenEvent], token_events)) as events:
                async for event in events:
                    for message in messages.of(event):
                        yield message

    def _messages(
        self, request: pb.GenerateRequest, served: ServedModel, prompt: Prompt
    ) -> MessageStream:
        loaded = served.loaded
        is_chat = request.HasField("chat")
        return MessageStream(
            request,
            revision=loaded.revision,
            prompt=prompt,
            tokenizer=loaded.tokenizer,
            split=loaded.think_tags.split(prompt.text) if is_chat else None,
        )

    def _find(self, model: str, revision: str) -> ServedModel:
        """The served model of that name; of that revision if given, one that leaves as well."""
        if revision:
            for served in self._all():
                if served.name == model and served.loaded.revision == revision:
                    return served
            raise Unavailable(f"This worker does not serve that revision of '{model}' any more.")
        if self._served is None or self._served.name != model:
            now = self._served.name if self._served else "none"
            raise ModelNotFound(f"This worker serves {now}, not '{model}'.", param="model")
        return self._served

    def cancel(self, request_id: str) -> bool:
        found = [served.cancel(request_id) for served in self._all()]
        return any(found)

    async def tokenize(self, request: pb.TokenizeRequest) -> pb.TokenizeReply:
        loaded = self._find(request.model, "").loaded
        prompt = await read_prompt(request, loaded.tokenizer, loaded.template)
        return pb.TokenizeReply(ids=prompt.token_ids, max_model_len=loaded.engine.max_model_len)

    def stats(self) -> pb.WorkerStats:
        if self._served is None:
            return pb.WorkerStats()
        stats = self._served.engine.stats()
        return pb.WorkerStats(
            num_running=stats.num_running,
            num_waiting=stats.num_waiting,
            num_blocks=stats.num_blocks,
            num_free_blocks=stats.num_free_blocks,
            prompt_tokens_total=stats.prompt_tokens_total,
            cached_prompt_tokens_total=stats.cached_prompt_tokens_total,
            output_tokens_total=stats.output_tokens_total,
            preemptions_total=stats.preemptions_total,
            requests_total=stats.requests_total,
            steps_total=stats.steps_total,
            step_seconds_total=stats.step_seconds_total,
            outstanding_tokens=stats.outstanding_tokens,
            draft_tokens_total=stats.draft_tokens_total,
            accepted_tokens_total=stats.accepted_tokens_total,
        )

    # Load and unload

    async def load(self, request: worker_pb.LoadRequest) -> pb.ModelInfo:
        """Raises CheckpointError, NotEnoughMemory …; then the model served so far goes on."""
        path = self._inside_root(request.path)
        name = request.name or path.name
        async with self._changing:
            served = await self._load(path, name, _weight_format(request.weight_format))
            before, self._served = self._served, served
            self._let_go(before)
            self._on_change()
            return served.info()

    async def unload(self, request: worker_pb.UnloadRequest) -> None:
        async with self._changing:
            served = self._served
            if served is None or served.name != request.name:
                raise ModelNotFound(f"This worker does not serve '{request.name[:256]}'.")
            self._served = None
            self._on_change()
            self._let_go(served)
            await asyncio.shield(self._leaving[served])

    async def _load(self, path: Path, name: str, weight_format: WeightFormat | None) -> ServedModel:
        loaded = await in_daemon_thread(lambda: self._loader(path, weight_format))
        engine = AsyncEngine(loaded.engine)
        await engine.start()
        log.info("serving '%s', revision %s", name, loaded.revision)
        return ServedModel(name, loaded, engine)

    def _inside_root(self, given: str) -> Path:
        if self._model_root is None:
            raise InvalidRequest(
                "This worker loads no other models; start it with a model root.", param="path"
            )
        root = self._model_root.resolve()
        path = (root / given).resolve()
        if not path.is_relative_to(root):
            raise InvalidRequest("The path lies outside this worker's model root.", param="path")
        return path

    def _let_go(self, served: ServedModel | None) -> None:
        if served is not None:
            self._leaving[served] = asyncio.create_task(self._drain(served))

    async def _drain(self, served: ServedModel) -> None:
        deadline = time.monotonic() + self._drain_seconds
        while served.num_active and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        await served.engine.stop()
        del self._leaving[served]
        del served
        gc.collect()  # the weights, now and not at some later allocation


def _weight_format(given: str) -> WeightFormat | None:
    if not given:
        return None
    try:
        return WeightFormat(given)
    except ValueError:
        formats = ", ".join(WeightFormat)
        raise InvalidRequest(
            f"No weight format is named '{given[:32]}'; there are {formats}.", param="weight_format"
        ) from None
