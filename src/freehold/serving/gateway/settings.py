"""What a person may set about the gateway. Read `app.py` next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from freehold.errors import ConfigError
from freehold.serving.lifecycle import is_loopback

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    orchestrator: str  # host:port
    keys_path: Path
    host: str = "127.0.0.1"
    port: int = 8080  # 0: pick one
    allow_remote: bool = False  # listen beyond loopback
    # Further names this gateway answers to. Beyond loopback an empty tuple means any.
    allowed_hosts: tuple[str, ...] = ()
    open_metrics: bool | None = None  # /metrics without a key; None: on loopback only
    max_body_bytes: int = 8 * MIB  # of an HTTP body and of a WebSocket frame
    max_requests_per_connection: int = 16  # at once on one WebSocket
    max_connections: int = 2048
    body_timeout_seconds: float = 30.0  # to send a whole body
    send_timeout_seconds: float = 60.0  # a reader that takes nothing for so long is dropped
    request_timeout_seconds: float = 1800.0  # the deadline given to every generation
    drain_seconds: float = 10.0  # how long running answers may take after SIGTERM
    ready_file: Path | None = None

    def check(self) -> None:
        """Raise ConfigError for values that cannot work, or are not safe."""
        if not self.allow_remote and not is_loopback(self.host):
            raise ConfigError(
                f"The gateway listens on {self.host} only with allow_remote: beyond this machine, "
                "keys and answers travel unencrypted unless a TLS proxy stands before it."
            )
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"A port is from 0 to 65535, not {self.port}.")
        for name in (
            "max_body_bytes",
            "max_requests_per_connection",
            "max_connections",
            "body_timeout_seconds",
            "send_timeout_seconds",
            "request_timeout_seconds",
        ):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0.")
        if self.drain_seconds < 0:
            raise ConfigError("drain_seconds must be 0 or more.")

    @property
    def is_metrics_open(self) -> bool:
        return is_loopback(self.host) if self.open_metrics is None else self.open_metrics
