"""The engine on its own thread: many streams, early leavers, deadlines, errors."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest
from naive import naive
from toy import toy

from freehold.engine import AsyncEngine, AsyncEngineState, Engine, EngineConfig, Request
from freehold.errors import ContextLengthExceeded, InvalidRequest, InvalidSchema, Unavailable
from freehold.types import FinishReason, SamplingParams

CONFIG = EngineConfig(
    block_size=4, num_blocks=200, max_num_requests=16, max_num_batched_tokens=48, max_model_len=512
)

ENDLESS = {"eos_bias": -30.0, "step_seconds": 0.001}


def a_request(i, num_prompt=9, **sampling):
    prompt = [(i * 31 + j * 7) % 250 for j in range(num_prompt)]
    return Request(f"r{i}", prompt, SamplingParams(**({"max_tokens": 12, "seed": i} | sampling)))


class Running:
    """An async engine over the toy model, stopped at the end; asserts that no block is lost."""

    def __init__(self, model=None, config=CONFIG, **toy_options):
        made, self.tokenizer = toy(**toy_options)
        self.model = model or made
        self.engine = AsyncEngine(Engine(self.model, self.tokenizer, config))

    async def __aenter__(self):
        await self.engine.start()
        return self

    async def __aexit__(self, *_):
        await self.engine.stop()

    async def idle(self):
        """Wait until nothing is live, then check conservation."""
        deadline = time.monotonic() + 10
        while self.engine.engine.has_work:
            assert time.monotonic() < deadline, "requests linger"
            await asyncio.sleep(0.005)
        self.engine.engine.scheduler.check()
        stats = self.engine.stats()
        assert stats.num_free_blocks == stats.num_blocks
        assert stats.outstanding_tokens == 0


async def collect(engine, request):
    return [event async for event in engine.generate(request)]


async def test_fifty_concurrent_requests_each_equal_the_naive_loop():
    async with Running(eos_bias=1.0) as running:
        requests = [a_request(i, num_prompt=1 + i % 40) for i in range(50)]
        answers = await asyncio.gather(*(collect(running.engine, r) for r in requests))
        await running.idle()
    for request, events in zip(requests, answers, strict=True):
        want = naive(running.model, running.tokenizer, request.prompt_token_ids, request.sampling)
        assert [e.token_id for e in events] == want.token_ids
        assert [e.index for e in events] == list(range(len(events)))
        assert "".join(e.text for e in events) == want.text
        assert [e.finish_reason for e in events] == [None] * (len(events) - 1) + [
            want.finish_reason
        ]
        assert events[0].num_prompt_tokens == len(request.prompt_token_ids)
        assert all(e.num_prompt_tokens is None for e in events[1:])


async def test_the_event_loop_is_woken_once_a_step_not_once_a_token(monkeypatch):
    async with Running(**ENDLESS) as running:
        wakes = []
        deliver = running.engine._deliver
        monkeypatch.setattr(
            running.engine, "_deliver", lambda items: (wakes.append(len(items)), deliver(items))
        )
        requests = [a_request(i, max_tokens=40) for i in range(16)]
        await asyncio.gather(*(collect(running.engine, r) for r in requests))
        await running.idle()
        assert sum(wakes) == 16 * 40
        assert len(wakes) <= running.engine.stats().steps_total < 100


@pytest.mark.parametrize("closes_explicitly", [True, False])
async def test_leaving_the_iterator_early_frees_the_blocks(closes_explicitly):
    async with Running(**ENDLESS) as running:
        request = a_request(1, max_tokens=400)
        if closes_explicitly:
            async with aclosing(running.engine.generate(request)) as events:
                async for _ in events:
                    break
        else:
            async for _ in running.engine.generate(request):
                break
        await running.idle()
        assert len(request.output_token_ids) < 400


async def test_a_cancelled_consumer_task_frees_the_blocks():
    async with Running(**ENDLESS) as running:
        task = asyncio.create_task(collect(running.engine, a_request(1, max_tokens=400)))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await running.idle()


async def test_cancel_ends_the_stream_with_its_own_reason():
    async with Running(**ENDLESS) as running:
        events = []
        async for event in running.engine.generate(a_request(1, max_tokens=400)):
            events.append(event)
            if len(events) == 3:
                assert running.engine.cancel("r1")
        assert events[-1].finish_reason is FinishReason.CANCELLED
        assert events[-1].token_id is None
        assert not running.engine.cancel("r1")
        await running.idle()


async def test_a_deadline_ends_the_stream_in_time():
    async with Running(config=EngineConfig(num_blocks=7000), context=100_000, **ENDLESS) as r:
        request = a_request(1, max_tokens=99_000)
        request.deadline = time.monotonic() + 0.1
        events = await collect(r.engine, request)
        assert events[-1].finish_reason is FinishReason.DEADLINE
        assert 0 <= time.monotonic() - request.deadline < 1.0
        await r.idle()


async def test_an_id_can_be_used_again_at_once_after_leaving():
    async with Running(**ENDLESS) as running:
        for seed in range(20):
            async with aclosing(running.engine.generate(a_request(1, max_tokens=300))) as events:
                async for _ in events:
                    break
            request = a_request(1, seed=seed)
            got = [e.token_id for e in await collect(running.engine, request)]
            want = naive(
                running.model, running.tokenizer, request.prompt_token_ids, request.sampling
            )
            assert got == want.token_ids
        await running.idle()


async def test_a_refused_request_leaves_the_others_alone():
    async with Running(**ENDLESS) as running:
        good = asyncio.create_task(collect(running.engine, a_request(1, max_tokens=50)))
        await asyncio.sleep(0)
        with pytest.raises(InvalidRequest, match="running already"):
            await collect(running.engine, a_request(1))
        with pytest.raises(ContextLengthExceeded):
            await collect(running.engine, a_request(2, num_prompt=600))
        with pytest.raises(InvalidSchema):
            await collect(running.engine, a_request(3, json_schema="{"))
        assert len(await good) == 50
        await running.idle()


class Failing:
    """The toy model, of which forward raises while `fails` is above zero."""

    def __init__(self):
        self._model, _ = toy(**ENDLESS)
        self.fails = 0

    def __getattr__(self, name):
        return getattr(self._model, name)

    def forward(self, *arguments):
        if self.fails:
            self.fails -= 1
            raise RuntimeError("kernel fault")
        return self._model.forward(*arguments)


async def test_a_failed_step_fails_its_requests_and_the_engine_goes_on():
    config = EngineConfig(block_size=4, num_blocks=200, max_num_requests=2, max_model_len=512)
    model = Failing()
    async with Running(model, config) as running:
        streams = [running.engine.generate(a_request(i, max_tokens=300)) for i in range(3)]
        for stream in streams[:2]:
            await anext(stream)
        waiting = asyncio.create_task(anext(streams[2]))  # the third has no place yet
        while not running.engine.stats().num_waiting:
            await asyncio.sleep(0)
        model.fails = 1
        for stream in streams[:2]:
            with pytest.raises(Unavailable, match="send it again"):
                async for _ in stream:
                    pass
        assert (await waiting).index == 0
        assert len([e async for e in streams[2]]) == 299
        assert running.engine.state is AsyncEngineState.RUNNING
        await running.idle()


async def test_an_engine_that_keeps_failing_is_dead_and_says_so():
    model = Failing()
    async with Running(model) as running:
        model.fails = 1000
        for i in range(3):
            with pytest.raises(Unavailable):
                await collect(running.engine, a_request(i))
        assert running.engine.state is AsyncEngineState.DEAD
        with pytest.raises(Unavailable, match="dead"):
            await collect(running.engine, a_request(9))


async def test_stop_fails_open_streams_and_joins_the_thread():
    async with Running(**ENDLESS) as running:
        task = asyncio.create_task(collect(running.engine, a_request(1, max_tokens=400)))
        await asyncio.sleep(0.01)
        await running.engine.stop()
        with pytest.raises(Unavailable, match="shutting down"):
            await task
        with pytest.raises(Unavailable, match="stopped"):
            await collect(running.engine, a_request(2))
