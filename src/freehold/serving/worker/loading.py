"""Reads a checkpoint directory into what a worker serves: engine, tokenizer, chat template.

Everything of it comes through the engine's public names. Read `engine_backend.py` next.
"""

from __future__ import annotations

from pathlib import Path

from freehold.engine import LoadedEngine, load_engine
from freehold.errors import TemplateError
from freehold.serving.worker.engine_backend import LoadedModel, Loader
from freehold.serving.worker.prompt import Template
from freehold.serving.worker.reasoning import CLOSE, OPEN
from freehold.serving.worker.settings import WorkerSettings
from freehold.serving.worker.stream import ThinkTags
from freehold.types import ChatMessage, WeightFormat


def checkpoint_loader(settings: WorkerSettings) -> Loader:
    """Raises CheckpointError, UnsupportedArchitecture or NotEnoughMemory when called."""

    def load(path: Path, weight_format: WeightFormat | None) -> LoadedModel:
        loaded = load_engine(path, quantize=weight_format, ops=settings.ops, config=settings.engine)
        return LoadedModel(
            engine=loaded.engine,
            tokenizer=loaded.tokenizer,
            template=loaded.chat_template,
            think_tags=think_tags(loaded),
            revision=loaded.revision,
            architecture=loaded.architecture,
            weight_format=loaded.weight_format,
            sampling_defaults=loaded.sampling_defaults,
        )

    return load


def think_tags(loaded: LoadedEngine) -> ThinkTags:
    """A model reasons in tags if its tokenizer has them as tokens, or its template treats them."""
    ids = [loaded.tokenizer.backend.token_to_id(tag) for tag in (OPEN, CLOSE)]
    hidden = [i if i is not None and loaded.tokenizer.is_special(i) else None for i in ids]
    is_known = None not in ids or template_knows_tags(loaded.chat_template)
    return ThinkTags(is_known, *hidden)


def template_knows_tags(template: Template) -> bool:
    """It opens the tag for the answer, or leaves the reasoning out of earlier answers."""
    question = ChatMessage("user", "q")
    answer = ChatMessage("assistant", f"{OPEN}\nreasoning\n{CLOSE}\n\nanswer")
    try:
        rendered = template.render([question, answer, question])
    except TemplateError:
        return False
    return rendered.rstrip().endswith(OPEN) or (
        "answer" in rendered and "reasoning" not in rendered
    )
