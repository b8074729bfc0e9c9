"""Which weights are rounded how: a weight's role in the model decides its format.

Knows no tensor names and no arithmetic of rounding (`ops/quantize.py`). Read `layers.py` next.
"""

from __future__ import annotations

from enum import StrEnum

from freehold.ops import Ops
from freehold.types import WeightFormat


class Role(StrEnum):
    """What a linear does. Norms, biases and routers are float32 always, embeddings as stored,
    and MLA's per-head matrices (kv_b_proj) 16 bits: they are small or decide much."""

    ATTENTION = "attention"
    MLP = "mlp"
    EXPERT = "expert"
    HEAD = "head"


def weight_format(role: Role, quantize: WeightFormat) -> WeightFormat:
    """The LM head stays at INT8 under INT4: its rounding goes straight into the logits."""
    if quantize is WeightFormat.INT4 and role is Role.HEAD:
        return WeightFormat.INT8
    return quantize


def default_format(ops: Ops) -> WeightFormat:
    """Where nothing is asked for: the truth rounds nothing, other Ops hold 16 bits."""
    return WeightFormat.FLOAT32 if ops.name == "reference" else WeightFormat.BF16
