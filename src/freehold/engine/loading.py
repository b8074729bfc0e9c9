"""From a checkpoint directory to an engine with its tokenizer and chat template.

The memory check comes before any weight is read. Knows no requests. Read `engine.py` next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from freehold.engine.config import EngineConfig
from freehold.engine.engine import Engine
from freehold.model.architectures import build_model
from freehold.model.chat_template import ChatTemplate
from freehold.model.checkpoint import Checkpoint
from freehold.model.generation_config import GenerationConfig
from freehold.model.memory import available_bytes, check_fits
from freehold.model.pack_cache import NoPacks, open_packs
from freehold.model.tokenizer import Tokenizer
from freehold.ops import Ops
from freehold.ops.create import create
from freehold.types import SamplingParams, WeightFormat


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """`revision` names checkpoint and weight format: two engines of one revision give the same
    tokens on the same instruction set."""

    engine: Engine
    tokenizer: Tokenizer
    chat_template: ChatTemplate
    revision: str
    architecture: str
    weight_format: str
    sampling_defaults: Mapping[str, float]  # what a request leaves open; of generation_config.json


def load_engine(
    path: str | Path,
    *,
    quantize: WeightFormat | None = None,
    ops: Ops | None = None,
    config: EngineConfig | None = None,
) -> LoadedEngine:
    """Read a Hugging Face directory. Raises CheckpointError, UnsupportedArchitecture, and
    NotEnoughMemory with both figures before loading."""
    checkpoint = Checkpoint.open(path)
    tokenizer = Tokenizer.load(path)
    chat_template = ChatTemplate.load(path, tokenizer)
    check_fits(path, quantize, context=config.max_model_len if config else None)
    defaults = GenerationConfig.from_dict(checkpoint.generation_config).sampling()
    SamplingParams(**defaults).check()  # type: ignore[arg-type]
    ops = ops or create()
    weight_format = (quantize or WeightFormat.BF16).value
    digest = checkpoint.digest()
    is_kept = config is None or config.keep_packed
    with open_packs(Path(path), digest, weight_format, ops) if is_kept else NoPacks() as packs:
        model = build_model(checkpoint.config, checkpoint, ops=ops, quantize=quantize, packs=packs)
    revision = f"{digest[:16]}-{weight_format}"
    engine = Engine(model, tokenizer, config, revision=revision, available_bytes=available_bytes())
    return LoadedEngine(
        engine,
        tokenizer,
        chat_template,
        revision,
        model.config.architecture,
        weight_format,
        defaults,
    )
