"""What an engine may use: lengths, batch sizes, and how much memory its paged cache takes.

Knows no model beyond its cache's bytes a token. Read `engine.py` next.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from freehold.errors import ConfigError, NotEnoughMemory
from freehold.types import CacheFormat, Speculate

DEFAULT_CACHE_FRACTION = 0.25  # of the memory that is available once the weights are in


@dataclass(frozen=True, slots=True)
class EngineConfig:
    max_model_len: int | None = None  # tokens, prompt and output together; None: the model's own
    block_size: int = 16  # tokens
    num_blocks: int | None = None  # overrides kv_cache_bytes
    kv_cache_format: CacheFormat = CacheFormat.BF16  # of the model `load_engine` builds
    kv_cache_bytes: int | None = None  # None: what num_cache_blocks works out
    max_num_requests: int = 64  # running at once; more wait
    max_num_batched_tokens: int = 512  # the token budget of a step
    max_step_seconds: float | None = 0.2  # about; long prompts are cut to it. None: no such bound
    enable_prefix_cache: bool = True
    speculate: Speculate = Speculate.AUTO
    prefix_store: Path | None = None  # where prefixes used twice outlive a restart
    prefix_store_bytes: int = 1 << 30
    keep_packed: bool = True  # packed weights stay on disk beside the checkpoint

    def __post_init__(self) -> None:
        for name in ("block_size", "max_num_requests", "max_num_batched_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.max_step_seconds is not None and not self.max_step_seconds > 0:
            raise ConfigError(
                f"max_step_seconds must be above 0 or None, not {self.max_step_seconds}."
            )
        for name in ("max_model_len", "num_blocks", "kv_cache_bytes"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1 or left out, not {value}.")


def num_cache_blocks(
    config: EngineConfig, *, bytes_per_token: int, max_position_embeddings: int, available: int
) -> int:
    """How many blocks to make: as configured, else a quarter of the `available` bytes, and never
    more than max_num_requests requests of full length can fill.

    Raises NotEnoughMemory if not even two blocks fit.
    """
    if config.num_blocks is not None:
        return config.num_blocks
    block_bytes = bytes_per_token * config.block_size
    max_len = min(config.max_model_len or max_position_embeddings, max_position_embeddings)
    useful_blocks = config.max_num_requests * -(-max_len // config.block_size)
    cache_bytes = config.kv_cache_bytes or int(available * DEFAULT_CACHE_FRACTION)
    num_blocks = min(cache_bytes // block_bytes, useful_blocks)
    if num_blocks < min(2, useful_blocks):
        raise NotEnoughMemory(
            f"The cache may take {cache_bytes} bytes, but two blocks of {config.block_size} tokens "
            f"need {2 * block_bytes}; free memory, raise kv_cache_bytes or lower block_size."
        )
    return num_blocks
