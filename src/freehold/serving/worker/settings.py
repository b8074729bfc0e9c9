"""What a person may set about a worker. Read `main.py` next."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from freehold.engine import EngineConfig
from freehold.errors import ConfigError
from freehold.serving.bounds import Bounds
from freehold.types import WeightFormat


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Either `model` (an engine runs it here) or `upstream_url` (another server does)."""

    model: Path | None = None
    name: str | None = None  # the alias clients use; None: the directory's name
    host: str = "127.0.0.1"
    port: int = 0  # 0: pick one
    advertise: str | None = None  # host:port the orchestrator dials; None: where it listens
    orchestrator: str | None = None  # None: serves alone, registered nowhere
    cluster_token: str = field(default="", repr=False)
    quantize: WeightFormat | None = None
    ops: Any = None  # a freehold.ops.Ops, made by the composition root; None: the engine's choice
    engine: EngineConfig = field(default_factory=EngineConfig)
    model_root: Path | None = None  # Load reads checkpoints below it only; None: Load is refused
    upstream_url: str | None = None  # such as http://127.0.0.1:8000/v1
    upstream_model: str | None = None  # its name there; None: `name`
    upstream_api_key: str | None = field(default=None, repr=False)
    upstream_max_requests: int = 64  # at once; more wait in the orchestrator
    drain_seconds: float = 30.0  # how long running requests may take after SIGTERM
    bounds: Bounds = field(default_factory=Bounds)
    ready_file: Path | None = None

    def check(self) -> None:
        """Raise ConfigError for values that contradict each other or cannot work."""
        if (self.model is None) == (self.upstream_url is None):
            raise ConfigError("A worker needs either a model directory or an upstream URL.")
        if self.upstream_url is not None:
            parts = urlsplit(self.upstream_url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ConfigError(
                    "The upstream URL must look like http://host:port/v1, with no user in it."
                )
            if parts.username or parts.password or parts.query or parts.fragment:
                raise ConfigError("Give the upstream's key as upstream_api_key, not in its URL.")
            if not (self.upstream_model or self.name):
                raise ConfigError("An upstream worker needs the model's name: upstream_model.")
        if self.drain_seconds < 0 or self.upstream_max_requests < 1:
            raise ConfigError("drain_seconds must be 0 or more, upstream_max_requests 1 or more.")
