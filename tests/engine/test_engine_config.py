"""How many blocks an engine makes, and which settings it refuses."""

from __future__ import annotations

import pytest

from freehold.engine import EngineConfig
from freehold.engine.config import num_cache_blocks
from freehold.errors import ConfigError, NotEnoughMemory


def blocks(available=1 << 30, context=1024, per_token=1000, **config):
    return num_cache_blocks(
        EngineConfig(**config),
        bytes_per_token=per_token,
        max_position_embeddings=context,
        available=available,
    )


def test_by_default_a_quarter_of_what_is_free():
    assert blocks(available=100_000_000) == 25_000_000 // 16_000


def test_never_more_than_the_requests_can_fill():
    assert blocks(available=1 << 40) == 64 * 64
    assert blocks(available=1 << 40, max_num_requests=2, max_model_len=100) == 2 * 7


def test_a_given_size_wins_and_a_given_number_wins_over_it():
    assert blocks(kv_cache_bytes=160_000) == 10
    assert blocks(kv_cache_bytes=160_000, num_blocks=3) == 3


def test_too_little_memory_is_refused_with_both_figures():
    with pytest.raises(NotEnoughMemory, match=r"25000 bytes.* 32000"):
        blocks(available=100_000)


@pytest.mark.parametrize(
    "name", ["block_size", "max_num_requests", "max_num_batched_tokens", "max_model_len"]
)
def test_settings_below_one_are_refused_by_name(name):
    with pytest.raises(ConfigError, match=name):
        EngineConfig(**{name: 0})
