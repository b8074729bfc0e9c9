"""Who is there: workers, their leases, and the models and revisions they serve.

Knows no queue and no request; whoever is told of a change (`on_change`) acts on it. A worker is
dead when its lease runs out, when it cannot be dialled, or when another process registers at its
address. Read `admission.py` next.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import grpc

from freehold.balance import NodeState
from freehold.errors import AuthenticationFailed, InvalidRequest
from freehold.rpc.channel import connect
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.rpc.v1 import orchestrator_pb2 as orchestrator_pb
from freehold.rpc.v1.worker_pb2_grpc import WorkerStub

log = logging.getLogger("freehold.orchestrator")

MAX_WORKERS = 4096
MAX_MODELS_A_WORKER = 64
MAX_KNOWN_MODELS = 4096


class Call(Protocol):
    """An RPC to a worker that can be broken off."""

    def cancel(self) -> bool: ...


class Node:
    """One registered worker, as the orchestrator sees it."""

    def __init__(self, request: orchestrator_pb.RegisterRequest, expires_at: float) -> None:
        self.worker_id = request.worker_id
        self.address = request.address
        self.lease_id = secrets.token_hex(16)
        self.expires_at = expires_at  # time.monotonic() seconds
        self.models = {model.name: model for model in request.models}
        self.max_requests = request.max_num_requests or 1
        self.stats = pb.WorkerStats(worker_id=request.worker_id)
        self.draining = False
        self.alive = True  # False: its streams are broken off and go elsewhere
        # Counted here, at once, and not taken from heartbeats, which are a second old.
        self.num_requests = 0
        self.outstanding_tokens = 0
        self.calls: set[Call] = set()
        self.channel: grpc.aio.Channel = connect(request.address)
        self.stub: Any = WorkerStub(self.channel)  # type: ignore[no-untyped-call]

    def serves(self, model: str, revision: str | None) -> bool:
        info = self.models.get(model)
        return info is not None and (revision is None or info.revision == revision)

    def state(self) -> NodeState:
        return NodeState(
            self.worker_id, self.outstanding_tokens, self.num_requests, self.max_requests
        )


class Registry:
    def __init__(
        self,
        cluster_token: str,
        lease_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster_token = cluster_token.encode()
        self.lease_seconds = lease_seconds
        self._clock = clock
        self._nodes: dict[str, Node] = {}
        self._known_models: dict[str, pb.ModelInfo] = {}  # of dead workers too
        self._closing: set[asyncio.Task[None]] = set()
        self._last_sweep: float | None = None
        self.worker_deaths_total = 0
        self.on_change: Callable[[], None] = lambda: None

    # What the others ask

    @property
    def nodes(self) -> Iterable[Node]:
        return self._nodes.values()

    def candidates(self, model: str, revision: str | None) -> list[Node]:
        """Live nodes that may be given new work for this model (of this revision, if given)."""
        return [n for n in self._nodes.values() if not n.draining and n.serves(model, revision)]

    def is_known(self, model: str) -> bool:
        return model in self._known_models

    @property
    def has_ever_had_workers(self) -> bool:
        return bool(self._known_models)

    def models(self) -> list[pb.ModelInfo]:
        """What is served now, one entry a name, sorted by name."""
        served = {name: info for node in self._nodes.values() for name, info in node.models.items()}
        return [served[name] for name in sorted(served)]

    # What workers say

    def register(self, request: orchestrator_pb.RegisterRequest) -> Node:
        """Raises AuthenticationFailed for a wrong token, InvalidRequest for a malformed one."""
        if not hmac.compare_digest(request.cluster_token.encode(), self._cluster_token):
            raise AuthenticationFailed(
                "The cluster token is not this orchestrator's; start the worker with the same one."
            )
        if not request.worker_id or not request.address:
            raise InvalidRequest("A worker registers with a worker_id and an address.")
        if len(self._nodes) >= MAX_WORKERS:
            raise InvalidRequest(f"At most {MAX_WORKERS} workers can register.")
        _check_models(request.models)
        for other in list(self._nodes.values()):
            if other.address == request.address or other.worker_id == request.worker_id:
                # The same process that lost its lease keeps its streams; a new one has none.
                if other.worker_id == request.worker_id:
                    self._retire(other)
                else:
                    self.mark_dead(other, "another process registered at its address")
        node = Node(request, self._clock() + self.lease_seconds)
        self._nodes[node.worker_id] = node
        self._learn(node)
        log.info("worker %s registered at %s", node.worker_id, node.address)
        self.on_change()
        return node

    def heartbeat(self, request: orchestrator_pb.HeartbeatRequest) -> bool:
        """Renew the lease; False when there is none and the worker has to register again."""
        node = self._holder(request.worker_id, request.lease_id)
        if node is None or len(request.models) > MAX_MODELS_A_WORKER:
            return False
        node.expires_at = self._clock() + self.lease_seconds
        node.models = {model.name: model for model in request.models}
        node.draining = request.draining
        node.stats = request.stats
        self._learn(node)
        self.on_change()
        return True

    def deregister(self, worker_id: str, lease_id: str) -> None:
        """A clean leave: what still streams may end by itself."""
        if (node := self._holder(worker_id, lease_id)) is not None:
            log.info("worker %s left", worker_id)
            self._retire(node)
            self.on_change()

    def _holder(self, worker_id: str, lease_id: str) -> Node | None:
        node = self._nodes.get(worker_id)
        if node is None or not hmac.compare_digest(node.lease_id.encode(), lease_id.encode()):
            return None
        return node

    def _learn(self, node: Node) -> None:
        for name, info in node.models.items():
            if name in self._known_models or len(self._known_models) < MAX_KNOWN_MODELS:
                self._known_models[name] = info

    # Death

    def sweep(self) -> None:
        """Let leases run out. Called a few times a lease.

        When the sweep itself comes late, this process was stopped and not the workers: the time
        lost is given back to every lease.
        """
        now = self._clock()
        gap = 0.0 if self._last_sweep is None else now - self._last_sweep
        self._last_sweep = now
        for node in list(self._nodes.values()):
            if gap > self.lease_seconds / 2:
                node.expires_at += gap
            if now > node.expires_at:
                self.mark_dead(node, f"no heartbeat for {self.lease_seconds:g} s")

    def mark_dead(self, node: Node, reason: str) -> None:
        """Forget the worker and break off its streams. Idempotent."""
        if not node.alive:
            return
        node.alive = False
        self.worker_deaths_total += 1
        log.warning("worker %s at %s is gone: %s", node.worker_id, node.address, reason)
        for call in list(node.calls):
            call.cancel()
        self._retire(node)
        self.on_change()

    def _retire(self, node: Node) -> None:
        if self._nodes.get(node.worker_id) is node:
            del self._nodes[node.worker_id]
        node.draining = True
        task = asyncio.get_running_loop().create_task(self._close_when_idle(node))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close_when_idle(self, node: Node) -> None:
        while node.calls:
            await asyncio.sleep(0.05)
        await node.channel.close(grace=None)

    async def close(self) -> None:
        """Drop every worker, at the end of this process."""
        for node in list(self._nodes.values()):
            for call in list(node.calls):
                call.cancel()
            self._retire(node)
        for task in list(self._closing):
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)


def _check_models(models: Iterable[pb.ModelInfo]) -> None:
    names = [model.name for model in models]
    if len(names) > MAX_MODELS_A_WORKER:
        raise InvalidRequest(f"A worker serves at most {MAX_MODELS_A_WORKER} models.")
    if any(not name for name in names) or len(set(names)) != len(names):
        raise InvalidRequest("Each model of a worker needs its own name.")
