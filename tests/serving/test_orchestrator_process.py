"""The orchestrator as a process: it says when it is ready, drains on SIGTERM, exits with 0."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import asynccontextmanager

import pytest
from fake_worker import FakeWorker, serving
from test_orchestrator_streams import collect, ids, request, until

from freehold.rpc.channel import connect
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.rpc.v1.orchestrator_pb2_grpc import OrchestratorStub

pytestmark = pytest.mark.e2e

PROGRAM = """
import asyncio, sys
from pathlib import Path
from freehold.serving.orchestrator import OrchestratorSettings, run
settings = OrchestratorSettings(ready_file=Path(sys.argv[1]), drain_seconds=float(sys.argv[2]))
asyncio.run(run(settings))
"""


@asynccontextmanager
async def process(tmp_path, drain_seconds: float):
    ready_file = tmp_path / "ready"
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(ready_file), str(drain_seconds)
    )
    try:
        await until(ready_file.exists, 30)
        address = ready_file.read_text().removesuffix("\n")
        channel = connect(address)
        yield started, address, OrchestratorStub(channel)
        await channel.close(grace=None)
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


async def is_ready(stub) -> bool:
    return (await stub.Health(pb.HealthRequest())).status == "ready"


async def test_sigterm_lets_running_answers_finish_and_refuses_new_ones(tmp_path):
    async with process(tmp_path, 20.0) as (orchestrator, address, stub):
        worker = FakeWorker(token_seconds=0.01)
        async with serving(worker, address):
            while not await is_ready(stub):
                await asyncio.sleep(0.02)
            answer = asyncio.create_task(collect(stub, request(max_tokens=150)))
            await until(lambda: worker.num_active == 1)
            orchestrator.send_signal(signal.SIGTERM)
            while (await stub.Health(pb.HealthRequest())).status != "draining":
                await asyncio.sleep(0.02)
            (refused,) = await collect(stub, request())
            assert refused.error.code == "unavailable"
            assert len(ids(await answer)) == 150
            assert await asyncio.wait_for(orchestrator.wait(), 10) == 0


async def test_sigint_ends_it_in_bounded_time_though_an_answer_does_not_end(tmp_path):
    async with process(tmp_path, 0.3) as (orchestrator, address, stub):
        worker = FakeWorker()
        worker.hold.clear()
        async with serving(worker, address):
            while not await is_ready(stub):
                await asyncio.sleep(0.02)
            answer = asyncio.create_task(collect(stub, request()))
            await until(lambda: worker.num_active == 1)
            orchestrator.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(orchestrator.wait(), 10) == 0
            await asyncio.gather(answer, return_exceptions=True)
            await until(lambda: worker.num_active == 0)
