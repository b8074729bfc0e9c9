"""The orchestrator on real sockets with workers that have no model."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import asynccontextmanager

import pytest
from fake_worker import FakeWorker, expected_ids, serving, text_of

from freehold.rpc.channel import connect
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.rpc.v1 import orchestrator_pb2 as orchestrator_pb
from freehold.rpc.v1.orchestrator_pb2_grpc import OrchestratorStub
from freehold.serving.orchestrator import OrchestratorSettings, serve

numbers = itertools.count()


def request(model="fake", text="hello", max_tokens=20, seed=7, **fields) -> pb.GenerateRequest:
    sampling = pb.SamplingParams(
        top_p=1.0, repetition_penalty=1.0, temperature=1.0, max_tokens=max_tokens, seed=seed
    )
    fields.setdefault("request_id", f"r{next(numbers)}")
    return pb.GenerateRequest(model=model, text=text, sampling=sampling, **fields)


@asynccontextmanager
async def orchestrator(**settings):
    settings = {"lease_seconds": 1.0, "grace_seconds": 1.0, "drain_seconds": 2.0, **settings}
    async with serve(OrchestratorSettings(**settings)) as running:
        channel = connect(running.address)
        try:
            yield running, OrchestratorStub(channel)
        finally:
            await channel.close(grace=None)


async def registered(running, num_workers: int) -> None:
    await until(lambda: len(list(running.registry.nodes)) == num_workers)


async def until(condition, seconds=5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the awaited state never came"
        await asyncio.sleep(0.01)


async def collect(stub, sent: pb.GenerateRequest) -> list[pb.GenerateEvent]:
    return [event async for event in stub.Generate(sent)]


def ids(events) -> list[int]:
    return [e.token.token_id for e in events if e.HasField("token")]


def text(events) -> str:
    return "".join(e.token.text for e in events if e.HasField("token"))


async def test_tokens_come_through_numbered_and_in_order():
    async with orchestrator() as (running, stub), serving(FakeWorker(), running.address):
        await registered(running, 1)
        sent = request()
        events = await collect(stub, sent)
        assert events[0].HasField("started")
        assert events[-1].finished.reason == "length"
        assert ids(events) == expected_ids(sent)
        assert text(events) == "".join(map(text_of, expected_ids(sent)))
        assert [e.sequence for e in events if e.HasField("token")] == list(range(20))
        assert all(e.request_id == sent.request_id and e.attempt == 0 for e in events)


async def test_unknown_model_is_answered_with_the_served_names():
    async with orchestrator() as (running, stub), serving(FakeWorker(), running.address):
        await registered(running, 1)
        (event,) = await collect(stub, request(model="nothing"))
        assert (event.error.status, event.error.code) == (404, "model_not_found")
        assert "fake" in event.error.message


async def test_full_queue_answers_overloaded_with_a_time_to_come_back():
    worker = FakeWorker(max_num_requests=1)
    worker.hold.clear()
    async with orchestrator(max_queue=1) as (running, stub), serving(worker, running.address):
        await registered(running, 1)
        first = asyncio.create_task(collect(stub, request()))
        await until(lambda: worker.num_active == 1)
        second = asyncio.create_task(collect(stub, request()))
        await until(lambda: running.admission.num_queued == 1)
        (refused,) = await collect(stub, request())
        assert (refused.error.status, refused.error.code) == (429, "overloaded")
        assert refused.error.retry_after_seconds >= 1
        worker.hold.set()
        assert (await first)[-1].HasField("finished")
        assert (await second)[-1].HasField("finished")
        assert running.admission.num_queued == running.admission.num_running == 0


async def test_queue_is_first_in_first_out():
    worker = FakeWorker(max_num_requests=1)
    worker.hold.clear()
    async with orchestrator() as (running, stub), serving(worker, running.address):
        await registered(running, 1)
        tasks = []
        for k in range(6):
            tasks.append(asyncio.create_task(collect(stub, request(request_id=f"q{k}"))))
            await until(lambda: running.admission.requests_total == k + 1)  # noqa: B023
        worker.hold.set()
        await asyncio.gather(*tasks)
        assert [r.request_id for r in worker.requests] == [f"q{k}" for k in range(6)]


async def test_deadline_that_passes_in_the_queue_is_an_error_and_leaves_it():
    worker = FakeWorker(max_num_requests=1)
    worker.hold.clear()
    async with orchestrator() as (running, stub), serving(worker, running.address):
        await registered(running, 1)
        first = asyncio.create_task(collect(stub, request()))
        await until(lambda: worker.num_active == 1)
        (late,) = await collect(stub, request(timeout_seconds=0.2))
        assert (late.error.status, late.error.code) == (504, "deadline_exceeded")
        assert running.admission.num_queued == 0
        worker.hold.set()
        assert len(ids(await first)) == 20


async def test_deadline_that_a_worker_overlooks_is_held_by_the_orchestrator():
    async with (
        orchestrator() as (running, stub),
        serving(FakeWorker(token_seconds=0.05), running.address),
    ):
        await registered(running, 1)
        began = time.monotonic()
        events = await collect(stub, request(max_tokens=500, timeout_seconds=0.5))
        assert events[-1].finished.reason == "deadline"
        assert events[-1].finished.num_output_tokens == len(ids(events)) > 0
        assert time.monotonic() - began < 5


async def test_client_that_leaves_frees_the_worker():
    worker = FakeWorker(token_seconds=0.01)
    async with orchestrator() as (running, stub), serving(worker, running.address):
        await registered(running, 1)
        call = stub.Generate(request(max_tokens=100_000))
        async for event in call:
            if event.HasField("token") and event.sequence == 3:
                break
        call.cancel()
        await until(lambda: worker.num_active == 0)
        await until(lambda: running.admission.num_running == 0)
        assert worker.num_left_early == 1
        assert running.dispatcher.num_streams == 0
        assert all(n.outstanding_tokens == n.num_requests == 0 for n in running.registry.nodes)
        assert running.dispatcher.redispatches_total == 0


async def test_client_that_leaves_the_queue_is_forgotten():
    worker = FakeWorker(max_num_requests=1)
    worker.hold.clear()
    async with orchestrator() as (running, stub), serving(worker, running.address):
        await registered(running, 1)
        first = asyncio.create_task(collect(stub, request()))
        await until(lambda: worker.num_active == 1)
        call = stub.Generate(request())
        reader = asyncio.create_task(anext(aiter(call)))
        await until(lambda: running.admission.num_queued == 1)
        call.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        await until(lambda: running.admission.num_queued == 0)
        worker.hold.set()
        await first
        assert len(worker.requests) == 1


async def test_cancel_ends_all_streams_of_a_request_running_and_queued():
    worker = FakeWorker(max_num_requests=2)
    worker.hold.clear()
    async with orchestrator() as (running, stub), serving(worker, running.address):
        await registered(running, 1)
        tasks = [
            asyncio.create_task(collect(stub, request(request_id="many", stream=k)))
            for k in range(4)
        ]
        other = asyncio.create_task(collect(stub, request(request_id="other")))
        await until(lambda: worker.num_active == 2 and running.admission.num_queued == 3)
        assert (await stub.Cancel(pb.CancelRequest(request_id="many"))).found
        for events in await asyncio.gather(*tasks):
            assert events[-1].finished.reason == "cancelled"
        worker.hold.set()
        assert len(ids(await other)) == 20
        assert not (await stub.Cancel(pb.CancelRequest(request_id="many"))).found


async def test_streams_of_one_request_run_side_by_side():
    async with orchestrator() as (running, stub), serving(FakeWorker(), running.address):
        await registered(running, 1)
        sent = [request(request_id="n", stream=k, seed=100 + k) for k in range(4)]
        answers = await asyncio.gather(*(collect(stub, s) for s in sent))
        for one, events in zip(sent, answers, strict=True):
            assert ids(events) == expected_ids(one)
            assert {e.stream for e in events} == {one.stream}
        assert len({tuple(ids(events)) for events in answers}) == 4


async def test_same_id_and_stream_twice_is_refused():
    worker = FakeWorker()
    worker.hold.clear()
    async with orchestrator() as (running, stub), serving(worker, running.address):
        await registered(running, 1)
        first = asyncio.create_task(collect(stub, request(request_id="same")))
        await until(lambda: worker.num_active == 1)
        (event,) = await collect(stub, request(request_id="same"))
        assert event.error.status == 400
        worker.hold.set()
        assert len(ids(await first)) == 20


async def test_a_seed_is_drawn_for_those_who_gave_none():
    worker = FakeWorker()
    async with orchestrator() as (running, stub), serving(worker, running.address):
        await registered(running, 1)
        for _ in range(2):
            sent = request()
            sent.sampling.ClearField("seed")
            await collect(stub, sent)
        seeds = [r.sampling.seed for r in worker.requests]
        assert all(r.sampling.HasField("seed") for r in worker.requests)
        assert seeds[0] != seeds[1]


@pytest.mark.parametrize(
    "broken",
    [
        {"request_id": ""},
        {"request_id": "x" * 129},
        {"stream": 5000},
        {"timeout_seconds": -1.0},
        {"timeout_seconds": float("nan")},
        {"resume_token_ids": [1]},
        {"attempt": 1},
        {"text": "x" * 5_000_000},
        {"text": None},
    ],
)
async def test_requests_out_of_bounds_are_refused_with_400(broken):
    async with orchestrator() as (running, stub), serving(FakeWorker(), running.address):
        await registered(running, 1)
        (event,) = await collect(stub, request(**broken))
        assert event.error.status == 400
        assert event.error.message


async def test_tokenize_is_answered_by_a_worker_and_errors_travel_in_the_reply():
    async with orchestrator() as (running, stub), serving(FakeWorker(), running.address):
        await registered(running, 1)
        reply = await stub.Tokenize(pb.TokenizeRequest(model="fake", text="ab"))
        assert list(reply.ids) == [97, 98]
        reply = await stub.Tokenize(pb.TokenizeRequest(model="nothing", text="ab"))
        assert reply.error.code == "model_not_found"


async def test_draining_refuses_new_and_finishes_running():
    worker = FakeWorker(token_seconds=0.01)
    async with serve(OrchestratorSettings(lease_seconds=1.0)) as running:
        channel = connect(running.address)
        stub = OrchestratorStub(channel)
        server = serving(worker, running.address)
        await server.__aenter__()
        await registered(running, 1)
        running_answer = asyncio.create_task(collect(stub, request(max_tokens=50)))
        await until(lambda: worker.num_active == 1)
    events = await running_answer
    assert len(ids(events)) == 50
    await channel.close(grace=None)
    await server.__aexit__(None, None, None)


async def test_models_and_stats_and_health_say_what_is_there():
    async with orchestrator() as (running, stub):
        assert (await stub.Health(pb.HealthRequest())).status == "starting"
        async with serving(FakeWorker(), running.address):
            await registered(running, 1)
            models = (await stub.ListModels(orchestrator_pb.ListModelsRequest())).models
            assert [m.name for m in models] == ["fake"]
            assert (await stub.Health(pb.HealthRequest())).status == "ready"
            await collect(stub, request())
            stats = await stub.Stats(pb.StatsRequest())
            assert (stats.requests_total, stats.num_running, len(stats.workers)) == (1, 0, 1)
        await until(lambda: not running.registry.models())
