"""The worker on a real socket over the real engine, with a toy model in it."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from toy_worker import toy_loader

from freehold.rpc.channel import connect
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.rpc.v1 import worker_pb2 as worker_pb
from freehold.rpc.v1.worker_pb2_grpc import WorkerStub
from freehold.serving.convert import messages_to_proto, sampling_to_proto
from freehold.serving.worker import WorkerSettings, serve
from freehold.types import ChatMessage, SamplingParams

numbers = itertools.count()


@asynccontextmanager
async def toy_worker(settings=None, **options):
    settings = {"model": Path("toy"), "drain_seconds": 1.0} | (settings or {})
    async with serve(WorkerSettings(**settings), toy_loader(**options)) as worker:
        channel = connect(worker.address)
        try:
            yield worker, WorkerStub(channel)
        finally:
            await channel.close(grace=None)


def request(text="hello", *, chat=None, resume=(), model="toy", **sampling) -> pb.GenerateRequest:
    sampling = {"max_tokens": 24, "temperature": 1.0, "seed": 5} | sampling
    prompt = {"text": text} if chat is None else {"chat": messages_to_proto(chat)}
    return pb.GenerateRequest(
        request_id=f"w{next(numbers)}",
        model=model,
        sampling=sampling_to_proto(SamplingParams(**sampling)),
        resume_token_ids=resume,
        **prompt,
    )


HELLO = [ChatMessage("user", "hello")]


async def collect(stub, sent):
    return [event async for event in stub.Generate(sent)]


def tokens(events):
    return [e.token for e in events if e.HasField("token")]


def both_texts(events):
    parts = [e.token if e.HasField("token") else e.finished for e in events if not_started(e)]
    return "".join(p.text for p in parts), "".join(p.reasoning for p in parts)


def not_started(event):
    return event.HasField("token") or event.HasField("finished")


async def until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the awaited state never came"
        await asyncio.sleep(0.01)


async def test_an_answer_is_started_then_numbered_tokens_then_finished():
    async with toy_worker() as (_, stub):
        events = await collect(stub, request())
        assert events[0].started.num_prompt_tokens == 5
        assert events[0].started.revision == "toy-stored"
        assert events[0].started.prompt_text == "hello"
        assert [e.sequence for e in events[1:-1]] == list(range(24))
        assert [t.finish_reason for t in tokens(events)] == [""] * 23 + ["length"]
        assert events[-1].finished.reason == "length"
        assert events[-1].finished.num_output_tokens == 24


async def test_what_a_request_leaves_open_is_as_the_models_generation_config_says():
    open_request = pb.GenerateRequest(
        request_id="open", model="toy", text="hello", sampling=pb.SamplingParams(seed=5)
    )
    async with toy_worker(defaults={"temperature": 0.0, "max_tokens": 7}) as (_, stub):
        drawn = [t.token_id for t in tokens(await collect(stub, open_request))]
        greedy = await collect(stub, request(temperature=0.0, max_tokens=7))
        assert drawn == [t.token_id for t in tokens(greedy)]
        assert len(drawn) == 7
        warm = [t.token_id for t in tokens(await collect(stub, request(max_tokens=7)))]
        assert warm != drawn, "what a request says goes before"


@pytest.mark.parametrize("opens", [False, True])
async def test_resuming_after_any_token_continues_ids_text_and_reasoning(opens):
    async with toy_worker(think=True, opens=opens) as (_, stub):
        for seed, stop in [(1, ()), (2, ("nk>a", "zzz")), (3, ("a <", "k>")), (4, ())]:
            sampling = {"seed": seed, "stop": stop}
            whole = await collect(stub, request(chat=HELLO, **sampling))
            ids = [t.token_id for t in tokens(whole)]
            for k in range(len(ids) + 1):
                rest = await collect(stub, request(chat=HELLO, resume=ids[:k], **sampling))
                head = [e for e in whole if e.HasField("token") and e.sequence < k]
                assert [t.token_id for t in tokens(rest)] == ids[k:]
                assert both_texts(head + rest) == both_texts(whole)
                assert rest[-1].finished.reason == whole[-1].finished.reason
                assert rest[-1].finished.num_output_tokens == len(ids)


async def test_reasoning_is_told_apart_in_chats_of_models_that_know_the_tag_only():
    async with toy_worker(think=True, opens=True) as (_, stub):
        answer, reasoning = both_texts(await collect(stub, request(chat=HELLO, max_tokens=200)))
        assert answer
        assert reasoning
        assert "</think>" not in reasoning
        assert "<think>" not in answer
        raw, none = both_texts(await collect(stub, request("hello", max_tokens=200)))
        assert "</think>" in raw
        assert not none
    async with toy_worker(opens=True) as (_, stub):
        assert not both_texts(await collect(stub, request(chat=HELLO)))[1]


async def test_client_that_leaves_frees_the_blocks():
    async with toy_worker(step_seconds=0.005) as (worker, stub):
        idle_blocks = worker.backend.stats().num_free_blocks
        call = stub.Generate(request(max_tokens=2000))
        async for event in call:
            if event.sequence == 5:
                break
        assert worker.backend.stats().num_running == 1
        call.cancel()
        await until(lambda: worker.backend.stats().num_free_blocks == idle_blocks)
        assert worker.backend.stats().num_running == worker.backend.num_active == 0


async def test_cancel_ends_every_stream_of_the_request():
    async with toy_worker(step_seconds=0.005) as (worker, stub):
        sent = [request(max_tokens=2000, seed=k) for k in range(3)]
        for k, one in enumerate(sent):
            one.request_id, one.stream = "same", k
        tasks = [asyncio.create_task(collect(stub, one)) for one in sent]
        await until(lambda: worker.backend.stats().num_running == 3)
        assert (await stub.Cancel(pb.CancelRequest(request_id="same"))).found
        for events in await asyncio.gather(*tasks):
            assert events[-1].finished.reason == "cancelled"
            assert events[-1].finished.num_output_tokens == len(tokens(events))
        assert not (await stub.Cancel(pb.CancelRequest(request_id="same"))).found


async def test_deadline_ends_the_answer():
    async with toy_worker(step_seconds=0.01) as (_, stub):
        sent = request(max_tokens=2000)
        sent.timeout_seconds = 0.3
        events = await collect(stub, sent)
        assert events[-1].finished.reason == "deadline"


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (request(model="other"), "model_not_found"),
        (request("x" * 5000), "context_length_exceeded"),
        (request(max_tokens=5000), "context_length_exceeded"),
        (request(chat=[ChatMessage("wrong", "x")]), "chat_template_error"),
        (request(resume=[100_000]), "invalid_value"),
        (request(json_schema="{"), "invalid_json_schema"),
        (pb.GenerateRequest(request_id="e", model="toy"), "invalid_value"),
        (pb.GenerateRequest(request_id="e", model="toy", text="a", revision="old"), "unavailable"),
    ],
)
async def test_what_is_wrong_comes_as_one_error_event(broken, code):
    async with toy_worker(context=1024) as (worker, stub):
        (event,) = await collect(stub, broken)
        assert event.error.code == code
        assert event.error.message
        assert "Traceback" not in event.error.message
        assert worker.backend.num_active == 0


async def test_long_prompts_are_tokenized_off_the_loop_with_the_same_result():
    async with toy_worker(context=40_000) as (_, stub):
        long = "a word" * 2500  # 15 kB, above MAX_BYTES_ON_LOOP
        events = await collect(stub, request(long, max_tokens=1))
        reply = await stub.Tokenize(pb.TokenizeRequest(model="toy", text=long))
        assert events[0].started.num_prompt_tokens == len(reply.ids) == len(long)
        assert reply.max_model_len > 0


async def test_logprobs_and_prompt_logprobs_come_along():
    async with toy_worker() as (_, stub):
        events = await collect(stub, request(num_logprobs=2, prompt_logprobs=1, max_tokens=3))
        scored = events[0].started.prompt_logprobs
        assert len(scored) == 5
        assert [bool(entry.top) for entry in scored] == [False, True, True, True, True]
        for token in tokens(events):
            assert token.logprob.token_id == token.token_id
            assert token.logprob.logprob <= 0
            assert len(token.top_logprobs) == 2


async def test_load_swaps_the_model_while_the_old_one_finishes(tmp_path):
    (tmp_path / "second").mkdir()
    settings = {"model_root": tmp_path, "drain_seconds": 10.0}
    async with toy_worker(settings, step_seconds=0.005) as (worker, stub):
        running = asyncio.create_task(collect(stub, request(max_tokens=100)))
        await until(lambda: worker.backend.stats().num_running == 1)
        reply = await stub.Load(worker_pb.LoadRequest(path="second", weight_format="int8"))
        assert (reply.model.name, reply.model.revision) == ("second", "second-int8")
        (refused,) = await collect(stub, request())
        assert refused.error.code == "model_not_found"
        assert tokens(await collect(stub, request(model="second")))
        events = await running
        assert events[-1].finished.reason == "length"
        assert len(tokens(events)) == 100
        await until(lambda: not worker.backend._leaving)


async def test_load_that_fails_leaves_the_old_model_serving(tmp_path):
    (tmp_path / "broken").mkdir()
    async with toy_worker({"model_root": tmp_path / "root"}) as (_, stub):
        for path, code in [
            ("../broken", "invalid_value"),
            ("/etc", "invalid_value"),
            ("broken", "invalid_checkpoint"),
        ]:
            reply = await stub.Load(worker_pb.LoadRequest(path=path))
            assert reply.error.code == code
        assert tokens(await collect(stub, request()))
    async with toy_worker() as (_, stub):
        reply = await stub.Load(worker_pb.LoadRequest(path="x"))
        assert reply.error.code == "invalid_value"


async def test_unload_ends_with_no_model_and_health_says_so():
    async with toy_worker() as (_, stub):
        health = await stub.Health(pb.HealthRequest())
        assert (health.status, [m.name for m in health.models]) == ("ready", ["toy"])
        assert (await stub.Unload(worker_pb.UnloadRequest(name="no"))).HasField("error")
        assert not (await stub.Unload(worker_pb.UnloadRequest(name="toy"))).HasField("error")
        assert not (await stub.Health(pb.HealthRequest())).models
        (event,) = await collect(stub, request())
        assert event.error.code == "model_not_found"


async def test_stats_tell_memory_and_counts():
    async with toy_worker() as (worker, stub):
        await collect(stub, request(temperature=0.0, logit_bias={7: 100.0}))  # 7, 7, 7 …
        stats = await stub.Stats(pb.StatsRequest())
        assert stats.worker_id == worker.worker_id
        assert stats.resident_bytes > 1 << 20
        assert stats.output_tokens_total == 24
        assert stats.requests_total == 1
        assert 0 < stats.accepted_tokens_total <= stats.draft_tokens_total
