"""Real worker processes on a tiny checkpoint: the whole path from a directory to a client, killed.

The engine, the tokenizer, the template and the weights are the real ones; only small.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from pathlib import Path

import pytest
from test_failover_processes import (
    NUM_KILLS,
    Process,
    ask_and_kill,
    assert_whole,
    texts,
)
from test_orchestrator_streams import collect, ids, orchestrator, registered, request

from freehold.rpc.channel import connect
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.rpc.v1.worker_pb2_grpc import WorkerStub

pytestmark = pytest.mark.e2e

PROGRAM = """
import asyncio, sys
from pathlib import Path
from freehold.engine import EngineConfig
from freehold.ops.create import create
from freehold.serving.worker import WorkerSettings, run
model, orchestrator, ops, port = sys.argv[1:]
settings = WorkerSettings(
    model=Path(model), name="tiny", port=int(port), orchestrator=orchestrator or None,
    engine=EngineConfig(num_blocks=256), drain_seconds=20.0,
    ops=create(ops, num_threads=1),
)
asyncio.run(run(settings, lambda address: print(address, flush=True)))
"""


class RealWorker(Process):
    def __init__(self, model, orchestrator="", ops="reference") -> None:
        super().__init__("")
        self._arguments = [str(model), orchestrator, ops]

    def command(self, port: str) -> list[str]:
        return [sys.executable, "-c", PROGRAM, *self._arguments, port]


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "model"))
    from tiny import write_checkpoint

    path = tmp_path_factory.mktemp("tiny")
    write_checkpoint(path, "deepseek_v3")
    return path


def chat_request(seed: int, prompt: str, max_tokens=400) -> pb.GenerateRequest:
    sent = request(model="tiny", max_tokens=max_tokens, seed=seed)
    sent.chat.messages.add(role="user", content=prompt)
    sent.sampling.ignore_eos = True
    return sent


@pytest.mark.parametrize("ops", ["reference", "native"])
async def test_twenty_kills_of_workers_on_a_checkpoint_lose_and_repeat_no_token(tiny_model, ops):
    dice = random.Random(22)
    async with orchestrator(grace_seconds=20.0) as (running, stub):
        pair = [RealWorker(tiny_model, running.address, ops) for _ in range(2)]
        try:
            for worker in pair:
                await worker.start()
            processes = {worker.address: worker for worker in pair}
            await registered(running, 2)
            for k in range(NUM_KILLS):
                sent = chat_request(seed=k, prompt=f"prompt {dice.random()}")
                whole = await collect(stub, sent)
                assert_whole(whole)
                assert len(ids(whole)) == 400
                sent.request_id += "-again"
                events, victim = await ask_and_kill(
                    running, stub, processes, sent, dice.randint(1, 200)
                )
                assert_whole(events)
                assert ids(events) == ids(whole)
                assert texts(events) == texts(whole)
                await victim.start()
                await registered(running, 2)
            assert running.dispatcher.redispatches_total == NUM_KILLS
        finally:
            for worker in pair:
                await worker.stop()


async def test_sigterm_finishes_the_running_answer_and_exits_with_0(tiny_model):
    worker = RealWorker(tiny_model)
    try:
        await worker.start()
        channel = connect(worker.address)
        stub = WorkerStub(channel)
        answer = asyncio.create_task(collect(stub, chat_request(1, "hi", max_tokens=300)))
        while not (await stub.Stats(pb.StatsRequest())).num_running:
            await asyncio.sleep(0.005)
        worker.send(signal.SIGTERM)
        assert len(ids(await answer)) == 300
        assert await asyncio.wait_for(worker.ended(), 20) == 0
        await channel.close(grace=None)
    finally:
        await worker.stop()


async def test_a_checkpoint_that_is_none_ends_the_worker_with_a_typed_error(tmp_path):
    program = await asyncio.create_subprocess_exec(
        *RealWorker(tmp_path).command("0"), stderr=asyncio.subprocess.PIPE
    )
    _, shown = await asyncio.wait_for(program.communicate(), 60)
    assert program.returncode != 0
    assert b"CheckpointError" in shown
