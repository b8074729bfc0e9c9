"""Rotary position embeddings: the frequencies of each kind, and tables of cosines and sines.

Plain (RoFormer), linear, llama3, and YaRN (arXiv 2309.00071) with DeepSeek's mscale. Knows how
frequencies are made, not how heads are rotated: that is `Ops.rope`. Read `layers.py` next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from freehold.errors import CheckpointError
from freehold.model.config_fields import Fields
from freehold.ops import Array, Ops

RopeType = Literal["default", "linear", "llama3", "yarn"]
SUPPORTED_TYPES = ("default", "linear", "llama3", "yarn")
KNOWN_FIELDS = {
    *("type", "rope_type", "rope_theta", "factor", "original_max_position_embeddings"),
    *("low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow", "truncate"),
    *("mscale", "mscale_all_dim", "attention_factor", "partial_rotary_factor"),
}
FIRST_TABLE_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """`attention_factor` multiplies cos and sin; `mla_softmax_factor` DeepSeek's softmax scale."""

    type: RopeType = "default"
    theta: float = 10_000.0
    factor: float = 1.0
    original_max_positions: int = 0  # llama3 and yarn
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0  # yarn
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float = 1.0
    mla_softmax_factor: float = 1.0

    @staticmethod
    def from_fields(config: Fields, max_positions: int) -> RopeConfig:
        """Of either spelling: `rope_scaling` beside `rope_theta`, or `rope_parameters`."""
        rope = config.object("rope_parameters") or config.object("rope_scaling") or Fields({})
        for name, value in rope.values.items():
            if name not in KNOWN_FIELDS and value is not None:
                raise rope.unsupported(name, "no such rotary setting is known")
        for fields in (config, rope):
            if fields.values.get("partial_rotary_factor") not in (None, 1, 1.0):
                raise fields.unsupported("partial_rotary_factor", "only whole heads are rotated")
        kind_field = "rope_type" if rope.values.get("rope_type") is not None else "type"
        if rope.values.get(kind_field, "default") not in SUPPORTED_TYPES:
            raise rope.unsupported(kind_field, f"rotary types are {', '.join(SUPPORTED_TYPES)}")
        kind = cast(RopeType, rope.values.get(kind_field, "default"))
        theta = rope.number("rope_theta", config.number("rope_theta", 10_000.0))
        if kind == "default":
            return RopeConfig(theta=theta)
        original = config.integer(
            "original_max_position_embeddings",
            rope.integer("original_max_position_embeddings", max_positions),
        )
        factor = rope.number("factor", max_positions / original if kind == "yarn" else None)
        mla_softmax_factor = _mscale(factor, _or_zero(rope, "mscale_all_dim")) ** 2
        if kind == "llama3":
            low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
            if high <= low:
                raise rope.wrong("high_freq_factor", "above low_freq_factor")
            return RopeConfig(
                kind,
                theta,
                factor,
                original,
                low_freq_factor=low,
                high_freq_factor=high,
                mla_softmax_factor=mla_softmax_factor,
            )
        if kind == "linear":
            return RopeConfig(kind, theta, factor, mla_softmax_factor=mla_softmax_factor)
        if theta <= 1:
            raise CheckpointError("config.json: rope_theta must be above 1 with YaRN.")
        return RopeConfig(
            kind,
            theta,
            factor,
            original,
            beta_fast=rope.number("beta_fast", 32.0),
            beta_slow=rope.number("beta_slow", 1.0),
            truncate=rope.boolean("truncate", True),
            attention_factor=_yarn_attention_factor(rope, factor),
            mla_softmax_factor=mla_softmax_factor,
        )


def _or_zero(fields: Fields, name: str) -> float:
    return 0.0 if not fields.values.get(name) else fields.number(name)


def _mscale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _yarn_attention_factor(rope: Fields, factor: float) -> float:
    given = rope.optional_number("attention_factor")
    if given is not None:
        return given
    mscale, mscale_all_dim = _or_zero(rope, "mscale"), _or_zero(rope, "mscale_all_dim")
    if mscale and mscale_all_dim:
        return _mscale(factor, mscale) / _mscale(factor, mscale_all_dim)
    return _mscale(factor, 1.0)


def inverse_frequencies(rope: RopeConfig, dim: int) -> npt.NDArray[np.float32]:
    """float32 [dim / 2], computed in float32 as the models were trained."""
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    plain = (np.float32(1) / np.float32(rope.theta) ** exponents).astype(np.float32)
    if rope.type == "linear":
        return plain / np.float32(rope.factor)
    if rope.type == "llama3":
        return _llama3_frequencies(rope, plain)
    if rope.type == "yarn":
        return _yarn_frequencies(rope, plain, dim)
    return plain


def _llama3_frequencies(
    rope: RopeConfig, plain: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Long waves are slowed by `factor`, short ones kept, those between blended."""
    wavelengths = 2 * math.pi / plain
    low, high = rope.low_freq_factor, rope.high_freq_factor
    blend = (rope.original_max_positions / wavelengths - low) / (high - low)
    blend = np.clip(blend, 0, 1)  # 0: long waves, 1: short waves
    return ((1 - blend) * plain / rope.factor + blend * plain).astype(np.float32)


def _yarn_frequencies(
    rope: RopeConfig, plain: npt.NDArray[np.float32], dim: int
) -> npt.NDArray[np.float32]:
    """By parts: pairs that turn often are kept, those that turn seldom interpolated."""

    def pair_turning(num_turns: float) -> float:
        waves = rope.original_max_positions / (num_turns * 2 * math.pi)
        return dim * math.log(waves) / (2 * math.log(rope.theta))

    low, high = pair_turning(rope.beta_fast), pair_turning(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    width = high - low if high != low else 0.001
    ramp = np.clip((np.arange(dim // 2, dtype=np.float32) - low) / width, 0, 1)
    blended: npt.NDArray[np.float32] = plain * (1 - ramp) + plain / rope.factor * ramp
    return blended.astype(np.float32)


class RopeTables:
    """cos and sin for positions 0, 1, 2 …, grown by doubling as positions come."""

    def __init__(self, rope: RopeConfig, dim: int, ops: Ops) -> None:
        self._rope = rope
        self._ops = ops
        self._frequencies = inverse_frequencies(rope, dim)
        self._length = 0
        self._cos: Array = None
        self._sin: Array = None

    def up_to(self, num_positions: int) -> tuple[Array, Array]:
        """Two tables float32 [at least num_positions, dim / 2]."""
        if num_positions > self._length:
            self._grow(max(FIRST_TABLE_LENGTH, 1 << (num_positions - 1).bit_length()))
        return self._cos, self._sin

    def _grow(self, length: int) -> None:
        # The angle is rounded to float32, as in training; its cosine then comes from float64
        positions = np.arange(length, dtype=np.float32)
        angles = (positions[:, None] * self._frequencies).astype(np.float64)
        factor = np.float32(self._rope.attention_factor)
        self._cos = self._ops.vector(np.cos(angles).astype(np.float32) * factor)
        self._sin = self._ops.vector(np.sin(angles).astype(np.float32) * factor)
        self._length = length
