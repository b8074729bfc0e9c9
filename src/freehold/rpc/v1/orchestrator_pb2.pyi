from freehold.rpc.v1 import messages_pb2 as _messages_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsReply(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_messages_pb2.ModelInfo]
    def __init__(self, models: _Optional[_Iterable[_Union[_messages_pb2.ModelInfo, _Mapping]]] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("worker_id", "address", "models", "cluster_token", "max_num_requests")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MAX_NUM_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    address: str
    models: _containers.RepeatedCompositeFieldContainer[_messages_pb2.ModelInfo]
    cluster_token: str
    max_num_requests: int
    def __init__(self, worker_id: _Optional[str] = ..., address: _Optional[str] = ..., models: _Optional[_Iterable[_Union[_messages_pb2.ModelInfo, _Mapping]]] = ..., cluster_token: _Optional[str] = ..., max_num_requests: _Optional[int] = ...) -> None: ...

class RegisterReply(_message.Message):
    __slots__ = ("lease_id", "lease_seconds", "error")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    lease_seconds: float
    error: _messages_pb2.Error
    def __init__(self, lease_id: _Optional[str] = ..., lease_seconds: _Optional[float] = ..., error: _Optional[_Union[_messages_pb2.Error, _Mapping]] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("worker_id", "lease_id", "stats", "models", "draining")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    lease_id: str
    stats: _messages_pb2.WorkerStats
    models: _containers.RepeatedCompositeFieldContainer[_messages_pb2.ModelInfo]
    draining: bool
    def __init__(self, worker_id: _Optional[str] = ..., lease_id: _Optional[str] = ..., stats: _Optional[_Union[_messages_pb2.WorkerStats, _Mapping]] = ..., models: _Optional[_Iterable[_Union[_messages_pb2.ModelInfo, _Mapping]]] = ..., draining: _Optional[bool] = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ("known",)
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    known: bool
    def __init__(self, known: _Optional[bool] = ...) -> None: ...

class DeregisterRequest(_message.Message):
    __slots__ = ("worker_id", "lease_id")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    lease_id: str
    def __init__(self, worker_id: _Optional[str] = ..., lease_id: _Optional[str] = ...) -> None: ...

class DeregisterReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OrchestratorStats(_message.Message):
    __slots__ = ("workers", "num_queued", "num_running", "requests_total", "rejected_total", "redispatches_total", "worker_deaths_total")
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    NUM_QUEUED_FIELD_NUMBER: _ClassVar[int]
    NUM_RUNNING_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    REJECTED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    REDISPATCHES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    WORKER_DEATHS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[_messages_pb2.WorkerStats]
    num_queued: int
    num_running: int
    requests_total: int
    rejected_total: int
    redispatches_total: int
    worker_deaths_total: int
    def __init__(self, workers: _Optional[_Iterable[_Union[_messages_pb2.WorkerStats, _Mapping]]] = ..., num_queued: _Optional[int] = ..., num_running: _Optional[int] = ..., requests_total: _Optional[int] = ..., rejected_total: _Optional[int] = ..., redispatches_total: _Optional[int] = ..., worker_deaths_total: _Optional[int] = ...) -> None: ...
