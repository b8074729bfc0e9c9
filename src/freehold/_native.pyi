# The compiled kernels: native/bindings/module.cpp. Used by ops/native.py alone.
# Arrays are C-contiguous NumPy arrays of the stated dtype; the last argument is written.
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

PACK_LAYOUT_VERSION: int
CACHE_LAYOUT_VERSION: int

def available_isas() -> str: ...
def stack_experts(
    gate_up: Sequence[PackedWeight], down: Sequence[PackedWeight]
) -> PackedExperts: ...

class PackedWeight:
    def __init__(
        self,
        format: int,
        count: int,
        n: int,
        k: int,
        group_size: int,
        bytes: npt.NDArray[np.uint8],
    ) -> None: ...
    @property
    def bytes(self) -> npt.NDArray[np.uint8]: ...
    @property
    def group_size(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def format(self) -> int: ...
    @property
    def num_bytes(self) -> int: ...

class PackedExperts:
    @property
    def num_bytes(self) -> int: ...

class PagedCache:
    def __init__(
        self, num_blocks: int, block_size: int, num_kv_heads: int, dim: int, is_latent: bool
    ) -> None: ...
    @property
    def num_bytes(self) -> int: ...
    def memory(self) -> list[npt.NDArray[np.uint8]]: ...

class Runtime:
    def __init__(self, isa: str, num_threads: int) -> None: ...
    @property
    def isa(self) -> str: ...
    @property
    def num_threads(self) -> int: ...
    def read(self, words: npt.NDArray[np.uint64]) -> int: ...
    def peak(self, format: int) -> float: ...
    def pack(
        self, tensor: npt.NDArray[Any], dtype: int, format: int, group_size: int
    ) -> PackedWeight: ...
    def linear(self, x: F32, weight: PackedWeight, bias: F32 | None, y: F32) -> None: ...
    def gated_linear(self, x: F32, weight: PackedWeight, bias: F32 | None, y: F32) -> None: ...
    def per_head_linear(self, x: F32, weight: PackedWeight, y: F32) -> None: ...
    def matmul_float32(self, x: F32, matrix: F32, y: F32) -> None: ...
    def routed_experts(
        self, x: F32, expert_ids: I32, expert_weights: F32, experts: PackedExperts, y: F32
    ) -> None: ...
    def embedding(self, token_ids: I32, table: npt.NDArray[Any], dtype: int, y: F32) -> None: ...
    def rms_norm(self, x: F32, weight: F32, eps: float, y: F32) -> None: ...
    def silu_and_mul(self, gate_up: F32, y: F32) -> None: ...
    def rope(
        self, x: F32, positions: I32, cos: F32, sin: F32, interleaved: bool, y: F32
    ) -> None: ...
    def grouped_attention(
        self,
        q: F32,
        k: F32,
        v: F32,
        cache: PagedCache,
        positions: I32,
        slots: I64,
        query_starts: I32,
        block_tables: I32,
        block_size: int,
        scale: float,
        out: F32,
    ) -> None: ...
    def latent_attention(
        self,
        q: F32,
        latent: F32,
        cache: PagedCache,
        positions: I32,
        slots: I64,
        query_starts: I32,
        block_tables: I32,
        block_size: int,
        scale: float,
        out: F32,
    ) -> None: ...
    def route(
        self,
        scores: F32,
        correction_bias: F32 | None,
        num_groups: int,
        num_groups_chosen: int,
        is_sigmoid: bool,
        is_top2_sum: bool,
        is_normalized: bool,
        scaling_factor: float,
        ids: I32,
        weights: F32,
    ) -> None: ...
    def sample(
        self,
        logits: F32,
        temperature: F32,
        top_k: I32,
        top_p: F32,
        min_p: F32,
        uniforms: npt.NDArray[np.float64],
        ids: I32,
    ) -> None: ...
    def logprobs(
        self, logits: F32, token_ids: I64, chosen: F32, top_ids: I32, top: F32
    ) -> None: ...
