"""The reference's paged caches: plain arrays by slot, in float32 or rounded to INT8.

The rounding here is what the kernels' INT8 caches must reproduce. Knows no blocks and no attention.
Read `reference.py` next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from freehold.ops.quantize import quantize_rows
from freehold.types import CacheFormat

F32 = npt.NDArray[np.float32]


class Slots:
    """One vector a token and head, in float32 or in INT8 with a scale each."""

    def __init__(self, shape: tuple[int, ...], format: CacheFormat) -> None:
        is_int8 = format is CacheFormat.INT8
        self._values = np.zeros(shape, np.int8 if is_int8 else np.float32)  # [num_slots, …, dim]
        self._scales = np.zeros((*shape[:-1], 1), np.float32) if is_int8 else None

    @property
    def num_bytes(self) -> int:
        return self._values.nbytes + (0 if self._scales is None else self._scales.nbytes)

    def memory(self, block_size: int) -> list[npt.NDArray[np.uint8]]:
        """By block: writable views [num_blocks, bytes]."""
        parts = [self._values] if self._scales is None else [self._values, self._scales]
        return [part.reshape(len(part) // block_size, -1).view(np.uint8) for part in parts]

    def write(self, slots: npt.NDArray[np.int64], x: F32) -> None:
        if self._scales is None:
            self._values[slots] = x
        else:
            q, scales = quantize_rows(x.reshape(-1, x.shape[-1]))
            self._values[slots] = q.reshape(x.shape)
            self._scales[slots] = scales.reshape(*x.shape[:-1], 1)

    def read(self, slots: npt.NDArray[np.int64]) -> F32:
        values: F32 = self._values[slots].astype(np.float32)
        return values if self._scales is None else values * self._scales[slots]


@dataclass(frozen=True, slots=True)
class GroupedCache:
    keys: Slots  # [num_slots, num_kv_heads, head_dim]
    values: Slots

    @property
    def num_bytes(self) -> int:
        return self.keys.num_bytes + self.values.num_bytes


@dataclass(frozen=True, slots=True)
class LatentCache:
    latents: Slots  # [num_slots, latent_dim]

    @property
    def num_bytes(self) -> int:
        return self.latents.num_bytes
