"""What stands behind a worker's gRPC face: an engine here, or another server elsewhere.

Two implementations: `engine_backend.py` and `upstream.py`. Read `service.py` for who calls it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from freehold.rpc.v1 import messages_pb2 as pb
from freehold.rpc.v1 import worker_pb2 as worker_pb


class Backend(Protocol):
    """Methods raise FreeholdError; the face turns it into the reply's or the stream's Error."""

    @property
    def max_num_requests(self) -> int:
        """How many streams it computes at once."""
        ...

    @property
    def num_active(self) -> int:
        """Streams that have begun and not ended."""
        ...

    async def start(self, on_change: Callable[[], None]) -> None:
        """Be ready to generate; `on_change` is called whenever `models()` changes."""
        ...

    async def stop(self) -> None: ...

    def check_alive(self) -> None:
        """Raises when this process can serve no more and should end."""
        ...

    def models(self) -> Sequence[pb.ModelInfo]: ...

    def generate(self, request: pb.GenerateRequest) -> AsyncGenerator[pb.GenerateEvent]:
        """Started, Token*, Finished. Closing it early frees what it holds."""
        ...

    def cancel(self, request_id: str) -> bool:
        """End all streams of the request with Finished(cancelled). False if there is none."""
        ...

    async def tokenize(self, request: pb.TokenizeRequest) -> pb.TokenizeReply: ...

    def stats(self) -> pb.WorkerStats:
        """All but worker_id and resident_bytes."""
        ...

    async def load(self, request: worker_pb.LoadRequest) -> pb.ModelInfo: ...

    async def unload(self, request: worker_pb.UnloadRequest) -> None: ...
