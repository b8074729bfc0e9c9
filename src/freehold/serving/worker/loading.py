"""Reads a checkpoint directory into what a worker serves: engine, tokenizer, chat template.

Everything of it comes through the engine's public names. Read `engine_backend.py` next.
"""

from __future__ import annotations

from pathlib import Path

from freehold.serving.worker.engine_backend import LoadedModel, Loader
from freehold.serving.worker.settings import WorkerSettings
from freehold.types import WeightFormat


def checkpoint_loader(settings: WorkerSettings) -> Loader:
    def load(path: Path, weight_format: WeightFormat | None) -> LoadedModel:
        from freehold.engine import load_engine  # type: ignore[attr-defined]

        loaded: LoadedModel = load_engine(
            path, quantize=weight_format, ops=settings.ops, config=settings.engine
        )
        return loaded

    return load
