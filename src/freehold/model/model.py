"""A decoder-only transformer: embedding, pre-norm layers, final norm, head.

What an architecture is, its attention and its MLP, comes from `llama.py` or `deepseek_v3.py`.
Knows no requests: a step is tokens, a layout and caches. Read `deepseek_v3.py` next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from freehold.model.config import ModelConfig
from freehold.model.layers import Linear, RmsNorm
from freehold.model.rope import RopeTables
from freehold.ops import Array, BatchLayout, Cache, Ops, Weight
from freehold.types import CacheFormat

_MEASURED_BLOCK = 16  # tokens in the small cache that tells how many bytes a token takes


@dataclass(frozen=True, slots=True)
class Step:
    """What every layer of one forward shares."""

    layout: BatchLayout
    cos: Array  # [positions, rope_dim / 2]
    sin: Array


class Attention(Protocol):
    def make_cache(self, num_blocks: int, block_size: int, format: CacheFormat) -> Cache: ...

    def __call__(self, x: Array, step: Step, cache: Cache) -> Array:
        """x [n, hidden] → [n, hidden]; writes this step's keys to `cache`."""
        ...


class Mlp(Protocol):
    def __call__(self, x: Array) -> Array: ...


@dataclass(slots=True)
class DecoderLayer:
    input_norm: RmsNorm
    attention: Attention
    post_attention_norm: RmsNorm
    mlp: Mlp

    def __call__(self, x: Array, step: Step, cache: Cache) -> Array:
        x = x + self.attention(self.input_norm(x), step, cache)
        return x + self.mlp(self.post_attention_norm(x))


@dataclass(slots=True)
class MtpLayer:
    """Multi-token prediction (DeepSeek-V3 §2.2): from the last hidden state of position i and
    the token after it, the hidden state that the token after that is drawn from. Embedding and
    head are the main model's."""

    ops: Ops
    embedding_norm: RmsNorm  # enorm
    hidden_norm: RmsNorm  # hnorm
    projection: Linear  # eh_proj [hidden, 2 * hidden]
    layer: DecoderLayer
    norm: RmsNorm  # shared_head.norm

    def __call__(self, embedded: Array, hidden: Array, step: Step, cache: Cache) -> Array:
        parts = [self.embedding_norm(embedded), self.hidden_norm(hidden)]
        return self.norm(self.layer(self.projection(self.ops.concatenate(parts)), step, cache))


class Model:
    def __init__(
        self,
        config: ModelConfig,
        ops: Ops,
        embedding: Weight,
        layers: list[DecoderLayer],
        norm: RmsNorm,
        head: Linear,
        mtp: MtpLayer | None = None,
        cache_format: CacheFormat = CacheFormat.BF16,
    ) -> None:
        self.config = config
        self.ops = ops
        self.embedding = embedding  # [vocab, hidden]
        self.layers = layers
        self.norm = norm
        self.head = head
        self.mtp = mtp
        self._cache_format = cache_format
        self._rope = RopeTables(config.rope, config.rope_dim, ops)
        measured = self.make_caches(1, _MEASURED_BLOCK)
        self._cache_bytes_per_token: int = -(-sum(c.num_bytes for c in measured) // _MEASURED_BLOCK)

    @property
    def cache_bytes_per_token(self) -> int:
        """In all layers together, as this model's Ops holds them."""
        return self._cache_bytes_per_token

    def make_caches(self, num_blocks: int, block_size: int) -> list[Cache]:
        """One paged cache a layer, the MTP layer's last."""
        layers = [*self.layers, self.mtp.layer] if self.mtp else self.layers
        format = self._cache_format
        return [layer.attention.make_cache(num_blocks, block_size, format) for layer in layers]

    def forward(
        self, token_ids: npt.NDArray[np.int32], layout: BatchLayout, caches: list[Cache]
    ) -> Array:
        """token_ids int32 [n] → float32 [n, hidden] after the final norm; writes `caches`.

        A row's result depends on its request's tokens up to it, not on how they were divided
        into steps nor on the other rows.
        """
        step = self._step(layout)
        x = self.ops.embedding(token_ids, self.embedding)
        for layer, cache in zip(self.layers, caches[: len(self.layers)], strict=True):
            x = layer(x, step, cache)
        return self.norm(x)

    @property
    def has_mtp(self) -> bool:
        return self.mtp is not None

    def look_ahead(
        self,
        hidden: Array,
        next_token_ids: npt.NDArray[np.int32],
        layout: BatchLayout,
        caches: list[Cache],
    ) -> Array:
        """Rows of `forward` and the tokens that came after them → float32 [n, hidden], whose
        `logits` guess at the tokens after those; writes the MTP layer's cache."""
        assert self.mtp is not None
        embedded = self.ops.embedding(next_token_ids, self.embedding)
        return self.mtp(embedded, hidden, self._step(layout), caches[-1])

    def _step(self, layout: BatchLayout) -> Step:
        return Step(layout, *self._rope.up_to(int(layout.positions.max()) + 1))

    def logits(self, hidden: Array) -> Array:
        """hidden [m, hidden] → float32 [m, vocab], the caller's to change in place."""
        return self.head(hidden)
