"""The parts that every architecture is made of, and how they are read from a checkpoint.

Each part holds packed weights and is called with activations [num_tokens, …]. Knows no particular
architecture. Read `model.py`, then `llama.py` and `deepseek_v3.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from freehold.model.formats import Role, weight_format
from freehold.model.pack_cache import NoPacks, Packs
from freehold.model.weights import WeightSource
from freehold.ops import Array, Ops, Weight
from freehold.types import WeightFormat


@dataclass(slots=True)
class Linear:
    ops: Ops
    weight: Weight  # [out, in]
    bias: Array | None = None

    def __call__(self, x: Array) -> Array:
        """x [n, in] → [n, out]. Adapters add their product here and in `gated`."""
        return self.ops.linear(x, self.weight, self.bias)

    def gated(self, x: Array) -> Array:
        """With weight [gate; up]: silu(gate x) * up x, [n, out / 2]."""
        return self.ops.gated_linear(x, self.weight, self.bias)


@dataclass(slots=True)
class RmsNorm:
    ops: Ops
    weight: Array
    eps: float

    def __call__(self, x: Array) -> Array:
        return self.ops.rms_norm(x, self.weight, self.eps)


@dataclass(slots=True)
class GatedMlp:
    """down(silu(gate x) * up x), gate and up as one matrix."""

    gate_up: Linear
    down: Linear

    def __call__(self, x: Array) -> Array:
        return self.down(self.gate_up.gated(x))


class WeightLoader:
    """Reads, joins and packs tensors, or takes them packed from `packs`; lets go of the file's
    pages once they are packed."""

    def __init__(
        self, source: WeightSource, ops: Ops, quantize: WeightFormat, packs: Packs | None = None
    ) -> None:
        self.ops = ops
        self._source = source
        self._quantize = quantize
        self._packs = packs or NoPacks()

    def linear(self, role: Role, *names: str) -> Linear:
        """The linears `name` (their `.weight` and perhaps `.bias`) as one, rows below each other.

        INT8 scales rows and INT4 groups within rows, so joining changes no rounding.
        """
        weight = self._weight(role, *names)
        biases = [f"{name}.bias" for name in names if self._source.has(f"{name}.bias")]
        assert len(biases) in (0, len(names))
        bias = self.ops.vector(self._joined(biases)) if biases else None
        self.release(*biases)
        return Linear(self.ops, weight, bias)

    def per_head(
        self, key: str, name: str, part: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    ) -> Weight:
        """`part` of a tensor, as [num_heads, out, in]; `key` names it among the packs."""
        return self._packs.take(
            key, lambda: self.ops.per_head_weight(part(self._source.tensor(name)))
        )

    def _weight(self, role: Role, *names: str) -> Weight:
        tensors = [f"{name}.weight" for name in names]

        def pack() -> Weight:
            weight = self.ops.weight(self._joined(tensors), weight_format(role, self._quantize))
            self.release(*tensors)
            return weight

        return self._packs.take("+".join(tensors), pack)

    def gated_mlp(self, prefix: str) -> GatedMlp:
        gate_up = self.linear(Role.MLP, f"{prefix}.gate_proj", f"{prefix}.up_proj")
        return GatedMlp(gate_up, self.linear(Role.MLP, f"{prefix}.down_proj"))

    def rms_norm(self, name: str, eps: float) -> RmsNorm:
        return RmsNorm(self.ops, self.vector(f"{name}.weight"), eps)

    def vector(self, name: str) -> Array:
        return self.ops.vector(self._source.tensor(name))

    def embedding(self, name: str) -> Weight:
        return self.ops.embedding_table(self._source.tensor(f"{name}.weight"))

    def experts(self, prefix: str, num_experts: int) -> Weight:
        """All routed experts of a layer."""
        each = [f"{prefix}.{e}" for e in range(num_experts)]
        return self.ops.expert_weights(
            [self._weight(Role.EXPERT, f"{e}.gate_proj", f"{e}.up_proj") for e in each],
            [self._weight(Role.EXPERT, f"{e}.down_proj") for e in each],
        )

    def _joined(self, names: Sequence[str]) -> npt.NDArray[Any]:
        tensors = [self._source.tensor(name) for name in names]
        if len({tensor.dtype for tensor in tensors}) > 1:  # some FP8, now float32, some not
            tensors = [tensor.astype(np.float32) for tensor in tensors]
        return tensors[0] if len(tensors) == 1 else np.concatenate(tensors)

    def release(self, *names: str) -> None:
        """These tensors are packed: the file's pages may go."""
        for name in names:
            self._source.release(name)
