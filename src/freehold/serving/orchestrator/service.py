"""The orchestrator's gRPC face: each method hands on to the room that knows.

Holds no state of its own. Read `dispatch.py` next.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import freehold
from freehold.errors import FreeholdError
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.rpc.v1 import orchestrator_pb2 as orchestrator_pb
from freehold.rpc.v1.orchestrator_pb2_grpc import OrchestratorServicer
from freehold.serving.convert import error_to_proto
from freehold.serving.orchestrator.admission import Admission
from freehold.serving.orchestrator.dispatch import Dispatcher
from freehold.serving.orchestrator.registry import Registry


class OrchestratorService(OrchestratorServicer):
    def __init__(self, registry: Registry, admission: Admission, dispatcher: Dispatcher) -> None:
        self._registry = registry
        self._admission = admission
        self._dispatcher = dispatcher

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> None:
        async with aclosing(self._dispatcher.generate(request)) as events:
            async for event in events:
                await context.write(event)

    async def Cancel(self, request: pb.CancelRequest, context: Any) -> pb.CancelReply:
        return pb.CancelReply(found=self._dispatcher.cancel(request.request_id))

    async def Tokenize(self, request: pb.TokenizeRequest, context: Any) -> pb.TokenizeReply:
        return await self._dispatcher.tokenize(request)

    async def ListModels(
        self, request: orchestrator_pb.ListModelsRequest, context: Any
    ) -> orchestrator_pb.ListModelsReply:
        return orchestrator_pb.ListModelsReply(models=self._registry.models())

    async def Register(
        self, request: orchestrator_pb.RegisterRequest, context: Any
    ) -> orchestrator_pb.RegisterReply:
        try:
            node = self._registry.register(request)
        except FreeholdError as error:
            return orchestrator_pb.RegisterReply(error=error_to_proto(error))
        return orchestrator_pb.RegisterReply(
            lease_id=node.lease_id, lease_seconds=self._registry.lease_seconds
        )

    async def Heartbeat(
        self, request: orchestrator_pb.HeartbeatRequest, context: Any
    ) -> orchestrator_pb.HeartbeatReply:
        return orchestrator_pb.HeartbeatReply(known=self._registry.heartbeat(request))

    async def Deregister(
        self, request: orchestrator_pb.DeregisterRequest, context: Any
    ) -> orchestrator_pb.DeregisterReply:
        self._registry.deregister(request.worker_id, request.lease_id)
        return orchestrator_pb.DeregisterReply()

    async def Health(self, request: pb.HealthRequest, context: Any) -> pb.HealthReply:
        """ "ready" once a model is served."""
        models = self._registry.models()
        status = "ready" if models else "starting"
        return pb.HealthReply(
            status="draining" if self._dispatcher.is_draining else status,
            version=freehold.__version__,
            models=models,
        )

    async def Stats(
        self, request: pb.StatsRequest, context: Any
    ) -> orchestrator_pb.OrchestratorStats:
        return orchestrator_pb.OrchestratorStats(
            workers=[node.stats for node in self._registry.nodes],
            num_queued=self._admission.num_queued,
            num_running=self._admission.num_running,
            requests_total=self._admission.requests_total,
            rejected_total=self._admission.rejected_total,
            redispatches_total=self._dispatcher.redispatches_total,
            worker_deaths_total=self._registry.worker_deaths_total,
        )
