"""What a person may set about the orchestrator. Read `main.py` next."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from freehold.errors import ConfigError
from freehold.serving.bounds import Bounds
from freehold.serving.lifecycle import is_loopback


@dataclass(frozen=True, slots=True)
class OrchestratorSettings:
    host: str = "127.0.0.1"
    port: int = 0  # 0: pick one
    cluster_token: str = ""  # workers must show the same; needed beyond loopback
    max_queue: int = 256  # requests that wait for a worker; more are refused as Overloaded
    lease_seconds: float = 4.0  # a worker silent for longer counts as dead
    grace_seconds: float = 15.0  # how long a request waits for a known model without a worker
    max_redispatches: int = 3  # in a row, without a new token between them
    drain_seconds: float = 30.0  # how long running requests may take after SIGTERM
    bounds: Bounds = field(default_factory=Bounds)
    ready_file: Path | None = None

    def check(self) -> None:
        """Raise ConfigError for values that cannot work, or are not safe."""
        if not self.cluster_token and not is_loopback(self.host):
            raise ConfigError(
                f"The orchestrator may listen on {self.host} only with a cluster token, so that "
                "no stranger registers as a worker; set cluster_token or use 127.0.0.1."
            )
        if self.max_queue < 0 or self.max_redispatches < 0:
            raise ConfigError("max_queue and max_redispatches must be 0 or more.")
        if self.lease_seconds <= 0 or self.grace_seconds < 0 or self.drain_seconds < 0:
            raise ConfigError("lease_seconds must be above 0, grace and drain 0 or more.")
