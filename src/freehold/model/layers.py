"""The parts that every architecture is made of, and how they are read from a checkpoint.

Each part holds packed weights and is called with activations [num_tokens, …]. Knows no particular
architecture. Read `model.py`, then `llama.py` and `deepseek_v3.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from freehold.model.formats import Role, weight_format
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
    """Reads, joins and packs tensors; lets go of the file's pages once they are packed."""

    def __init__(self, source: WeightSource, ops: Ops, quantize: WeightFormat) -> None:
        self.ops = ops
        self._source = source
        self._quantize = quantize

    def linear(self, role: Role, *names: str) -> Linear:
        """The linears `name` (their `.weight` and perhaps `.bias`) as one, rows below each other.

        INT8 scales rows and INT4 groups within rows, so joining changes no rounding.
        """
        format = weight_format(role, self._quantize)
        weight = self.ops.weight(self._joined([f"{name}.weight" for name in names]), format)
        biases = [f"{name}.bias" for name in names if self._source.has(f"{name}.bias")]
        assert len(biases) in (0, len(names))
        bias = self.ops.vector(self._joined(biases)) if biases else None
        self.release(*(f"{name}.weight" for name in names), *biases)
        return Linear(self.ops, weight, bias)

    def gated_mlp(self, prefix: str) -> GatedMlp:
        gate_up = self.linear(Role.MLP, f"{prefix}.gate_proj", f"{prefix}.up_proj")
        return GatedMlp(gate_up, self.linear(Role.MLP, f"{prefix}.down_proj"))

    def rms_norm(self, name: str, eps: float) -> RmsNorm:
        return RmsNorm(self.ops, self.vector(f"{name}.weight"), eps)

    def vector(self, name: str) -> Array:
        return self.ops.vector(self._source.tensor(name))

    def tensor(self, name: str) -> npt.NDArray[Any]:
        return self._source.tensor(name)

    def embedding(self, name: str) -> Weight:
        return self.ops.embedding_table(self._source.tensor(f"{name}.weight"))

    def experts(self, prefix: str, num_experts: int) -> Weight:
        """All routed experts of a layer; each is read only when the Ops takes it."""

        def gate_up(e: int) -> npt.NDArray[Any]:
            return self._joined(
                [f"{prefix}.{e}.{part}.weight" for part in ("gate_proj", "up_proj")]
            )

        def down(e: int) -> npt.NDArray[Any]:
            return self.tensor(f"{prefix}.{e}.down_proj.weight")

        packed = self.ops.expert_weights(
            _OnDemand(num_experts, gate_up),
            _OnDemand(num_experts, down),
            weight_format(Role.EXPERT, self._quantize),
        )
        parts = ("gate_proj", "up_proj", "down_proj")
        self.release(*(f"{prefix}.{e}.{part}.weight" for e in range(num_experts) for part in parts))
        return packed

    def _joined(self, names: Sequence[str]) -> npt.NDArray[Any]:
        tensors = [self._source.tensor(name) for name in names]
        if len({tensor.dtype for tensor in tensors}) > 1:  # some FP8, now float32, some not
            tensors = [tensor.astype(np.float32) for tensor in tensors]
        return tensors[0] if len(tensors) == 1 else np.concatenate(tensors)

    def release(self, *names: str) -> None:
        """These tensors are packed: the file's pages may go."""
        for name in names:
            self._source.release(name)


@dataclass(frozen=True, slots=True)
class _OnDemand(Sequence[npt.NDArray[Any]]):
    """A sequence whose items are made when they are taken, so that few exist at once."""

    length: int
    make: Callable[[int], npt.NDArray[Any]]

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> npt.NDArray[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[npt.NDArray[Any]]: ...
    def __getitem__(self, index: int | slice) -> npt.NDArray[Any] | list[npt.NDArray[Any]]:
        if isinstance(index, slice):
            return [self.make(i) for i in range(self.length)[index]]
        return self.make(range(self.length)[index])
