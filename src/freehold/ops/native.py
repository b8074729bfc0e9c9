"""Ops over the C++ kernels of native/, chosen at run time by what the CPU can do.

Weights are packed once into the kernels' layout; activations are float32 NumPy arrays; caches are
bfloat16. Shapes and indices are checked in native/bindings. Knows no models. Read
native/include/kernels.h next.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from freehold import _native
from freehold.errors import ConfigError
from freehold.ops import DEFAULT_GROUP_SIZE, BatchLayout, PackedBytes, RoutingSpec
from freehold.ops.quantize import int4_group_size
from freehold.types import WeightFormat

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

PANEL = 16  # output columns that kernels take at once

_FORMATS = {
    WeightFormat.FLOAT32: 0,
    WeightFormat.BF16: 1,
    WeightFormat.INT8: 2,
    WeightFormat.INT4: 3,
}
_DTYPES = {np.dtype(np.float32): 0, np.dtype(ml_dtypes.bfloat16): 1, np.dtype(np.float16): 2}


@dataclass(frozen=True, slots=True)
class EmbeddingTable:
    bits: npt.NDArray[Any]  # [vocab, hidden]; 16-bit floats as uint16
    dtype: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.bits.shape

    @property
    def num_bytes(self) -> int:
        return self.bits.nbytes


def available_isas() -> list[str]:
    """Instruction sets with kernels that this CPU runs, best first."""
    names: str = _native.available_isas()
    return names.split(", ")


def isa() -> str:
    """What NativeOps() would run on here: FREEHOLD_ISA, or the best of `available_isas`."""
    return NativeOps(num_threads=1).isa


class NativeOps:
    """See `Ops`. `isa`, or else FREEHOLD_ISA, forces an instruction set.

    Raises ConfigError if this CPU lacks it; ValueError or IndexError where arrays do not fit.
    """

    pack_layout: str | None = f"native{_native.PACK_LAYOUT_VERSION}"  # one for all instruction sets

    def __init__(self, num_threads: int | None = None, isa: str = "") -> None:
        if num_threads is not None and num_threads < 1:
            raise ConfigError(f"num_threads must be at least 1, not {num_threads}.")
        try:
            self._native = _native.Runtime(isa, num_threads or len(os.sched_getaffinity(0)))
        except ValueError as error:
            raise ConfigError(str(error), param="FREEHOLD_ISA") from None
        self.isa: str = self._native.isa
        self.name = f"native:{self.isa}"
        self.cache_layout = f"{self.name}:{_native.CACHE_LAYOUT_VERSION}"

    def read_bytes_per_second(self) -> float:
        """A plain read of memory beyond the caches, by all threads: what bounds decoding."""
        words = np.ones(1 << 26, np.uint64)  # 512 MiB
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            self._native.read(words)
            seconds.append(time.perf_counter() - started)
        return float(words.nbytes / min(seconds))

    def peak_operations_per_second(self, format: WeightFormat) -> float:
        """Measured now: multiplies and adds of this format's products that stay in registers."""
        return self._native.peak(_FORMATS[format])

    # Weights

    def weight(
        self, tensor: npt.NDArray[Any], format: WeightFormat, group_size: int = DEFAULT_GROUP_SIZE
    ) -> Any:
        group = int4_group_size(tensor.shape[1], group_size)
        if format is WeightFormat.INT4 and group is None:
            format = WeightFormat.INT8
        return self._native.pack(*_bits(tensor), _FORMATS[format], group or 0)

    def per_head_weight(self, tensor: npt.NDArray[Any]) -> Any:
        return self._native.pack(*_bits(tensor), _FORMATS[WeightFormat.BF16], 0)

    def expert_weights(self, gate_up: Sequence[Any], down: Sequence[Any]) -> Any:
        return _native.stack_experts(list(gate_up), list(down))

    def packed(self, weight: Any) -> PackedBytes:
        *shape, n, k = weight.shape
        form = (weight.format, *(shape or [1]), n, k, weight.group_size)
        return PackedBytes(form, weight.bytes)

    def unpacked(self, packed: PackedBytes) -> Any:
        format, count, n, k, group_size = packed.form
        return _native.PackedWeight(format, count, n, k, group_size, packed.bytes)

    def embedding_table(self, tensor: npt.NDArray[Any]) -> EmbeddingTable:
        return EmbeddingTable(*_bits(tensor))

    def vector(self, tensor: npt.NDArray[Any]) -> F32:
        return np.ascontiguousarray(tensor, dtype=np.float32)

    # Layers

    def embedding(self, token_ids: I32, table: EmbeddingTable) -> F32:
        ids = np.ascontiguousarray(token_ids, np.int32)
        y = np.empty((len(ids), table.shape[1]), np.float32)
        self._native.embedding(ids, table.bits, table.dtype, y)
        return y

    def linear(self, x: F32, weight: Any, bias: F32 | None = None) -> F32:
        y = np.empty((len(x), weight.shape[0]), np.float32)
        self._native.linear(np.ascontiguousarray(x), weight, bias, y)
        return y

    def gated_linear(self, x: F32, weight: Any, bias: F32 | None = None) -> F32:
        inner = weight.shape[0] // 2
        if inner % PANEL:
            return self.silu_and_mul(self.linear(x, weight, bias))
        y = np.empty((len(x), inner), np.float32)
        self._native.gated_linear(np.ascontiguousarray(x), weight, bias, y)
        return y

    def per_head_linear(self, x: F32, weight: Any) -> F32:
        y = np.empty((len(x), weight.shape[0], weight.shape[1]), np.float32)
        self._native.per_head_linear(np.ascontiguousarray(x), weight, y)
        return y

    def matmul_float32(self, x: F32, matrix: F32) -> F32:
        y = np.empty((len(x), len(matrix)), np.float32)
        self._native.matmul_float32(np.ascontiguousarray(x), matrix, y)
        return y

    def concatenate(self, parts: Sequence[F32]) -> F32:
        return np.concatenate(parts, axis=-1)

    def rms_norm(self, x: F32, weight: F32, eps: float) -> F32:
        rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
        y = np.empty_like(rows)
        self._native.rms_norm(rows, weight, eps, y)
        return y.reshape(x.shape)

    def silu_and_mul(self, gate_up: F32) -> F32:
        y = np.empty((len(gate_up), gate_up.shape[1] // 2), np.float32)
        self._native.silu_and_mul(np.ascontiguousarray(gate_up), y)
        return y

    def rope(self, x: F32, positions: I32, cos: F32, sin: F32, interleaved: bool = False) -> F32:
        y = np.empty(x.shape, np.float32)
        self._native.rope(np.ascontiguousarray(x), positions, cos, sin, interleaved, y)
        return y

    # Attention

    def grouped_cache(
        self, num_blocks: int, block_size: int, num_kv_heads: int, head_dim: int
    ) -> _native.PagedCache:
        return _native.PagedCache(num_blocks, block_size, num_kv_heads, head_dim, False)

    def latent_cache(self, num_blocks: int, block_size: int, latent_dim: int) -> _native.PagedCache:
        return _native.PagedCache(num_blocks, block_size, 1, latent_dim, True)

    def cache_memory(
        self, cache: _native.PagedCache, block_size: int
    ) -> list[npt.NDArray[np.uint8]]:
        return cache.memory()

    def grouped_attention(
        self, q: F32, k: F32, v: F32, cache: _native.PagedCache, layout: BatchLayout, scale: float
    ) -> F32:
        out = np.empty(q.shape, np.float32)
        q, k, v = np.ascontiguousarray(q), np.ascontiguousarray(k), np.ascontiguousarray(v)
        self._native.grouped_attention(q, k, v, cache, *_layout(layout), scale, out)
        return out

    def latent_attention(
        self,
        q: F32,
        latent: F32,
        cache: _native.PagedCache,
        layout: BatchLayout,
        scale: float,
        value_dim: int,
    ) -> F32:
        out = np.empty((*q.shape[:2], value_dim), np.float32)
        q, latent = np.ascontiguousarray(q), np.ascontiguousarray(latent)
        self._native.latent_attention(q, latent, cache, *_layout(layout), scale, out)
        return out

    # Routed experts

    def route(
        self, scores: F32, spec: RoutingSpec, correction_bias: F32 | None = None
    ) -> tuple[I32, F32]:
        """As in `Ops`; the experts of a row come in descending order of their choice score."""
        shape = (len(scores), spec.num_experts_per_token)
        ids, weights = np.empty(shape, np.int32), np.empty(shape, np.float32)
        self._native.route(
            np.ascontiguousarray(scores),
            correction_bias,
            spec.num_groups,
            spec.num_groups_per_token,
            spec.scoring == "sigmoid",
            spec.group_score == "top2_sum",
            spec.normalize,
            spec.scaling_factor,
            ids,
            weights,
        )
        return ids, weights

    def routed_experts(self, x: F32, expert_ids: I32, expert_weights: F32, experts: Any) -> F32:
        y = np.empty(x.shape, np.float32)
        x, ids = np.ascontiguousarray(x), np.ascontiguousarray(expert_ids)
        self._native.routed_experts(x, ids, np.ascontiguousarray(expert_weights), experts, y)
        return y

    # Choosing a token

    def sample(
        self,
        logits: F32,
        temperature: npt.NDArray[np.float32],
        top_k: I32,
        top_p: npt.NDArray[np.float32],
        min_p: npt.NDArray[np.float32],
        uniforms: npt.NDArray[np.float64],
    ) -> I32:
        ids = np.empty(len(logits), np.int32)
        rows = np.ascontiguousarray(logits)
        self._native.sample(rows, temperature, top_k, top_p, min_p, uniforms, ids)
        return ids

    def logprobs(self, logits: F32, token_ids: I32, num_top: int) -> tuple[F32, I32, F32]:
        n, vocab = logits.shape
        num_top = min(num_top, vocab)
        chosen = np.empty(n, np.float32)
        top_ids, top = np.empty((n, num_top), np.int32), np.empty((n, num_top), np.float32)
        tokens = np.ascontiguousarray(token_ids, np.int64)
        self._native.logprobs(np.ascontiguousarray(logits), tokens, chosen, top_ids, top)
        return chosen, top_ids, top


def _bits(tensor: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], int]:
    """A contiguous array whose bytes the kernels know how to read, and what they are."""
    tensor = np.ascontiguousarray(tensor)
    if tensor.dtype not in _DTYPES:
        tensor = tensor.astype(np.float32)
    dtype = _DTYPES[tensor.dtype]
    return (tensor if dtype == 0 else tensor.view(np.uint16)), dtype


def _layout(
    layout: BatchLayout,
) -> tuple[I32, npt.NDArray[np.int64], I32, I32, int]:
    return (
        np.ascontiguousarray(layout.positions, np.int32),
        np.ascontiguousarray(layout.slots, np.int64),
        np.ascontiguousarray(layout.query_starts, np.int32),
        np.ascontiguousarray(layout.block_tables, np.int32),
        layout.block_size,
    )
