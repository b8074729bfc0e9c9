"""The engine: requests in, tokens out. Read `engine.py` first."""

from freehold.engine.async_engine import AsyncEngine, AsyncEngineState
from freehold.engine.config import EngineConfig
from freehold.engine.engine import Engine
from freehold.engine.loading import LoadedEngine, load_engine
from freehold.engine.request import Request, RequestState
from freehold.engine.stats import EngineStats

__all__ = [
    "AsyncEngine",
    "AsyncEngineState",
    "Engine",
    "EngineConfig",
    "EngineStats",
    "LoadedEngine",
    "Request",
    "RequestState",
    "load_engine",
]
