"""Leases, deaths and returns of workers, at the orchestrator's registry and over real sockets."""

from __future__ import annotations

import asyncio

import pytest
from fake_worker import FakeWorker, expected_ids, serving
from test_orchestrator_streams import collect, ids, orchestrator, registered, request, until

from freehold.errors import AuthenticationFailed, ConfigError, InvalidRequest
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.rpc.v1 import orchestrator_pb2 as orchestrator_pb
from freehold.serving.orchestrator import OrchestratorSettings, serve
from freehold.serving.orchestrator.registry import Registry


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class BrokenOff:
    """Stands for an RPC: remembers that it was broken off."""

    is_cancelled = False

    def cancel(self) -> bool:
        self.is_cancelled = True
        return True


def register(worker_id="w", address="127.0.0.1:1", token="", revision="r1"):
    return orchestrator_pb.RegisterRequest(
        worker_id=worker_id,
        address=address,
        cluster_token=token,
        models=[pb.ModelInfo(name="m", revision=revision)],
        max_num_requests=2,
    )


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def registry(clock):
    registry = Registry("", 4.0, clock)
    yield registry
    await registry.close()


async def test_a_lease_without_heartbeats_runs_out_and_breaks_the_streams_off(registry, clock):
    node = registry.register(register())
    call = BrokenOff()
    node.calls.add(call)
    for _ in range(39):
        clock.now += 0.1
        registry.sweep()
    assert node.alive
    clock.now += 0.2
    registry.sweep()
    assert not node.alive
    assert call.is_cancelled
    assert registry.worker_deaths_total == 1
    assert registry.is_known("m")
    assert not registry.candidates("m", None)
    node.calls.clear()


async def test_heartbeats_keep_the_lease_and_bring_models_and_draining(registry, clock):
    node = registry.register(register())
    beat = orchestrator_pb.HeartbeatRequest(worker_id="w", lease_id=node.lease_id)
    beat.models.add(name="n", revision="r2")
    for _ in range(5):
        clock.now += 1.9
        assert registry.heartbeat(beat)
        registry.sweep()
    assert [m.name for m in registry.models()] == ["n"]
    assert registry.candidates("n", "r2") == [node]
    assert not registry.candidates("n", "r1")
    beat.draining = True
    assert registry.heartbeat(beat)
    assert not registry.candidates("n", "r2")


async def test_a_heartbeat_with_a_wrong_lease_or_of_a_stranger_is_told_to_register(registry):
    node = registry.register(register())
    for worker_id, lease_id in [("w", "wrong"), ("x", node.lease_id), ("", "")]:
        request = orchestrator_pb.HeartbeatRequest(worker_id=worker_id, lease_id=lease_id)
        assert not registry.heartbeat(request)
    registry.deregister("w", "wrong")
    assert node in registry.nodes


async def test_a_new_process_at_the_same_address_means_that_the_old_one_died(registry):
    old = registry.register(register("old"))
    new = registry.register(register("new"))
    assert not old.alive
    assert list(registry.nodes) == [new]


async def test_time_in_which_the_orchestrator_itself_stood_still_is_not_held_against_workers(
    registry, clock
):
    node = registry.register(register())
    registry.sweep()
    clock.now += 60.0
    registry.sweep()
    assert node.alive


async def test_a_wrong_token_and_malformed_registrations_are_refused(clock):
    registry = Registry("secret", 4.0, clock)
    for token in ("", "Secret", "secret "):
        with pytest.raises(AuthenticationFailed):
            registry.register(register(token=token))
    twice = register(token="secret")
    twice.models.add(name="m")
    for broken in (register(worker_id="", token="secret"), twice):
        with pytest.raises(InvalidRequest):
            registry.register(broken)
    assert not list(registry.nodes)


async def test_a_worker_with_a_wrong_token_is_told_and_serves_nobody():
    async with orchestrator(cluster_token="secret") as (running, _):
        async with serving(FakeWorker()) as address:
            registration = FakeWorker().registration(running.address, address, "guess")
            with pytest.raises(AuthenticationFailed):
                await registration.run()
            await registration.leave()
        assert not list(running.registry.nodes)


def test_listening_beyond_loopback_needs_a_cluster_token():
    with pytest.raises(ConfigError, match="cluster token"):
        OrchestratorSettings(host="0.0.0.0").check()
    OrchestratorSettings(host="0.0.0.0", cluster_token="x").check()
    OrchestratorSettings(host="::1").check()


async def test_workers_register_again_with_an_orchestrator_that_restarts():
    worker = FakeWorker()
    settings = {"lease_seconds": 0.6, "grace_seconds": 5.0}
    async with orchestrator(**settings) as (first, _):
        port = int(first.address.rpartition(":")[2])
        server = serving(worker, first.address)
        await server.__aenter__()
        await registered(first, 1)
    async with orchestrator(**settings, port=port) as (second, stub):
        sent = request()
        events = await collect(stub, sent)  # sent before the worker came back: it waits
        assert ids(events) == expected_ids(sent)
        assert len(list(second.registry.nodes)) == 1
        await server.__aexit__(None, None, None)
        await until(lambda: not list(second.registry.nodes))


async def test_a_taken_port_is_a_clear_error():
    async with orchestrator() as (running, _):
        port = int(running.address.rpartition(":")[2])
        with pytest.raises(ConfigError, match="Cannot listen"):
            async with serve(OrchestratorSettings(port=port)):
                pass


async def test_a_worker_that_drains_gets_nothing_new_and_finishes_what_it_has():
    first, second = FakeWorker(token_seconds=0.01), FakeWorker()
    async with (
        orchestrator() as (running, stub),
        serving(first, running.address),
    ):
        await registered(running, 1)
        slow = asyncio.create_task(collect(stub, request(max_tokens=100)))
        await until(lambda: first.num_active == 1)
        async with serving(second, running.address):
            await registered(running, 2)
            first.is_draining = True
            await until(lambda: len(running.registry.candidates("fake", None)) == 1)
            for _ in range(8):
                assert (await collect(stub, request()))[-1].HasField("finished")
            assert len(first.requests) == 1
            assert len(second.requests) == 8
            assert len(ids(await slow)) == 100
