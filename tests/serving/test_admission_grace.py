"""Waiting for workers that are not there, and where requests go when several are."""

from __future__ import annotations

import asyncio
import time

from fake_worker import FakeWorker, event, expected_ids, serving
from test_orchestrator_streams import collect, ids, orchestrator, registered, request, until

from freehold.errors import InvalidSchema, Unavailable
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.serving.convert import error_to_proto


async def test_a_known_model_without_worker_waits_for_the_grace_period_then_is_unavailable():
    async with orchestrator(grace_seconds=0.5) as (running, stub):
        async with serving(FakeWorker(), running.address):
            await registered(running, 1)
        began = time.monotonic()
        (refused,) = await collect(stub, request())
        assert (refused.error.status, refused.error.code) == (503, "unavailable")
        assert 0.4 < time.monotonic() - began < 3
        assert running.admission.num_queued == 0


async def test_a_worker_that_comes_within_the_grace_period_takes_the_request():
    async with orchestrator(grace_seconds=5.0) as (running, stub):
        async with serving(FakeWorker(), running.address):
            await registered(running, 1)
        waiting = asyncio.create_task(collect(stub, request()))
        await until(lambda: running.admission.num_queued == 1)
        async with serving(FakeWorker(), running.address):
            assert len(ids(await waiting)) == 20


async def test_one_model_that_waits_does_not_hold_up_another():
    slow, quick = FakeWorker("slow", max_num_requests=1), FakeWorker("quick")
    slow.hold.clear()
    async with (
        orchestrator() as (running, stub),
        serving(slow, running.address),
        serving(quick, running.address),
    ):
        await registered(running, 2)
        waiting = [asyncio.create_task(collect(stub, request("slow"))) for _ in range(3)]
        await until(lambda: running.admission.num_queued == 2)
        assert len(ids(await collect(stub, request("quick")))) == 20
        slow.hold.set()
        assert all(len(ids(events)) == 20 for events in await asyncio.gather(*waiting))


async def test_equal_prompts_meet_on_one_node_until_it_is_full_then_spread():
    workers = [FakeWorker(max_num_requests=2) for _ in range(2)]
    for worker in workers:
        worker.hold.clear()
    async with (
        orchestrator() as (running, stub),
        serving(workers[0], running.address),
        serving(workers[1], running.address),
    ):
        await registered(running, 2)
        tasks = [asyncio.create_task(collect(stub, request(text="one"))) for _ in range(2)]
        await until(lambda: sum(w.num_active for w in workers) == 2)
        assert sorted(w.num_active for w in workers) == [0, 2]
        tasks += [asyncio.create_task(collect(stub, request(text="one"))) for _ in range(2)]
        await until(lambda: [w.num_active for w in workers] == [2, 2])
        for worker in workers:
            worker.hold.set()
        await asyncio.gather(*tasks)


class Failing(FakeWorker):
    """Sends `num_tokens`, then what a test says."""

    def __init__(self, ending, num_tokens=3, **options):
        super().__init__(**options)
        self.ending, self.num_tokens = ending, num_tokens

    async def events(self, request):
        first = len(request.resume_token_ids)
        async for one in super().events(request):
            if one.HasField("token") and one.sequence >= first + self.num_tokens:
                for last in self.ending(request, one):
                    yield last
                return
            yield one


async def test_an_error_of_the_request_itself_is_passed_on_and_not_tried_again():
    error = error_to_proto(InvalidSchema("No.", param="response_format"))
    worker = Failing(lambda request, _: [event(request, error=error)])
    async with orchestrator() as (running, stub), serving(worker, running.address):
        await registered(running, 1)
        events = await collect(stub, request())
        assert events[-1].error == error
        assert len(worker.requests) == 1


async def test_a_worker_that_fails_without_progress_is_given_up_after_the_allowed_redispatches():
    error = error_to_proto(Unavailable("The upstream is gone."))
    worker = Failing(lambda request, _: [event(request, error=error)], num_tokens=0)
    async with (
        orchestrator(max_redispatches=3) as (running, stub),
        serving(worker, running.address),
    ):
        await registered(running, 1)
        events = await collect(stub, request())
        assert events[-1].error.code == "unavailable"
        assert "upstream is gone" in events[-1].error.message
        assert [r.attempt for r in worker.requests] == [0, 1, 2, 3]


async def test_a_stream_that_ends_without_an_end_or_leaves_a_gap_is_continued_elsewhere():
    def nothing(request, _):
        return []

    def gap(request, one):
        return [event(request, sequence=one.sequence + 1, token=one.token)]

    def repeated(request, one):
        return [event(request, sequence=0, token=pb.Token(token_id=1))]

    for ending in (nothing, gap, repeated):
        bad, good = Failing(ending), FakeWorker()
        async with orchestrator() as (running, stub), serving(bad, running.address):
            await registered(running, 1)
            sent = request(max_tokens=10)
            answer = asyncio.create_task(collect(stub, sent))
            await until(lambda: bad.requests)  # noqa: B023
            async with serving(good, running.address):
                events = await answer
            assert ids(events) == expected_ids(sent)
            assert [e.sequence for e in events if e.HasField("token")] == list(range(10))


async def test_an_answer_is_never_continued_by_another_revision():
    old, new = FakeWorker(revision="old", token_seconds=0.01), FakeWorker(revision="new")
    async with (
        orchestrator(grace_seconds=0.5) as (running, stub),
        serving(new, running.address),
    ):
        async with serving(old, running.address):
            await registered(running, 2)
            k = 0
            while not old.requests:  # until a prompt prefers the old one
                k += 1
                answer = asyncio.create_task(collect(stub, request(text=f"p{k}", max_tokens=200)))
                await until(lambda: len(old.requests) + len(new.requests) == k)  # noqa: B023
            await asyncio.sleep(0.1)
        events = await answer
        assert 0 < len(ids(events)) < 200
        assert events[-1].error.code == "unavailable"
        assert "revision" in events[-1].error.message
        assert all(not r.resume_token_ids for r in new.requests)


async def test_one_that_waits_for_its_revision_does_not_hold_up_the_others():
    old, new = FakeWorker(revision="old", token_seconds=0.01), FakeWorker(revision="new")
    async with orchestrator(grace_seconds=30.0) as (running, stub):
        async with serving(old, running.address):
            await registered(running, 1)
            stuck = asyncio.create_task(collect(stub, request(max_tokens=1000)))
            await until(lambda: old.num_active == 1)
            await asyncio.sleep(0.1)
        async with serving(new, running.address):
            await registered(running, 1)
            await until(lambda: running.admission.num_queued == 1)
            began = time.monotonic()
            assert len(ids(await collect(stub, request()))) == 20
            assert time.monotonic() - began < 0.3
            stuck.cancel()
            await asyncio.gather(stuck, return_exceptions=True)


async def test_the_end_lost_after_the_last_token_is_told_by_the_orchestrator():
    class Silent(FakeWorker):
        async def events(self, request):
            async for one in super().events(request):
                if not one.HasField("finished"):
                    yield one

    worker = Silent()
    async with orchestrator() as (running, stub), serving(worker, running.address):
        await registered(running, 1)
        events = await collect(stub, request())
        assert events[-1].finished.reason == "length"
        assert events[-1].finished.num_output_tokens == 20
        assert len(worker.requests) == 1
