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
from freehold.model.model import Model
from freehold.model.pack_cache import NoPacks, Packs, build_with_packs
from freehold.model.tokenizer import Tokenizer
from freehold.ops import Ops
from freehold.ops.create import create
from freehold.types import CacheFormat, SamplingParams, WeightFormat


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """`revision` names checkpoint, weight format, and cache format where that is not BF16: two
    engines of one revision give the same tokens on the same instruction set."""

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
    config = config or EngineConfig()
    cache_format = config.kv_cache_format
    check_fits(path, quantize, context=config.max_model_len, cache_format=cache_format)
    defaults = GenerationConfig.from_dict(checkpoint.generation_config).sampling()
    SamplingParams(**defaults).check()  # type: ignore[arg-type]
    ops = ops or create()
    weight_format = (quantize or WeightFormat.BF16).value
    digest = checkpoint.digest()

    def build(packs: Packs) -> Model:
        return build_model(
            checkpoint.config,
            checkpoint,
            ops=ops,
            quantize=quantize,
            packs=packs,
            cache_format=cache_format,
        )

    if config.keep_packed:
        model = build_with_packs(build, Path(path), digest, weight_format, ops)
    else:
        model = build(NoPacks())
    revision = f"{digest[:16]}-{weight_format}"
    if cache_format is not CacheFormat.BF16:
        revision += f"-kv-{cache_format.value}"
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
