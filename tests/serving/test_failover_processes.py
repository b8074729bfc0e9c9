"""Real processes killed with SIGKILL while they stream: no token is lost, none comes twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from fake_worker import expected_ids, text_of
from test_orchestrator_streams import collect, ids, orchestrator, registered, request, until

from freehold.rpc.v1 import messages_pb2 as pb

pytestmark = pytest.mark.e2e

HERE = Path(__file__).resolve().parent
NUM_KILLS = 20


class Process:
    """A worker program that can be killed and started again on the same port."""

    def __init__(self, program: str, *arguments: str) -> None:
        self._command = [sys.executable, str(HERE / program), *arguments]
        self._process: asyncio.subprocess.Process | None = None
        self.address = ""

    def command(self, port: str) -> list[str]:
        return [*self._command, "--port", port]

    async def start(self) -> None:
        port = self.address.rpartition(":")[2] or "0"
        self._process = await asyncio.create_subprocess_exec(
            *self.command(port),
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        line = await asyncio.wait_for(self._process.stdout.readline(), 60)
        assert line, "the worker did not start"
        self.address = line.decode().strip()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        return await self._process.wait()

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def workers(program: str, *arguments: str, count: int = 2):
    async with AsyncExitStack() as stack:
        processes = [Process(program, *arguments) for _ in range(count)]
        for process in processes:
            stack.push_async_callback(process.stop)
            await process.start()
        yield {process.address: process for process in processes}


def serving_address(running) -> str:
    """Of the worker that has the one running stream."""
    return next(node.address for node in running.registry.nodes if node.calls)


def texts(events) -> tuple[str, str]:
    parts = [e.token if e.HasField("token") else e.finished for e in events]
    return "".join(p.text for p in parts), "".join(getattr(p, "reasoning", "") for p in parts)


def assert_whole(events) -> None:
    sequences = [e.sequence for e in events if e.HasField("token")]
    assert sequences == list(range(len(sequences))), "a token was lost or repeated"
    assert [e.HasField("started") for e in events].count(True) == 1
    assert events[-1].HasField("finished"), events[-1]
    assert events[-1].finished.num_output_tokens == len(sequences)


async def ask_and_kill(running, stub, processes, sent, kill_at: int):
    """The answer to `sent`, while its worker is killed as soon as so many events are here."""
    events: list[pb.GenerateEvent] = []
    is_there = asyncio.Event()

    async def read() -> None:
        async for event in stub.Generate(sent):
            events.append(event)
            if len(events) == kill_at:
                is_there.set()

    reader = asyncio.create_task(read())
    await asyncio.wait_for(is_there.wait(), 30)
    assert not reader.done(), "the answer ended before the kill"
    victim = processes[serving_address(running)]
    victim.send(signal.SIGKILL)
    await victim.ended()
    await asyncio.wait_for(reader, 60)
    return events, victim


async def test_twenty_kills_of_a_worker_in_mid_stream_lose_and_repeat_no_token():
    dice = random.Random(20)
    async with (
        orchestrator(grace_seconds=10.0) as (running, stub),
        workers("fake_worker.py", "--orchestrator", running.address) as processes,
    ):
        await registered(running, 2)
        for k in range(NUM_KILLS):
            sent = request(text=f"prompt {dice.random()}", max_tokens=150, seed=k)
            kill_at = dice.randint(1, 120)
            events, victim = await ask_and_kill(running, stub, processes, sent, kill_at)
            assert_whole(events)
            assert ids(events) == expected_ids(sent)
            assert texts(events)[0] == "".join(map(text_of, expected_ids(sent)))
            assert {e.attempt for e in events} == {0, 1}
            await victim.start()
            await registered(running, 2)
        assert running.dispatcher.redispatches_total == NUM_KILLS
        assert running.registry.worker_deaths_total == NUM_KILLS


async def test_twenty_kills_of_a_real_worker_continue_ids_text_and_reasoning():
    dice = random.Random(21)
    async with (
        orchestrator(grace_seconds=10.0) as (running, stub),
        workers("toy_worker.py", "--orchestrator", running.address) as processes,
    ):
        await registered(running, 2)
        for k in range(NUM_KILLS):
            sent = chat_request(seed=k, prompt=f"prompt {dice.random()}")
            whole = await collect(stub, sent)
            assert_whole(whole)
            sent.request_id += "-again"
            kill_at = dice.randint(1, 100)
            events, victim = await ask_and_kill(running, stub, processes, sent, kill_at)
            assert_whole(events)
            assert ids(events) == ids(whole)
            assert texts(events) == texts(whole)
            assert events[-1].finished.reason == whole[-1].finished.reason
            await victim.start()
            await registered(running, 2)
        assert running.dispatcher.redispatches_total == NUM_KILLS


def chat_request(seed: int, prompt: str) -> pb.GenerateRequest:
    sent = request(model="toy", max_tokens=120, seed=seed)
    sent.chat.messages.add(role="user", content=prompt)
    sent.sampling.stop.append("nk>never")
    return sent


async def test_many_streams_on_a_killed_worker_all_go_on_elsewhere():
    async with (
        orchestrator(grace_seconds=10.0) as (running, stub),
        workers("fake_worker.py", "--orchestrator", running.address) as processes,
    ):
        await registered(running, 2)
        sent = [request(text=f"p{k}", max_tokens=200, seed=k) for k in range(12)]
        answers = [asyncio.create_task(collect(stub, one)) for one in sent]
        await asyncio.sleep(0.15)
        victim = processes[serving_address(running)]
        victim.send(signal.SIGKILL)
        for one, events in zip(sent, await asyncio.gather(*answers), strict=True):
            assert_whole(events)
            assert ids(events) == expected_ids(one)
        assert running.dispatcher.redispatches_total > 1


async def test_a_stopped_process_loses_its_lease_and_its_late_words_are_not_heard():
    async with (
        orchestrator(lease_seconds=0.6) as (running, stub),
        workers("fake_worker.py", "--orchestrator", running.address) as processes,
    ):
        await registered(running, 2)
        sent = request(max_tokens=300)
        answer = asyncio.create_task(collect(stub, sent))
        await until(lambda: running.admission.num_running == 1)
        await asyncio.sleep(0.1)
        frozen = processes[serving_address(running)]
        frozen.send(signal.SIGSTOP)
        await until(lambda: len(list(running.registry.nodes)) == 1)
        frozen.send(signal.SIGCONT)
        events = await answer
        assert_whole(events)
        assert ids(events) == expected_ids(sent)
        await registered(running, 2)  # it finds that it is unknown, and registers again


async def test_the_only_worker_comes_back_within_the_grace_period_and_goes_on():
    async with (
        orchestrator(grace_seconds=20.0) as (running, stub),
        workers("fake_worker.py", "--orchestrator", running.address, count=1) as processes,
    ):
        await registered(running, 1)
        (worker,) = processes.values()
        sent = request(max_tokens=200)
        answer = asyncio.create_task(collect(stub, sent))
        await until(lambda: running.admission.num_running == 1)
        await asyncio.sleep(0.1)
        worker.send(signal.SIGKILL)
        await worker.ended()
        await worker.start()
        events = await answer
        assert_whole(events)
        assert ids(events) == expected_ids(sent)
